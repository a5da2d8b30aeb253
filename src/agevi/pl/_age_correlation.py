"""Correlations of components with age, and the component that has the highest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from agevi import _checks, _keys, _names, _units, get
from agevi.pl import _base
from agevi.pl._figure import figure

KINDS = ("box", "scatter")
_BAND = "#dedede"
_POINT = "#1f77b4"
_BEST = "#d62728"


@figure
def age_correlation(
    adata: AnnData,
    *,
    kind: Literal["box", "scatter"] | None = None,
    component: str | int | Sequence[str | int] | None = None,
    color_by: str | None = None,
    palette: Mapping[str, str] | Sequence[str] | None = None,
    size: float | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    ax: Axes | None = None,
) -> Axes | dict[str, Axes]:
    """Correlation of each component with age beside what chance gives the best one, and one component against age.

    In the box plot a point is a component. The grey band holds nine tenths of the best correlations that permuted ages
    gave, on both sides of zero; the dashed lines, its outer edges, are where the best of all components lies by chance
    once in twenty cohorts. Components between the lines are not evidence of ageing, however many there are.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.age_correlation`, with the representation.
    kind
        ``"box"`` or ``"scatter"`` for one panel, None for both in a new figure.
    component
        Component that the scatter shows against age, the best one by default; a pair is shown one against the other.
    color_by
        Column of ``adata.obs`` that colours the scatter, age by default. A sample has its most common value, or its
        mean.
    palette
        Colour by group, or colours in the order of the groups, where ``color_by`` is not numeric.
    size
        Area of a sample's point in square points; by number of samples by default.
    %(key_added)s
    ax
        Axes to draw on, with ``kind``; a new figure by default.

    Returns
    -------
    The axes of the panel, or both by kind.

    Raises
    ------
    KeyError
        The table, the representation, the component or ``color_by`` is absent.
    ValueError
        ``kind`` is unknown or ``ax`` was given without it, the representation has changed, or ``color_by`` has more
        values than there are colours.

    Examples
    --------
    >>> import agevi, scanpy as sc
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=5, n_genes=50)
    >>> sc.pp.pca(adata, n_comps=10, zero_center=False)
    >>> agevi.tl.age_correlation(adata, age_key="age", subject_key="donor", n_permutations=100)
    >>> axes = agevi.pl.age_correlation(adata, component=0)
    >>> sorted(axes), axes["scatter"].get_ylabel()
    (['box', 'scatter'], 'X_pca[:, 0]')
    """
    table = get.correlation_df(adata, key_added=key_added).set_index("component")
    params = _base.params_of(adata, "correlation", key_added)
    if kind is not None:
        _checks.choice(kind, KINDS, "kind")
    elif ax is not None:
        raise ValueError(
            "ax was given without kind, and one Axes has no room for two panels; pass kind='box' or 'scatter'."
        )
    unit = _base.age_unit(adata, key_added)
    points = None if kind == "box" else _points(adata, table, params, component, color_by)
    colors = _colors(adata, points, color_by, palette)
    if kind == "box":
        return _draw_box(_base.axes(ax, width=2.0), table, params)
    if kind == "scatter":
        return _draw_scatter(_base.axes(ax), points, colors, color_by, size, unit)
    left, right = _base.new_axes(1, 2, 3.0, 3.6, width_ratios=[1, 2])[0]
    return {
        "box": _draw_box(left, table, params),
        "scatter": _draw_scatter(right, points, colors, color_by, size, unit),
    }


def _draw_box(ax: Axes, table: pd.DataFrame, params: Mapping[str, Any]) -> Axes:
    """Box and points of the correlations of all components, with the band."""
    r = table["r"].dropna()
    low, high = float(params["band_low"]), float(params["band_high"])
    for sign in (-1, 1):
        label = "best of permuted, 5-95 %" if sign == 1 else None
        ax.axhspan(*sorted((sign * low, sign * high)), color=_BAND, linewidth=0, zorder=0, label=label)
        ax.axhline(sign * high, color=_base.LINE_COLOR, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ax.axhline(0, color=_base.LINE_COLOR, linewidth=0.6, zorder=1)
    ax.boxplot(
        r, positions=[0], widths=0.5, showfliers=False, zorder=2,
        medianprops={"color": _base.LINE_COLOR}, boxprops={"color": _base.LINE_COLOR},
        whiskerprops={"color": _base.LINE_COLOR}, capprops={"color": _base.LINE_COLOR},
    )  # fmt: skip
    spread = np.random.default_rng(0).uniform(-0.18, 0.18, len(r))  # so that points do not hide each other
    ax.scatter(spread, r, s=14, color=_POINT, alpha=0.75, edgecolor="white", linewidth=0.3, zorder=3, label="component")
    best = str(params["best"])
    highest = r.loc[best]
    p = _base.p_text(table["p"].loc[best], params.get("n_permutations"))
    ax.scatter(
        spread[r.index == best], [highest], s=40, facecolor="none", edgecolor=_BEST, linewidth=1.5, zorder=4,
        label=f"{_base.shortened([best], 20)[0]}: r {highest:.2f}, {p}",
    )  # fmt: skip
    limit = 1.3 * max(high, abs(highest))
    ax.set(
        xlim=(-0.5, 0.5), ylim=(-limit, limit), xticks=[0], ylabel=f"Correlation with age over {params['level']}s (r)"
    )
    ax.set_xticklabels([f"{_base.shortened([params['use_rep']], 20)[0]}\n({len(r)} components)"])
    _base.legend(ax, above=True)
    return ax


def _points(
    adata: AnnData, table: pd.DataFrame, params: Mapping[str, Any], component: Any, color_by: str | None
) -> dict[str, pd.DataFrame]:
    """What the scatter shows, of labelled cells and of samples: columns x, y, color, with the labels in ``attrs``."""
    matrix, names = _checks.representation(adata, params["use_rep"])
    if names != table.index.tolist():
        raise ValueError(
            f"adata.obsm[{params['use_rep']!r}] has {len(names)} components and the table of correlations has "
            f"{len(table)}; it was replaced since. Run agevi.tl.age_correlation again."
        )
    chosen = [params["best"]] if component is None else component
    chosen = [chosen] if isinstance(chosen, str | int | np.integer) else list(chosen)
    unknown = [c for c in chosen if str(c) not in names]
    if unknown or len(chosen) not in (1, 2):
        raise KeyError(
            f"component={component!r} is not one or two components of adata.obsm[{params['use_rep']!r}]; "
            f"there are {len(names)}: {_checks.listed(names)}."
        )
    age = _units.ages(adata, params["age_key"], min_age=-np.inf)
    values = [_column(matrix, names.index(str(c))) for c in chosen]
    color = age if color_by is None else _values(_checks.column(adata, color_by, "color_by"))
    cells = pd.DataFrame({"x": values[0] if len(values) == 2 else age, "y": values[-1], "color": color})
    sample = _checks.labels(adata, params["sample_key"], "sample_key").to_numpy()
    cells, sample = cells[~np.isnan(age)], sample[~np.isnan(age)]
    grouped = cells.groupby(sample, sort=True)
    samples = grouped[["x", "y"]].mean()
    numeric = pd.api.types.is_numeric_dtype(cells["color"])
    samples["color"] = grouped["color"].mean() if numeric else grouped["color"].agg(lambda v: v.mode().iloc[0])
    samples.attrs["labels"] = [f"{params['use_rep']}[:, {_shown(c)}]" for c in chosen]
    out = {"samples": samples}
    if params["level"] == "cell":
        out["cells"] = cells
    return out


def _values(column: pd.Series) -> np.ndarray:
    """A column as numbers, or as text where it names groups."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return _names.names(column, f"adata.obs[{column.name!r}]").to_numpy()


def _shown(component: Any) -> str:
    """A number as it is, a name in quotes."""
    return str(component) if str(component).isdigit() else repr(str(component))


def _column(matrix: Any, i: int) -> np.ndarray:
    """One component as float64."""
    column = matrix[:, [i]]
    dense = column if isinstance(column, np.ndarray) else column.toarray()
    return np.asarray(dense, dtype=np.float64).ravel()


def _colors(
    adata: AnnData, points: dict[str, pd.DataFrame] | None, color_by: str | None, palette: Any
) -> dict[str, Any] | None:
    """Colour of each group, None where colour is a scale."""
    if points is None or color_by is None or pd.api.types.is_numeric_dtype(points["samples"]["color"]):
        return None
    groups = sorted(set(points["samples"]["color"]) | set(points.get("cells", points["samples"])["color"]))
    _base.check_groups(groups, "color_by", color_by)
    return _base.group_colors(adata, color_by, groups, palette)


def _draw_scatter(
    ax: Axes, points: Any, colors: dict[str, Any] | None, color_by: str | None, size: float | None, unit: str
) -> Axes:
    """Cells as small points, where correlations are over cells, and samples as large ones."""
    samples = points["samples"]
    numbers = samples["color"] if colors is None else None
    scale = {} if numbers is None else {"cmap": "viridis", "vmin": numbers.min(), "vmax": numbers.max()}
    labels = samples.attrs["labels"]
    against_age = len(labels) == 1
    for name, table in sorted(points.items()):
        c: Any = table["color"] if colors is None else table["color"].map(colors)
        look: dict[str, Any] = {"s": 3, "alpha": 0.25, "linewidth": 0, "rasterized": True}
        if name == "samples":
            look = {"s": size or _base.point_size(len(table)), "edgecolor": "white", "linewidth": 0.6}
        drawn = ax.scatter(table["x"], table["y"], c=c, label=f"_{name}", **look, **scale)
    ax.set(xlabel=f"Age ({unit})" if against_age else labels[0], ylabel=labels[-1])
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    sizes = {"samples": 6, "cells": 2}
    handles = [_base.marker(name, _base.LINE_COLOR, markersize=sizes[name]) for name in sorted(points, reverse=True)]
    if colors is not None:
        pairs = zip(_base.shortened(colors), colors.values(), strict=True)
        handles += [_base.marker(name, color) for name, color in pairs]
        _base.legend(ax, handles=handles, title=_base.shortened([color_by])[0])
    else:
        _base.color_bar(ax, drawn, _base.shortened([color_by])[0] if color_by else f"Age ({unit})")
        _base.legend(ax, handles=handles, above=True, ncols=2)
    return ax
