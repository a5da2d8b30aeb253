"""How well ages are predicted, and cases told from controls: arrays in, floats out. A row is a sample, never a cell."""

from __future__ import annotations

from agevi.metrics._bootstrap import bootstrap_interval
from agevi.metrics._classification import auprc, auroc, balanced_accuracy, brier, f1, mcc
from agevi.metrics._intervals import coverage, interval_metrics, interval_score, mean_width
from agevi.metrics._regression import LinearFit, mad, mae, mdae, pearson, r2, rmse, slope_intercept, spearman
from agevi.metrics._summary import classification_metrics, regression_metrics

__all__ = [
    "LinearFit",
    "auprc",
    "auroc",
    "balanced_accuracy",
    "bootstrap_interval",
    "brier",
    "classification_metrics",
    "coverage",
    "f1",
    "interval_metrics",
    "interval_score",
    "mad",
    "mae",
    "mcc",
    "mdae",
    "mean_width",
    "pearson",
    "r2",
    "regression_metrics",
    "rmse",
    "slope_intercept",
    "spearman",
]


def __dir__() -> list[str]:
    """Public names alone, for tab completion."""
    return sorted(__all__)
