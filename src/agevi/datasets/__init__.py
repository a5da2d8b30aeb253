"""Data to start with: a bundled cohort, cells drawn from profiles, and a simulator whose truth is known."""

from __future__ import annotations

from agevi.datasets._cells import benchmark_folds, sample_cells
from agevi.datasets._simulate import simulate_cohort
from agevi.datasets._tcells import tcells

__all__ = ["benchmark_folds", "sample_cells", "simulate_cohort", "tcells"]


def __dir__() -> list[str]:
    """Public names alone, for tab completion."""
    return sorted(__all__)
