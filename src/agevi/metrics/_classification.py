"""How well cases are told from controls."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from agevi.metrics._metric import Array, Kernel, Metric, public, ratio

THRESHOLD = 0.5
"""Probability from which a sample counts as a case."""


def classes(case: ArrayLike, probability: ArrayLike) -> tuple[Array, Array]:
    """Both as float64, (n_samples,), or the standard error."""
    x, y = np.asarray(case, dtype=np.float64), np.asarray(probability, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"case has shape {x.shape} and probability has {y.shape}; pass one probability per sample.")
    odd = ~np.isin(x, (0.0, 1.0))
    if odd.any():
        raise ValueError(f"case holds {x[odd][0]:g} (row {odd.argmax()}); pass 1 for cases and 0 for controls.")
    if len(x) == 0 or x.min() == x.max():
        what = "no rows" if len(x) == 0 else "cases only" if x[0] else "controls only"
        raise ValueError(f"case holds {what}; a metric needs at least one case and one control.")
    outside = ~((y >= 0) & (y <= 1))  # holds for NaN too
    if outside.any():
        raise ValueError(
            f"probability is {y[outside][0]:g} in row {outside.argmax()}; pass numbers between 0 and 1, without "
            "missing ones."
        )
    return x, y


def metric(kernel: Kernel) -> Metric:
    """The public metric of two classes that a kernel makes."""

    def checked(case: ArrayLike, probability: ArrayLike) -> float:
        return float(kernel(*classes(case, probability)))

    return public(checked, kernel)


@metric
def auroc(case: Array, probability: Array) -> Array:
    """Area under the receiver operating characteristic, 0.5 by chance and 1 at best, without unit.

    The probability that a random case is given a higher probability than a random control; ties count one half (Mann
    and Whitney 1947). It sees the order alone, and does not depend on how common cases are.

    %(of_classes)s

    Examples
    --------
    >>> from agevi import metrics
    >>> metrics.auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    n_cases = case.sum(axis=-1)
    n_pairs = n_cases * (case.shape[-1] - n_cases)
    ranks = (rankdata(probability, axis=-1) * case).sum(axis=-1)
    return ratio(ranks - n_cases * (n_cases + 1) / 2, n_pairs)


@metric
def auprc(case: Array, probability: Array) -> Array:
    """Area under the precision-recall curve as average precision, 1 at best, without unit.

    The mean over cases of the share of cases among all samples that rank as high or higher. By chance it is the share
    of cases, so that it does not compare between cohorts.

    %(of_classes)s
    """
    order = np.argsort(-probability, axis=-1)
    cases = np.take_along_axis(case, order, axis=-1).cumsum(axis=-1)
    as_high = rankdata(-probability, method="max", axis=-1)  # samples that rank as high or higher
    cases_as_high = np.take_along_axis(cases, as_high.astype(np.int64) - 1, axis=-1)
    return ratio((case * cases_as_high / as_high).sum(axis=-1), case.sum(axis=-1))


@metric
def f1(case: Array, probability: Array) -> Array:
    """F1 score at a probability of 0.5, 1 at best, without unit.

    The harmonic mean of precision and recall; 0 where no case is found. It ignores controls that are called right.

    %(of_classes)s
    """
    hit, miss, alarm, _ = _table(case, probability)
    out = ratio(2 * hit, 2 * hit + miss + alarm)
    return np.where(case.sum(axis=-1) > 0, out, np.nan)


@metric
def mcc(case: Array, probability: Array) -> Array:
    """Matthews' correlation coefficient at a probability of 0.5, 1 at best and 0 by chance, without unit.

    The correlation of the classes with what they are called (Matthews 1975); 0 where all are called alike.

    %(of_classes)s
    """
    hit, miss, alarm, rest = _table(case, probability)
    product = (hit + miss) * (hit + alarm) * (rest + miss) * (rest + alarm)
    out = np.where(product > 0, (hit * rest - alarm * miss) / np.sqrt(np.where(product > 0, product, 1.0)), 0.0)
    return np.where(np.ptp(case, axis=-1) > 0, out, np.nan)  # undefined where all are cases, or all controls


@metric
def balanced_accuracy(case: Array, probability: Array) -> Array:
    """Balanced accuracy at a probability of 0.5, 0.5 by chance and 1 at best, without unit.

    The mean of the share of cases and the share of controls that are called right, so that the larger class weighs no
    more.

    %(of_classes)s
    """
    hit, miss, alarm, rest = _table(case, probability)
    return (ratio(hit, hit + miss) + ratio(rest, rest + alarm)) / 2


@metric
def brier(case: Array, probability: Array) -> Array:
    """Brier score, 0 at best and 0.25 for a constant probability of one half, without unit.

    The mean squared difference of probability and class (Brier 1950). High means bad. It judges the probabilities
    themselves: a classifier trained with balanced classes is too sure of cases where cases are rare.

    %(of_classes)s
    """
    return np.asarray(np.square(probability - case).mean(axis=-1))


def _table(case: Array, probability: Array) -> tuple[Array, Array, Array, Array]:
    """Cases that are found and missed, controls that are called cases and controls."""
    called = (probability >= THRESHOLD).astype(np.float64)
    hit, n_cases, n_called = (case * called).sum(axis=-1), case.sum(axis=-1), called.sum(axis=-1)
    return hit, n_cases - hit, n_called - hit, case.shape[-1] - n_cases - n_called + hit
