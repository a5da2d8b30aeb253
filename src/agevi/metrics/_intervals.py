"""How well intervals of age hold: coverage, width and their sum as one score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import norm

from agevi.metrics._metric import Array, documented
from agevi.metrics._regression import check_level, refuse_missing

COLUMNS = ["groupby", "group", "n", "n_subjects", "level", "coverage", "coverage_low", "coverage_high"]
COLUMNS += ["width", "interval_score"]
OVERALL = "overall"
_WILSON = 0.95  # coverage of the interval of a coverage


def _limits(age: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> tuple[Array, Array, Array]:
    """All three as float64 of shape (n_samples,), or the standard error."""
    y, low, high = (np.asarray(v, dtype=np.float64) for v in (age, lower, upper))
    if y.ndim != 1 or y.shape != low.shape or y.shape != high.shape or not len(y):
        raise ValueError(
            f"age, lower and upper have shapes {y.shape}, {low.shape} and {high.shape}; pass one value of each per "
            "sample."
        )
    refuse_missing(age=y, lower=low, upper=high)
    if (low > high).any():
        i = int((low > high).argmax())
        raise ValueError(f"lower is above upper in row {i} ({low[i]:g}, {high[i]:g}); pass lower first.")
    return y, low, high


@documented
def coverage(age: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> float:
    """Share of the ages that lie within their intervals, limits included.

    Compare it with the level of the intervals: below it they are too narrow. It says nothing about their width; see
    :func:`interval_score`.

    Parameters
    ----------
    %(age)s
    %(limits)s

    Returns
    -------
    The share, from 0 to 1.

    Raises
    ------
    ValueError
        Shapes differ, a value is missing or infinite, or a lower limit is above the upper one.

    Examples
    --------
    >>> from agevi import metrics
    >>> metrics.coverage([30, 50, 70], [20, 45, 71], [40, 60, 80]).__round__(3)
    0.667
    """
    y, low, high = _limits(age, lower, upper)
    return float(((low <= y) & (y <= high)).mean())


@documented
def mean_width(lower: ArrayLike, upper: ArrayLike) -> float:
    """Mean width of intervals, in the unit of age.

    Of two kinds of intervals with the same :func:`coverage`, those with the smaller width tell more.

    Parameters
    ----------
    %(limits)s

    Returns
    -------
    The width.

    Raises
    ------
    ValueError
        As in :func:`coverage`.

    Examples
    --------
    >>> from agevi import metrics
    >>> metrics.mean_width([20, 45], [40, 55])
    15.0
    """
    _, low, high = _limits(lower, lower, upper)
    return float((high - low).mean())


@documented
def interval_score(age: ArrayLike, lower: ArrayLike, upper: ArrayLike, *, level: float = 0.9) -> float:
    """Mean interval score, in the unit of age: the width, and 2 / (1 - level) times the distance of ages outside.

    Small means good. It joins width and coverage in one number: in expectation it is smallest for the quantiles of the
    truth (Gneiting & Raftery 2007, eq. 43).

    Parameters
    ----------
    %(age)s
    %(limits)s
    level
        Coverage that the intervals are made for.

    Returns
    -------
    The score.

    Raises
    ------
    ValueError
        As in :func:`coverage`, or ``level`` is not between 0 and 1.

    Examples
    --------
    >>> from agevi import metrics
    >>> round(metrics.interval_score([30, 50, 70], [20, 45, 71], [40, 60, 80], level=0.9), 3)
    21.333
    """
    y, low, high = _limits(age, lower, upper)
    return float(interval_scores(y, low, high, level).mean())


def interval_scores(age: Array, lower: Array, upper: Array, level: float) -> Array:
    """Interval score of every sample, (n_samples,); all inputs are finite."""
    check_level(level)
    outside = np.maximum(lower - age, 0) + np.maximum(age - upper, 0)
    return (upper - lower) + 2 / (1 - level) * outside


@documented
def interval_metrics(
    age: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    *,
    predicted: ArrayLike | None = None,
    groups: Mapping[str, ArrayLike] | ArrayLike | None = None,
    level: float = 0.9,
) -> pd.DataFrame:
    """Coverage, width and interval score of all samples, by thirds of age, and by group.

    Intervals that hold on average can be too narrow for some: read ``coverage`` of the rows beside ``level``. Thirds of
    the true age are covered unequally by every clock whose predictions shrink towards the mean; thirds of the predicted
    age, which is known for new samples, should not be.

    Parameters
    ----------
    age
        Actual ages, (n_samples,), NaN where unlabelled: such samples are left out, as are those without an interval.
    %(limits)s
    predicted
        Predicted ages, (n_samples,), for the rows of their thirds.
    groups
        Labels that make further rows, (n_samples,), or a dictionary of them by name. Missing labels make no row.
    level
        Coverage that the intervals are made for.

    Returns
    -------
    DataFrame with the columns ``groupby`` ("overall", "predicted", "age" or the name of the labels), ``group``, ``n``,
    ``n_subjects`` (here ``n``), ``level``, ``coverage`` with its 95 % interval ``coverage_low`` and ``coverage_high``
    (Wilson 1927), ``width`` and ``interval_score``, both in the unit of age.

    Raises
    ------
    ValueError
        As in :func:`coverage`, or no sample has an age and an interval.

    Examples
    --------
    >>> from agevi import metrics
    >>> table = metrics.interval_metrics([30, 50, 70], [20, 45, 71], [40, 60, 80], groups=["a", "a", "b"])
    >>> table[["groupby", "group", "n"]].tail(2).values.tolist()
    [['group', 'a', 2], ['group', 'b', 1]]
    """
    check_level(level)
    y, low, high = (np.asarray(v, dtype=np.float64) for v in (age, lower, upper))
    if not y.shape == low.shape == high.shape:
        _limits(y, low, high)
    keep = ~(np.isnan(y) | np.isnan(low) | np.isnan(high))
    if not keep.any():
        raise ValueError(f"none of {len(y)} samples has an age and an interval; pass samples with both.")
    y, low, high = _limits(y[keep], low[keep], high[keep])
    labels: dict[str, Any] = {}
    if predicted is not None:
        labels["predicted"] = binned(np.asarray(predicted, dtype=np.float64)[keep])
    labels["age"] = binned(y)
    given = groups if isinstance(groups, Mapping) else {} if groups is None else {"group": groups}
    labels |= {str(name): pd.Series(np.asarray(values, dtype=object)[keep]) for name, values in given.items()}
    return interval_rows(y, low, high, labels, np.ones(len(y)), level)


def interval_rows(
    age: Array, lower: Array, upper: Array, labels: Mapping[str, pd.Series], weight: Array, level: float
) -> pd.DataFrame:
    """One row for all samples and one for each label; weights, (n_samples,), sum to the number of subjects."""
    inside = ((lower <= age) & (age <= upper)).astype(np.float64)
    score = interval_scores(age, lower, upper, level)
    of_samples = {"coverage": inside, "width": upper - lower, "interval_score": score}
    parts: list[tuple[str, str, Any]] = [(OVERALL, "", np.ones(len(age), dtype=bool))]
    for name, values in labels.items():
        series = values if isinstance(values.dtype, pd.CategoricalDtype) else values.astype(object)
        names = list(series.cat.categories) if isinstance(series.dtype, pd.CategoricalDtype) else []
        for label in names or sorted(series.dropna().unique(), key=str):
            mask = (series == label).to_numpy(dtype=bool, na_value=False)
            if mask.any():
                parts.append((name, str(label), mask))
    rows: list[dict[str, Any]] = []
    for by, group, part in parts:
        total = float(weight[part].sum())
        mean = {name: float(np.average(values[part], weights=weight[part])) for name, values in of_samples.items()}
        bounds = dict(zip(("coverage_low", "coverage_high"), wilson(mean["coverage"], total), strict=True))
        rows.append({"groupby": by, "group": group, "n": int(part.sum()), "n_subjects": round(total), "level": level})
        rows[-1] |= mean | bounds
    return pd.DataFrame(rows, columns=COLUMNS)


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share of ``n`` independent subjects (Wilson 1927)."""
    z = float(norm.ppf(check_level(_WILSON)))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))


def binned(values: Array, n_bins: int = 3) -> pd.Series:
    """Bin of equal size that each finite value is in, as ordered text of the lowest and the highest in it."""
    edges = np.unique(np.quantile(values, np.arange(1, n_bins) / n_bins))
    code = np.searchsorted(edges, values)
    known = np.unique(code)
    ends = [(values[code == k].min(), values[code == k].max()) for k in known]
    names = [f"{low:.4g} to {high:.4g}" for low, high in ends]
    if len(set(names)) < len(names):  # bins that differ beyond the digits shown
        names = [f"{name} ({k + 1})" for k, name in enumerate(names)]
    categories = pd.Index(names, dtype=object)
    return pd.Series(pd.Categorical.from_codes(np.searchsorted(known, code), categories, ordered=True))
