"""What the figures share: axes, colours, units."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from agevi import _checks, _keys

ROLE_COLORS = {
    _keys.TRAIN: "#a6a6a6",
    _keys.VALIDATION: "#ff7f0e",
    _keys.TEST: "#1f77b4",
    _keys.OUT_OF_FOLD: "#279e68",
    _keys.NEW: "#aa40fc",
    "": "#1f77b4",
}
"""One colour per role in all figures, from scanpy's default palette, grey for what was fitted; "" has no role."""
LINE_COLOR = "#404040"
NAME_WIDTH = 26
"""Characters of a line of a long name below an axis."""
LETTER, LINE = 0.085, 0.17
"""Inches that a letter and a line take in the labels of ticks."""


class Wording(NamedTuple):
    """Words for what a model predicts."""

    higher: str
    lower: str
    change: str


def wording(unit: str) -> Wording:
    """Words for higher and lower predictions and for their change, by the unit of what is predicted.

    Parameters
    ----------
    unit
        Unit of ages, or "log-odds" for a classifier of cases and controls.
    """
    if unit == "log-odds":
        return Wording("more like cases", "more like controls", "Change of the log-odds of being a case")
    return Wording("looks older", "looks younger", f"Change of predicted age ({unit})")


def axes(ax: Axes | None, width: float = 4.8, height: float = 4.4) -> Axes:
    """``ax``, or the axes of a new figure of this size in inches.

    Parameters
    ----------
    ax
        Axes to draw on.
    width, height
        Size of a new figure.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        return plt.subplots(figsize=(width, height), layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise TypeError(f"ax is a {type(ax).__name__}; pass one matplotlib Axes.")
    return ax


def group_colors(
    adata: AnnData | None,
    key: str,
    groups: Sequence[Any],
    palette: Mapping[str, str] | Sequence[str] | None = None,
) -> dict[Any, Any]:
    """Colour of every group.

    In this order: ``palette``, ``adata.uns[f"{key}_colors"]`` as scanpy writes it, the colours of roles, scanpy's
    palettes.

    Parameters
    ----------
    adata
        Data that may hold colours.
    key
        Column that the groups come from.
    groups
        Groups in the order of drawing.
    palette
        Colour by group, or colours in order.
    """
    if palette is not None and not isinstance(palette, Mapping):
        palette = dict(zip(groups, palette, strict=False))
    if palette is not None:
        missing = [group for group in groups if group not in palette]
        if missing:
            raise ValueError(f"palette has no colour for {_checks.listed(missing)}; give one for each group.")
        return {group: palette[group] for group in groups}
    stored = _stored_colors(adata, key)
    if set(groups) <= set(stored):
        return {group: stored[group] for group in groups}
    if set(groups) <= set(ROLE_COLORS):
        return {group: ROLE_COLORS[group] for group in groups}
    from scanpy.plotting import palettes

    fitting = [p for p in (palettes.default_20, palettes.default_28, palettes.default_102) if len(p) >= len(groups)]
    cycle = fitting[0] if fitting else palettes.default_102
    return {group: cycle[i % len(cycle)] for i, group in enumerate(groups)}


def _stored_colors(adata: AnnData | None, key: str) -> dict[str, str]:
    """Colours that scanpy stored for the categories of a column, by category."""
    if adata is None or key not in adata.obs or not isinstance(adata.obs[key].dtype, pd.CategoricalDtype):
        return {}
    categories = adata.obs[key].cat.categories.astype(str)
    stored = [str(color) for color in adata.uns.get(f"{key}_colors", [])]
    return dict(zip(categories, stored, strict=True)) if len(stored) == len(categories) else {}


def age_unit(adata: AnnData, key_added: str = _keys.DEFAULT_KEY) -> str:
    """Unit of the ages that a clock predicted, years where it was not recorded."""
    return str(adata.uns.get(key_added, {}).get("age_unit") or "years")


def in_order(values: pd.Series) -> list[str]:
    """Groups in the order of drawing: roles as they are listed everywhere, categories in theirs, others sorted."""
    present = set(values.astype(str))
    if present <= {"", *_keys.ROLES}:
        return [role for role in ("", *_keys.ROLES) if role in present]
    if isinstance(values.dtype, pd.CategoricalDtype):
        return [str(c) for c in values.cat.categories if str(c) in present]
    return sorted(present)


def margins(values: np.ndarray, share: float = 0.05) -> tuple[float, float]:
    """Limits of an axis around ``values``."""
    low, high = float(np.min(values)), float(np.max(values))
    pad = share * (high - low) or 1.0
    return low - pad, high + pad


def point_size(n: int) -> float:
    """Area of a point in square points that keeps ``n`` of them apart."""
    return float(np.clip(1500 / n, 12, 50))


def wrapped(names: Sequence[str], width: int = NAME_WIDTH) -> list[str]:
    """Names broken into lines of at most ``width`` characters."""
    return [textwrap.fill(name, width) for name in names]


def n_lines(names: Sequence[str]) -> int:
    """Most lines of a name."""
    return max(name.count("\n") for name in names) + 1


def longest_line(names: Sequence[str]) -> int:
    """Characters of the longest line."""
    return max(len(line) for name in names for line in name.split("\n"))


def name_ticks(ax: Axes, at: np.ndarray, names: Sequence[str], gap: float) -> float:
    """Name places on the horizontal axis, upright where there is no room for words side by side.

    Parameters
    ----------
    ax
        Axes on which all else is drawn.
    at
        Places.
    names
        Names of the places.
    gap
        Least distance between places.

    Returns
    -------
    Inches that the names take beyond one line.
    """
    ax.set_xticks(at)
    figure = ax.figure.canvas.figure
    figure.draw_without_rendering()  # lays the figure out, so that the width is known
    low, high = ax.get_xlim()
    room = ax.get_window_extent().width / figure.dpi * gap / (high - low)
    width = max(1, int(room / LETTER))
    words = [word for name in names for word in name.split()]
    labels = wrapped(names, width)
    if max(map(len, words), default=0) <= width and n_lines(labels) <= 3:
        ax.set_xticks(at, labels)
        return LINE * (n_lines(labels) - 1)
    widths = (NAME_WIDTH, 2 * NAME_WIDTH, max(map(len, names)))
    labels = next((found for w in widths if n_lines(found := wrapped(names, w)) <= room / LINE), list(names))
    ax.set_xticks(at, labels, rotation=90, linespacing=1.0)
    return LETTER * longest_line(labels)


def legend(ax: Axes, **arguments: Any) -> None:
    """A legend without a box that hides points."""
    ax.legend(**{"frameon": True, "framealpha": 0.9, "edgecolor": "none", "fontsize": "small", **arguments})


def tidy(ax: Axes) -> None:
    """Take away the lines above and to the right, and keep a grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)  # a grid, where the style has one, stays behind the data
