"""What happens around every figure: room for what stands beside the axes, ``show`` and ``save``."""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import BboxBase

from agevi import _docs
from agevi.get._read import ENTRIES as get_entries

T = TypeVar("T")
ENTRIES = get_entries | {
    "palette": "\npalette\n    Colour by group, or colours in the order of the groups.",
    "size": "\nsize\n    Area of a point in square points; by number of samples by default.",
    "n_cols": "\nn_cols\n    Panels in a row of a new figure.",
    "names_of_genes": "\ngene_symbols\n    Column of ``adata.var`` with the names to show, as in scanpy.",
    "drawn": """
        key_added
            Prefix of the slots.
        ax
            Axes to draw on; a new figure by default. Legends stand beside them.

        Returns
        -------
        The axes.
    """,
    "example_groups": """
    >>> import agevi, numpy as np
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=40, n_cells=5, n_genes=50, case_fraction=0.5, acceleration=9)
    >>> noise = np.repeat(np.random.default_rng(0).normal(0, 3, 40), 5)
    >>> adata.obs["agevi_predicted"] = adata.obs["biological_age"] / 2 + noise  # for tl.cross_validate(adata, model)
    >>> adata.obs["agevi_role"] = "out_of_fold"
    >>> adata.uns["agevi"] = {"subject_key": "donor", "sample_key": "donor", "age_key": "age"}
    >>> agevi.tl.aggregate_subjects(adata)
    """,
}
"""Entries of the docstrings of figures."""
_DOC = """
show
    Call :func:`matplotlib.pyplot.show` at the end. By default nothing is shown but by a notebook.
save
    File to write, in a folder that is made where it is absent. True, or an ending such as ``"_mine.pdf"`` or
    ``".pdf"``, writes to ``scanpy.settings.figdir`` under the name of the function, as scanpy does. A name without a
    format gets ``scanpy.settings.file_format_figs``."""
_PAD = 0.06  # inches around each row and column of a new figure
_SMALLEST = 0.25  # share of given axes that is kept for the data


def figure(draw: Callable[..., T]) -> Callable[..., T]:
    """A function that draws on ``ax`` as a public figure, with ``show``, ``save``, room for labels, shared entries."""

    @functools.wraps(draw)
    def plotted(
        *args: Any, show: bool | None = None, save: bool | str | os.PathLike[str] | None = None, **kwargs: Any
    ) -> T:
        path = _path(draw.__name__, save)
        drawn = draw(*args, **kwargs)
        axes: list[Any] = list(drawn.values()) if isinstance(drawn, dict) else [drawn]
        for one in axes:
            one.spines[["top", "right"]].set_visible(False)
            one.set_axisbelow(True)  # a grid, where the style has one, stays behind the data
        whole: Figure = axes[0].figure.canvas.figure
        if kwargs.get("ax") is None:
            _grow(whole)
        elif whole.get_layout_engine() is None:
            _shrink(whole, axes)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            whole.savefig(path, bbox_inches="tight")
        if show:
            import matplotlib.pyplot as plt

            plt.show()
        return drawn

    own, added = inspect.signature(draw), inspect.signature(plotted, follow_wrapped=False).parameters
    parameters = [*own.parameters.values(), added["show"], added["save"]]
    plotted.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    plotted.__doc__ = re.sub(
        r"\n\n( *)Returns\n",
        lambda found: _DOC.replace("\n", "\n" + found[1]) + found[0],
        _docs.shared(draw, ENTRIES).__doc__ or "",
        count=1,
    )
    # doctest passes over functions that were wrapped in another module unless they are listed
    vars(sys.modules[draw.__module__]).setdefault("__test__", {})[draw.__name__] = plotted
    return plotted


def _path(name: str, save: Any) -> Path | None:
    """File to write, None for none."""
    if save is None or save is False:
        return None
    if save is not True and not isinstance(save, str | os.PathLike):
        raise TypeError(f"save is a {type(save).__name__}; pass the path of a file, or True.")
    from matplotlib.backend_bases import FigureCanvasBase
    from scanpy import settings

    path = Path(name if save is True else os.fspath(save))
    if path.name == str(save) and path.name.startswith(("_", ".")):
        path = Path(f"{name}{path.name}")
        save = True
    if save is True:
        path = Path(settings.figdir) / path
    if path.suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        path = path.with_name(f"{path.name}.{settings.file_format_figs}")
    return path


def _outer(ax: Axes) -> BboxBase:
    """Box around axes with everything that belongs to them, in pixels."""
    return ax.get_tightbbox() or ax.get_window_extent()


def _grow(figure: Figure) -> None:
    """Enlarge a new figure, which its axes fill, by what stands around them."""
    figure.draw_without_rendering()
    rows: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(3))  # inches before, inside and after the axes
    columns: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(3))
    placed = [(ax, place) for ax in figure.axes if (place := ax.get_subplotspec()) is not None]
    for ax, place in placed:
        inner, outer = ax.get_window_extent(), _outer(ax)
        across = (inner.x0 - outer.x0, inner.width, outer.x1 - inner.x1)
        down = (outer.y1 - inner.y1, inner.height, inner.y0 - outer.y0)
        for parts, at, sizes in ((columns, place.colspan.start, across), (rows, place.rowspan.start, down)):
            parts[at] = np.maximum(parts[at], np.array(sizes) / figure.dpi + (_PAD, 0, _PAD))
    width, height = (sum(sizes.sum() for sizes in parts.values()) for parts in (columns, rows))
    figure.set_size_inches(width, height)
    for ax, place in placed:
        column, row = place.colspan.start, place.rowspan.start
        x = sum(columns[i].sum() for i in range(column)) + columns[column][0]
        y = height - sum(rows[i].sum() for i in range(row)) - rows[row][:2].sum()
        ax.set_position((x / width, y / height, columns[column][1] / width, rows[row][1] / height))
    figure.set_layout_engine("constrained", w_pad=_PAD, h_pad=_PAD, wspace=0, hspace=0)
    figure.draw_without_rendering()


def _shrink(figure: Figure, axes: list[Axes]) -> None:
    """Make given axes smaller where what stands around them would leave the figure, which has no layout of its own."""
    for _ in range(2):  # the second time, since labels follow the axes
        figure.draw_without_rendering()
        for ax in axes:
            outer, place = _outer(ax).transformed(figure.transFigure.inverted()), ax.get_position()
            x0, y0 = place.x0 + max(0.0, -outer.x0), place.y0 + max(0.0, -outer.y0)
            x1, y1 = place.x1 - max(0.0, outer.x1 - 1), place.y1 - max(0.0, outer.y1 - 1)
            width, height = max(x1 - x0, _SMALLEST * place.width), max(y1 - y0, _SMALLEST * place.height)
            ax.set_position((x0, y0, width, height))
