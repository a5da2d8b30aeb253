"""Ageing clocks from single cells, on scvi-tools."""

from __future__ import annotations

from importlib.metadata import version

from agevi import clocks, datasets, get, io, metrics, model, pl, pp, tl
from agevi._settings import settings

__version__ = version("agevi")

__all__ = ["clocks", "datasets", "get", "io", "metrics", "model", "pl", "pp", "settings", "tl"]


def __dir__() -> list[str]:
    """Public names alone, for tab completion."""
    return sorted(__all__)
