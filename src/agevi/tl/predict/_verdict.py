"""Whether held-out subjects are predicted better than by the median age, said in one line."""

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


def references(adata: AnnData, table: pd.DataFrame, keys: _keys.Keys) -> np.ndarray:
    """Age that the baseline gives every sample of the table, (n_samples,), NaN where no training age is known."""
    return table_references(table, adata.uns.get(keys.uns, {}))


def announce(
    adata: AnnData,
    table: pd.DataFrame,
    keys: _keys.Keys,
    roles: Sequence[str] | None = None,
    *,
    reference: np.ndarray | None = None,
) -> None:
    """Log one line where the held-out samples of a subject table, of some roles, do not show that the clock is of use.

    ``reference``, (n_samples,), is what :func:`references` gives for the table, where it is known already.
    """
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
    """Log one line that names the types of cells whose clocks are not shown to be of use.

    ``table`` has one row per sample and type, the type in ``group`` and its baseline in ``reference``.
    """
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
