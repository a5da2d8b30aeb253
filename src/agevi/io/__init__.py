"""Safe storage of clocks, and shelves to share them."""

from __future__ import annotations

from agevi.io._load import load_clock
from agevi.io._shelf import list_shelf, write_shelf
from agevi.io._verify import verify

__all__ = ["list_shelf", "load_clock", "verify", "write_shelf"]


def __dir__() -> list[str]:
    """Public names alone, for tab completion."""
    return sorted(__all__)
