"""Samples that accuracy is taken over, how many drop out, and whether they are predicted better than by the median."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _subjects
from agevi.metrics._rows import error_ratio, table_references

logger = logging.getLogger(__name__)

FEW_SUBJECTS = 10
"""Held-out subjects below which nothing is said about a clock."""
REFERENCE = "reference"
"""Column with what the baseline, the median age of the training samples, gives a sample."""
TYPE = "group"
"""Column of :func:`of_types` with the type of cells, whatever the column of ``adata.obs`` is called."""


def references(adata: AnnData, table: pd.DataFrame, keys: _keys.Keys) -> np.ndarray:
    """Age that the baseline gives every sample of the table, (n_samples,), NaN where no training age is known."""
    return table_references(table, adata.uns.get(keys.uns, {}))


def types_key(adata: AnnData, keys: _keys.Keys) -> str | None:
    """The column by whose types the clocks of a cross-validation were fitted; None where one clock took all cells."""
    if keys.by_group not in adata.uns:
        return None
    of_call = adata.uns.get(keys.uns, {}).get("params", {})
    groupby = of_call.get("groupby") or adata.uns.get(keys.by_group_params, {}).get("groupby")  # of a CellTypeClock
    return str(groupby) if groupby else None


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
    """Log how many samples and subjects of these roles (None: all) accuracy cannot be taken over, and why."""
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


def announce(
    adata: AnnData,
    table: pd.DataFrame,
    keys: _keys.Keys,
    roles: Sequence[str] | None = None,
    *,
    reference: np.ndarray | None = None,
) -> None:
    """Log one line where held-out samples of a table do not show that the clock is of use, beside ``reference``."""
    judged = _subjects.held_out(table, roles)
    if judged.any():
        reference = (references(adata, table, keys) if reference is None else reference)[judged]
        unit = str(adata.uns.get(keys.uns, {}).get("age_unit", "years"))
        line = verdict(table[judged], reference, unit)
        if line:
            logger.warning(line)


def announce_types(
    adata: AnnData, table: pd.DataFrame, keys: _keys.Keys, type_key: str, roles: Sequence[str] | None = None
) -> None:
    """Log one line that names types whose clocks are not shown to be of use; ``table`` has samples by ``group``."""
    rows = table[_subjects.held_out(table, roles)]
    unit = str(adata.uns.get(keys.uns, {}).get("age_unit", "years"))
    parts = {str(name): part for name, part in rows.groupby("group", sort=True)}
    bad = [name for name, part in parts.items() if verdict(part, part["reference"].to_numpy(dtype=np.float64), unit)]
    if bad:
        logger.warning(
            "By their own clocks, held-out subjects are not shown to be predicted better than by the median age in %d "
            "of %d types of adata.obs[%r]: %s.",
            len(bad), len(parts), type_key, _checks.listed(bad),
        )  # fmt: skip


def say_single(rows: Mapping[Any, Mapping[str, float]], groupby: str) -> None:
    """Log one line that names the rows of one sample, which have no metrics."""
    single = [str(name) for name, row in rows.items() if row["n"] < 2]
    if single:
        logger.warning(
            "%d of %d rows by %r have one sample with age and prediction (%s); their metrics are NaN, since they need "
            "two.",
            len(single), len(rows), groupby, _checks.listed(single),
        )  # fmt: skip


def verdict(table: pd.DataFrame, reference: np.ndarray, unit: str) -> str:
    """What is to be said of held-out samples with age and prediction; nothing where they are predicted well enough."""
    age: Any = table["age"].to_numpy(dtype=np.float64)
    n = table["subject"].nunique()
    if n < FEW_SUBJECTS:
        return (
            f"Only {n} held-out subject{'s' * (n != 1)} with an age: too few to tell whether the clock predicts better "
            "than the median age."
        )
    whose = "the training subjects"
    if np.isnan(reference).any():
        whose, reference = "these subjects", np.full(len(age), np.median(age))
    error, baseline = np.abs(table["predicted"].to_numpy(dtype=np.float64) - age), np.abs(reference - age)
    ratio, low, high = error_ratio(error, baseline, table["subject"].to_numpy())
    if high < 1:
        return ""
    said = "are not predicted better" if ratio >= 1 else "cannot be said to be predicted better"
    return (
        f"Held-out subjects {said} than by the median age of {whose}: MAE {error.mean():.2f} against "
        f"{baseline.mean():.2f} {unit}, ratio {ratio:.2f} [{low:.2f}, {high:.2f}], n = {n}."
    )
