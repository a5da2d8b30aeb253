"""Predicted age against age in groups, with the parallel lines of the comparison and the shift between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.polynomial import Polynomial

from agevi import _checks, _keys, get
from agevi.pl import _base
from agevi.pl._figure import figure
from agevi.tl.acceleration._design import CUBIC, MANY_SUBJECTS
from agevi.tl.predict._evaluate_by import OVERALL

FLAGS = {
    "no_age_signal": "no age signal: says nothing",
    "weak_age_signal": "weak age signal",
    "ages_do_not_overlap": "ages do not overlap",
    "confounded": "confounded",
    "few_subjects": "few subjects",
}
"""What a figure says of a flag."""
_NO_SHIFT = "no comparison"


@figure
def acceleration(
    adata: AnnData,
    *,
    of_type: str = OVERALL,
    palette: Mapping[str, str] | Sequence[str] | None = None,
    size: float | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    ax: Axes | None = None,
) -> Axes:
    """Predicted age of every sample against age, and the difference between groups at equal age, in the unit of age.

    Points are samples, never cells. The lines of the groups are parallel, as in the test, and a bar at the mean age of
    a group shows its difference from the reference, which the legend gives with interval, p and the number of samples.
    Where the comparison was adjusted for covariates, the bar is the adjusted difference, and points are as they were
    predicted. After ``paired=True`` grey lines join the samples of a subject.

    Parameters
    ----------
    %(after_acceleration)s
    of_type
        Rows of the table: ``"overall"``, or a type of ``tl.age_acceleration(by=...)``.
    palette
        Colour by group, or colours in order, the reference first; ``adata.uns[f"{groupby}_colors"]`` by default.
    %(size)s
    %(drawn)s

    Raises
    ------
    KeyError
        :func:`agevi.tl.age_acceleration` was not run.
    ValueError
        The type is unknown, or there are more groups than colours that can be told apart.

    Examples
    --------
    %(example_groups)s
    >>> agevi.tl.age_acceleration(adata, groupby="condition", reference="control", n_permutations=0)
    >>> agevi.pl.acceleration(adata).get_ylabel()
    'Predicted age (years)'
    """
    rows, params = differences(adata, key_added)
    samples = get.acceleration_df(adata, "samples", key_added=key_added)
    types = list(dict.fromkeys(rows["type"]))
    if of_type not in types:
        hint = _checks.closest(of_type, types)
        raise ValueError(f"of_type={of_type!r} was not compared{hint}. Available: {_checks.listed(types, 9)}.")
    rows, samples = rows[rows["type"] == of_type], samples[samples["type"] == of_type]
    reference, groupby = str(params["reference"]), str(params["groupby"])
    groups = [reference, *rows["group"]]
    _base.check_groups(groups, "groupby", groupby)
    colors = _base.group_colors(adata, groupby, groups, palette)
    ax = _base.axes(ax, 4.2, 3.6)
    line = _reference_line(samples, rows, str(params["age_df"]))
    if params["paired"]:
        for _, visits in samples.sort_values("age").groupby("subject", sort=True):
            ax.plot(visits["age"], visits["predicted"], color="#b0b0b0", linewidth=0.7, zorder=1)
    handles = []
    for group, name in zip(groups, _base.shortened(groups), strict=True):
        own = samples[samples["group"] == group]
        row = None if group == reference else rows[rows["group"] == group].iloc[0].to_dict()
        _draw(ax, own, line, row, colors[group], size or _base.point_size(len(samples)))
        handles.append(_base.marker(_label(name, own, row, str(params["age_unit"])), colors[group]))
    ax.set(xlabel=f"Age ({params['age_unit']})", ylabel=f"Predicted age ({params['age_unit']})")
    if of_type != OVERALL:
        _base.title(ax, _base.shortened([of_type])[0])
    title = _base.shortened([groupby], _base.NAME_WIDTH)[0]
    _base.legend(ax, handles=handles, title=title, labelspacing=0.8, note="\n" + note(params))
    return ax


def differences(adata: AnnData, key_added: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rows of the comparison, groups of each type in the order of drawing, and its arguments."""
    rows = get.acceleration_df(adata, "groups", key_added=key_added)
    params = _base.params_of(adata, "acceleration", key_added)
    return rows.assign(degree=params.get("degree", 0)), params  # older tables do not tell it


def colors_of(
    adata: AnnData, groupby: str, reference: Sequence[str], groups: Sequence[str], palette: Any
) -> dict[Any, Any]:
    """Colours of groups, the same whether or not the figure draws the reference as one of them."""
    return _base.group_colors(adata, groupby, [*reference, *groups] if palette is None else groups, palette)


def estimate_text(row: Mapping[Any, Any], unit: str = "") -> str:
    """A difference with its interval, such as "+3.5 [1.2, 5.8]"."""
    if np.isnan(row["difference"]):
        return _NO_SHIFT
    digits = 1 if row["se"] >= 0.2 else 2  # years or months against days
    text = f"{row['difference']:+.{digits}f}{unit and ' '}{unit} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
    return text.replace("-", "\N{MINUS SIGN}")


def p_value(p: float) -> str:
    """A p value with as many digits as a paper prints."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"


def flags_of(row: Mapping[Any, Any]) -> list[str]:
    """Flags of a row in words."""
    return [FLAGS.get(flag, flag.replace("_", " ")) for flag in str(row["flags"]).split(";") if flag]


def note(params: Mapping[str, Any]) -> str:
    """What the estimates are, in short lines."""
    lines = ["Difference at equal age, on the", f"clock's scale, with {100 * params['level']:g} % interval"]
    adjusted = [str(name) for name in np.atleast_1d(params["covariates"]) if str(name)]
    if params.get("composition_key"):
        adjusted.append(f"share of each {params['composition_key']}")
    if adjusted:
        lines += _base.wrapped([f"adjusted for {', '.join(adjusted)}"])
    if params["paired"]:
        lines.append("Grey lines join a subject's samples")
    return "\n".join(lines)


def _label(name: str, own: pd.DataFrame, row: Mapping[Any, Any] | None, unit: str) -> str:
    """Name of a group with its number of samples, its difference and what limits it."""
    n, n_subjects = len(own), own["subject"].nunique()
    size = f"n = {n}" if n == n_subjects else f"n = {n} of {n_subjects} subjects"
    if row is None:
        return f"{name}\nreference, {size}"
    lines = [name, size, estimate_text(row, unit)]
    if not np.isnan(row["p"]):
        lines.append(p_value(row["p"]))
    return "\n".join(lines + flags_of(row))


def _reference_line(samples: pd.DataFrame, rows: pd.DataFrame, age_df: str) -> Polynomial:
    """Predicted age of the reference at each age: the curve of the comparison, given its differences."""
    own = samples["group"].map(rows.set_index("group")["difference"])
    shift = own.where(samples["group"] != rows["reference"].iloc[0], 0.0).to_numpy(dtype=np.float64)
    used = samples[np.isfinite(shift)]
    degree = rows["degree"][rows["difference"].notna()].min() if rows["difference"].notna().any() else 0
    if not degree:
        many = age_df == "auto" and used.groupby("group")["subject"].nunique().min() >= MANY_SUBJECTS
        degree = CUBIC if many or age_df == str(CUBIC) else 1
    degree = min(int(degree), used["age"].nunique() - 1)
    return Polynomial.fit(used["age"].to_numpy(), used["predicted"].to_numpy() - shift[np.isfinite(shift)], degree)


def _draw(
    ax: Axes, own: pd.DataFrame, line: Polynomial, row: Mapping[Any, Any] | None, color: Any, size: float
) -> None:
    """Points and line of one group, and its distance from the reference."""
    x = own["age"].to_numpy(dtype=np.float64)
    ax.scatter(x, own["predicted"], s=size, color=color, alpha=0.8, edgecolor="white", linewidth=0.4, zorder=2)
    shift = 0.0 if row is None else row["difference"]
    if np.isnan(shift) or not len(x):
        return
    grid = np.linspace(x.min(), x.max(), 100)
    ax.plot(grid, line(grid) + shift, color=color, linewidth=1.8, zorder=3)
    if row is not None:
        ends = line(x.mean()) + np.array([0.0, shift])
        bar = Line2D([x.mean()] * 2, ends, color=color, linewidth=3.2, solid_capstyle="butt", zorder=4)
        ax.add_line(bar)
