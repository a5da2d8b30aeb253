"""Preparation of AnnData for clocks: splits of subjects, ages from text, leakage, cohorts and bulk samples."""

from __future__ import annotations

from agevi import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
