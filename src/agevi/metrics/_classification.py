"""How well cases are told from controls: arrays in, floats out. One row is one sample; never pass cells as if they were."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agevi.metrics import _class_kernels, _regression
from agevi.metrics._bootstrap import interval, rows_by_subject
from agevi.metrics._kernels import Array

METRICS = ("auroc", "auprc", "f1", "mcc", "balanced_accuracy", "brier")


def classes(case: ArrayLike, probability: ArrayLike) -> tuple[Array, Array]:
    """Both as float64 of shape (n_samples,), or the standard error.

    Parameters
    ----------
    case
        1 or True for cases, 0 or False for controls, (n_samples,).
    probability
        Probability of being a case, (n_samples,).
    """
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
            f"probability is {y[outside][0]:g} in row {outside.argmax()}; pass numbers between 0 and 1, without missing "
            "ones."
        )
    return x, y


def auroc(case: ArrayLike, probability: ArrayLike) -> float:
    """Area under the receiver operating characteristic, 0.5 for a guess and 1 at best, without unit.

    The probability that a random case is given a higher probability than a random control; ties count one half (Mann and
    Whitney 1947). It sees the order alone, and does not depend on how common cases are.

    Parameters
    ----------
    case
        1 or True for cases, 0 or False for controls, (n_samples,).
    probability
        Probability of being a case, (n_samples,).

    Returns
    -------
    The area.

    Raises
    ------
    ValueError
        Lengths differ, there is one class only, or a probability is missing or not between 0 and 1.

    Examples
    --------
    >>> from agevi import metrics
    >>> metrics.auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    return float(_class_kernels.auroc(*classes(case, probability)))


def auprc(case: ArrayLike, probability: ArrayLike) -> float:
    """Area under the precision-recall curve as average precision, 1 at best, without unit.

    The mean over cases of the share of cases among all samples that rank as high or higher. A guess reaches the share of
    cases, so that it does not compare between cohorts.

    Parameters
    ----------
    case
        1 or True for cases, 0 or False for controls, (n_samples,).
    probability
        Probability of being a case, (n_samples,).

    Returns
    -------
    The area.

    Raises
    ------
    ValueError
        As in :func:`auroc`.
    """
    return float(_class_kernels.auprc(*classes(case, probability)))


def f1(case: ArrayLike, probability: ArrayLike) -> float:
    """F1 score at a probability of 0.5, 1 at best, without unit.

    The harmonic mean of precision and recall; 0 where no case is found. It ignores controls that are called right.

    Parameters
    ----------
    case
        1 or True for cases, 0 or False for controls, (n_samples,).
    probability
        Probability of being a case, (n_samples,).

    Returns
    -------
    The score.

    Raises
    ------
    ValueError
        As in :func:`auroc`.
    """
    return float(_class_kernels.f1(*classes(case, probability)))


def mcc(case: ArrayLike, probability: ArrayLike) -> float:
    """Matthews' correlation coefficient at a probability of 0.5, 1 at best and 0 for a guess, without unit.

    The correlation of the classes with what they are called (Matthews 1975); 0 where all are called alike.

    Parameters
    ----------
    case
        1 or True for cases, 0 or False for controls, (n_samples,).
    probability
        Probability of being a case, (n_samples,).

    Returns
    -------
    The coefficient.

    Raises
    ------
    ValueError
        As in :func:`auroc`.
    """
    return float(_class_kernels.mcc(*classes(case, probability)))


def balanced_accuracy(case: ArrayLike, probability: ArrayLike) -> float:
    """Balanced accuracy at a probability of 0.5, 0.5 for a guess and 1 at best, without unit.

    The mean of the share of cases and the share of controls that are called right, so that the larger class weighs no
    more.

    Parameters
    ----------
    case
        1 or True for cases, 0 or False for controls, (n_samples,).
    probability
        Probability of being a case, (n_samples,).

    Returns
    -------
    The accuracy.

    Raises
    ------
    ValueError
        As in :func:`auroc`.
    """
    return float(_class_kernels.balanced_accuracy(*classes(case, probability)))


def brier(case: ArrayLike, probability: ArrayLike) -> float:
    """Brier score, 0 at best and 0.25 for a constant probability of one half, without unit.

    The mean squared difference of probability and class (Brier 1950). High means bad. It judges the probabilities themselves:
    a classifier trained with balanced classes is too sure of cases where cases are rare.

    Parameters
    ----------
    case
        1 or True for cases, 0 or False for controls, (n_samples,).
    probability
        Probability of being a case, (n_samples,).

    Returns
    -------
    The score.

    Raises
    ------
    ValueError
        As in :func:`auroc`.
    """
    return float(_class_kernels.brier(*classes(case, probability)))


def classification_metrics(
    case: ArrayLike,
    probability: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    n_boot: int = 2000,
    rng: int | np.random.Generator | None = 0,
) -> dict[str, float]:
    """Every metric of two classes for one set of predictions, with intervals over subjects, without unit.

    One row per sample. Subjects are drawn with replacement, the same draws for all metrics; draws with one class alone
    are left out. With fewer than about ten subjects in a class the intervals are too narrow. Efron and Tibshirani (1993),
    chapter 13.

    Parameters
    ----------
    case
        1 or True for cases, 0 or False for controls, (n_samples,).
    probability
        Probability of being a case, (n_samples,).
    groups
        Subject of every row, (n_samples,), where subjects have several samples; subjects are then drawn whole.
    level
        Coverage of the intervals, between 0 and 1.
    n_boot
        Draws; 0 for no intervals.
    rng
        Seed or generator.

    Returns
    -------
    ``n``, ``n_cases``, and each of ``auroc``, ``auprc``, ``f1``, ``mcc``, ``balanced_accuracy`` and ``brier`` with its
    ``..._low`` and ``..._high``, by name.

    Raises
    ------
    ValueError
        As in :func:`auroc`, or ``level``, ``n_boot`` or the length of ``groups`` is wrong.

    Examples
    --------
    >>> from agevi import metrics
    >>> found = metrics.classification_metrics([0, 0, 1, 1, 1], [0.2, 0.6, 0.4, 0.7, 0.9])
    >>> found["n_cases"], round(found["auroc"], 3), found["mcc"] < found["mcc_high"]
    (3, 0.833, True)
    """
    x, y = classes(case, probability)
    high = _regression.check_level(level)
    if n_boot < 0:
        raise ValueError(f"n_boot={n_boot!r} is not a number of draws; pass 0 or more, such as 2000.")
    out: dict[str, float] = {"n": len(x), "n_cases": int(x.sum())}
    draws = two_class_draws(x, groups, n_boot, rng)
    for name in METRICS:
        kernel = getattr(_class_kernels, name)
        out[name] = float(kernel(x, y))
        if n_boot:
            values = np.array([float(kernel(x[rows], y[rows])) for rows in draws])
            out[f"{name}_low"], out[f"{name}_high"] = interval(values, high)
    return out


def two_class_draws(
    case: Array, groups: ArrayLike | None, n_boot: int, rng: int | np.random.Generator | None
) -> list[NDArray[np.intp]]:
    """Rows of every draw of whole subjects that has cases and controls.

    Parameters
    ----------
    case
        1 for cases and 0 for controls, (n_samples,).
    groups, n_boot, rng
        As in :func:`subject_draws`.
    """
    return [rows for rows in subject_draws(len(case), groups, n_boot, rng) if np.ptp(case[rows])]


def subject_draws(
    n: int, groups: ArrayLike | None, n_boot: int, rng: int | np.random.Generator | None
) -> Iterator[NDArray[np.intp]]:
    """Rows of every draw of whole subjects with replacement.

    Parameters
    ----------
    n
        Number of rows.
    groups
        Subject of every row, None where each row is one.
    n_boot
        Number of draws.
    rng
        Seed or generator.
    """
    generator = np.random.default_rng(rng)
    if groups is None:
        members = list(np.arange(n)[:, None])
    else:
        names = np.asarray(groups)
        if names.shape != (n,):
            raise ValueError(f"groups has shape {names.shape} and case has ({n},); pass one subject per row.")
        members = rows_by_subject(names)
    order = np.concatenate(members)
    for _ in range(n_boot):
        drawn = generator.integers(len(members), size=len(members))
        yield order[drawn] if len(members) == n else np.concatenate([members[i] for i in drawn])
