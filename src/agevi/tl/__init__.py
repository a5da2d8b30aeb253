"""Tools: run a clock and write what it says to AnnData."""

from __future__ import annotations

from agevi import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
