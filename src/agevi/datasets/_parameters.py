"""Gates for the numbers that describe a data set."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np


def number(value: Any, argument: str, *, low: float = 0.0, high: float = np.inf, open_low: bool = False) -> float:
    """``value`` as a finite float between ``low`` and ``high`` (``open_low``: ``low`` itself is refused)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{argument}={value!r} is a {type(value).__name__}; pass a number.")
    given = float(value)
    if not np.isfinite(given) or given < low or given > high or (open_low and given == low):
        bounds = f"above {low:g}" if open_low else f"{low:g} or more"
        bounds += "" if np.isinf(high) else f", at most {high:g}"
        raise ValueError(f"{argument}={given:g} is out of range; pass a finite number, {bounds}.")
    return given


def interval(value: Any, argument: str) -> tuple[float, float]:
    """``value`` as two finite numbers in rising order."""
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError):
        raise TypeError(f"{argument}={value!r} is not a pair of numbers; pass (lowest, highest).") from None
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ValueError(
            f"{argument}=({low:g}, {high:g}) is not a rising pair of finite numbers; pass (lowest, highest)."
        )
    return low, high
