"""Clocks that come with agevi: load them by name with :func:`agevi.io.load_clock`."""

from __future__ import annotations

from agevi.clocks._list import list

__all__ = ["list"]


def __dir__() -> tuple[str, ...]:
    """Public names alone, for tab completion."""
    return tuple(sorted(__all__))
