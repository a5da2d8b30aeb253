"""What each type of cells adds to predicted ages: dots with intervals, or one stack per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from agevi import _checks, _keys, _names, get
from agevi.pl import _base
from agevi.pl._figure import figure
from agevi.tl.predict._evaluate_by import OVERALL

KINDS = ("dots", "stack")
QUANTITIES = {
    "size": "Mean absolute contribution ({unit})",
    "mean": "Mean contribution ({unit})",
    "share": "Share of the differences in predicted age",
    "slope": "Contribution per unit of age",
}
_ROW = 0.28  # inches of a row of dots
_MOST_PARTS = 12  # of a stack; the smallest are joined


@figure
def explanation(
    adata: AnnData,
    *,
    kind: Literal["dots", "stack"] = "dots",
    quantity: Literal["size", "mean", "share", "slope"] = "size",
    palette: Mapping[str, str] | Sequence[str] | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    ax: Axes | None = None,
) -> Axes:
    """What each type of cells, and the composition, add to predicted ages, in the unit of age.

    ``kind="dots"``: one row per part, the largest on top, with the interval over subjects, and one colour per group of
    ``tl.explain_age(groupby=...)``. ``kind="stack"``: one bar per sample, in the order of predicted age, in which the
    contributions stand on one another from 0, those that make the sample look older upwards and the others downwards;
    the line is their sum. Of more than twelve parts the smallest are joined.

    Parameters
    ----------
    %(after_explanation)s
    kind
        ``"dots"`` or ``"stack"``.
    quantity
        Of the dots: ``"size"``, the mean absolute contribution, ``"mean"``, with its sign, ``"share"`` of the
        differences between samples in predicted age, or ``"slope"``, how much of a year it follows a year of age.
    palette
        Colour by group (by part in a stack), or colours in their order.
    %(drawn)s

    Raises
    ------
    KeyError
        :func:`agevi.tl.explain_age` was not run.
    ValueError
        There are more groups than colours that can be told apart.

    Examples
    --------
    %(example_explanation)s
    >>> ax = agevi.pl.explanation(adata)
    >>> sorted(label.get_text() for label in ax.get_yticklabels()), ax.get_xlabel()
    (['type0', 'type1'], 'Mean absolute contribution (years)')
    >>> agevi.pl.explanation(adata, kind="stack").get_ylabel()
    'Contribution to the predicted age (years)'
    """
    _checks.choice(kind, KINDS, "kind")
    _checks.choice(quantity, tuple(QUANTITIES), "quantity")
    params = _base.params_of(adata, "explanation", key_added)
    if kind == "stack":
        return _stack(get.explanation_df(adata, "samples", key_added=key_added), params, palette, ax)
    rows = get.explanation_df(adata, key_added=key_added)
    return _dots(adata, rows[rows["part"] != _names.BASELINE], params, quantity, palette, ax)


def _dots(
    adata: AnnData, rows: pd.DataFrame, params: Mapping[str, Any], quantity: str, palette: Any, ax: Axes | None
) -> Axes:
    """One row per part, one colour per group."""
    groups = list(dict.fromkeys(rows["group"]))
    others = [name for name in groups if name != OVERALL]
    _base.check_groups(others, "groupby", params.get("groupby"))
    colors: dict[str, Any] = {OVERALL: _base.LINE_COLOR}
    if others:
        colors |= _base.group_colors(adata, str(params["groupby"]), others, palette)
    of_all = rows[rows["group"] == OVERALL].set_index("part")[quantity]
    parts = list(of_all.sort_values(ascending=False).index)
    ax = _base.axes(ax, 3.6, max(1.0, _ROW * len(parts) * max(1, 0.6 * len(groups))))
    step = 0.8 / max(len(groups), 1)
    for i, group in enumerate(groups):
        own = rows[rows["group"] == group].set_index("part").loc[parts]
        at = np.arange(len(parts)) + (i - (len(groups) - 1) / 2) * step
        ax.hlines(at, own[f"{quantity}_low"], own[f"{quantity}_high"], color=colors[group], linewidth=1.6)
        ax.plot(own[quantity], at, "o", color=colors[group], markersize=5.5)
    ax.axvline(0, color=_base.LINE_COLOR, linewidth=0.8, zorder=0)
    ax.set_ylim(len(parts) - 0.4, -0.6)
    _base.name_rows(ax, parts)
    ax.set_xlabel(QUANTITIES[quantity].format(unit=params["age_unit"]))
    if others:
        names = _base.shortened(groups)
        handles = [_base.marker(name, colors[group]) for name, group in zip(names, groups, strict=True)]
        _base.legend(ax, handles=handles, title=_base.shortened([params["groupby"]])[0])
    return ax


def _stack(rows: pd.DataFrame, params: Mapping[str, Any], palette: Any, ax: Axes | None) -> Axes:
    """One bar per sample."""
    wide = rows.pivot(index="sample", columns="part", values="contribution").drop(columns=_names.BASELINE).fillna(0.0)
    wide = wide.loc[wide.sum(axis=1).sort_values(kind="stable").index]
    parts = list(wide.abs().mean().sort_values(ascending=False).index)
    if len(parts) > _MOST_PARTS:
        small = parts[_MOST_PARTS - 1 :]
        rest = f"{len(small)} others"
        wide, parts = wide.assign(**{rest: wide[small].sum(axis=1)}), [*parts[: _MOST_PARTS - 1], rest]
        wide = wide[parts]
    colors = _base.group_colors(None, "", parts, palette)
    ax = _base.axes(ax, 5.0, 3.2)
    at, edges = np.arange(len(wide)), np.arange(len(wide) + 1) - 0.5
    above, below = np.zeros(len(wide)), np.zeros(len(wide))
    for part in parts:
        values = wide[part].to_numpy()
        base = np.where(values > 0, above, below)
        ax.stairs(base + values, edges, baseline=base, fill=True, color=colors[part], linewidth=0)
        above, below = above + np.maximum(values, 0), below + np.minimum(values, 0)
    ax.plot(at, wide.sum(axis=1), color="black", linewidth=1.2)
    ax.axhline(0, color=_base.LINE_COLOR, linewidth=0.8)
    ax.set_xlim(-0.5, len(wide) - 0.5)
    ax.set_xticks([])
    ax.set_xlabel(f"{len(wide):,} samples, by predicted age")
    ax.set_ylabel(f"Contribution to the predicted age ({params['age_unit']})")
    names = _base.shortened(parts)
    handles = [_base.marker(name, colors[part], "s") for name, part in zip(names, parts, strict=True)]
    _base.legend(ax, handles=handles)
    return ax
