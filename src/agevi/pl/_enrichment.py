"""Dot plot of enriched gene sets."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from agevi import _checks, _keys, get
from agevi.pl import _base
from agevi.pl._figure import figure

QUANTITIES = {"combined_score": "Combined score (-ln p x odds ratio)", "odds_ratio": "Odds ratio", "score": "Score"}
SCORES = {"gsea": "Normalised enrichment score", "ulm": "t value of membership"}
SIGNIFICANT = 0.05
SQUEEZED = 8
"""Times the median from which the highest score puts the axis on the scale of logarithms."""
_AREAS = (30.0, 220.0)  # square points of the smallest and the largest set
_WIDTH = 48  # letters of a name before it is cut


@figure
def enrichment(
    adata: AnnData,
    *,
    group: str | None = None,
    x: Literal["combined_score", "odds_ratio", "score"] | None = None,
    n_terms: int = 15,
    cmap: str = "viridis",
    key_added: str = _keys.DEFAULT_KEY,
    ax: Axes | None = None,
) -> Axes:
    """Gene sets of one group with the smallest p values: their score, overlap and adjusted p value.

    The smallest p value is on top. The area of a dot is the number of top genes in the set (for ``"gsea"`` and
    ``"ulm"`` the size of the set), its colour minus the decimal logarithm of the adjusted p value, and a dark rim marks
    an adjusted p value below 0.05. Sets of Reactome contain one another, so neighbouring rows are often one finding.

    Parameters
    ----------
    %(after_enrichment)s
    group
        Group of the attribution; the first by default.
    x
        Quantity on the axis; by default ``"combined_score"``, and ``"score"`` for ``"gsea"`` and ``"ulm"``.
    n_terms
        Most sets to draw. Sets without a top gene are left out.
    cmap
        Colour map of the adjusted p value.
    %(drawn)s

    Raises
    ------
    KeyError
        :func:`agevi.tl.enrich` was not run, or not on this group.
    ValueError
        ``x`` is not in the table, or no set holds a top gene.

    Examples
    --------
    %(example_enrichment)s
    >>> ax = agevi.pl.enrichment(adata, x="odds_ratio")
    >>> ax.get_xlabel(), [label.get_text() for label in ax.get_yticklabels()]
    ('Odds ratio', ['last'])
    """
    n_terms = _checks.count(n_terms, "n_terms")
    table = get.enrichment_df(adata, key_added=key_added)
    table = get.enrichment_df(adata, groups=table["group"].iloc[0] if group is None else group, key_added=key_added)
    method = str(_base.params_of(adata, "enrichment", key_added)["method"])
    drawable = [name for name in QUANTITIES if name in table]
    x = _checks.choice(drawable[0] if x is None else x, drawable, "x")  # type: ignore[assignment]
    size = "overlap" if "overlap" in table else "set_size"
    table = table[table[size] > 0].head(n_terms)
    if table.empty:
        raise ValueError(
            f"no set holds a top gene of group {group or 'all'!r}, so there is nothing to draw; see n_top."
        )
    return _draw(_base.axes(ax, 3.6, max(2.9, 0.27 * len(table))), table, str(x), size, method, cmap)


def _draw(ax: Axes, table: pd.DataFrame, x: str, size: str, method: str, cmap: str) -> Axes:
    """Dots, colour bar and legend of sizes."""
    shade = -np.log10(table["padj"].clip(lower=np.finfo(np.float64).tiny))
    dots = ax.scatter(
        table[x], np.arange(len(table)), s=_areas(table[size], table[size]), c=shade, cmap=cmap, vmin=0,
        vmax=max(shade.max(), -np.log10(SIGNIFICANT)), zorder=3, edgecolor=_base.LINE_COLOR,
        linewidth=np.where(table["padj"] < SIGNIFICANT, 1.2, 0),
    )  # fmt: skip
    ax.set_xlabel(SCORES.get(method, QUANTITIES[x]))
    _base.name_rows(ax, table["term"], _WIDTH)
    _scale(ax, table[x].to_numpy(dtype=np.float64))
    ax.grid(axis="y", color="#ececec", linewidth=0.8)
    _base.color_bar(
        ax, dots, "\N{MINUS SIGN}log\N{SUBSCRIPT ONE}\N{SUBSCRIPT ZERO} adjusted p", 0.42
    )  # under the legend
    low, high = int(table[size].min()), int(table[size].max())
    shown = np.unique([low, (low + high) // 2, high])
    handles = [
        _base.marker(f"{value:,}", "#a6a6a6", markersize=np.sqrt(area))
        for value, area in zip(shown, _areas(pd.Series(shown), table[size]), strict=True)
    ]
    if (table["padj"] < SIGNIFICANT).any():
        label = f"adjusted p < {SIGNIFICANT:g}"
        handles.append(_base.marker(label, _base.LINE_COLOR, markerfacecolor="none", markeredgewidth=1.2, markersize=8))
    title = "top genes" if size == "overlap" else "genes in the set"
    _base.legend(ax, handles=handles, title=title, labelspacing=0.8)
    return ax


def _scale(ax: Axes, values: np.ndarray) -> None:
    """A linear axis, or one of logarithms where a few high scores would squeeze the others."""
    positive = values[values > 0]
    if len(positive) < len(values) or positive.max() < SQUEEZED * np.median(positive):
        ax.set_xlim(_base.margins(np.append(values, 0.0), 0.08))
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        ax.axvline(0, color=_base.LINE_COLOR, linewidth=0.6, zorder=1)
        return
    low, high = _base.margins(np.log10(positive), 0.08)
    ax.set(xscale="log", xlim=(10**low, 10**high))
    ax.xaxis.set_major_locator(LogLocator(numticks=5))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _areas(values: pd.Series, among: pd.Series) -> np.ndarray:
    """Area of a dot for each number of genes, in square points."""
    low, high = _AREAS
    return low + (high - low) * values.to_numpy(dtype=np.float64) / max(float(among.max()), 1.0)
