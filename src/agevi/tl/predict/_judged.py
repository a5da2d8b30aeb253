"""Samples that accuracy is taken over: whole ones or those of a type of cells, and how many drop out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys
from agevi.tl.predict._verdict import references

logger = logging.getLogger(__name__)

REFERENCE = "reference"
"""Column with what the baseline, the median age of the training samples, gives a sample."""
TYPE = "group"
"""Column of :func:`of_types` with the type of cells, whatever the column of ``adata.obs`` is called."""


def types_key(adata: AnnData, keys: _keys.Keys) -> str | None:
    """The column by whose types the clocks of a cross-validation were fitted; None where one clock took all cells."""
    groupby = adata.uns.get(keys.uns, {}).get("params", {}).get("groupby")
    return str(groupby) if groupby and keys.by_group in adata.uns else None


def of_types(adata: AnnData, keys: _keys.Keys) -> pd.DataFrame:
    """One row per sample and type: columns of the subject table, :data:`TYPE`, and the baseline within the type."""
    table: pd.DataFrame = adata.uns[keys.by_group].assign(role=_keys.OUT_OF_FOLD).reset_index(drop=True)
    fitted = table["predicted"].notna()  # samples of fewer cells trained no clock of the type
    for _, part in table[fitted].groupby(TYPE):
        table.loc[part.index, REFERENCE] = references(adata, part, keys)
    return table


def check_groupby(adata: AnnData, table: pd.DataFrame, keys: _keys.Keys, groupby: Any) -> None:
    """Refuse what is not the name of a column of ``table``; columns of ``adata.obs`` are those of another tool."""
    if not isinstance(groupby, str):
        raise TypeError(f"groupby={groupby!r} is a {type(groupby).__name__}; pass the name of one column.")
    if groupby not in table:
        known = [*table, *([name] if (name := types_key(adata, keys)) else [])]
        other = (
            " For columns of adata.obs, run agevi.tl.evaluate_by(adata, groupby=...)." if groupby in adata.obs else ""
        )
        raise KeyError(
            f"groupby={groupby!r} is not a column of the subject table; choose one of "
            f"{_checks.listed(known, 9)}.{other}"
        )


def say_left_out(table: pd.DataFrame, roles: Sequence[str] | None = None, *, lacking: str = "a prediction") -> None:
    """Log how many samples and subjects of these roles (None: all) accuracy cannot be taken over, and why.

    ``lacking`` is what samples without a prediction lack.
    """
    used = table if roles is None else table[table["role"].isin(roles)]
    no_age = used["age"].isna()
    counts = {"an age": int(no_age.sum()), lacking: int((~no_age & used["predicted"].isna()).sum())}
    n_out = sum(counts.values())
    if n_out:
        judged = used[used["age"].notna() & used["predicted"].notna()]
        subjects = used["subject"].nunique(), used["subject"].nunique() - judged["subject"].nunique()
        why = ", ".join(f"{n} without {what}" for what, n in counts.items() if n)
        logger.info(
            "%d of %d samples (%d of %d subjects) are left out of the accuracy: %s.",
            n_out, len(used), subjects[1], subjects[0], why,
        )  # fmt: skip
