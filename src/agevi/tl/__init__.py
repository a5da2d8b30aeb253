"""Tools: run a clock and write what it says to AnnData."""

from __future__ import annotations

from agevi.tl._aggregate_subjects import aggregate_subjects
from agevi.tl._predict_age import predict_age

__all__ = ["aggregate_subjects", "predict_age"]
