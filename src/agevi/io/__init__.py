"""Safe storage of clocks."""

from __future__ import annotations

from agevi.io._load import load_clock

__all__ = ["load_clock"]


def __dir__() -> list[str]:
    """Public names alone, for tab completion."""
    return sorted(__all__)
