"""How well ages are predicted: arrays in, floats out. One row is one sample; never pass cells as if they were."""

from __future__ import annotations

from agevi.metrics._bootstrap import bootstrap_interval
from agevi.metrics._regression import (
    LinearFit,
    mad,
    mae,
    mdae,
    pearson,
    r2,
    regression_metrics,
    rmse,
    slope_intercept,
    spearman,
)

__all__ = [
    "LinearFit",
    "bootstrap_interval",
    "mad",
    "mae",
    "mdae",
    "pearson",
    "r2",
    "regression_metrics",
    "rmse",
    "slope_intercept",
    "spearman",
]
