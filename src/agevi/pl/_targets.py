"""Drug targets of several diseases as a grid of dots."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from agevi import _checks
from agevi.pl import _base
from agevi.pl._figure import figure
from agevi.tl.sets._rank_targets import TargetRanking

RAISES, LOWERS, UNKNOWN = "#b2182b", "#2166ac", "#8c8c8c"
_AREAS = (12.0, 170.0)  # square points of the last and the first rank
_SHORT = 12  # letters of names that are slanted; longer ones are upright


@figure
def targets(targets: TargetRanking, *, n_genes: int = 30, ax: Axes | None = None) -> Axes:
    """Ranks of the first genes in every disease: a dot for each gene and disease.

    Genes that are in the top of most diseases are above, then those of the smallest mean rank. The area of a dot falls
    with the rank, a dark rim marks a gene in the top of the disease that is compared, and the colour says whether the
    gene raises or lowers the prediction. Where there is no dot, the gene is beyond the first ``n_top`` of that disease.
    Long names of diseases are broken into lines.

    Parameters
    ----------
    targets
        What :func:`agevi.tl.rank_targets` returned.
    n_genes
        Most genes to draw.
    ax
        Axes to draw on; a new figure by default, as large as the names need. The legend stands to the right of them.

    Returns
    -------
    The axes.

    Raises
    ------
    TypeError
        ``targets`` is something else.

    Examples
    --------
    >>> import agevi, numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> tables = {name: pd.Series(rng.normal(size=100), [f"g{i:02d}" for i in range(100)]) for name in ("COPD", "PD")}
    >>> ax = agevi.pl.targets(agevi.tl.rank_targets(tables, n_top=50), n_genes=10)
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['COPD', 'PD']
    """
    if not isinstance(targets, TargetRanking):
        raise TypeError(f"targets is a {type(targets).__name__}; pass what agevi.tl.rank_targets returned.")
    n_genes = _checks.count(n_genes, "n_genes")
    diseases, top, table = targets.params["diseases"], targets.params["n_shared"], targets.genes
    last = int(table["rank"].max())
    rank = table.pivot(index="gene", columns="disease", values="rank").fillna(last + 1).mean(axis=1)
    order = pd.DataFrame({"n": table.groupby("gene")["n_diseases"].first(), "mean": rank})
    genes = order.sort_values(["n", "mean"], ascending=[False, True]).index[:n_genes]
    table = table[table["gene"].isin(genes)]
    names = _base.wrapped(diseases)
    ax = _base.axes(ax, max(0.4, 0.1 + _base.LINE * _base.n_lines(names)) * len(names), max(0.24 * len(genes), 2.0))
    sign = np.sign(table["signed"].to_numpy())
    colors = np.select([sign > 0, sign < 0], [RAISES, LOWERS], UNKNOWN)
    ax.scatter(
        pd.Index(diseases).get_indexer(pd.Index(table["disease"])), genes.get_indexer(pd.Index(table["gene"])),
        s=_areas(table["rank"].to_numpy(), last), c=colors, zorder=3, edgecolor=_base.LINE_COLOR,
        linewidth=np.where(table["in_top"], 1.4, 0.0),
    )  # fmt: skip
    if max(map(len, names)) <= _SHORT:
        ax.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    else:
        ax.set_xticks(range(len(names)), names, rotation=90, linespacing=1.0)
    _base.name_rows(ax, genes)
    ax.set_xlim(-0.6, len(diseases) - 0.4)
    ax.grid(color="#ececec", linewidth=0.8)
    _key(ax, set(colors), top, last)
    return ax


def _key(ax: Axes, colors: set[str], top: int, last: int) -> None:
    """What areas, rims and colours mean."""
    shown = np.unique(np.clip([1, top, last], 1, last))
    handles = [
        _base.marker(
            f"rank {value:,}", "#c8c8c8", markersize=np.sqrt(area), markeredgecolor=_base.LINE_COLOR,
            markeredgewidth=1.4 if value <= top else 0,
        )
        for value, area in zip(shown, _areas(shown, last), strict=True)
    ]  # fmt: skip
    meanings = ((RAISES, "raises the prediction"), (LOWERS, "lowers it"), (UNKNOWN, "direction unknown"))
    handles += [_base.marker(label, color, markersize=6) for color, label in meanings if color in colors]
    _base.legend(ax, handles=handles, labelspacing=0.9, title=f"dark rim: top {top}")


def _areas(rank: np.ndarray, last: int) -> np.ndarray:
    """Area of a dot for each rank, in square points, on the scale of logarithms, since the first ranks matter most."""
    low, high = _AREAS
    return high - (high - low) * np.log(rank) / np.log(max(last, 2))
