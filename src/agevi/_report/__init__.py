"""A page that anybody can read: what tools left in an AnnData, or what a saved clock is."""

from __future__ import annotations

from agevi._report._report import report

__all__ = ["report"]
