"""Intervals of a metric by resampling subjects."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agevi.metrics._metric import Array, Kernel, documented
from agevi.metrics._register import OF_AGES
from agevi.metrics._regression import check_level, paired

_VALUES = 1 << 21
"""Resampled values held at a time."""

_KERNELS: dict[Callable[..., float], Kernel] = {entry.function: entry.function.kernel for entry in OF_AGES.values()}


@documented
def bootstrap_interval(
    metric: Callable[[Array, Array], float],
    age: ArrayLike,
    predicted: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    n_boot: int = 2000,
    rng: int | np.random.Generator | None = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a metric, in the metric's unit.

    Rows are drawn with replacement, and the metric is taken of each draw. A row stands for a subject, so pass
    subjects and not cells, whose interval would be far too narrow. With fewer than about ten subjects the interval
    is too narrow as well. Rows without an age are left out. Efron and Tibshirani (1993), chapter 13.

    Parameters
    ----------
    metric
        A function of this module such as :func:`mae`, computed for all draws at once, or any function of ages and
        predictions that returns a number, called once per draw.
    age
        Actual ages, (n_samples,), NaN where unlabelled.
    %(predicted)s
    %(groups)s
    level
        Coverage, between 0 and 1.
    n_boot
        Number of draws.
    %(rng)s

    Returns
    -------
    Lower and upper end; NaN where the metric is undefined in every draw.

    Raises
    ------
    ValueError
        As in :func:`regression_metrics`, or ``level``, ``n_boot`` or the length of ``groups`` is wrong.

    Examples
    --------
    >>> from agevi import metrics
    >>> age, predicted = [30, 40, 50, 60, 70], [33, 41, 49, 57, 65]
    >>> low, high = metrics.bootstrap_interval(metrics.mae, age, predicted)
    >>> low < metrics.mae(age, predicted) < high
    True
    """
    quantile = check_level(level)
    if n_boot < 1:
        raise ValueError(f"n_boot={n_boot!r} is not a number of draws; pass 1 or more, such as 2000.")
    known = ~np.isnan(np.asarray(age, dtype=np.float64))
    x, y = paired(age, predicted, drop_unlabelled=True)
    generator = np.random.default_rng(rng)
    members = None if groups is None else _members(np.asarray(groups), known)
    values = np.concatenate(list(_draws(metric, x, y, members, n_boot, generator)))
    return interval(values, quantile)


def interval(values: Array, high: float) -> tuple[float, float]:
    """Ends of a percentile interval up to the quantile ``high``, NaN where no draw has a value."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    ends = np.quantile(known, [1 - high, high])
    return float(ends[0]), float(ends[1])


def rows_by_subject(subjects: NDArray[np.generic]) -> list[NDArray[np.intp]]:
    """Rows of each subject, in the order of their names."""
    codes = np.unique(subjects.astype(str), return_inverse=True)[1]
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])


def _members(groups: NDArray[np.generic], known: NDArray[np.bool_]) -> list[NDArray[np.intp]] | None:
    """Rows of each subject, or None where each has one."""
    if groups.shape != known.shape:
        raise ValueError(f"groups has shape {groups.shape} and age has {known.shape}; pass one subject per row.")
    members = rows_by_subject(groups[known])
    return None if max(map(len, members), default=1) <= 1 else members


def _draws(
    metric: Callable[[Array, Array], float],
    x: Array,
    y: Array,
    members: list[NDArray[np.intp]] | None,
    n_boot: int,
    rng: np.random.Generator,
) -> Iterator[Array]:
    """The metric of every draw, in pieces."""
    kernel = _KERNELS.get(metric)
    if members is not None:
        for _ in range(n_boot):
            rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
            yield np.atleast_1d(kernel(x[rows], y[rows]) if kernel else np.float64(metric(x[rows], y[rows])))
        return
    step = max(1, _VALUES // len(x))
    for start in range(0, n_boot, step):
        rows = rng.integers(len(x), size=(min(step, n_boot - start), len(x)))  # n_draws x n_samples
        if kernel is not None:
            yield kernel(x[rows], y[rows])
        else:
            yield np.asarray([metric(x[r], y[r]) for r in rows], dtype=np.float64)


def two_class_draws(
    case: Array, groups: ArrayLike | None, n_boot: int, rng: int | np.random.Generator | None
) -> list[NDArray[np.intp]]:
    """Rows of every draw of whole subjects that has cases (1 in ``case``, (n_samples,)) and controls (0)."""
    return [rows for rows in subject_draws(len(case), groups, n_boot, rng) if np.ptp(case[rows])]


def subject_draws(
    n: int, groups: ArrayLike | None, n_boot: int, rng: int | np.random.Generator | None
) -> Iterator[NDArray[np.intp]]:
    """Rows of every draw of whole subjects with replacement; without ``groups`` each of the ``n`` rows is a subject."""
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
