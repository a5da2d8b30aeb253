"""Errors, correlations and the fitted line of predicted on actual age."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student_t

from agevi.metrics import _kernels
from agevi.metrics._kernels import Array


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
    """Both as float64 of shape (n_samples,), or the standard error.

    Parameters
    ----------
    age
        Actual ages, (n_samples,).
    predicted
        Predicted ages, (n_samples,).
    drop_unlabelled
        Leave out rows without an age instead of refusing them.
    """
    x, y = np.asarray(age, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if x.ndim != 1 or y.ndim != 1:
        raise ValueError(f"age and predicted have shapes {x.shape} and {y.shape}; pass one-dimensional arrays.")
    if len(x) != len(y):
        raise ValueError(f"age has {len(x)} values and predicted has {len(y)}; pass one prediction per age.")
    if drop_unlabelled:
        known = ~np.isnan(x)
        x, y = x[known], y[known]
    for name, values in (("age", x), ("predicted", y)):
        bad = ~np.isfinite(values)
        if bad.any():
            raise ValueError(
                f"{name} is missing or infinite in {bad.sum()} of {len(values)} rows (first: row {bad.argmax()}); "
                "leave those rows out."
            )
    if len(x) < 2:
        raise ValueError(f"only {len(x)} row(s) with an age; a metric needs at least 2.")
    return x, y


def mae(age: ArrayLike, predicted: ArrayLike) -> float:
    """Mean absolute error, in the unit of age.

    High means bad. Compare it with the error of predicting the training subjects' median age for everyone: on a
    cohort of similar ages a useless clock has a small error too.

    Parameters
    ----------
    age
        Actual ages, (n_samples,); missing ages are refused.
    predicted
        Predicted ages, (n_samples,).

    Returns
    -------
    The error.

    Raises
    ------
    ValueError
        Lengths differ, a value is missing or infinite, or there are fewer than 2 rows.

    Examples
    --------
    >>> from agevi import metrics
    >>> metrics.mae([30, 50, 70], [33, 49, 65])
    3.0
    """
    return float(_kernels.mae(*paired(age, predicted)))


def rmse(age: ArrayLike, predicted: ArrayLike) -> float:
    """Root mean squared error, in the unit of age.

    High means bad; a few subjects that are far off weigh more than in :func:`mae`.

    Parameters
    ----------
    age
        Actual ages, (n_samples,); missing ages are refused.
    predicted
        Predicted ages, (n_samples,).

    Returns
    -------
    The error.

    Raises
    ------
    ValueError
        As in :func:`mae`.
    """
    return float(_kernels.rmse(*paired(age, predicted)))


def mdae(age: ArrayLike, predicted: ArrayLike) -> float:
    """Median absolute error, in the unit of age.

    High means bad. Half of the subjects are closer than this; it says nothing about the other half.

    Parameters
    ----------
    age
        Actual ages, (n_samples,); missing ages are refused.
    predicted
        Predicted ages, (n_samples,).

    Returns
    -------
    The error.

    Raises
    ------
    ValueError
        As in :func:`mae`.
    """
    return float(_kernels.mdae(*paired(age, predicted)))


def mad(age: ArrayLike, predicted: ArrayLike) -> float:
    """Median absolute deviation of the errors from their median, in the unit of age.

    The spread of the errors with a shift common to all subjects taken out: a clock that is ten years too high for
    everyone scores 0, so read it beside :func:`mdae`. This is the MAD in the tables of Urban et al. (2023).

    Parameters
    ----------
    age
        Actual ages, (n_samples,); missing ages are refused.
    predicted
        Predicted ages, (n_samples,).

    Returns
    -------
    The spread.

    Raises
    ------
    ValueError
        As in :func:`mae`.
    """
    return float(_kernels.mad(*paired(age, predicted)))


def r2(age: ArrayLike, predicted: ArrayLike) -> float:
    """Share of the variance of age that the predictions explain, 1 at best, without unit.

    0 is as good as predicting these samples' mean age for all, below 0 is worse. It depends on the range of ages, so
    it does not compare between cohorts. NaN where all ages are equal.

    Parameters
    ----------
    age
        Actual ages, (n_samples,); missing ages are refused.
    predicted
        Predicted ages, (n_samples,).

    Returns
    -------
    The share.

    Raises
    ------
    ValueError
        As in :func:`mae`.
    """
    return float(_kernels.r2(*paired(age, predicted)))


def pearson(age: ArrayLike, predicted: ArrayLike) -> float:
    """Pearson's correlation of predicted with actual age, without unit.

    High means that the order and spacing of ages are found; it does not see a wrong slope or a shift. NaN where
    either is constant.

    Parameters
    ----------
    age
        Actual ages, (n_samples,); missing ages are refused.
    predicted
        Predicted ages, (n_samples,).

    Returns
    -------
    The correlation.

    Raises
    ------
    ValueError
        As in :func:`mae`.
    """
    return float(_kernels.pearson(*paired(age, predicted)))


def spearman(age: ArrayLike, predicted: ArrayLike) -> float:
    """Spearman's rank correlation of predicted with actual age, without unit.

    High means that the order of ages is found, whatever the spacing. Ties take their mean rank; NaN where either is
    constant.

    Parameters
    ----------
    age
        Actual ages, (n_samples,); missing ages are refused.
    predicted
        Predicted ages, (n_samples,).

    Returns
    -------
    The correlation.

    Raises
    ------
    ValueError
        As in :func:`mae`.
    """
    return float(_kernels.spearman(*paired(age, predicted)))


def slope_intercept(age: ArrayLike, predicted: ArrayLike, *, level: float = 0.95) -> LinearFit:
    """Least-squares line of predicted on actual age, with t-intervals of slope and intercept.

    The intervals hold for independent samples with errors of one variance; with several samples of a subject they
    are too narrow. All values are NaN where all ages are equal, and the intervals are NaN with two samples.

    Parameters
    ----------
    age
        Actual ages, (n_samples,); missing ages are refused.
    predicted
        Predicted ages, (n_samples,).
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


def regression_metrics(age: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Every metric of this module for one set of predictions, errors in the unit of age.

    One row per sample. Rows without an age are left out, and ``n`` counts those that remain; a missing prediction is
    an error. Constant predictions have NaN correlations. On the samples that a clock was trained on, all of these
    are too good.

    Parameters
    ----------
    age
        Actual ages, (n_samples,), NaN where unlabelled.
    predicted
        Predicted ages, (n_samples,).

    Returns
    -------
    ``n``, ``mae``, ``rmse``, ``mdae``, ``mad``, ``r2``, ``pearson``, ``spearman``, ``slope``, ``slope_low``,
    ``slope_high``, ``intercept``, ``intercept_low`` and ``intercept_high`` (95 % intervals), by name.

    Raises
    ------
    ValueError
        Lengths differ, a prediction is missing, a value is infinite, or fewer than 2 rows have an age.

    Examples
    --------
    >>> from agevi import metrics
    >>> found = metrics.regression_metrics([30, 50, 70, float("nan")], [33, 49, 65, 40])
    >>> found["n"], found["mae"], round(found["pearson"], 3)
    (3, 3.0, 1.0)
    """
    x, y = paired(age, predicted, drop_unlabelled=True)
    return {
        "n": len(x),
        "mae": float(_kernels.mae(x, y)),
        "rmse": float(_kernels.rmse(x, y)),
        "mdae": float(_kernels.mdae(x, y)),
        "mad": float(_kernels.mad(x, y)),
        "r2": float(_kernels.r2(x, y)),
        "pearson": float(_kernels.pearson(x, y)),
        "spearman": float(_kernels.spearman(x, y)),
        **vars(slope_intercept(x, y)),
    }
