"""Linear clocks."""

from __future__ import annotations

from agevi.model.linear._model import ElasticNetClock
from agevi.model.linear._pls import PLSClock
from agevi.model.linear._published import LinearClock

__all__ = ["ElasticNetClock", "LinearClock", "PLSClock"]
