"""Tidy DataFrames of what the tools wrote and the models recorded. Nothing is recomputed, nothing is changed."""

from __future__ import annotations

from agevi.get._genes import attribution_df, enrichment_df, perturbation_df
from agevi.get._history import history_df
from agevi.get._samples import metrics_df, subjects_df
from agevi.get._tables import (
    acceleration_df,
    calibration_df,
    correlation_df,
    explanation_df,
    leaderboard_df,
    learning_curve_df,
    metrics_by_df,
    neuron_clock_study_df,
    normative_df,
    posterior_df,
    programs_df,
    study_df,
    transfer_df,
    trend_df,
)

__all__ = [
    "acceleration_df",
    "attribution_df",
    "calibration_df",
    "correlation_df",
    "enrichment_df",
    "explanation_df",
    "history_df",
    "leaderboard_df",
    "learning_curve_df",
    "metrics_by_df",
    "metrics_df",
    "neuron_clock_study_df",
    "normative_df",
    "perturbation_df",
    "posterior_df",
    "programs_df",
    "study_df",
    "subjects_df",
    "trend_df",
    "transfer_df",
]


def __dir__() -> list[str]:
    """Public names alone, for tab completion."""
    return sorted(__all__)
