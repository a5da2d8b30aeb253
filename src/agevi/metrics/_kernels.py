"""The metrics along the last axis, so that thousands of resamples cost one call. Inputs are float64 and finite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
Kernel = Callable[[Array, Array], Array]


def mae(age: Array, predicted: Array) -> Array:
    """Mean absolute error, (...,) from (..., n)."""
    out: Array = np.abs(predicted - age).mean(axis=-1)
    return out


def rmse(age: Array, predicted: Array) -> Array:
    """Root mean squared error."""
    out: Array = np.sqrt(np.square(predicted - age).mean(axis=-1))
    return out


def mdae(age: Array, predicted: Array) -> Array:
    """Median absolute error."""
    return np.median(np.abs(predicted - age), axis=-1)


def mad(age: Array, predicted: Array) -> Array:
    """Median absolute deviation of the errors from their median."""
    error = predicted - age
    return np.median(np.abs(error - np.median(error, axis=-1, keepdims=True)), axis=-1)


def r2(age: Array, predicted: Array) -> Array:
    """Share of the variance of age that is explained; NaN where age is constant."""
    total = np.square(age - age.mean(axis=-1, keepdims=True)).sum(axis=-1)
    return 1.0 - _ratio(np.square(predicted - age).sum(axis=-1), _without_constant(total, age))


def pearson(age: Array, predicted: Array) -> Array:
    """Product-moment correlation; NaN where either is constant."""
    x = age - age.mean(axis=-1, keepdims=True)
    y = predicted - predicted.mean(axis=-1, keepdims=True)
    xx = _without_constant(np.square(x).sum(axis=-1), age)
    yy = _without_constant(np.square(y).sum(axis=-1), predicted)
    return np.clip(_ratio((x * y).sum(axis=-1), np.sqrt(xx) * np.sqrt(yy)), -1.0, 1.0)


def spearman(age: Array, predicted: Array) -> Array:
    """Correlation of ranks, ties at their mean rank; NaN where either is constant."""
    return pearson(rankdata(age, axis=-1), rankdata(predicted, axis=-1))


def _without_constant(squares: Array, values: Array) -> Array:
    """``squares`` with NaN where all ``values`` are equal, whatever rounding left of their variance."""
    return np.where(np.ptp(values, axis=-1) == 0, np.nan, squares)


def _ratio(numerator: Array, denominator: Array) -> Array:
    """``numerator / denominator``, NaN where the denominator is 0 or NaN."""
    ok = denominator > 0
    return np.where(ok, numerator / np.where(ok, denominator, 1.0), np.nan)
