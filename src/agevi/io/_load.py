"""Loading a clock without knowing its class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anndata import AnnData

from agevi.io import _bundle


def load_clock(path: str | Path, adata: AnnData | None = None) -> Any:
    """Load a clock of any class that its ``save`` wrote.

    Nothing in a bundle can run code; a bundle that was damaged or edited is refused.

    Parameters
    ----------
    path
        Directory of the clock.
    adata
        Data to attach, for example to train on; prediction needs none.

    Returns
    -------
    The trained clock.

    Raises
    ------
    FileNotFoundError
        If there is nothing at ``path``.
    ValueError
        If the bundle is damaged, was edited, or holds a class that this version does not know.
    """
    from agevi.model.base import _save

    bundle = _bundle.read_bundle(path)
    return _save.build(_save.class_of(bundle.meta, bundle.path), bundle, adata)
