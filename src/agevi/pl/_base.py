"""What the figures share: axes, colours, units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


def legend(ax: Axes, **arguments: Any) -> None:
    """A legend without a box that hides points."""
    ax.legend(**{"frameon": True, "framealpha": 0.9, "edgecolor": "none", "fontsize": "small", **arguments})


def tidy(ax: Axes) -> None:
    """Take away the lines above and to the right, and keep a grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)  # a grid, where the style has one, stays behind the data
