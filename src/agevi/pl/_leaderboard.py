"""Errors of compared models with their intervals."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from agevi import _keys, get
from agevi.pl import _base
from agevi.pl._figure import figure

KINDS = {"network": "#1f77b4", "linear": "#ff7f0e", "no genes": "#a6a6a6"}
"""Colour by kind of model, from scanpy's default palette."""
_MEDIAN = "median age"


@figure
def leaderboard(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY, ax: Axes | None = None) -> Axes:
    """Mean absolute error of every compared model with its 95 % interval, in the unit of the age column.

    The best model is on top; with ``cohort_key`` of :func:`agevi.tl.compare_models` it is the best where whole cohorts
    were held out, whose errors are open squares. The dashed line is the error of predicting the median age for
    everyone: a model whose interval reaches it has shown nothing. An open diamond is the same model on ages that were
    shuffled between subjects, which nobody can predict: as far from the line as its error is from that of the median of
    the shuffled ages, with two standard errors. To the left of the line by more than that is a leak. Intervals of two
    models overlap more than the interval of their difference suggests, since both are judged on the same samples; see
    the column ``difference`` of :func:`agevi.get.leaderboard_df`.

    Parameters
    ----------
    %(after_leaderboard)s
    %(drawn)s

    Raises
    ------
    KeyError
        :func:`agevi.tl.compare_models` was not run.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=10, n_genes=30)
    >>> agevi.tl.compare_models(adata, [], age_key="age", subject_key="donor", n_folds=3)
    >>> ax = agevi.pl.leaderboard(adata)
    >>> ax.get_xlabel()
    'Mean absolute error (years)'
    """
    table = get.leaderboard_df(adata, key_added=key_added)
    ax = _base.axes(ax, 3.6, 0.36 * len(table))
    table = table.assign(y=range(len(table)), kind=[_kind(row) for _, row in table.iterrows()])
    done = table[table["mae"].notna()].copy()
    edge = _edge(done)
    beyond = done[done["mae"] > edge]
    done[["mae", "mae_low", "mae_high"]] = done[["mae", "mae_low", "mae_high"]].clip(upper=edge)
    for kind, color in KINDS.items():
        part = done[done["kind"] == kind]
        if len(part):
            reach: Any = np.stack([part["mae"] - part["mae_low"], part["mae_high"] - part["mae"]])
            _points(ax, part["mae"], part["y"], reach, color=color, label=kind, zorder=3)
    elsewhere = done[done["mae_cohorts"].notna()] if "mae_cohorts" in done else done[:0]
    if len(elsewhere):
        columns = ["mae_cohorts", "mae_cohorts_low", "mae_cohorts_high"]
        x, low, high = (elsewhere[column].clip(upper=edge) for column in columns)
        _points(
            ax, x, elsewhere["y"] + 0.25, np.stack([x - low, high - x]), color=_base.LINE_COLOR,
            label="whole cohorts held out", zorder=3, fmt="s", markerfacecolor="white", markersize=5,
            elinewidth=0.8, markeredgewidth=0.9,
        )  # fmt: skip
    median = done.loc[done["model"] == _MEDIAN, "mae"]
    if len(median):
        ax.axvline(median.iloc[0], color=_base.LINE_COLOR, linewidth=1, linestyle=(0, (4, 3)), zorder=1, label=_MEDIAN)
        null = done[done["null_gain"].notna()]
        _points(
            ax, median.iloc[0] - null["null_gain"], null["y"], 2 * null["null_se"].fillna(0).to_numpy(),
            color=_base.LINE_COLOR, label="shuffled ages", zorder=2, fmt="D", markerfacecolor="white", markersize=5,
            elinewidth=0.8, markeredgewidth=0.9,
        )  # fmt: skip
    if len(beyond):
        at_edge = np.full(len(beyond), edge)
        ax.plot(at_edge, beyond["y"], ">", color=_base.LINE_COLOR, markersize=7, zorder=4, label="beyond the axis")
    far = beyond["mae"].map(": {:,.0f}".format).astype(object).reindex(table.index, fill_value="")
    names = pd.Series(_base.shortened(table["model"]), index=table.index, dtype=object) + far
    failed = table[table["mae"].isna()]
    for _, row in failed.iterrows():
        reason = re.search(r"\w+(?=: )", re.sub(r"^fold .*?: ", "", row["error"]))
        ax.text(
            0.02, row["y"], f"failed: {reason[0] if reason else 'see the table'}", transform=ax.get_yaxis_transform(),
            va="center", fontsize="small", color=_base.LINE_COLOR,
        )  # fmt: skip
    unit = _base.unit_of(_base.params_of(adata, "leaderboard", key_added))
    ax.set_xlabel(f"Mean absolute error ({unit})")
    _base.name_rows(ax, names)
    _base.legend(ax)
    return ax


def _edge(done: pd.DataFrame) -> float:
    """Error at which models that have gone astray are drawn, so that they do not squeeze the others."""
    baseline = done.loc[done["model"] == _MEDIAN, "mae"].max()
    sound = done.loc[done["mae"] <= 2 * np.fmax(baseline, done["mae"].median()), "mae_high"]
    return float(np.inf if len(sound) == len(done) else 1.05 * sound.max())


def _kind(row: pd.Series) -> str:
    """Kind of a model."""
    if row["model"] == _MEDIAN:
        return "no genes"
    return "linear" if row["linear"] else "network"


def _points(
    ax: Axes, x: pd.Series, y: pd.Series, reach: np.ndarray, *, label: str, fmt: str = "o", **style: Any
) -> None:
    """Points with intervals."""
    if len(x):
        ax.errorbar(x.to_numpy(), y.to_numpy(), xerr=reach, fmt=fmt, capsize=3, label=label, **style)
