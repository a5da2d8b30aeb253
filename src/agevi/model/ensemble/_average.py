"""How ages of several clocks become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agevi import _checks

SCALES = ("log", "age")
WEIGHTS = ("equal", "inner")
_SMALLEST_ERROR = 1e-6  # a perfect clock takes all the weight, and nothing is divided by 0


def average(ages: np.ndarray, weights: np.ndarray, *, scale: str, min_age: float) -> np.ndarray:
    """Weighted mean of ages of several clocks, (n_clocks, n) to (n,) float32; on a log scale above ``min_age``."""
    ages = np.asarray(ages, dtype=np.float64)
    if scale == "age":
        return (weights @ ages).astype(np.float32)
    logs = np.log1p(np.maximum(ages - min_age, 0))
    return (np.expm1(weights @ logs) + min_age).astype(np.float32)


def weights_from_errors(errors: Sequence[float]) -> np.ndarray:
    """Weights in proportion to 1 / error, with sum 1."""
    weights = 1 / np.maximum(np.asarray(errors, dtype=np.float64), _SMALLEST_ERROR)
    return weights / weights.sum()


def check_weights(weights: Any, n_clocks: int) -> str | np.ndarray:
    """The name of a rule, or one weight per clock, scaled to sum 1."""
    if isinstance(weights, str):
        return _checks.choice(weights, WEIGHTS, "weights")
    try:
        out = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        out = np.full(1, np.nan)
    if out.shape != (n_clocks,) or not np.isfinite(out).all() or (out < 0).any() or not out.sum() > 0:
        raise ValueError(
            f"weights={weights!r} is neither 'equal' nor 'inner' nor one number from 0 for each of the {n_clocks} "
            "clocks; pass one of them."
        )
    total = float(out.sum())
    return out if np.isclose(total, 1, rtol=1e-15, atol=0) else out / total
