"""Intervals of a metric by resampling subjects."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agevi.metrics import _kernels, _regression
from agevi.metrics._kernels import Array, Kernel

_VALUES = 1 << 21
"""Resampled values held at a time."""

_KERNELS: dict[Callable[..., float], Kernel] = {
    getattr(_regression, name): getattr(_kernels, name)
    for name in ("mae", "rmse", "mdae", "mad", "r2", "pearson", "spearman")
}


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
    predicted
        Predicted ages, (n_samples,).
    groups
        Subject of every row, (n_samples,), where subjects have several samples; subjects are then drawn whole.
    level
        Coverage, between 0 and 1.
    n_boot
        Number of draws.
    rng
        Seed or generator.

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
    quantile = _regression.check_level(level)
    if n_boot < 1:
        raise ValueError(f"n_boot={n_boot!r} is not a number of draws; pass 1 or more, such as 2000.")
    known = ~np.isnan(np.asarray(age, dtype=np.float64))
    x, y = _regression.paired(age, predicted, drop_unlabelled=True)
    generator = np.random.default_rng(rng)
    if groups is None:
        members: list[NDArray[np.intp]] | None = None
    else:
        members = _members(np.asarray(groups), known)
    values = np.concatenate(list(_draws(metric, x, y, members, n_boot, generator)))
    return interval(values, quantile)


def interval(values: Array, high: float) -> tuple[float, float]:
    """Ends of a percentile interval up to the quantile ``high``, NaN where no draw has a value."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low_end, high_end = np.quantile(known, [1 - high, high])
    return float(low_end), float(high_end)


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
