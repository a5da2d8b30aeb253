"""How a tool writes its table."""

from __future__ import annotations

from typing import Any

from anndata import AnnData

from agevi import _keys
from agevi._compat import written_to


def store_table(adata: AnnData, keys: _keys.Keys, noun: str, table: Any, params: Any, *, copy: bool) -> AnnData | None:
    """Write the table of a tool, or several by name, and its parameters to ``uns``; the copy, or None."""
    stored = _keys.to_uns(table), _keys.to_uns(params)  # what files cannot hold is refused before anything is written
    out = written_to(adata, copy=copy)
    out.uns[keys.table(noun)], out.uns[keys.table_params(noun)] = stored
    return out if copy else None
