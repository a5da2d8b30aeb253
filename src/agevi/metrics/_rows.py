"""The metrics of one group of samples as one row of a table, and the baseline that they are read beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from agevi import _keys
from agevi.metrics._bootstrap import bootstrap_interval, interval
from agevi.metrics._metric import Array
from agevi.metrics._regression import mae
from agevi.metrics._summary import regression_metrics


def metrics_row(
    age: Array,
    predicted: Array,
    *,
    subject: NDArray[Any],
    reference: Array,
    level: float = 0.95,
    n_boot: int = 2000,
    rng: int | np.random.Generator | None = 0,
) -> dict[str, float]:
    """Every metric of one group, from finite (n_samples,); only ``n`` and ``n_subjects`` where fewer than 2."""
    row: dict[str, float] = {"n_subjects": len(set(subject.tolist())), "n": len(age)}
    if len(age) < 2:
        return row
    low, high = bootstrap_interval(mae, age, predicted, groups=subject, level=level, n_boot=n_boot, rng=rng)
    row |= regression_metrics(age, predicted)
    median = float(np.mean(np.abs(reference - age)))
    return {**row, "mse": row["rmse"] ** 2, "mae_low": low, "mae_high": high, "mae_median": median}


def error_ratio(
    error: Array, baseline: Array, subject: NDArray[Any], *, level: float = 0.95, n_boot: int = 2000
) -> tuple[float, float, float]:
    """Ratio of two mean absolute errors of (n_samples,), with the ends of its interval over draws of whole subjects."""
    codes = np.unique(subject.astype(str), return_inverse=True)[1]
    sums = np.stack([np.bincount(codes, weights=values) for values in (error, baseline)])  # 2 x n_subjects
    n = sums.shape[1]
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=n_boot)  # n_boot x n_subjects
    with np.errstate(divide="ignore", invalid="ignore"):
        top, bottom = sums @ drawn.T
        low, high = interval(top / bottom, 0.5 + level / 2)
        return float(np.divide(*sums.sum(1))), low, high


def reference_ages(
    age: Array, role: NDArray[Any], fold: NDArray[Any] | None = None, *, median: float = np.nan
) -> Array:
    """Median training age, or that of the other folds, beside each sample, (n_samples,), NaN where unknown."""
    held_out = role == _keys.OUT_OF_FOLD
    of_training = _median(age[role == _keys.TRAIN]) if np.isnan(median) else median
    reference = np.where(held_out, np.nan, of_training)
    if fold is not None:
        for label in set(fold[held_out].tolist()):
            reference[held_out & (fold == label)] = _median(age[held_out & (fold != label)])
    return reference


def _median(values: Array) -> float:
    """Median of the values that are not NaN, NaN where there are none."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")


def table_references(table: pd.DataFrame, record: Mapping[str, Any]) -> Array:
    """The :func:`reference_ages` of a subject table, (n_samples,), with the training median that its record names."""
    fold = table["fold"].to_numpy() if "fold" in table else None
    median = float(record.get("median_age", np.nan))
    return reference_ages(table["age"].to_numpy(dtype=np.float64), table["role"].to_numpy(), fold, median=median)
