"""The intervals of a subject table from a calibration that is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from agevi import _keys, _subjects
from agevi.tl.intervals._conformal import Calibration
from agevi.tl.intervals._report import Labelled, cross_intervals

_SAME = 1e-4  # of scores: predictions of one clock differ by rounding between machines, in float32


def with_intervals(table: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    """The subject table with the columns ``lower`` and ``upper`` of a calibration, the slot's ``params``.

    Samples that calibrated get the interval of the other folds, in which their own residuals have no part; NaN for
    samples of role train, validation or recalibration, whose residuals are smaller than those of held-out ones.
    """
    whole = Calibration.from_dict(params)
    cells = table["n_cells"].to_numpy(dtype=np.float64)
    lower, upper = whole.interval(table["predicted"].to_numpy(dtype=np.float64), cells)
    fitted = table["role"].isin(_keys.SHAPED_ROLES).to_numpy()
    lower[fitted], upper[fitted] = np.nan, np.nan
    own = _subjects.held_out(table)
    rows = Labelled.of(table[own])
    if len(rows.age) == len(whole.scores):
        scores = np.sort(whole.score(rows.age, rows.predicted, rows.n_cells))
        if np.allclose(scores, whole.scores, rtol=_SAME, atol=_SAME * whole.scores[-1]):
            lower[own], upper[own] = cross_intervals(rows, whole)
    return table.assign(lower=lower, upper=upper)


def recalibrated_again(table: pd.DataFrame, former: pd.DataFrame) -> pd.DataFrame:
    """The table with the intervals and labelled ages that ``tl.recalibrate`` gave the same predictions."""
    former = former.reindex(table.index)
    same = np.isclose(former["predicted"].to_numpy(dtype=np.float64), table["predicted"], rtol=1e-5, atol=1e-3)
    bounds = {name: np.where(same, former[name], np.nan) for name in ("lower", "upper")}
    labelled = same & (table["role"] == _keys.RECALIBRATION).to_numpy()
    return table.assign(age=np.where(labelled, former["age"], table["age"]), **bounds)
