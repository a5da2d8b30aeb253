"""Predicted ages of samples along an ordered covariate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from agevi import _keys, get
from agevi.pl import _base
from agevi.pl._figure import figure
from agevi.tl.trends._trend_test import samples_in_order, slope

_ALL = "#1f77b4"
_JITTER = 0.12  # of the distance between steps
_MAX_STEPS = 6  # most whole numbers that are drawn as steps
_STEP = 0.22  # least inches between names of steps


@figure
def trend(
    adata: AnnData,
    *,
    palette: Mapping[str, str] | Sequence[str] | None = None,
    size: float | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    ax: Axes | None = None,
) -> Axes:
    """Predicted age of every sample along the order that was tested, with the least-squares line, in the unit of age.

    Samples are coloured by the groups of the test, each with its line; without groups there is one line. The points of
    a step of a category, or of one of up to six whole numbers, are shifted at random to the sides; numbers stay to
    scale. The legend gives Spearman's correlation and p.

    Parameters
    ----------
    %(after_trend)s
    %(palette)s
    %(size)s
    %(drawn)s

    Raises
    ------
    KeyError
        :func:`agevi.tl.trend_test` was not run, or a column is gone since.
    ValueError
        There are more groups than colours that can be told apart.

    Examples
    --------
    %(example_trend)s
    >>> agevi.pl.trend(adata).get_xlabel()
    'age'
    """
    table = get.trend_df(adata, key_added=key_added)
    keys = _keys.Keys(key_added)
    params = adata.uns[keys.trend_params]
    groupby, order_key = params.get("groupby") or None, str(params["order_key"])
    samples, levels, _ = samples_in_order(
        adata, order_key, groupby, keys=keys, sample_key=params.get("sample_key") or None
    )
    rows = table if groupby is None else table[table["groupby"] == groupby]
    groups = rows["group"].astype(str).tolist()
    _base.check_groups(groups, "groupby", groupby)
    colors: dict[Any, Any] = {"": _ALL}
    if groupby is not None:
        colors = _base.group_colors(adata, groupby, groups, palette)
        samples["group"] = samples["group"].astype(str)
    elif palette is not None:
        colors = _base.group_colors(adata, "", [""], palette)
    at, names, gap = _steps(samples, levels)
    ax = _base.axes(ax, max(4.0, _STEP * len(at)), 3.4)
    shift = np.random.default_rng(0).uniform(-_JITTER, _JITTER, len(samples)) * gap
    for row, name in zip(rows.to_dict("records"), _base.shortened(groups), strict=True):
        chosen = np.ones(len(samples), dtype=bool) if groupby is None else (samples["group"] == row["group"]).to_numpy()
        label = _label(row, name, params.get("n_permutations"))
        _draw(
            ax, samples[chosen], shift[chosen], row, colors[row["group"]], size or _base.point_size(len(samples)), label
        )
    ax.set(xlabel=order_key, ylabel=f"Predicted age ({_base.age_unit(adata, key_added)})")
    _base.legend(ax, title=groupby, labelspacing=0.7)
    if levels is not None or (len(at) and gap >= _STEP / 4.0 * np.ptp(at)):
        _base.name_ticks(ax, at, names, gap)
    return ax


def _label(row: Mapping[Any, Any], name: str, n_permutations: Any) -> str:
    """Name of a group, with its size, correlation and p."""
    label = f"{name}, n = {row['n']}" if name else f"n = {row['n']}"
    if np.isnan(row["spearman"]):
        return label
    return f"{label}\nSpearman {row['spearman']:.2f}, {_base.p_text(row['p'], n_permutations)}"


def _steps(samples: pd.DataFrame, levels: list[str] | None) -> tuple[np.ndarray, list[str], float]:
    """Places and names of the steps of the order, and their least distance; none where it has many values."""
    if levels is not None:
        return np.arange(len(levels)), levels, 1.0
    values = np.unique(samples["order"])
    if len(values) > _MAX_STEPS or (values % 1).any():
        return np.array([]), [], 0.0
    is_bool = samples["level"].map(lambda value: isinstance(value, bool | np.bool_)).all()
    names = [str(bool(value)) if is_bool else f"{value:.0f}" for value in values]
    return values, names, float(np.diff(values).min(initial=np.ptp(values)))


def _draw(
    ax: Axes, samples: pd.DataFrame, shift: np.ndarray, row: Mapping[Any, Any], color: Any, size: float, label: str
) -> None:
    """Points and line of one group."""
    x, y = samples["order"].to_numpy(), samples["predicted"].to_numpy(dtype=np.float64)
    ax.scatter(x + shift, y, s=size, color=color, alpha=0.8, edgecolor="white", linewidth=0.4, label=label, zorder=2)
    if np.isnan(row["slope"]):
        return
    ends = np.array([x.min(), x.max()])
    ax.plot(ends, y.mean() + slope(x, y) * (ends - x.mean()), color=color, linewidth=1.6, zorder=3)
