"""One figure per function, drawn from what :mod:`agevi.get` returns. Every function takes and returns Axes."""

from __future__ import annotations

from agevi.pl._acceleration import acceleration
from agevi.pl._acceleration_forest import acceleration_forest
from agevi.pl._age_correlation import age_correlation
from agevi.pl._age_distribution import age_distribution
from agevi.pl._attribution import attribution, attribution_heatmap
from agevi.pl._calibration import calibration
from agevi.pl._enrichment import enrichment
from agevi.pl._explanation import explanation
from agevi.pl._leaderboard import leaderboard
from agevi.pl._learning_curve import learning_curve
from agevi.pl._normative import normative
from agevi.pl._perturbation import perturbation
from agevi.pl._predicted_vs_actual import predicted_vs_actual
from agevi.pl._subject_intervals import subject_intervals
from agevi.pl._targets import targets
from agevi.pl._training import training
from agevi.pl._transfer import transfer
from agevi.pl._trend import trend

__all__ = [
    "acceleration",
    "acceleration_forest",
    "age_correlation",
    "age_distribution",
    "attribution",
    "attribution_heatmap",
    "calibration",
    "enrichment",
    "explanation",
    "leaderboard",
    "learning_curve",
    "normative",
    "perturbation",
    "predicted_vs_actual",
    "subject_intervals",
    "targets",
    "training",
    "trend",
    "transfer",
]


def __dir__() -> list[str]:
    """Public names alone, for tab completion."""
    return sorted(__all__)
