"""A grid of panels that share their limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from agevi.pl import _base

MAX_PANELS = 30


def panels(names: Sequence[str], argument: str, *, n_cols: int, ax: Any = None, size: float = 2.5) -> dict[str, Axes]:
    """One Axes per name: those given in any nesting, or panels of ``size`` inches of a new figure."""
    if len(names) > MAX_PANELS:
        raise ValueError(f"{argument} has {len(names)} values; at most {MAX_PANELS} panels are drawn.")
    if n_cols < 1:
        raise ValueError(f"n_cols={n_cols!r} is not a number of panels; pass 1 or more.")
    if ax is not None:
        given = _flat(ax)
        if len(given) != len(names):
            raise ValueError(
                f"ax has {len(given)} Axes and {argument} has {len(names)} values; pass one Axes per panel."
            )
        return dict(zip(names, given, strict=True))
    n_cols = min(n_cols, len(names))
    grid = _base.new_axes(-(-len(names) // n_cols), n_cols, size, size)
    for unused in grid.flat[len(names) :]:
        unused.remove()
    return dict(zip(names, grid.flat, strict=False))


def _flat(ax: Any) -> list[Axes]:
    """Axes in any nesting as a list."""
    values: Iterable[Any] = ax.values() if isinstance(ax, dict) else np.ravel(np.asarray(ax, dtype=object))
    found = list(values)
    wrong = [value for value in found if not isinstance(value, Axes)]
    if wrong:
        raise TypeError(f"ax holds a {type(wrong[0]).__name__}; with groupby pass one matplotlib Axes per panel.")
    return found


def label_outer(axes: Sequence[Axes], n_cols: int) -> None:
    """Take the labels off panels of a grid, in rows, that have another one to the left or below."""
    for i, ax in enumerate(axes):
        if i % n_cols:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
        if i + n_cols < len(axes):
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
