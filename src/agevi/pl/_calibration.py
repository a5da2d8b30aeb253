"""Whether intervals hold: coverage over levels, and coverage and width in thirds of the samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from scipy import stats

from agevi import _keys, _subjects, get
from agevi.pl import _base
from agevi.pl._figure import figure
from agevi.tl.intervals._conformal import Calibration, needed
from agevi.tl.intervals._report import Labelled, cross_intervals

PANELS = ("levels", "coverage", "width")
LEVELS = np.round(np.arange(0.5, 0.96, 0.05), 2)
_COLOR, _TRIVIAL = "#1f77b4", "#a6a6a6"
_BAND = 0.95
_NAMED = {"predicted": "predicted age", "age": "actual age", "n_cells": "number of cells"}


@figure
def calibration(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY, ax: Any = None) -> Axes | dict[str, Axes]:
    """Share of ages inside their intervals against the level, and coverage and width in groups, in the unit of age.

    Every sample is judged by an interval to which its own subject did not contribute. The band around the diagonal
    holds 95 % of the coverages that so many subjects show by chance where the level is true. The other panels have the
    groups of :func:`agevi.get.calibration_df`: coverage with its 95 % interval and the level as a line, and the mean
    width beside that of intervals from the ages alone. By actual age the oldest are covered less, since predictions
    shrink.

    Parameters
    ----------
    %(after_calibration)s
    %(key_added)s
    ax
        One Axes, on which the levels alone are drawn, or three for all panels; a new figure of three by default.

    Returns
    -------
    A dict of the axes ``"levels"``, ``"coverage"`` and ``"width"``, or the one that was given.

    Raises
    ------
    KeyError
        :func:`agevi.tl.calibrate` was not run.
    ValueError
        The samples that calibrated are not in the subject table.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=30, n_cells=5, n_genes=50)
    >>> agevi.tl.cross_validate(adata, agevi.model.PLSClock, age_key="age", subject_key="donor")
    >>> agevi.tl.aggregate_subjects(adata)
    >>> agevi.tl.calibrate(adata)
    >>> list(agevi.pl.calibration(adata))
    ['levels', 'coverage', 'width']
    """
    keys = _keys.Keys(key_added)
    report = get.calibration_df(adata, key_added=key_added)
    whole = Calibration.from_dict(adata.uns[keys.calibration_params])
    table = _subjects.subject_table(adata, keys)
    rows = Labelled.of(table[_subjects.held_out(table)])
    if len(rows.age) != len(whole.scores):
        raise ValueError(
            f"adata.uns[{keys.subjects!r}] has {len(rows.age)} held-out samples with an age, and {len(whole.scores)} "
            "calibrated; run agevi.tl.calibrate again, or draw the data that it was run on."
        )
    if isinstance(ax, Axes):
        _levels(ax, rows, whole)
        return ax
    drawn = _base.panels(PANELS, "calibration", n_cols=len(PANELS), ax=ax, size=2.8)
    _levels(drawn["levels"], rows, whole)
    shown = report[report["groupby"].isin(["overall", *_NAMED])]
    _coverage(drawn["coverage"], shown, whole.level)
    _width(drawn["width"], shown, _base.age_unit(adata, key_added))
    return drawn


def _levels(ax: Axes, rows: Labelled, whole: Calibration) -> None:
    """Coverage of cross-calibrated intervals against their level."""
    n = len(set(rows.subject.tolist()))
    levels = np.array([level for level in LEVELS if needed(float(level)) < n])
    found = [_covered(rows, replace(whole, level=float(level))) for level in levels]
    fine = np.linspace(0.45, 0.99, 109)
    low, high = stats.binom.interval(_BAND, n, fine)
    ax.fill_between(fine, low / n, high / n, color=_base.LINE_COLOR, alpha=0.12, linewidth=0, label="by chance, 95 %")
    ax.plot(fine, fine, color=_base.LINE_COLOR, linewidth=1, linestyle=(0, (4, 3)))
    ax.plot(levels, found, color=_COLOR, marker="o", markersize=4.5, linewidth=1.4, label=f"{n} subjects")
    lowest = float(np.nanmin([*found, low[0] / n]))
    ax.set(xlim=(0.45, 1.0), ylim=(max(0.0, lowest - 0.03), 1.02), xlabel="Level", ylabel="Share of ages inside")
    _base.legend(ax, above=True, ncols=2, columnspacing=1.0)


def _covered(rows: Labelled, whole: Calibration) -> float:
    """Share of ages inside, NaN where too few subjects are left."""
    lower, upper = cross_intervals(rows, whole)
    known = np.isfinite(lower)
    inside = (lower <= rows.age) & (rows.age <= upper)
    return float(inside[known].mean()) if known.any() else float("nan")


def _places(report: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Row of every group from above, with room between the columns, and their names."""
    gap = (report["groupby"] != report["groupby"].shift()).cumsum().to_numpy() - 1
    names = [
        "all" if by == "overall" else f"{_NAMED[by]}: {group}"
        for by, group in zip(report["groupby"], report["group"].astype(str), strict=True)
    ]
    return np.arange(len(report)) + 0.5 * gap, names


def _rows(ax: Axes, at: np.ndarray, names: list[str]) -> None:
    """Name rows from above."""
    ax.set_yticks(at, _base.shortened(names, 34), fontsize="small")
    ax.set_ylim(at[-1] + 0.6, -0.6)


def _coverage(ax: Axes, report: pd.DataFrame, level: float) -> None:
    """Coverage of every group with its interval."""
    at, names = _places(report)
    ax.axvline(level, color=_base.LINE_COLOR, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ax.hlines(at, report["coverage_low"], report["coverage_high"], color=_COLOR, linewidth=1.4)
    ax.plot(report["coverage"], at, color=_COLOR, marker="o", markersize=5, linewidth=0)
    ax.set(xlabel="Share of ages inside", xlim=(np.nanmin([0.72, *report["coverage_low"]]) - 0.02, 1.01))
    _rows(ax, at, names)


def _width(ax: Axes, report: pd.DataFrame, unit: str) -> None:
    """Mean width of every group beside that of intervals from the ages alone."""
    at, names = _places(report)
    ax.plot(
        report["width_trivial"], at, color=_TRIVIAL, marker="D", markersize=4.5, linewidth=0, label="of the ages alone"
    )
    ax.plot(report["width"], at, color=_COLOR, marker="o", markersize=5, linewidth=0, label="of the clock")
    ax.set(xlabel=f"Mean width ({unit})", xlim=(0, 1.06 * np.nanmax(report[["width", "width_trivial"]])))
    _base.legend(ax, above=True, ncols=2, columnspacing=1.0)
    _rows(ax, at, names)
    ax.tick_params(labelleft=False)
