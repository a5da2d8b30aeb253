"""How the labelled subjects of a new cohort move its predictions, on the clock's scale of ages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from agevi.tl.intervals._conformal import conformal_quantile

MIN_LABELLED = 5
"""Labelled subjects below which nothing is moved."""
MIN_FOR_LINE = 10
"""Labelled subjects from which a line is fitted."""
SLOPE_SD = 0.25
"""How much the slopes of age on prediction differ between cohorts, around 1: that of 27 transfers (.43 to 1.48)."""
KINDS = ("auto", "shift", "line")


@dataclass(frozen=True)
class OldErrors:
    """Held-out errors of the clock in the cohorts it was calibrated on."""

    residuals: np.ndarray  # (n,): age minus prediction on the clock's scale, and minus the cohort's mean if left out
    shift_var: float = np.nan  # mean square of the old cohorts' mean residuals when each was left out, if measured

    @property
    def sd(self) -> float:
        """Standard deviation of the errors."""
        return float(np.std(self.residuals, ddof=1))

    def reach(self, level: float) -> float:
        """Conformal quantile of the absolute errors in units of their standard deviation; NaN for too few."""
        return conformal_quantile(np.abs(self.residuals), level) / self.sd


@dataclass(frozen=True)
class Move:
    """New prediction ``intercept + slope * x``, half-width ``reach * sd * sqrt(base + (x - centre)**2 / spread)``."""

    kind: str
    n: int
    intercept: float
    slope: float
    sd: float
    reach: float
    base: float
    centre: float = 0.0
    spread: float = np.inf
    slope_t: float = np.inf  # of the labelled subjects alone

    def apply(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Prediction, lower and upper bound at predictions ``x`` of the clock, all on its scale."""
        middle = self.intercept + self.slope * np.asarray(x, dtype=np.float64)
        half = self.reach * self.sd * np.sqrt(self.base + (x - self.centre) ** 2 / self.spread)
        return middle, middle - half, middle + half


def fit_shift(x: np.ndarray, y: np.ndarray, old: OldErrors, level: float) -> Move:
    """The mean residual of the labelled subjects, (k,), shrunk towards zero by how much cohorts usually differ."""
    residual, k, s = y - x, len(y), old.sd
    between = s**2 if np.isnan(old.shift_var) else old.shift_var
    weight = k * between / (k * between + s**2)
    sd = max(s, float(np.std(residual, ddof=1)))
    return Move("shift", k, weight * float(residual.mean()), 1.0, sd, old.reach(level), 1 + weight / k)


def fit_line(x: np.ndarray, y: np.ndarray, level: float) -> Move:
    """A line of age on prediction, (k,) on the clock's scale, its slope shrunk to 1, with the t interval of a new one.

    The slope is the mean of its posterior under the normal prior of ``SLOPE_SD`` around 1: ten points hardly tell one,
    and a wrong one moves the oldest and the youngest by many years.
    """
    k, centre = len(y), float(x.mean())
    spread = float(((x - centre) ** 2).sum())
    alone = float((x - centre) @ y) / spread
    sd = _scatter(x - centre, y, alone)
    prior = sd**2 / SLOPE_SD**2
    slope = (alone * spread + prior) / (spread + prior)
    reach = float(stats.t.ppf((1 + level) / 2, k - 2))
    t = float(np.divide(alone * np.sqrt(spread), sd)) if sd > 0 else float("inf")
    intercept, left = float(y.mean()) - slope * centre, _scatter(x - centre, y, slope)
    return Move("line", k, intercept, slope, left, reach, 1 + 1 / k, centre, spread + prior, t)


def _scatter(centred: np.ndarray, y: np.ndarray, slope: float) -> float:
    """Standard deviation of ages around a line."""
    return float(np.sqrt(((y - y.mean() - slope * centred) ** 2).sum() / (len(y) - 2)))


def old_errors(age: np.ndarray, predicted: np.ndarray, cohort: np.ndarray | None, fold: np.ndarray | None) -> OldErrors:
    """Errors of held-out subjects, (n,), with the spread of cohorts where folds left out whole cohorts."""
    residual = age - predicted
    if cohort is None or fold is None or len(set(cohort.tolist())) < 2 or len(set(fold.tolist())) < 2:
        return OldErrors(np.sort(residual))
    names, code = np.unique(cohort.astype(str), return_inverse=True)
    if any(len(set(fold[code == i].tolist())) > 1 for i in range(len(names))):
        return OldErrors(np.sort(residual))
    mean = np.bincount(code, weights=residual) / np.bincount(code)
    return OldErrors(np.sort(residual - mean[code]), float(np.mean(mean**2)))
