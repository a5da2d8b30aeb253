"""Every metric of ages, or of cases and controls, for one set of predictions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from agevi.metrics._bootstrap import interval, two_class_draws
from agevi.metrics._classification import classes
from agevi.metrics._metric import documented
from agevi.metrics._register import OF_AGES, OF_CLASSES
from agevi.metrics._regression import check_level, paired, slope_intercept


@documented
def regression_metrics(age: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Every metric of this module for one set of predictions, errors in the unit of age.

    One row per sample. Rows without an age are left out, and ``n`` counts those that remain; a missing prediction is
    an error. Constant predictions have NaN correlations. On the samples that a clock was trained on, all of these
    are too good.

    Parameters
    ----------
    age
        Actual ages, (n_samples,), NaN where unlabelled.
    %(predicted)s

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
    values = {name: float(entry.function.kernel(x, y)) for name, entry in OF_AGES.items()}
    return {"n": len(x), **values, **vars(slope_intercept(x, y))}


@documented
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
    are left out. With fewer than about ten subjects in a class the intervals are too narrow. Efron and Tibshirani
    (1993), chapter 13.

    Parameters
    ----------
    %(case)s
    %(probability)s
    %(groups)s
    level
        Coverage of the intervals, between 0 and 1.
    n_boot
        Draws; 0 for no intervals.
    %(rng)s

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
    high = check_level(level)
    if n_boot < 0:
        raise ValueError(f"n_boot={n_boot!r} is not a number of draws; pass 0 or more, such as 2000.")
    out: dict[str, float] = {"n": len(x), "n_cases": int(x.sum())}
    draws = two_class_draws(x, groups, n_boot, rng)
    for name, entry in OF_CLASSES.items():
        kernel = entry.function.kernel
        out[name] = float(kernel(x, y))
        if n_boot:
            values = np.array([float(kernel(x[rows], y[rows])) for rows in draws])
            out[f"{name}_low"], out[f"{name}_high"] = interval(values, high)
    return out
