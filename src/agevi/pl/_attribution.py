"""Genes by what they add to predicted ages."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from agevi import _checks, _keys, _symbols, get
from agevi.pl import _base
from agevi.pl._figure import figure

OLDER, YOUNGER = "#d62728", "#1f77b4"
"""Colours of what makes cells look older and younger, or more like cases and more like controls."""
_REACH = 1.96


@figure
def attribution(
    adata: AnnData,
    *,
    group: str = "all",
    n_top: int = 20,
    genes: Sequence[str] | None = None,
    gene_symbols: str | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    ax: Axes | None = None,
) -> Axes:
    """Mean absolute attribution of the first genes, towards older or younger ages, in the unit of the age column.

    A bar to the right is a gene that makes cells look older where there is more of it, a bar to the left one that makes
    them look younger. The line on a bar is its 95 % interval across subjects, and the numbers beside it the 95 %
    interval of the gene's rank when subjects are drawn anew: a gene whose ranks reach far beyond those that are drawn
    may not be there in the next cohort. For a classifier the unit is log-odds, and bars to the right make cells more
    like cases.

    Parameters
    ----------
    %(after_attribution)s
    group
        Group of cells.
    n_top
        Genes to draw.
    genes
        Draw these genes and no others, by their names in ``adata.var_names`` or in ``gene_symbols``.
    %(names_of_genes)s
    %(drawn)s

    Raises
    ------
    KeyError
        :func:`agevi.tl.attribute_genes` was not run, or a gene or ``gene_symbols`` is unknown.
    ValueError
        The group is unknown, or there are fewer than ``n_top`` genes.

    Examples
    --------
    %(example_model)s
    >>> agevi.tl.attribute_genes(adata, model)
    >>> agevi.pl.attribution(adata, n_top=5).get_xlabel()
    'Attribution (years)'
    """
    table = get.attribution_df(adata, group=group, key_added=key_added)
    labels = _symbols.labels(adata, gene_symbols)
    if genes is None:
        table = table.head(_checks.count(n_top, "n_top", high=len(table)))
    else:
        table = _chosen(table, genes, _symbols.names(adata, gene_symbols))
    ax = _base.axes(ax, 3.6, 0.24 * len(table) + 0.3)
    y, older = np.arange(len(table)), (table["signed"] >= 0).to_numpy()
    value = table["attribution"].to_numpy() * np.where(older, 1, -1)
    reach = _REACH * table["se"].fillna(0).to_numpy()
    words = _base.wording(_unit(adata, key_added))
    for side, color, label in ((older, OLDER, words.higher), (~older, YOUNGER, words.lower)):
        if side.any():
            ax.barh(y[side], value[side], color=color, alpha=0.75, height=0.75, label=label)
    ax.errorbar(value, y, xerr=reach, fmt="none", ecolor=_base.LINE_COLOR, elinewidth=1, capsize=2)
    ends = value + np.where(older, reach, -reach)
    for position, (low, high) in enumerate(zip(table["rank_low"], table["rank_high"], strict=True)):
        ax.annotate(
            f"{low:.0f}-{high:.0f}", (ends[position], position), xytext=(4 if older[position] else -4, 0),
            textcoords="offset points", va="center", ha="left" if older[position] else "right", fontsize="x-small",
            color=_base.LINE_COLOR,
        )  # fmt: skip
    ax.axvline(0, color=_base.LINE_COLOR, linewidth=0.8)
    low, high = min(0.0, float(ends.min())), max(0.0, float(ends.max()))
    letters = max((len(text.get_text()) for text in ax.texts), default=0)
    room = min(0.6, 0.03 + 0.07 * _base.scale() * letters / _base.inches(ax)[0]) * (high - low or 1.0)
    ax.set_xlim(low - (room if low < 0 else 0.3 * room), high + (room if high > 0 else 0.3 * room))
    ax.set(xlabel=f"Attribution ({_unit(adata, key_added)})")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    _base.name_rows(ax, table["gene"].map(labels))
    _base.title(ax, "" if group == "all" else _base.shortened([group])[0])
    _base.legend(ax, title="more of the gene", note="numbers: 95 % interval\nof the rank")
    return ax


@figure
def attribution_heatmap(
    adata: AnnData,
    *,
    groups: Sequence[str] | None = None,
    n_top: int = 8,
    genes: Sequence[str] | None = None,
    gene_symbols: str | None = None,
    cmap: str = "RdBu_r",
    key_added: str = _keys.DEFAULT_KEY,
    ax: Axes | None = None,
) -> Axes:
    """Signed attribution of genes in each group of cells, in the unit of the age column.

    Red: more of the gene looks older (more like cases, for a classifier), blue: younger (more like controls). The first
    genes of every group are drawn, in the order of the group in which they matter most.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.attribute_genes` with ``groupby``.
    groups
        Groups to draw, in order; all of them by default, without ``"all"``.
    n_top
        First genes of each group.
    genes
        Draw these genes and no others, in this order, by their names in ``adata.var_names`` or in ``gene_symbols``.
    %(names_of_genes)s
    cmap
        Diverging colour map.
    %(drawn)s

    Raises
    ------
    KeyError
        :func:`agevi.tl.attribute_genes` was not run, or a gene or ``gene_symbols`` is unknown.
    ValueError
        A group is unknown, there are fewer than ``n_top`` genes, or there are no groups.

    Examples
    --------
    %(example_model)s
    >>> agevi.tl.attribute_genes(adata, model, groupby="cell_type")
    >>> ax = agevi.pl.attribution_heatmap(adata, n_top=3)
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['type0', 'type1', 'type2']
    """
    table = get.attribution_df(adata, group=None, key_added=key_added)
    there = list(dict.fromkeys(table["group"]))
    if groups is None:
        groups = there[1:]
        if not groups:
            raise ValueError(
                f"adata.uns[{_keys.Keys(key_added).attribution_groups!r}] has no groups but 'all'; run "
                "agevi.tl.attribute_genes(adata, model, groupby=...)."
            )
    where = f"adata.uns[{_keys.Keys(key_added).attribution_groups!r}]"
    groups = [_checks.group(name, there, where) for name in ([groups] if isinstance(groups, str) else groups)]
    if genes is None:
        genes = _first_of_groups(table, groups, n_top)
    else:
        names = _symbols.names(adata, gene_symbols)
        genes = list(_chosen(table[table["group"] == there[0]], genes, names)["gene"])
    wide = table.pivot(index="gene", columns="group", values="signed").loc[list(genes), groups]
    ax = _base.axes(ax, max(1.0, 0.4 * len(groups)), max(2.4, 0.2 * len(genes)))
    limit = float(np.abs(wide.to_numpy()).max()) or 1.0
    norm = mpl.colors.TwoSlopeNorm(0.0, -limit, limit)
    image = ax.imshow(wide.to_numpy(), aspect="auto", cmap=cmap, norm=norm, interpolation="nearest")
    ax.set_xticks(
        np.arange(len(groups)), _base.shortened(groups), rotation=45, ha="right", rotation_mode="anchor",
        fontsize="small",
    )  # fmt: skip
    _base.name_rows(ax, [_symbols.labels(adata, gene_symbols)[gene] for gene in genes])
    ax.set_ylim(len(genes) - 0.5, -0.5)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.grid(False)
    _base.color_bar(ax, image, f"Signed attribution ({_unit(adata, key_added)})")
    return ax


def _unit(adata: AnnData, key_added: str) -> str:
    """Unit of the ages."""
    return _base.unit_of(adata.uns[_keys.Keys(key_added).attribution_groups])


def _chosen(table: pd.DataFrame, genes: Sequence[str], symbols: pd.Series) -> pd.DataFrame:
    """Rows of the named genes in their order, each name that of a gene or the symbol of some."""
    known = set(table["gene"])
    of_symbol = symbols[symbols.index.isin(known)].reset_index().groupby("symbol")["gene"].agg(list)
    given = [genes] if isinstance(genes, str) else list(genes)
    names = [gene for name in given for gene in ([name] if name in known else of_symbol.get(name, [name]))]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        said = f"holds {_checks.listed(unknown)}, which have no attribution" if unknown else "is empty"
        there = dict.fromkeys(table["gene"].map(symbols))  # as the figure would name them
        raise KeyError(
            f"genes {said}{_checks.closest(unknown[0], list(there)) if unknown else ''}; choose among "
            f"{_checks.listed(there)}."
        )
    return table.set_index("gene").loc[names].reset_index()


def _first_of_groups(table: pd.DataFrame, groups: Sequence[str], n_top: int) -> list[str]:
    """The first genes of every group, each once, by the group in which they matter most."""
    shown = table[table["group"].isin(groups)]
    n_top = _checks.count(n_top, "n_top", high=shown["gene"].nunique())
    genes = shown.loc[shown["rank"] <= n_top, "gene"].unique()
    wide = shown[shown["gene"].isin(genes)].pivot(index="gene", columns="group", values="attribution")[list(groups)]
    best = wide.to_numpy().argmax(axis=1)
    order = np.lexsort((-wide.to_numpy().max(axis=1), best))
    return [str(gene) for gene in wide.index[order]]
