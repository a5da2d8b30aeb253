"""Intervals of a subject table, and whether they hold: every subject gets one from the subjects of the other folds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from agevi import _keys, _subjects
from agevi.metrics._intervals import binned, interval_rows
from agevi.tl.intervals._conformal import Array, Calibration, conformal_quantile, needed, subject_weights

N_FOLDS = 10
TRIVIAL = ["width_trivial", "interval_score_trivial"]
_SAME = 1e-4  # of scores: predictions of one clock differ by rounding between machines, in float32


@dataclass(frozen=True, eq=False)
class Labelled:
    """Held-out samples with an age, which calibrate: all of shape (n_samples,)."""

    age: Array
    predicted: Array
    n_cells: Array
    subject: NDArray[np.object_]

    @classmethod
    def of(cls, table: pd.DataFrame) -> Labelled:
        """Those of rows of the subject table."""
        age, predicted, n_cells = (table[k].to_numpy(dtype=np.float64) for k in ("age", "predicted", "n_cells"))
        return cls(age, predicted, n_cells, table["subject"].to_numpy(dtype=object))

    def part(self, mask: NDArray[np.bool_]) -> Labelled:
        """Those of the mask."""
        return Labelled(*(values[mask] for values in vars(self).values()))


def folds_of(subject: NDArray[np.object_], level: float) -> NDArray[np.int64]:
    """Fold of every sample by its subject, (n_samples,): ten, or one subject each where ten leave too few."""
    code = np.unique(subject.astype(str), return_inverse=True)[1]
    n = int(code.max()) + 1
    n_folds = N_FOLDS if n - -(-n // N_FOLDS) >= needed(level) else n
    return np.asarray((np.random.default_rng(0).permutation(n) % n_folds)[code])


def _folds(rows: Labelled, level: float) -> Iterator[tuple[NDArray[np.bool_], Labelled, Array]]:
    """Samples of each fold as a mask, those of the other folds, and the weights of these."""
    fold = folds_of(rows.subject, level)
    for k in range(fold.max() + 1):
        rest = rows.part(fold != k)
        yield fold == k, rest, subject_weights(rest.subject, len(rest.age))


def cross_intervals(rows: Labelled, whole: Calibration) -> tuple[Array, Array]:
    """Limits of every sample from the subjects of other folds, (n_samples,), refitted as ``whole``; NaN for too few."""
    lower, upper = np.full(len(rows.age), np.nan), np.full(len(rows.age), np.nan)
    for own, rest, weight in _folds(rows, whole.level):
        if weight.sum() < needed(whole.level) - 1e-6:
            continue
        part = Calibration.of(
            rest.age, rest.predicted, rest.n_cells, weight,
            level=whole.level, scale=whole.scale, features=whole.features, origin=whole.origin, min_age=whole.min_age,
        )  # fmt: skip
        lower[own], upper[own] = part.interval(rows.predicted[own], rows.n_cells[own])
    return lower, upper


def trivial_intervals(rows: Labelled, level: float) -> tuple[Array, Array]:
    """Quantiles of the ages of the other folds as limits, (n_samples,): what intervals are without a clock."""
    lower, upper, tail = np.empty(len(rows.age)), np.empty(len(rows.age)), (1 + level) / 2
    for own, rest, weight in _folds(rows, level):
        low, high = -conformal_quantile(-rest.age, tail, weight), conformal_quantile(rest.age, tail, weight)
        lower[own] = rest.age.min() if np.isnan(low) else low
        upper[own] = rest.age.max() if np.isnan(high) else high
    return lower, upper


def report(rows: Labelled, whole: Calibration, cohorts: dict[str, pd.Series]) -> pd.DataFrame:
    """Coverage, width and score of cross-calibrated intervals, overall and by group, beside those of trivial ones."""
    lower, upper = cross_intervals(rows, whole)
    weight = subject_weights(rows.subject, len(rows.age))
    labels = {"predicted": binned(rows.predicted), "age": binned(rows.age)}
    labels |= {name: values.reset_index(drop=True) for name, values in cohorts.items()}
    if np.ptp(rows.n_cells) > 0:
        labels["n_cells"] = binned(rows.n_cells)
    trivial = interval_rows(rows.age, *trivial_intervals(rows, whole.level), labels, weight, whole.level)
    lost = np.isnan(lower).any()  # as many subjects as the level needs, so that none can be left out
    lower, upper = (rows.predicted, rows.predicted) if lost else (lower, upper)
    out = interval_rows(rows.age, lower, upper, labels, weight, whole.level)
    if lost:
        out[["coverage", "coverage_low", "coverage_high", "width", "interval_score"]] = np.nan
    out[TRIVIAL] = trivial[["width", "interval_score"]].to_numpy()
    return out


def with_intervals(table: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    """The subject table with the columns ``lower`` and ``upper`` of a calibration, the slot's ``params``."""
    whole = Calibration.from_dict(params)
    cells = table["n_cells"].to_numpy(dtype=np.float64)
    lower, upper = whole.interval(table["predicted"].to_numpy(dtype=np.float64), cells)
    fitted = table["role"].isin(_keys.SHAPED_ROLES).to_numpy()
    # Residuals of samples that shaped the clock are smaller than those of held-out ones.
    lower[fitted], upper[fitted] = np.nan, np.nan
    own = _subjects.held_out(table)
    rows = Labelled.of(table[own])
    if len(rows.age) == len(whole.scores):
        scores = np.sort(whole.score(rows.age, rows.predicted, rows.n_cells))
        if np.allclose(scores, whole.scores, rtol=_SAME, atol=_SAME * whole.scores[-1]):
            # What calibrated gets the interval of other folds, in which its own residuals take no part.
            lower[own], upper[own] = cross_intervals(rows, whole)
    return table.assign(lower=lower, upper=upper)


def recalibrated_again(table: pd.DataFrame, former: pd.DataFrame) -> pd.DataFrame:
    """The table with the intervals and labelled ages that ``tl.recalibrate`` gave the same predictions."""
    former = former.reindex(table.index)
    same = np.isclose(former["predicted"].to_numpy(dtype=np.float64), table["predicted"], rtol=1e-5, atol=1e-3)
    bounds = {name: np.where(same, former[name], np.nan) for name in ("lower", "upper")}
    labelled = same & (table["role"] == _keys.RECALIBRATION).to_numpy()
    return table.assign(age=np.where(labelled, former["age"], table["age"]), **bounds)
