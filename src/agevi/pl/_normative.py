"""Centiles of predicted age by age in a reference, with other samples over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from agevi import _keys, get
from agevi.pl import _base
from agevi.pl._acceleration import colors_of
from agevi.pl._figure import figure
from agevi.tl.acceleration._norms import Norms

CENTILES = (2.5, 25.0, 50.0, 75.0, 97.5)
_GREY = "#808080"


@figure
def normative(
    adata: AnnData,
    *,
    palette: Mapping[str, str] | Sequence[str] | None = None,
    size: float | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    ax: Axes | None = None,
) -> Axes:
    """Predicted age of every sample over the centiles of the reference at each age, in the unit of age.

    The bands hold the middle 50 % and 95 % of new reference samples, the line is their median. Samples of the reference
    are small and grey, others have the colours of their groups, and are open where no reference sample is as young or
    as old.

    Parameters
    ----------
    %(after_normative)s
    %(palette)s
    %(size)s
    %(drawn)s

    Raises
    ------
    KeyError
        :func:`agevi.tl.normative_scores` was not run.
    ValueError
        There are more groups than colours that can be told apart.

    Examples
    --------
    %(example_normative)s
    >>> agevi.pl.normative(adata).get_ylabel()
    'Predicted age (years)'
    """
    table = get.normative_df(adata, key_added=key_added)
    params = _base.params_of(adata, "normative", key_added)
    norms, groupby = Norms.from_dict(params["norms"]), str(params.get("groupby", ""))
    groups = _groups(adata, table, groupby)
    _base.check_groups(groups, "groupby", groupby)
    colors = colors_of(adata, groupby, [str(name) for name in np.atleast_1d(params["reference"])], groups, palette)
    ax = _base.axes(ax, 4.2, 3.6)
    _fan(ax, norms)
    size = size or _base.point_size(len(table))
    age, predicted = table["age"].to_numpy(), table["predicted"].to_numpy()
    reference, outside = table["reference"].to_numpy(), table["outside"].to_numpy()
    ax.scatter(age[reference], predicted[reference], s=0.5 * size, color=_GREY, alpha=0.6, linewidth=0, zorder=2)
    handles = _legend_of_reference(params)
    for group, name in zip(groups, _base.shortened(groups), strict=True):
        chosen = (table["group"] == group).to_numpy() & ~reference
        for part, look in ((chosen & ~outside, "face"), (chosen & outside, "open")):
            face = colors[group] if look == "face" else "none"
            edge = "white" if look == "face" else colors[group]
            ax.scatter(age[part], predicted[part], s=size, facecolor=face, edgecolor=edge, linewidth=0.6, zorder=3)
        handles.append(_base.marker(f"{name or 'no group'}, n = {chosen.sum()}", colors[group]))
    if (outside & ~reference).any():
        label = f"beyond the ages of\nthe reference, n = {(outside & ~reference).sum()}"
        handles.append(_base.marker(label, _base.LINE_COLOR, markerfacecolor="none"))
    ax.set(xlabel=f"Age ({params['age_unit']})", ylabel=f"Predicted age ({params['age_unit']})")
    _base.legend(ax, handles=handles, labelspacing=0.7)
    return ax


def _groups(adata: AnnData, table: pd.DataFrame, groupby: str) -> list[str]:
    """Groups beside the reference in the order of drawing."""
    found = table.loc[~table["reference"], "group"].astype(str)
    if groupby in adata.obs and isinstance(adata.obs[groupby].dtype, pd.CategoricalDtype):
        known = [name for name in _base.in_order(adata.obs[groupby]) if (found == name).any()]
        return known + [""] * bool((found == "").any())
    return _base.in_order(found)


def _fan(ax: Axes, norms: Norms) -> None:
    """Bands and median of the reference over its ages."""
    grid = np.linspace(norms.low, norms.high, 200)
    mean, sd = norms.expected(grid)
    lines = mean + norms.deviation(np.array(CENTILES))[:, None] * sd  # n_centiles x 200
    ax.fill_between(grid, lines[0], lines[4], color=_GREY, alpha=0.15, linewidth=0, zorder=0)
    ax.fill_between(grid, lines[1], lines[3], color=_GREY, alpha=0.25, linewidth=0, zorder=0)
    ax.plot(grid, lines[2], color=_base.LINE_COLOR, linewidth=1.4, zorder=1)


def _legend_of_reference(params: Mapping[str, Any]) -> list[Line2D | Patch]:
    """What the bands, the line and the grey points are."""
    names = ", ".join(str(name) for name in np.atleast_1d(params["reference"]))
    (name,) = _base.shortened([names or "all samples"])
    return [
        _base.marker(f"{name} (reference),\nn = {params['n_samples']}", _GREY, markersize=4),
        Line2D([], [], color=_base.LINE_COLOR, label="median"),
        Patch(color=_GREY, alpha=0.4, linewidth=0, label="25th to 75th centile"),
        Patch(color=_GREY, alpha=0.15, linewidth=0, label="2.5th to 97.5th centile"),
    ]
