"""The mean of several clocks."""

from __future__ import annotations

from agevi.model.ensemble._model import EnsembleClock

__all__ = ["EnsembleClock"]
