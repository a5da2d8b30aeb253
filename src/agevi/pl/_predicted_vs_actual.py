"""Predicted against actual age."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from agevi import _checks, _keys, get, metrics
from agevi.pl import _base

MAX_GROUPS = 20


def predicted_vs_actual(
    adata: AnnData,
    *,
    key_added: str = _keys.DEFAULT_KEY,
    roles: str | Sequence[str] | None = None,
    color_by: str = "role",
    palette: Mapping[str, str] | Sequence[str] | None = None,
    size: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Predicted against actual age of every sample, in the unit of the age column.

    One point is one sample, never a cell. The dashed line is where predictions are exact, the solid one the
    least-squares fit; both the fit and the printed accuracy are of the held-out samples (roles test, out_of_fold, new) and
    fall back on all samples where none is held out. Training samples lie close to the line in any large model.

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
    palette
        Colour by group, or colours in the order of the groups. Default: ``adata.uns[f"{color_by}_colors"]``, else fixed
        colours for roles and scanpy's palette for other columns.
    size
        Area of a point in square points; by number of samples by default.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        The subject table or ``color_by`` is absent.
    ValueError
        No sample has an age and a prediction, or ``color_by`` has more values than there are colours.

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
    table = get.subjects_df(adata, key_added=key_added, roles=roles)
    table = table[table["age"].notna() & table["predicted"].notna()]
    if table.empty:
        raise ValueError(
            f"no sample{f' of roles={roles!r}' if roles else ''} has an age and a prediction, so nothing can be drawn. "
            "Pass age_key to agevi.tl.aggregate_subjects."
        )
    groups = _groups(adata, table, color_by, key_added)
    order = _base.in_order(groups)
    if len(order) > MAX_GROUPS:
        raise ValueError(
            f"color_by={color_by!r} has {len(order)} values; at most {MAX_GROUPS} colours can be told apart."
        )
    column = _keys.Keys(key_added).role if color_by == "role" else color_by
    colors = _base.group_colors(adata, column, order, palette)
    unit = _base.age_unit(adata, key_added)
    ax = _base.axes(ax)
    limits = _base.margins(table[["age", "predicted"]].to_numpy())
    ax.axline((limits[0], limits[0]), slope=1, color=_base.LINE_COLOR, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for i, group in enumerate(order):
        part = table[(groups == group).to_numpy()]
        ax.scatter(
            part["age"], part["predicted"], s=size or _size(len(table)), color=colors[group],
            alpha=0.5 if group == _keys.TRAIN else 0.9, edgecolor="white", linewidth=0.4,
            label=f"{group or 'role not recorded'} ({len(part)})", zorder=2 + i,
        )  # fmt: skip
    _draw_fit(ax, _judged(table))
    _write_accuracy(ax, table, unit)
    ax.set(xlim=limits, ylim=limits, xlabel=f"Age ({unit})", ylabel=f"Predicted age ({unit})", aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    _base.tidy(ax)
    _base.legend(ax, loc="upper left", handlelength=1.3, handletextpad=0.5, borderaxespad=0.2)
    return ax


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


def _write_accuracy(ax: Axes, table: pd.DataFrame, unit: str) -> None:
    """MAE and r of every judged role, in the corner where predictions are rare."""
    lines = []
    judged = _judged(table)
    for role in _base.in_order(judged["role"]):
        part = judged[judged["role"] == role]
        name = f"{role or 'all'} (n = {len(part)})"
        if len(part) < 2:
            lines.append(f"{name}: too few to judge")
            continue
        age, predicted = part["age"].to_numpy(), part["predicted"].to_numpy()
        r = metrics.pearson(age, predicted)
        lines.append(
            f"{name}: MAE {metrics.mae(age, predicted):.2f} {unit}, r {'undefined' if np.isnan(r) else f'{r:.2f}'}"
        )
    ax.text(
        0.98, 0.02, "\n".join(lines), transform=ax.transAxes, ha="right", va="bottom", fontsize="small", zorder=10,
        bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 2},
    )  # fmt: skip


def _size(n: int) -> float:
    """Area of a point that keeps ``n`` of them apart."""
    return float(np.clip(1500 / n, 12, 50))
