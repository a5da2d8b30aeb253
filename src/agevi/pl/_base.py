"""What the figures share: axes and grids of panels, colours, units."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Text

from agevi import _checks, _keys, _names

ROLE_COLORS = {
    _keys.TRAIN: "#a6a6a6",
    _keys.VALIDATION: "#ff7f0e",
    _keys.TEST: "#1f77b4",
    _keys.OUT_OF_FOLD: "#279e68",
    _keys.NEW: "#aa40fc",
    _keys.RECALIBRATION: "#8c564b",
    "": "#1f77b4",
}
"""One colour per role in all figures, from scanpy's default palette, grey for what was fitted; "" means none."""
LINE_COLOR = "#404040"
NAME_WIDTH = 26  # letters of a line of a long name below an axis
MAX_PANELS = 30
_TITLE = 30  # letters of the name of a panel
MAX_GROUPS = 20  # colours that can be told apart
LETTER, LINE = 0.085, 0.17  # inches of a letter and of a line in the labels of ticks, at the default size of text


class Wording(NamedTuple):
    """Words for what a model predicts."""

    higher: str
    lower: str
    change: str


def wording(unit: str) -> Wording:
    """Words for higher and lower predictions and for their change, by the unit of ages or ``"log-odds"``."""
    if unit == "log-odds":
        return Wording("more like cases", "more like controls", "Change of the log-odds of being a case")
    return Wording("looks older", "looks younger", f"Change of predicted age ({unit})")


def scale() -> float:
    """Size of text relative to matplotlib's default; new figures grow with it."""
    return max(1.0, float(mpl.rcParams["font.size"]) / 10)


def axes(ax: Axes | None, width: float = 4.0, height: float = 4.0) -> Axes:
    """``ax``, or axes of a new figure with ``width`` by ``height`` inches for data, at the default size of text."""
    if ax is None:
        return new_axes(1, 1, width, height)[0, 0]
    if not isinstance(ax, Axes):
        raise TypeError(f"ax is a {type(ax).__name__}; pass one matplotlib Axes.")
    return ax


def new_axes(n_rows: int, n_cols: int, width: float, height: float, **arguments: Any) -> np.ndarray:
    """Axes of a new figure that they fill, (n_rows, n_cols); ``width`` and ``height`` of each in inches."""
    import matplotlib.pyplot as plt

    size = (scale() * width * n_cols, scale() * height * n_rows)
    figure, grid = plt.subplots(n_rows, n_cols, squeeze=False, figsize=size, layout="none", **arguments)
    figure.subplots_adjust(0, 0, 1, 1, 0, 0)
    return np.asarray(grid, dtype=object)


def check_groups(groups: Sized, argument: str, value: Any) -> None:
    """Refuse more groups than there are colours that can be told apart."""
    if len(groups) > MAX_GROUPS:
        raise ValueError(
            f"{argument}={value!r} has {len(groups)} values; at most {MAX_GROUPS} colours can be told apart."
        )


def group_colors(
    adata: AnnData | None, key: str, groups: Sequence[Any], palette: Mapping[str, str] | Sequence[str] | None = None
) -> dict[Any, Any]:
    """Colour of every group: that of ``palette``, else of ``uns[f"{key}_colors"]``, else of roles, else of scanpy."""
    if palette is not None and not isinstance(palette, Mapping):
        palette = dict(zip(groups, palette, strict=False))
    if palette is not None:
        palette = {_names.name(group): color for group, color in palette.items()}
        missing = [group for group in groups if group not in palette]
        if missing:
            raise ValueError(f"palette has no colour for {_checks.listed(missing)}; give one for each group.")
        return {group: palette[group] for group in groups}
    stored = _stored_colors(adata, key)
    if set(groups) <= set(stored):
        return {group: stored[group] for group in groups}
    if set(groups) <= set(ROLE_COLORS):
        return {group: ROLE_COLORS[group] for group in groups}
    from scanpy.plotting import palettes

    fitting = [p for p in (palettes.default_20, palettes.default_28, palettes.default_102) if len(p) >= len(groups)]
    cycle = fitting[0] if fitting else palettes.default_102
    return {group: cycle[i % len(cycle)] for i, group in enumerate(groups)}


def _stored_colors(adata: AnnData | None, key: str) -> dict[str, str]:
    """Colours that scanpy stored for the categories of a column, by category."""
    if adata is None or key not in adata.obs or not isinstance(adata.obs[key].dtype, pd.CategoricalDtype):
        return {}
    categories = _names.several(adata.obs[key].cat.categories)
    stored = [str(color) for color in adata.uns.get(f"{key}_colors", [])]
    return dict(zip(categories, stored, strict=True)) if len(stored) == len(categories) else {}


def age_unit(adata: AnnData, key_added: str = _keys.DEFAULT_KEY) -> str:
    """Unit of the ages that a clock predicted, years where it was not recorded."""
    return unit_of(adata.uns.get(key_added, {}))


def unit_of(record: Mapping[str, Any]) -> str:
    """Unit of the ages of a record, years where it has none."""
    return str(record.get("age_unit") or "years")


def params_of(adata: AnnData, noun: str, key_added: str) -> dict[str, Any]:
    """Parameters of the tool that left a table, empty where they were not kept."""
    return dict(adata.uns.get(_keys.Keys(key_added).table_params(noun), {}))


def inches(drawn: Axes | Text) -> tuple[float, float]:
    """Width and height of something drawn."""
    box, dpi = drawn.get_window_extent(), drawn.figure.canvas.figure.dpi
    return box.width / dpi, box.height / dpi


def letters(row: float) -> float:
    """Size of letters in points that fit into rows of some inches."""
    return min(8.3 * scale(), 72 * row / 1.25)


def in_order(values: pd.Series) -> list[str]:
    """Groups in the order of drawing: roles as they are listed everywhere, categories in theirs, others sorted."""
    present = set(_names.names(values).dropna())
    if present <= {"", *_keys.ROLES}:
        return [role for role in ("", *_keys.ROLES) if role in present]
    if isinstance(values.dtype, pd.CategoricalDtype):
        return _names.levels(values)
    return _names.in_order(present)


def margins(values: np.ndarray, share: float = 0.05) -> tuple[float, float]:
    """Limits of an axis around ``values``."""
    low, high = float(np.min(values)), float(np.max(values))
    pad = share * (high - low) or 1.0
    return low - pad, high + pad


def point_size(n: int) -> float:
    """Area of a point in square points that keeps ``n`` of them apart."""
    return float(np.clip(1500 / n, 12, 50))


def role_name(role: str) -> str:
    """A role in words; other names as they are."""
    return {"": "role not recorded", _keys.OUT_OF_FOLD: "out of fold"}.get(role, role)


def p_text(p: float, n_permutations: Any = None) -> str:
    """A p value in words, as an upper limit where no permutation reached what was seen."""
    floor = 0.0 if n_permutations is None else 1 / (1 + int(n_permutations))
    return f"p {'≤' if p <= floor * (1 + 1e-9) else '='} {p:.2g}"


def shortened(names: Iterable[Any], width: int = 34) -> list[str]:
    """Names of at most ``width`` letters with an ellipsis for what is left out, different where names are."""
    # The middle is left out, or, where that makes two names alike, what stands before their first difference.
    given = [str(name) for name in names]
    tail = (width - 1) // 3
    out = [name if len(name) <= width else _joined(name[: width - 1 - tail], name[-tail:]) for name in given]
    for short in {short for short in out if len({g for g, o in zip(given, out, strict=True) if o == short}) > 1}:
        alike = [i for i, found in enumerate(out) if found == short]
        start = len(os.path.commonprefix([given[i] for i in alike]))
        start = max(0, given[alike[0]].rfind(" ", 0, start) + 1, start - width // 2)
        for rank, i in enumerate(sorted(alike, key=given.__getitem__), 1):
            part = given[i][start:]
            out[i] = "…" + (part if len(part) < width else f"{part[: width - 8].rstrip()}… ({rank})")
    return out


def _joined(head: str, tail: str) -> str:
    """Two parts of a name, cut between words where one is near, with an ellipsis between them."""
    head, tail = head.rstrip(), tail.lstrip()
    left, right = head.rfind(" "), tail.find(" ")
    head = head[:left] if left > 0.7 * len(head) else head
    return f"{head}…{tail[right + 1 :] if 0 <= right < 0.3 * len(tail) else tail}"


def n_lines(names: Sequence[str]) -> int:
    """Most lines of a name."""
    return max(name.count("\n") for name in names) + 1


def wrapped(names: Sequence[str]) -> list[str]:
    """Names in a few lines, the longest of them shortened."""
    return [textwrap.fill(name, NAME_WIDTH) for name in shortened(names, 3 * NAME_WIDTH)]


def name_ticks(ax: Axes, at: np.ndarray, names: Sequence[str], gap: float) -> None:
    """Name places on the horizontal axis, upright where words do not fit into the least distance ``gap``."""
    low, high = ax.get_xlim()
    letter = LETTER * scale()
    room = inches(ax)[0] * gap / (high - low)
    width = max(1, int(room / letter))
    labels = [textwrap.fill(name, width, break_long_words=False) for name in shortened(names, 3 * NAME_WIDTH)]
    if max(len(line) for label in labels for line in label.split("\n")) <= width and n_lines(labels) <= 3:
        ax.set_xticks(at, labels)
        return
    labels = wrapped(names)
    if n_lines(labels) * LINE * scale() > room:
        labels = shortened(names, NAME_WIDTH + 8)
    ax.set_xticks(at, labels, rotation=90, linespacing=1.0)


def name_rows(ax: Axes, names: Iterable[Any], width: int = 40) -> None:
    """Name rows from above, in letters that fit between them; turns the vertical axis upside down."""
    labels = shortened(names, width)
    ax.set_yticks(range(len(labels)), labels, fontsize=letters(inches(ax)[1] / max(1, len(labels))))
    ax.set_ylim(len(labels) - 0.4, -0.6)


def legend(ax: Axes, *, note: str = "", above: bool = False, **arguments: Any) -> None:
    """A legend to the right of the axes or above them, where it hides nothing, with a ``note`` below it."""
    beside = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.01)} if above else {}
    look = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0), "frameon": False, "borderaxespad": 0.0}
    look |= {"fontsize": "small", "title_fontsize": "small", "alignment": "left"}
    look |= {"handlelength": 1.3, "handletextpad": 0.5}
    found = ax.legend(**{**look, **beside, **arguments})
    if note:
        ax.annotate(
            note, (0, 0), (3, -6), xycoords=found, textcoords="offset points", ha="left", va="top", fontsize="small",
            annotation_clip=False,
        )  # fmt: skip


def title(ax: Axes, name: str, lines: Sequence[str] = ()) -> None:
    """A title with smaller lines below it, above the axes."""
    height = 0.0
    if lines:
        below = ax.annotate(
            "\n".join(lines), (0.5, 1), (0, 3), "axes fraction", "offset points", fontsize="small", ha="center",
            va="bottom", annotation_clip=False,
        )  # fmt: skip
        height = inches(below)[1] * 72
    ax.set_title(name, fontsize="medium", pad=3 + 3 * scale() + height)  # the title stands on its baseline


def marker(label: str, color: Any, marker: str = "o", **look: Any) -> Line2D:
    """A point for the legend."""
    return Line2D([], [], linestyle="", color=color, marker=marker, label=label, **{"markersize": 5, **look})


def color_bar(ax: Axes, mappable: Any, label: str, height: float = 1.0) -> None:
    """A colour bar to the right of the axes, which moves with them; ``height`` as a share of theirs."""
    inch = scale() * ax.figure.canvas.figure.dpi / ax.get_window_extent().width
    bar = ax.figure.colorbar(mappable, cax=ax.inset_axes((1 + 0.12 * inch, 0.0, 0.14 * inch, height)), label=label)
    bar.outline.set_visible(False)


def panels(names: Sequence[str], argument: str, *, n_cols: int, ax: Any = None, size: float = 2.5) -> dict[str, Axes]:
    """One Axes per name: those given in any nesting, or panels of ``size`` inches of a new figure."""
    if len(names) > MAX_PANELS:
        raise ValueError(f"{argument} has {len(names)} values; at most {MAX_PANELS} panels are drawn.")
    if n_cols < 1:
        raise ValueError(f"n_cols={n_cols!r} is not a number of panels; pass 1 or more.")
    if ax is not None:
        given = _flat(ax)
        if len(given) != len(names):
            raise ValueError(
                f"ax has {len(given)} Axes and {argument} has {len(names)} values; pass one Axes per panel."
            )
        return dict(zip(names, given, strict=True))
    n_cols = min(n_cols, len(names))
    grid = new_axes(-(-len(names) // n_cols), n_cols, size, size)
    for unused in grid.flat[len(names) :]:
        unused.remove()
    return dict(zip(names, grid.flat, strict=False))


def _flat(ax: Any) -> list[Axes]:
    """Axes in any nesting as a list."""
    values: Iterable[Any] = ax.values() if isinstance(ax, dict) else np.ravel(np.asarray(ax, dtype=object))
    found = list(values)
    wrong = [value for value in found if not isinstance(value, Axes)]
    if wrong:
        raise TypeError(f"ax holds a {type(wrong[0]).__name__}; with groupby pass one matplotlib Axes per panel.")
    return found


def grid(
    values: pd.Series,
    groupby: str,
    draw: Callable[[Axes, str], Sequence[str]],
    handles: Sequence[Artist],
    n_cols: int,
    ax: Any,
) -> dict[str, Axes]:
    """A panel for each value with a legend beside the first row; ``draw`` returns what stands below a panel's title."""
    drawn = panels(in_order(values), f"groupby={groupby!r}", n_cols=n_cols, ax=ax)
    for short, (name, panel) in zip(shortened(drawn, _TITLE), drawn.items(), strict=True):
        title(panel, role_name(short) if name else "not named", draw(panel, name))
    of_row, all_panels = min(n_cols, len(drawn)), list(drawn.values())
    legend(all_panels[of_row - 1 if ax is None else -1], handles=handles)
    for i, panel in enumerate(all_panels if ax is None else []):  # labels on the outer panels alone
        if i % of_row:
            panel.set_ylabel("")
            panel.tick_params(labelleft=False)
        if i + of_row < len(drawn):
            panel.set_xlabel("")
            panel.tick_params(labelbottom=False)
    return drawn
