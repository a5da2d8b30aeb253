"""Figures of ``pl`` as SVG that stands inside a page: its own names, the page's font and the page's colours."""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.figure import Figure as Drawing

from agevi._report._blocks import Figure, Text

_RC: Any = {
    "svg.fonttype": "none",  # text stays text, which can be searched and read
    "svg.hashsalt": "agevi",
    "text.parse_math": False,  # dollars in names are dollars
    "figure.max_open_warning": 0,
}
_MANY = 3000
"""Points from which they are drawn as a picture within the figure."""
_COLORS = {
    "#000000": "var(--ink)", "#404040": "var(--ink-2)", "#ffffff": "var(--paper)", "#b0b0b0": "var(--rule)",
    "#ececec": "var(--rule-2)", "#8c564b": "var(--brown)",
}  # fmt: skip
"""Colours that the page has light and dark: of what is not data, and one that is too dark on a dark page."""
_FONT = re.compile(
    r"(?:(font: [^;']*?)'[^;]*|font-family:)[^;]*;? ?"
)  # in one part of the style or in a part of its own
_PLACE = re.compile(r"-?\d+\.\d{3,}")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_HREF = "{http://www.w3.org/1999/xlink}href"
_USED = re.compile(r"url\(#([^)]+)\)")
_RIM = 0.4  # points
PIXELS = 96 / 72  # of a point


class Figures:
    """Draws figures for one page, each with names of its own."""

    def __init__(self) -> None:
        self._n = 0

    def draw(self, plot: Callable[..., Any], *args: Any, alt: str, caption: str, **kwargs: Any) -> Figure | Text:
        """What ``plot`` draws, or a line that says why it cannot."""
        self._n += 1
        try:
            with _style(), _new_figures():
                drawn = plot(*args, **kwargs)
                svg = _svg(next(iter(drawn.values())) if isinstance(drawn, dict) else drawn)
        except (KeyError, ValueError) as error:  # too many groups for colours, nothing to draw
            return Text(f"This figure is not drawn: {error.args[0] if error.args else error}", small=True)
        root = ET.fromstring(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", svg))
        width = round(float(root.get("width", "0").removesuffix("pt")) * PIXELS)
        return Figure(Markup(_inline(root, f"f{self._n}-", alt)), alt, caption, width)


@contextmanager
def _style() -> Iterator[None]:
    """The figures' own style, whatever the user's is."""
    with mpl.style.context("default", after_reset=True), mpl.rc_context(_RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")  # the reader's fonts may have it
        yield


@contextmanager
def _new_figures() -> Iterator[None]:
    """Close the figures that are made inside, which are never shown."""
    import matplotlib.pyplot as plt

    before = set(plt.get_fignums())
    with plt.ioff():
        try:
            yield
        finally:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)


def _svg(ax: Axes) -> str:
    """The figure of some axes, legends below them so that it is narrow."""
    figure: Any = ax.figure
    whole: Drawing = figure.canvas.figure
    whole.set_layout_engine("none")
    for one in whole.axes:
        for axis in (one.xaxis, one.yaxis):
            if axis.get_scale() == "log":  # whose labels are formulas, which would need what names must not have
                axis.set_major_formatter(lambda value, _: f"{value:g}")
        for drawn in one.collections:
            if drawn.get_array() is not None:  # light and dark colours are seen on light and dark pages
                drawn.set_linewidth(np.maximum(drawn.get_linewidth(), _RIM).tolist())
            if _n_points(drawn) > _MANY:
                drawn.set_rasterized(True)
        _legend_below(one)
    out = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    whole.savefig(out, format="svg", bbox_inches="tight", pad_inches=0.04, transparent=True, dpi=144, metadata=metadata)
    return out.getvalue()


def _n_points(drawn: Collection) -> int:
    """Marks of a collection."""
    return max(len(np.atleast_1d(drawn.get_offsets())), len(drawn.get_paths()))


def _legend_below(ax: Axes) -> None:
    """Move a legend that stands beside its axes below their labels; a note that hangs on it follows."""
    legend, place = ax.get_legend(), ax.get_window_extent()
    if legend is None or legend.get_window_extent().x0 < place.x1:
        return
    labels = [ax.xaxis.get_tightbbox(), *(text.get_window_extent() for text in ax.texts if not _hangs_on(text, legend))]
    lowest = min([place.y0, *(box.y0 for box in labels if box is not None and box.width > 0)])
    left = min([place.x0, *(box.x0 for box in [ax.yaxis.get_tightbbox()] if box is not None)])
    at = ax.transAxes.inverted().transform((max(left, place.x0 - 0.4 * ax.figure.dpi), lowest - 8))
    legend.set_loc("upper left")
    legend.set_bbox_to_anchor(tuple(at), transform=ax.transAxes)


def _hangs_on(text: Any, legend: Any) -> bool:
    """Whether a text is placed by the legend."""
    return getattr(text, "xycoords", None) is legend


def _inline(root: ET.Element, prefix: str, alt: str) -> str:
    """SVG for the inside of a page."""
    used = {name for element in root.iter() for value in element.attrib.values() for name in _USED.findall(value)}
    used |= {str(element.get(_HREF))[1:] for element in root.iter() if str(element.get(_HREF)).startswith("#")}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):  # a style would be that of the whole page
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.tail = None
        if element.tag != "text" and element.tag != "tspan":
            element.text = None
        element.attrib = {
            name.rpartition("}")[2]: _attribute(name.rpartition("}")[2], value, prefix)
            for name, value in element.attrib.items()
            if (name != "id" or value in used) and not value.startswith("rotate(-0 ")
        }
    width, height = (float(root.get(side, "0pt").removesuffix("pt")) * PIXELS for side in ("width", "height"))
    root.attrib = {
        "viewBox": root.get("viewBox", ""), "width": f"{width:.0f}", "height": f"{height:.0f}", "role": "img",
        "aria-label": alt,
    }  # fmt: skip
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def _attribute(name: str, value: str, prefix: str) -> str:
    """An attribute with the figure's own names, the page's colours, and no more digits than are seen."""
    if name == "id":
        return prefix + value
    if name == "href":
        return f"#{prefix}{value[1:]}" if value.startswith("#") else value
    if name in ("d", "x", "y"):
        return _PLACE.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value)
    if name in ("style", "clip-path", "fill", "stroke"):
        value = _USED.sub(rf"url(#{prefix}\1)", value)
        for color, own in _COLORS.items():
            value = value.replace(color, own)
        return _FONT.sub(lambda found: f"{found[1]}var(--font); " if found[1] else "", value)
    return value
