"""Gates of plain arguments: one of several choices, a count, a share, a seed."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def listed(values: Iterable[Any], n: int = 5) -> str:
    """Up to ``n`` values, quoted, for a message."""
    names = list(values)
    return ", ".join(repr(str(v)) for v in names[:n]) + (", ..." if len(names) > n else "")


def choice(value: Any, options: Sequence[str], argument: str) -> str:
    """``value`` when it is one of ``options``, else the standard ValueError."""
    if value not in options:
        raise ValueError(f"{argument}={value!r} is not known; choose one of {', '.join(map(repr, options))}.")
    return str(value)


def closest(name: Any, names: Sequence[str]) -> str:
    """What a message adds when ``name`` is absent from ``names``: the one that is most like it, or nothing."""
    wanted, by_lower = str(name).lower(), {str(known).lower(): known for known in names}
    close = difflib.get_close_matches(wanted, by_lower, n=3)
    # Of names that are about as close, the one with the same letters: two that changed places are one slip.
    best = next((match for match in close if sorted(match) == sorted(wanted)), *close[:1] or [""])
    return f"; closest: {by_lower[best]!r}" if best else ""


def count(value: Any, argument: str, *, low: int = 1, high: int | None = None) -> int:
    """``value`` as an int between ``low`` and ``high``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{argument}={value!r} is a {type(value).__name__}; pass a whole number.")
    given = int(value)
    if given < low or (high is not None and given > high):
        wanted = f"{low} or more" if high is None else f"between {low:,} and {high:,}"
        raise ValueError(f"{argument}={given} is out of range; pass a whole number, {wanted}.")
    return given


def share_or_count(value: Any, argument: str, what: str = "cells") -> float | int:
    """``value`` as a share above 0 and below 1, or as a whole number of ``what``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{argument}={value!r} is a {type(value).__name__}; pass a number, for example 0.5 or 15.")
    given = float(value)
    if 0 < given < 1:
        return given
    if given < 1 or not given.is_integer():  # neither holds for NaN
        raise ValueError(
            f"{argument}={given:g} is neither a share below 1 nor a whole number of {what}; pass for example 0.5 or 15."
        )
    return int(given)


def generator(rng: Any) -> np.random.Generator:
    """The generator that ``rng`` (a seed, a generator or None) stands for."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise TypeError(
            f"rng={rng!r} is a {type(rng).__name__}; pass a non-negative integer seed, a numpy.random.Generator or "
            "None."
        ) from None
