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
    """Least squares of age on prediction, (k,) on the clock's scale, with the t interval of a new observation."""
    k, centre = len(y), float(x.mean())
    spread = float(((x - centre) ** 2).sum())
    slope = float((x - centre) @ y) / spread
    intercept = float(y.mean()) - slope * centre
    sd = float(np.sqrt(((y - intercept - slope * x) ** 2).sum() / (k - 2)))
    reach = float(stats.t.ppf((1 + level) / 2, k - 2))
    return Move("line", k, intercept, slope, sd, reach, 1 + 1 / k, centre, spread)


def slope_t(move: Move) -> float:
    """The slope of a line over its standard error; infinite for a perfect one."""
    return float(np.divide(move.slope * np.sqrt(move.spread), move.sd)) if move.sd > 0 else float("inf")


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
