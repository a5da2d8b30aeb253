"""Out-of-fold error against the number of subjects and of cells."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from agevi import _keys, get
from agevi.pl import _base
from agevi.pl._figure import figure
from agevi.tl.curves._curve_table import figures, shows_gain
from agevi.tl.curves._levels import CELLS, SUBJECTS
from agevi.tl.curves._power_law import PowerLaw

_COLORS = {SUBJECTS: "#1f77b4", CELLS: "#279e68"}
_LABELS = {SUBJECTS: "Training subjects", CELLS: "Cells per sample"}
_SIZE = 3.2  # inches of a panel
_CLOSE = 0.45  # inches below which the labels of two ticks touch


@figure
def learning_curve(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY, ax: Any = None) -> dict[str, Axes]:
    """Error of held-out samples against the number of training subjects and of cells per sample, in the unit of age.

    Points are mean absolute errors with 95 % intervals, the line is the fitted power law, dashed up to twice the data
    with the interval of the change shaded, and the grey line is the error of predicting the median age. Above each
    panel stands the change that twice the data would bring, with its interval. Both horizontal axes are logarithmic.

    Parameters
    ----------
    %(after_learning_curve)s
    %(key_added)s
    ax
        One Axes for each of ``"subjects"`` and ``"cells"``, in this order; new ones by default. Bulk data have no panel
        of cells.

    Returns
    -------
    The Axes by panel.

    Raises
    ------
    KeyError
        :func:`agevi.tl.learning_curve` was not run.
    TypeError, ValueError
        ``ax`` does not hold one Axes per panel.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=12, n_genes=60)
    >>> keys = {"age_key": "age", "subject_key": "donor"}
    >>> agevi.tl.learning_curve(adata, "PLSClock", **keys, n_subjects=[6], n_cells=[3, 6], n_folds=2, n_repeats=1)
    >>> list(agevi.pl.learning_curve(adata))
    ['subjects', 'cells']
    """
    table = get.learning_curve_df(adata, key_added=key_added)
    params = _base.params_of(adata, "learning_curve", key_added)
    axes = _base.panels(
        [axis for axis in _COLORS if (table["axis"] == axis).any()], "the table", n_cols=2, ax=ax, size=_SIZE
    )
    unit = _base.unit_of(params)
    limits, sentence = _limits(table), str(params["sentence"])
    note = sentence if sentence.startswith("No gain") else ""
    for i, (axis, panel) in enumerate(axes.items()):
        _draw(panel, table[table["axis"] == axis], params[axis], axis)
        panel.set(xlabel=_LABELS[axis], ylabel="" if i else f"Mean absolute error ({unit})", ylim=limits)
        if i and ax is None:
            panel.tick_params(labelleft=False)
        _base.title(panel, f"Twice the {axis}", ["no gain can be shown"] if note else _in_short(params[axis], unit))
    _base.legend(list(axes.values())[-1], note="\n".join(textwrap.wrap(note, 30)))
    return axes


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """From 0, so that a gain looks as large as it is, to above everything drawn."""
    top = float(np.nanmax(table[["mae", "mae_high", "mae_median", "fitted"]].to_numpy()))
    return 0.0, 1.08 * top


def _draw(ax: Axes, rows: pd.DataFrame, law: Mapping[str, Any], axis: str) -> None:
    """Points, baseline, law and its extrapolation."""
    n, value = rows["n"].to_numpy(dtype=np.float64), rows["mae"].to_numpy()
    ends = np.abs(rows[["mae_low", "mae_high"]].to_numpy().T - value)
    ax.set_xscale("log", base=2)
    ax.plot(n, rows["mae_median"], color="#a6a6a6", linewidth=1.4, label="median age", zorder=1)
    ax.errorbar(n, value, yerr=ends, fmt="o", color=_COLORS[axis], capsize=3, zorder=3)
    ax.plot([], [], "o", color=_base.LINE_COLOR, label="held out, 95 % interval")
    last = n.max()
    if np.isfinite(law["a"]):
        fit = PowerLaw(*(np.array([float(law[name])]) for name in "abc"))
        seen, beyond = np.geomspace(n.min(), last, 60), np.geomspace(last, 2 * last, 20)
        ax.plot(seen, fit.at(seen)[0], color=_base.LINE_COLOR, linewidth=1.4, label="power law", zorder=2)
        ax.plot(
            beyond, fit.at(beyond)[0], color=_base.LINE_COLOR, linewidth=1.4, linestyle=(0, (4, 3)), zorder=2,
            label="to twice the data",
        )  # fmt: skip
        ends = [np.array([0.0, law[f"change_{end}"]]) + fit.at(last)[0, 0] for end in ("low", "high")]
        ax.fill_between(
            [last, 2 * last], *ends, color=_base.LINE_COLOR, alpha=0.15, linewidth=0, label="its 95 % interval"
        )
    ax.set_xlim(n.min() / 1.15, (2 if np.isfinite(law["a"]) else 1) * last * 1.15)
    ticks = _ticks(ax, [*n, 2 * last] if np.isfinite(law["a"]) else list(n))
    ax.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    ax.minorticks_off()


def _ticks(ax: Axes, n: list[float]) -> list[float]:
    """The levels, from the largest, whose labels do not touch."""
    low, high = np.log2(ax.get_xlim())
    inch = _base.inches(ax)[0] / (high - low)
    out: list[float] = []
    for tick in sorted(set(n), reverse=True):
        if not out or (np.log2(out[-1]) - np.log2(tick)) * inch >= _CLOSE * _base.scale():
            out.append(tick)
    return out[::-1]


def _in_short(law: dict[str, Any], unit: str) -> list[str]:
    """The change with twice the data."""
    if not np.isfinite(law["change"]):
        return ["no gain can be shown", "(too few levels)"]
    return [figures(law, unit)] if shows_gain(law) else [figures(law, unit), "no gain can be shown"]
