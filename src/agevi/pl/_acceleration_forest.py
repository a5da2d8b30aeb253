"""Differences between groups at equal age, for all cells and for each type of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from agevi import _keys
from agevi.pl import _base
from agevi.pl._acceleration import colors_of, differences, estimate_text
from agevi.pl._figure import figure
from agevi.tl.predict._evaluate_by import OVERALL

STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
_ROW, _GAP = 0.24, 0.35  # inches of a row, and rows between types of several groups


@figure
def acceleration_forest(
    adata: AnnData,
    *,
    palette: Mapping[str, str] | Sequence[str] | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    ax: Axes | None = None,
) -> Axes:
    """Difference in predicted age at equal age of every type of cells, with its interval, in the unit of age.

    The first row is that of all cells, the others those of ``tl.age_acceleration(by=...)``, each by its own
    predictions. Beside each row stand the estimate, its interval, the numbers of samples of the group and of the
    reference, and stars for ``p_adjusted``. Open circles are rows with the flag ``no_age_signal``, which say nothing
    about ageing.

    Parameters
    ----------
    %(after_acceleration)s
    palette
        Colour by group, or colours in order; ``adata.uns[f"{groupby}_colors"]`` by default.
    %(drawn)s

    Raises
    ------
    KeyError
        :func:`agevi.tl.age_acceleration` was not run.
    ValueError
        There are more groups than colours that can be told apart.

    Examples
    --------
    %(example_groups)s
    >>> agevi.tl.age_acceleration(adata, groupby="condition", reference="control", by="sex", n_permutations=0)
    >>> [label.get_text() for label in agevi.pl.acceleration_forest(adata).get_yticklabels()]
    ['overall', 'female', 'male']
    """
    rows, params = differences(adata, key_added)
    groupby, unit = str(params["groupby"]), str(params["age_unit"])
    groups, types = (list(dict.fromkeys(rows[name])) for name in ("group", "type"))
    _base.check_groups(groups, "groupby", groupby)
    colors = colors_of(adata, groupby, [str(params["reference"])], groups, palette)
    at = _places(rows, types, groups)
    ax = _base.axes(ax, 2.8, max(1.0, _ROW * (at.max() + 1)))
    ax.set_ylim(at.max() + 0.7, -0.7)
    for row, y in zip(rows.to_dict("records"), at, strict=True):
        _draw(ax, row, y, colors[row["group"]])
    ax.axvline(0, color=_base.LINE_COLOR, linewidth=0.8, zorder=0)
    middle = [at[(rows["type"] == name).to_numpy()].mean() for name in types]
    fontsize = _base.letters(_base.inches(ax)[1] / (at.max() + 1.4))
    ax.set_yticks(middle, _base.shortened(types, 34), fontsize=fontsize)
    if len(types) > 1:
        below = at[(rows["type"] == types[1]).to_numpy()].min()
        ax.axhline((at[len(groups) - 1] + below) / 2, color="#b0b0b0", linewidth=0.8)
    _numbers(ax, rows, at, fontsize)
    ax.set_xlabel(f"Difference from {_base.shortened([params['reference']])[0]}\nat equal age ({unit})")
    names = _base.shortened(groups)
    if len(groups) > 1:
        handles = [_base.marker(name, colors[group], "s") for group, name in zip(groups, names, strict=True)]
        _base.legend(ax, handles=handles, title=_base.shortened([groupby])[0], above=True)
    else:
        _base.title(ax, names[0])
    _explain(ax, rows, params)
    return ax


def stars(p: float) -> str:
    """Stars of a p value, none from 0.05."""
    return next((text for limit, text in STARS if p < limit), "")


def _places(rows: pd.DataFrame, types: list[str], groups: list[str]) -> np.ndarray:
    """Vertical place of every row, (n_rows,), with a gap between types where they have several groups."""
    gap = _GAP if len(groups) > 1 else 0.0
    number = rows["type"].map({name: i for i, name in enumerate(types)}).to_numpy(dtype=np.float64)
    of_overall = np.where(number > 0, 0.4, 0.0)  # room for the line below the first row
    return np.arange(len(rows)) + gap * number + of_overall


def _draw(ax: Axes, row: Mapping[Any, Any], y: float, color: Any) -> None:
    """Estimate and interval of one row."""
    if np.isnan(row["difference"]):
        return
    ax.plot([row["low"], row["high"]], [y, y], color=color, linewidth=1.6, solid_capstyle="butt", zorder=2)
    face = "white" if "no_age_signal" in row["flags"].split(";") else color
    marker = "D" if row["type"] == OVERALL else "o"
    ax.plot([row["difference"]], [y], marker, color=color, markerfacecolor=face, markersize=5.5, zorder=3)


def _numbers(ax: Axes, rows: pd.DataFrame, at: np.ndarray, fontsize: float) -> None:
    """Estimate, stars and numbers of samples beside every row."""
    look: dict[str, Any] = {"fontsize": fontsize, "va": "center", "annotation_clip": False}
    placed = []
    for row, y in zip(rows.to_dict("records"), at, strict=True):
        text = f"{estimate_text(row)} {stars(row['p_adjusted'])}".rstrip()
        placed.append(ax.annotate(text, (1.03, y), xycoords=ax.get_yaxis_transform(), **look))
    right = max(text.get_window_extent().x1 for text in placed)
    x = ax.transAxes.inverted().transform((right, 0))[0] + 0.05
    for row, y in zip(rows.to_dict("records"), at, strict=True):
        ax.annotate(f"{row['n']} / {row['n_reference']}", (x, y), xycoords=ax.get_yaxis_transform(), **look)
    ax.annotate("n", (x, -0.85), xycoords=ax.get_yaxis_transform(), **{**look, "va": "bottom"})


def _explain(ax: Axes, rows: pd.DataFrame, params: Mapping[str, Any]) -> None:
    """What bars, stars and open circles are, below the axes."""
    lines = [f"On the clock's scale, {100 * params['level']:g} % intervals; n: group / reference"]
    n = int((rows["type"] != OVERALL).sum())
    if (rows["p_adjusted"] < STARS[-1][0]).any():
        family = f", types corrected for {n} comparisons" if n > 1 else ""
        lines.append(f"* p < 0.05, ** p < 0.01, *** p < 0.001{family}")
        if n > 1:
            lines.append("(Benjamini and Hochberg)")
    if rows["flags"].str.contains("no_age_signal").any():
        lines.append("open: no age signal, says nothing about ageing")
    label = ax.xaxis.label
    label_height = label.get_text().count("\n") + 1
    size = float(mpl.rcParams["font.size"])
    ax.annotate(
        "\n".join(lines), (0, 0), (0, -(2.6 + 1.3 * label_height) * size), "axes fraction", "offset points",
        fontsize="small", va="top", annotation_clip=False,
    )  # fmt: skip
