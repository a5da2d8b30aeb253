"""Tidy DataFrames from what the tools wrote and the models recorded. Nothing is computed twice and nothing is changed."""

from __future__ import annotations

from agevi.get._genes import attribution_df, enrichment_df, perturbation_df, programs_df
from agevi.get._history import history_df
from agevi.get._numbers import acceleration_df, calibration_df, learning_curve_df, normative_df, posterior_df
from agevi.get._study import neuron_clock_study_df
from agevi.get._tables import correlation_df, leaderboard_df, metrics_by_df, metrics_df, subjects_df, trend_df
from agevi.get._transfer import transfer_df

__all__ = [
    "acceleration_df",
    "attribution_df",
    "calibration_df",
    "correlation_df",
    "enrichment_df",
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
    "subjects_df",
    "trend_df",
    "transfer_df",
]


def __dir__() -> list[str]:
    """Public names alone, for tab completion."""
    return sorted(__all__)
