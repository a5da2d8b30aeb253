"""What is said of a recalibration that reaches further than its labelled subjects."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd

from agevi import _checks, _keys

logger = logging.getLogger(__name__)

EMPTY = {"n_beyond": 0, "labelled_low": np.nan, "labelled_high": np.nan}


def labelled_range(table: pd.DataFrame, chosen: np.ndarray, others: pd.Series) -> dict[str, Any]:
    """Lowest and highest prediction of the labelled samples, and how many of the others lie outside."""
    known = table["predicted"].to_numpy(dtype=np.float64)
    low, high = float(known[chosen].min()), float(known[chosen].max())
    return {
        "n_beyond": int(_outside(known[others.to_numpy()], low, high).sum()),
        "labelled_low": low,
        "labelled_high": high,
    }


def say_beyond(
    table: pd.DataFrame, out: pd.DataFrame, row: dict[str, Any], chosen: np.ndarray, others: pd.Series
) -> None:
    """Warn of samples whose age is extrapolated by a line, with the ages that they get."""
    if row["kind"] != "line" or not row["n_beyond"]:
        return
    of = f" of cohort {row['cohort']!r}" if row["cohort"] else ""
    predicted = table["predicted"].to_numpy(dtype=np.float64)
    beyond = others.to_numpy() & _outside(predicted, row["labelled_low"], row["labelled_high"])
    new, ages = out.loc[beyond, "predicted"], out.loc[chosen, "age"]
    logger.warning(
        "%d of %d samples%s are predicted outside the range of the %d labelled controls (predictions %.1f to %.1f, ages %.1f to "
        "%.1f), where the line is extrapolated: their recalibrated ages, %.1f to %.1f, and intervals rest on no labelled control "
        "of such an age. Label younger and older controls, or leave those samples out.",
        row["n_beyond"], row["n"], of, row["n_labelled"], row["labelled_low"], row["labelled_high"], ages.min(), ages.max(),
        new.min(), new.max(),
    )  # fmt: skip


def _outside(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Which values lie outside a range; NaN does not."""
    return (values < low) | (values > high)


def say_kept(kept: list[str], by: str | None, keys: _keys.Keys) -> None:
    """Warn of cohorts that nobody is labelled in."""
    if kept:
        logger.warning(
            "%d cohorts of by=%r have no labelled subject (%s): they keep the predictions and intervals of key=%r, which in a "
            "cohort that the clock has not seen cover less than their level.",
            len(kept), by, _checks.listed(kept), keys.key_added,
        )  # fmt: skip
