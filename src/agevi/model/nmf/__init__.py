"""Clock on non-negative matrix factorisation."""

from __future__ import annotations

from agevi.model.nmf._model import NMFClock

__all__ = ["NMFClock"]
