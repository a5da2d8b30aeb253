"""Differences in predicted age between groups of subjects of the same age."""

from __future__ import annotations

from agevi.tl.acceleration._age_acceleration import age_acceleration
from agevi.tl.acceleration._normative import normative_scores

__all__ = ["age_acceleration", "normative_scores"]
