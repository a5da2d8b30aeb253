"""Predicted against actual age."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from agevi import _checks, _keys, get, metrics
from agevi.pl import _base
from agevi.pl._panels import label_outer, panels
from agevi.tl._evaluate_by import sample_values
from agevi.tl._verdict import announce

MAX_GROUPS = 20
PANEL = "panel"
"""Column with the panel of every row, text."""


def predicted_vs_actual(
    adata: AnnData,
    *,
    key_added: str = _keys.DEFAULT_KEY,
    roles: str | Sequence[str] | None = None,
    color_by: str = "role",
    groupby: str | None = None,
    n_cols: int = 4,
    palette: Mapping[str, str] | Sequence[str] | None = None,
    size: float | None = None,
    ax: Any = None,
) -> Axes | dict[str, Axes]:
    """Predicted against actual age of every sample, in the unit of the age column.

    One point is one sample, never a cell. The dashed line is where predictions are exact, the solid one the
    least-squares fit; both the fit and the printed accuracy are of the held-out samples (roles test, out_of_fold, new) and
    fall back on all samples where none is held out. If held-out subjects are not predicted better than by the median age,
    one line of the log says so. Training samples lie close to the line in any large model. With
    ``groupby`` there is a panel per cohort, tissue or cell type, all with the same limits; the fit and the accuracy
    are then those of the panel.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.aggregate_subjects`.
    key_added
        Prefix of the slots.
    roles
        Draw samples of these roles; all by default.
    color_by
        Column of :func:`agevi.get.subjects_df`, or of ``adata.obs`` (a sample has its most common value).
    groupby
        Column that makes panels: the one that clocks per cell type were trained by with
        ``tl.cross_validate(groupby=...)``, whose predictions are drawn then, else a column of
        :func:`agevi.get.subjects_df`, or of ``adata.obs`` with one value per sample.
    n_cols
        Panels in a row of a new figure.
    palette
        Colour by group, or colours in the order of the groups. Default: ``adata.uns[f"{color_by}_colors"]``, else fixed
        colours for roles and scanpy's palette for other columns.
    size
        Area of a point in square points; by number of samples by default.
    ax
        Axes to draw on, one per panel with ``groupby``; a new figure by default.

    Returns
    -------
    The axes; with ``groupby`` a dict of them by group, in the order of drawing.

    Raises
    ------
    KeyError
        The subject table, ``color_by`` or ``groupby`` is absent.
    TypeError
        ``ax`` is not what is drawn on.
    ValueError
        No sample has an age and a prediction, ``color_by`` has more values than there are colours, or ``groupby`` has
        several values in a sample or too many for panels.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=4, n_cells=5, n_genes=50)
    >>> adata.obs["agevi_predicted"] = adata.obs["age"] + 2  # stands for tl.predict_age(adata, model)
    >>> agevi.tl.aggregate_subjects(adata, subject_key="donor", age_key="age")
    >>> ax = agevi.pl.predicted_vs_actual(adata)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('Age (years)', 'Predicted age (years)')
    """
    table = _by_group(adata, groupby, key_added, roles)
    table = table[table["age"].notna() & table["predicted"].notna()].reset_index(drop=True)
    if table.empty:
        raise ValueError(
            f"no sample{f' of roles={roles!r}' if roles else ''} has an age and a prediction, so nothing can be drawn. "
            "Pass age_key to agevi.tl.aggregate_subjects."
        )
    announce(adata, get.subjects_df(adata, key_added=key_added), _keys.Keys(key_added), roles)
    groups = _groups(adata, table, color_by, key_added)
    order = _base.in_order(groups)
    if len(order) > MAX_GROUPS:
        raise ValueError(
            f"color_by={color_by!r} has {len(order)} values; at most {MAX_GROUPS} colours can be told apart."
        )
    column = _keys.Keys(key_added).role if color_by == "role" else color_by
    colors = _base.group_colors(adata, column, order, palette)
    limits = _base.margins(table[["age", "predicted"]].to_numpy())
    unit = _base.age_unit(adata, key_added)
    if groupby is None:
        ax = _base.axes(ax)
        _draw(ax, table, groups, colors, limits, unit, size or _base.point_size(len(table)))
        _write_accuracy(ax, _accuracy(_judged(table), unit))
        _base.legend(ax, loc="upper left", handlelength=1.3, handletextpad=0.5, borderaxespad=0.2)
        return ax
    drawn = panels(_base.in_order(table[PANEL]), f"groupby={groupby!r}", n_cols=n_cols, ax=ax)
    size = size or 0.6 * _base.point_size(int(table[PANEL].value_counts().max()))
    for name, panel in drawn.items():
        rows = (table[PANEL] == name).to_numpy()
        _draw(panel, table[rows], groups[rows], colors, limits, unit, size)
        _write_accuracy(panel, _accuracy_of_panel(_judged(table[rows]), unit))
        panel.set_title(name or "not named", fontsize="medium")
    if len(order) > 1:
        _add_key(next(iter(drawn.values())), colors)
    if ax is None:
        label_outer(list(drawn.values()), min(n_cols, len(drawn)))
    return drawn


def _by_group(adata: AnnData, groupby: str | None, key_added: str, roles: str | Sequence[str] | None) -> pd.DataFrame:
    """One row per sample, or per sample and panel."""
    table = get.subjects_df(adata, key_added=key_added, roles=roles)
    if groupby is None:
        return table
    keys = _keys.Keys(key_added)
    by_group = adata.uns.get(keys.table("by_group"))
    if by_group is not None and adata.uns.get(keys.uns, {}).get("params", {}).get("groupby") == groupby:
        table = by_group.rename(columns={"group": PANEL}).assign(role=_keys.OUT_OF_FOLD)
        return table if roles is None or _keys.OUT_OF_FOLD in roles else table[:0]
    values = sample_values(adata, table.set_index("sample"), groupby, "groupby", keys=keys)
    text = values.astype(object).where(values.notna(), "").astype(str).to_numpy(dtype=object)
    if not isinstance(values.dtype, pd.CategoricalDtype):
        return table.assign(**{PANEL: text})
    names = [str(c) for c in values.cat.categories]
    return table.assign(**{PANEL: pd.Categorical(text, [*names, *({""} - set(names) if values.isna().any() else ())])})


def _draw(
    ax: Axes,
    table: pd.DataFrame,
    groups: pd.Series,
    colors: Mapping[str, Any],
    limits: tuple[float, float],
    unit: str,
    size: float,
) -> None:
    """Points, identity and fit of one panel."""
    ax.axline((limits[0], limits[0]), slope=1, color=_base.LINE_COLOR, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for i, (group, color) in enumerate(colors.items()):
        part = table[(groups == group).to_numpy()]
        if part.empty:
            continue
        ax.scatter(
            part["age"], part["predicted"], s=size, color=color,
            alpha=0.5 if group == _keys.TRAIN else 0.9, edgecolor="white", linewidth=0.4,
            label=f"{group or 'role not recorded'} ({len(part)})", zorder=2 + i,
        )  # fmt: skip
    _draw_fit(ax, _judged(table))
    ax.set(xlim=limits, ylim=limits, xlabel=f"Age ({unit})", ylabel=f"Predicted age ({unit})", aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    _base.tidy(ax)


def _add_key(ax: Axes, colors: Mapping[str, Any]) -> None:
    """What the colours mean, in the first panel for all of them."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker="o", color=color, markersize=5, label=group or "role not recorded")
        for group, color in colors.items()
    ]
    _base.legend(ax, handles=handles, loc="upper left", handletextpad=0.2, borderaxespad=0.2)


def _groups(adata: AnnData, table: pd.DataFrame, color_by: str, key_added: str) -> pd.Series:
    """Group of every sample."""
    if color_by in table:
        return table[color_by].astype(str)
    sample_key = adata.uns.get(key_added, {}).get("sample_key")
    if color_by not in adata.obs or sample_key not in adata.obs:
        raise KeyError(
            f"color_by={color_by!r} is neither a column of the subject table ({_checks.listed(table, 9)}) nor one of "
            "adata.obs with samples that are known."
        )
    pairs = pd.DataFrame({"sample": adata.obs[sample_key].astype(str), "group": adata.obs[color_by].astype(str)})
    most = pairs.value_counts(sort=True).reset_index().drop_duplicates("sample").set_index("sample")["group"]
    groups = most.loc[table["sample"]].set_axis(table.index)
    values = adata.obs[color_by]
    return (
        groups.astype(pd.CategoricalDtype([str(c) for c in values.cat.categories]))
        if hasattr(values, "cat")
        else groups
    )


def _judged(table: pd.DataFrame) -> pd.DataFrame:
    """The samples whose accuracy counts: held-out ones, or all where none is."""
    held_out = table[table["role"].isin(_keys.HELD_OUT_ROLES)]
    return table if held_out.empty else held_out


def _draw_fit(ax: Axes, table: pd.DataFrame) -> None:
    """Least-squares line over the range of ages that it was fitted to."""
    if table["age"].nunique() < 2:
        return
    fit = metrics.slope_intercept(table["age"].to_numpy(), table["predicted"].to_numpy())
    x = np.array([table["age"].min(), table["age"].max()])
    of = " and ".join(_base.in_order(table["role"])) if table["role"].isin(_keys.HELD_OUT_ROLES).all() else "all"
    label = f"fit to {of}: slope {fit.slope:.2f}"
    ax.plot(x, fit.intercept + fit.slope * x, color=_base.LINE_COLOR, linewidth=1.6, zorder=9, label=label)


def _write_accuracy(ax: Axes, lines: Sequence[str]) -> None:
    """Accuracy in the corner where predictions are rare."""
    ax.text(
        0.98, 0.02, "\n".join(lines), transform=ax.transAxes, ha="right", va="bottom", fontsize="small", zorder=10,
        bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 2},
    )  # fmt: skip


def _accuracy(judged: pd.DataFrame, unit: str) -> list[str]:
    """MAE and r, a line for every role."""
    lines = []
    for role in _base.in_order(judged["role"]):
        part = judged[judged["role"] == role]
        found = "too few to judge" if len(part) < 2 else ", ".join(_errors(part, unit))
        lines.append(f"{role or 'all'} (n = {len(part)}): {found}")
    return lines


def _accuracy_of_panel(judged: pd.DataFrame, unit: str) -> list[str]:
    """The same over all roles in narrow lines, with the slope, which no legend tells there."""
    lines = [f"{' and '.join(role or 'all' for role in _base.in_order(judged['role']))} (n = {len(judged)})"]
    if len(judged) < 2:
        return [*lines, "too few to judge"]
    lines += _errors(judged, unit)
    if judged["age"].nunique() > 1:
        fit = metrics.slope_intercept(judged["age"].to_numpy(), judged["predicted"].to_numpy())
        lines.append(f"slope {fit.slope:.2f}")
    return lines


def _errors(part: pd.DataFrame, unit: str) -> list[str]:
    """MAE and r of some samples."""
    age, predicted = part["age"].to_numpy(), part["predicted"].to_numpy()
    r = metrics.pearson(age, predicted)
    return [f"MAE {metrics.mae(age, predicted):.2f} {unit}", f"r {'undefined' if np.isnan(r) else f'{r:.2f}'}"]
