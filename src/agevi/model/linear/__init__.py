"""Linear clocks."""

from __future__ import annotations

from agevi.model.linear._model import ElasticNetClock
from agevi.model.linear._pls import PLSClock

__all__ = ["ElasticNetClock", "PLSClock"]
