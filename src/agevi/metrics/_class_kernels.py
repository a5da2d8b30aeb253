"""Metrics of two classes along the last axis, so that thousands of resamples cost one call.

``case`` is 1 for cases and 0 for controls, ``probability`` that of being a case; both float64 and finite.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from agevi.metrics._kernels import Array

THRESHOLD = 0.5
"""Probability from which a sample counts as a case."""


def auroc(case: Array, probability: Array) -> Array:
    """Probability that a case ranks above a control, ties one half (Mann and Whitney 1947), (...,) from (..., n)."""
    n_cases = case.sum(axis=-1)
    n_pairs = n_cases * (case.shape[-1] - n_cases)
    ranks = (rankdata(probability, axis=-1) * case).sum(axis=-1)
    return _ratio(ranks - n_cases * (n_cases + 1) / 2, n_pairs)


def auprc(case: Array, probability: Array) -> Array:
    """Mean over cases of the share of cases among all that rank as high or higher."""
    order = np.argsort(-probability, axis=-1)
    cases = np.take_along_axis(case, order, axis=-1).cumsum(axis=-1)
    as_high = rankdata(-probability, method="max", axis=-1)  # samples that rank as high or higher
    cases_as_high = np.take_along_axis(cases, as_high.astype(np.int64) - 1, axis=-1)
    return _ratio((case * cases_as_high / as_high).sum(axis=-1), case.sum(axis=-1))


def f1(case: Array, probability: Array) -> Array:
    """Harmonic mean of precision and recall; 0 where no case is found."""
    hit, miss, alarm, _ = _table(case, probability)
    out = _ratio(2 * hit, 2 * hit + miss + alarm)
    return np.where(case.sum(axis=-1) > 0, out, np.nan)


def mcc(case: Array, probability: Array) -> Array:
    """Correlation of the two classes with what was called; 0 where all are called alike."""
    hit, miss, alarm, rest = _table(case, probability)
    product = (hit + miss) * (hit + alarm) * (rest + miss) * (rest + alarm)
    out = np.where(product > 0, (hit * rest - alarm * miss) / np.sqrt(np.where(product > 0, product, 1.0)), 0.0)
    return _two_classes(case, out)


def balanced_accuracy(case: Array, probability: Array) -> Array:
    """Mean of the shares of cases and of controls that are called right."""
    hit, miss, alarm, rest = _table(case, probability)
    return (_ratio(hit, hit + miss) + _ratio(rest, rest + alarm)) / 2


def brier(case: Array, probability: Array) -> Array:
    """Mean squared difference of probability and class (Brier 1950)."""
    out: Array = np.square(probability - case).mean(axis=-1)
    return out


def _table(case: Array, probability: Array) -> tuple[Array, Array, Array, Array]:
    """Cases that are found and missed, controls that are called cases and controls."""
    called = (probability >= THRESHOLD).astype(np.float64)
    hit, n_cases, n_called = (case * called).sum(axis=-1), case.sum(axis=-1), called.sum(axis=-1)
    return hit, n_cases - hit, n_called - hit, case.shape[-1] - n_cases - n_called + hit


def _two_classes(case: Array, values: Array) -> Array:
    """``values`` with NaN where all are cases, or all controls."""
    return np.where(np.ptp(case, axis=-1) > 0, values, np.nan)


def _ratio(numerator: Array, denominator: Array) -> Array:
    """``numerator / denominator``, NaN where the denominator is 0."""
    ok = denominator > 0
    return np.where(ok, numerator / np.where(ok, denominator, 1.0), np.nan)
