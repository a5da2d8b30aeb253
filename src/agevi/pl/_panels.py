"""A grid of panels that share their limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from agevi.pl import _base

MAX_PANELS = 30
_TITLE = 30  # letters of the name of a panel


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


def grid(
    values: pd.Series,
    groupby: str,
    draw: Callable[[Axes, str], Sequence[str]],
    handles: Sequence[Artist],
    n_cols: int,
    ax: Any,
) -> dict[str, Axes]:
    """A panel for each value with a legend beside the first row; ``draw`` returns what stands below a panel's title."""
    drawn = panels(_base.in_order(values), f"groupby={groupby!r}", n_cols=n_cols, ax=ax)
    for title, (name, panel) in zip(_base.shortened(drawn, _TITLE), drawn.items(), strict=True):
        _base.title(panel, _base.role_name(title) if name else "not named", draw(panel, name))
    of_row, all_panels = min(n_cols, len(drawn)), list(drawn.values())
    _base.legend(all_panels[of_row - 1 if ax is None else -1], handles=handles)
    for i, panel in enumerate(all_panels if ax is None else []):  # labels on the outer panels alone
        if i % of_row:
            panel.set_ylabel("")
            panel.tick_params(labelleft=False)
        if i + of_row < len(drawn):
            panel.set_xlabel("")
            panel.tick_params(labelbottom=False)
    return drawn
