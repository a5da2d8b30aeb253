"""Ageing clocks from single cells, on scvi-tools."""

from __future__ import annotations

from importlib.metadata import version

from agevi import _lazy

__version__ = version("agevi")
__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
