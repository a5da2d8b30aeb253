"""The table of samples, and whether it is still that of the cells."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _names

logger = logging.getLogger(__name__)


def subject_table(adata: AnnData, keys: _keys.Keys, call: str = "agevi.tl.aggregate_subjects(adata)") -> pd.DataFrame:
    """The table of samples for what judges or draws it: refused where some of its samples no longer have cells."""
    table = _checks.slot(adata, keys.subjects, "uns", call)
    check_cells(adata, keys, table.index, keys.subjects)
    return table


def check_cells(adata: AnnData, keys: _keys.Keys, samples: Iterable[str], slot: str) -> None:
    """Refuse a table of which some samples no longer have cells, as after subsetting."""
    text = _without_cells(adata, keys, samples, slot)
    if text:
        raise ValueError(
            f"{text}; run agevi.tl.aggregate_subjects again, which makes the table of the cells that are left."
        )


def say_without_cells(adata: AnnData, keys: _keys.Keys, samples: Iterable[str], slot: str) -> None:
    """One line of the log where :func:`check_cells` refuses."""
    text = _without_cells(adata, keys, samples, slot)
    if text:
        logger.warning("%s; agevi.tl.aggregate_subjects makes the table of the cells that are left.", text)


def _without_cells(adata: AnnData, keys: _keys.Keys, samples: Iterable[str], slot: str) -> str:
    """Which samples have no cells, as the start of a message; "" for none, and for all (names of another column)."""
    record = adata.uns.get(keys.uns, {})
    sample_key = record.get("sample_key") or record.get("subject_key")
    if not sample_key or sample_key not in adata.obs:
        return ""
    there = set(_names.names(pd.Series(adata.obs[sample_key].unique())).dropna())
    wanted = list(dict.fromkeys(samples))
    absent = [name for name in wanted if name not in there]
    if not absent or len(absent) == len(wanted):
        return ""
    return (
        f"{len(absent)} of {len(wanted)} samples of adata.uns[{slot!r}] ({_checks.listed(absent, 3)}) have no cells in "
        f"adata.obs[{sample_key!r}]"
    )


def held_out(table: pd.DataFrame, roles: Sequence[str] | None = None) -> np.ndarray:
    """Samples with age and prediction of held-out roles, of some of these or of all, (n_samples,)."""
    wanted = [role for role in _keys.HELD_OUT_ROLES if roles is None or role in roles]
    return (table["role"].isin(wanted) & table["age"].notna() & table["predicted"].notna()).to_numpy()


def refuse_fitted(table: pd.DataFrame, keys: _keys.Keys, consequence: str) -> None:
    """Refuse samples whose ages shaped the clock, since their predictions are drawn towards their ages."""
    fitted = table["role"].isin(_keys.FITTED_ROLES)
    if fitted.any():
        raise ValueError(
            f"{fitted.sum()} of {len(table)} samples have the role "
            f"{_checks.listed(sorted(set(table['role'][fitted])))} in adata.uns[{keys.subjects!r}]: their ages shaped "
            f"the clock, {consequence}. Predict every subject with a clock that never saw it, "
            "agevi.tl.cross_validate(adata, ..., train_on=\"<condition> == '<reference>'\"), or keep held-out cells, "
            f"adata[~adata.obs[{keys.role!r}].isin(['train', 'validation'])]."
        )
