"""Tools: run a clock and write what it says to AnnData."""

from __future__ import annotations

from agevi.tl._aggregate_subjects import aggregate_subjects
from agevi.tl._predict_age import predict_age
from agevi.tl._evaluate_by import evaluate_by

__all__ = ["age_correlation", "aggregate_subjects", "evaluate_by", "predict_age"]
