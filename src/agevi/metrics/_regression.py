"""Errors, correlations and the fitted line of predicted on actual age."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from scipy.stats import t as student_t

from agevi.metrics._metric import Array, Kernel, Metric, documented, public, ratio


@dataclass(frozen=True)
class LinearFit:
    """Least-squares line of predicted on actual age, with t-intervals.

    Attributes
    ----------
    slope, slope_low, slope_high
        Predicted years per year of age. Below 1: the old are predicted too young and the young too old, as every
        clock that is fitted to noisy data does.
    intercept, intercept_low, intercept_high
        Predicted age at age 0, in the unit of age.
    """

    slope: float
    slope_low: float
    slope_high: float
    intercept: float
    intercept_low: float
    intercept_high: float


def paired(age: ArrayLike, predicted: ArrayLike, *, drop_unlabelled: bool = False) -> tuple[Array, Array]:
    """Both as float64, (n_samples,), or the standard error; rows without an age may be left out."""
    x, y = np.asarray(age, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if x.ndim != 1 or y.ndim != 1:
        raise ValueError(f"age and predicted have shapes {x.shape} and {y.shape}; pass one-dimensional arrays.")
    if len(x) != len(y):
        raise ValueError(f"age has {len(x)} values and predicted has {len(y)}; pass one prediction per age.")
    if drop_unlabelled:
        known = ~np.isnan(x)
        x, y = x[known], y[known]
    refuse_missing(age=x, predicted=y)
    if len(x) < 2:
        raise ValueError(f"only {len(x)} row(s) with an age; a metric needs at least 2.")
    return x, y


def refuse_missing(**columns: Array) -> None:
    """Refuse columns, (n,), with a missing or infinite value."""
    for name, values in columns.items():
        bad = ~np.isfinite(values)
        if bad.any():
            raise ValueError(
                f"{name} is missing or infinite in {bad.sum()} of {len(values)} rows (first: row {bad.argmax()}); "
                "leave those rows out."
            )


def metric(kernel: Kernel) -> Metric:
    """The public metric of ages that a kernel makes."""

    def checked(age: ArrayLike, predicted: ArrayLike) -> float:
        return float(kernel(*paired(age, predicted)))

    return public(checked, kernel)


@metric
def mae(age: Array, predicted: Array) -> Array:
    """Mean absolute error, in the unit of age.

    High means bad. Compare it with the error of predicting the training subjects' median age for everyone: on a
    cohort of similar ages a useless clock has a small error too.

    %(of_ages)s

    Examples
    --------
    >>> from agevi import metrics
    >>> metrics.mae([30, 50, 70], [33, 49, 65])
    3.0
    """
    return np.asarray(np.abs(predicted - age).mean(axis=-1))


@metric
def rmse(age: Array, predicted: Array) -> Array:
    """Root mean squared error, in the unit of age.

    High means bad; a few subjects that are far off weigh more than in :func:`mae`.

    %(of_ages)s
    """
    return np.asarray(np.sqrt(np.square(predicted - age).mean(axis=-1)))


@metric
def mdae(age: Array, predicted: Array) -> Array:
    """Median absolute error, in the unit of age.

    High means bad. Half of the subjects are closer than this; it says nothing about the other half.

    %(of_ages)s
    """
    return np.median(np.abs(predicted - age), axis=-1)


@metric
def mad(age: Array, predicted: Array) -> Array:
    """Median absolute deviation of the errors from their median, in the unit of age.

    The spread of the errors with a shift common to all subjects taken out: a clock that is ten years too high for
    everyone scores 0, so read it beside :func:`mdae`. This is the MAD in the tables of Urban et al. (2023).

    %(of_ages)s
    """
    error = predicted - age
    return np.median(np.abs(error - np.median(error, axis=-1, keepdims=True)), axis=-1)


@metric
def r2(age: Array, predicted: Array) -> Array:
    """Share of the variance of age that the predictions explain, 1 at best, without unit.

    0 is as good as predicting these samples' mean age for all, below 0 is worse. It depends on the range of ages, so
    it does not compare between cohorts. NaN where all ages are equal.

    %(of_ages)s
    """
    total = np.square(age - age.mean(axis=-1, keepdims=True)).sum(axis=-1)
    return 1.0 - ratio(np.square(predicted - age).sum(axis=-1), _without_constant(total, age))


@metric
def pearson(age: Array, predicted: Array) -> Array:
    """Pearson's correlation of predicted with actual age, without unit.

    High means that the order and spacing of ages are found; it does not see a wrong slope or a shift. NaN where
    either is constant.

    %(of_ages)s
    """
    x = age - age.mean(axis=-1, keepdims=True)
    y = predicted - predicted.mean(axis=-1, keepdims=True)
    xx = _without_constant(np.square(x).sum(axis=-1), age)
    yy = _without_constant(np.square(y).sum(axis=-1), predicted)
    return np.clip(ratio((x * y).sum(axis=-1), np.sqrt(xx) * np.sqrt(yy)), -1.0, 1.0)


@metric
def spearman(age: Array, predicted: Array) -> Array:
    """Spearman's rank correlation of predicted with actual age, without unit.

    High means that the order of ages is found, whatever the spacing. Ties take their mean rank; NaN where either is
    constant.

    %(of_ages)s
    """
    return pearson.kernel(rankdata(age, axis=-1), rankdata(predicted, axis=-1))


def _without_constant(squares: Array, values: Array) -> Array:
    """``squares`` with NaN where all ``values`` are equal, whatever rounding left of their variance."""
    return np.where(np.ptp(values, axis=-1) == 0, np.nan, squares)


@documented
def slope_intercept(age: ArrayLike, predicted: ArrayLike, *, level: float = 0.95) -> LinearFit:
    """Least-squares line of predicted on actual age, with t-intervals of slope and intercept.

    The intervals hold for independent samples with errors of one variance; with several samples of a subject they
    are too narrow. All values are NaN where all ages are equal, and the intervals are NaN with two samples.

    Parameters
    ----------
    %(age)s
    %(predicted)s
    level
        Coverage of the intervals, between 0 and 1.

    Returns
    -------
    The line.

    Raises
    ------
    ValueError
        As in :func:`mae`, or ``level`` is not between 0 and 1.

    Examples
    --------
    >>> from agevi import metrics
    >>> fit = metrics.slope_intercept([30, 50, 70], [35, 50, 65])
    >>> round(fit.slope, 3), round(fit.intercept, 3)
    (0.75, 12.5)
    """
    x, y = paired(age, predicted)
    quantile = check_level(level)
    if np.ptp(x) == 0:
        return LinearFit(*[float("nan")] * 6)
    n, centre = len(x), x.mean()
    xx = np.square(x - centre).sum()
    slope = ((x - centre) * (y - y.mean())).sum() / xx
    intercept = y.mean() - slope * centre
    if n == 2:
        half_slope = half_intercept = float("nan")
    else:
        variance = np.square(y - intercept - slope * x).sum() / (n - 2)
        t = student_t.ppf(quantile, n - 2)
        half_slope = t * np.sqrt(variance / xx)
        half_intercept = t * np.sqrt(variance * (1 / n + centre**2 / xx))
    return LinearFit(
        slope=float(slope),
        slope_low=float(slope - half_slope),
        slope_high=float(slope + half_slope),
        intercept=float(intercept),
        intercept_low=float(intercept - half_intercept),
        intercept_high=float(intercept + half_intercept),
    )


def check_level(level: float) -> float:
    """The upper quantile of a two-sided interval of this coverage, or the standard error."""
    if not isinstance(level, Real):
        raise TypeError(f"level={level!r} is a {type(level).__name__}; pass a number between 0 and 1, such as 0.9.")
    if not 0 < level < 1:
        raise ValueError(f"level={level!r} is not a coverage; pass a number between 0 and 1, such as 0.9.")
    return (1 + level) / 2
