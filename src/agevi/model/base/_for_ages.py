"""Fits that are made for the ages of samples alone, and thrown away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_inside = ContextVar("fits for ages alone", default=False)


@contextlib.contextmanager
def for_ages_alone() -> Iterator[None]:
    """Fits inside leave out what no age of a sample depends on, and what the caller says once for all of them."""
    before = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(before)


def is_for_ages_alone() -> bool:
    """Whether a fit is one of these."""
    return _inside.get()
