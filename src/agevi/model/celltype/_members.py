"""What the members of a clock of cell types may be."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from agevi import _checks
from agevi.model.base._classes import clock_class

MEMBER = "PLSClock"
"""Class of the members by default."""


def members_of(init: Mapping[str, Any] | None) -> tuple[Any, dict[str, Any]]:
    """Class of the members of a clock made with the arguments ``init``, and the arguments of their constructor."""
    given = init or {}
    return member_class(given.get("clock", MEMBER)), dict(given.get("clock_kwargs") or {})


def member_class(clock: Any) -> Any:
    """The class of the members."""
    found = clock_class(clock, "clock")
    if found.of_types:
        raise ValueError("clock is CellTypeClock, whose members are clocks of one type; pass a class such as PLSClock.")
    return found


def member_kwargs(clock_cls: Any, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of the members' constructor."""
    if given is None:
        return {}
    name = clock_cls.__name__
    if not isinstance(given, Mapping):
        raise TypeError(f"clock_kwargs is a {type(given).__name__}; pass a dictionary of arguments of {name}.")
    known = [p for p in inspect.signature(clock_cls).parameters if p != "adata"]
    for argument in given:
        if argument not in known:
            raise TypeError(
                f"clock_kwargs holds {argument!r}, which {name} does not take"
                f"{_checks.closest(str(argument), known)}. It takes {_checks.listed(known, len(known))}."
            )
    return dict(given)
