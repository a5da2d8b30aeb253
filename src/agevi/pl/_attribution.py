"""Genes by what they add to predicted ages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from agevi import _checks, _keys, get
from agevi.pl import _base

OLDER, YOUNGER = "#d62728", "#1f77b4"
"""Colours of what makes cells look older and younger, or more like cases and more like controls."""
_REACH = 1.96


def attribution(
    adata: AnnData,
    *,
    group: str = "all",
    n_top: int = 20,
    genes: Sequence[str] | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    ax: Axes | None = None,
) -> Axes:
    """Mean absolute attribution of the first genes, towards older or younger ages, in the unit of the age column.

    A bar to the right is a gene that makes cells look older where there is more of it, a bar to the left one that makes them
    look younger. The line on a bar is its 95 % interval across subjects, and the numbers beside it the 95 % interval of
    the gene's rank when subjects are drawn anew: a gene whose ranks reach far beyond those that are drawn may not be there in
    the next cohort. For a classifier the unit is log-odds, and bars to the right make cells more like cases.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.attribute_genes`.
    group
        Group of cells.
    n_top
        Genes to draw.
    genes
        Draw these genes and no others.
    key_added
        Prefix of the slots.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        :func:`agevi.tl.attribute_genes` was not run, or a gene is unknown.
    ValueError
        The group is unknown, or there are fewer than ``n_top`` genes.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.PLSClock(adata)
    >>> model.train()
    >>> agevi.tl.attribute_genes(adata, model)
    >>> agevi.pl.attribution(adata, n_top=5).get_xlabel()
    'Attribution (years)'
    """
    table = get.attribution_df(adata, group=group, key_added=key_added)
    table = table.head(_checks.count(n_top, "n_top", high=len(table))) if genes is None else _chosen(table, genes)
    ax = _base.axes(ax, 5.2, 1.0 + 0.24 * len(table))
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
    room = 0.16 * (high - low or 1.0)  # for the ranks
    ax.set_xlim(low - (room if low < 0 else 0.3 * room), high + (room if high > 0 else 0.3 * room))
    ax.set(xlabel=f"Attribution ({_unit(adata, key_added)})", yticks=y, ylim=(len(table) - 0.4, -0.6))
    ax.set_yticklabels(table["gene"], fontsize="small")
    ax.set_title("" if group == "all" else group, fontsize="medium")
    _base.tidy(ax)
    _base.legend(ax, loc="upper left", bbox_to_anchor=(1.01, 1.0), title="more of the gene", title_fontsize="small")
    return ax


def attribution_heatmap(
    adata: AnnData,
    *,
    groups: Sequence[str] | None = None,
    n_top: int = 8,
    genes: Sequence[str] | None = None,
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
        Draw these genes and no others, in this order.
    cmap
        Diverging colour map.
    key_added
        Prefix of the slots.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        :func:`agevi.tl.attribute_genes` was not run, or a gene is unknown.
    ValueError
        A group is unknown, there are fewer than ``n_top`` genes, or there are no groups.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.PLSClock(adata)
    >>> model.train()
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
                f"adata.uns[{_keys.Keys(key_added).table('attribution')!r}] has no groups but 'all'; run "
                "agevi.tl.attribute_genes(adata, model, groupby=...)."
            )
    where = f"adata.uns[{_keys.Keys(key_added).table('attribution')!r}]"
    groups = [_checks.group(name, there, where) for name in ([groups] if isinstance(groups, str) else groups)]
    if genes is None:
        genes = _first_of_groups(table, groups, n_top)
    else:
        genes = list(_chosen(table[table["group"] == there[0]], genes)["gene"])
    wide = table.pivot(index="gene", columns="group", values="signed").loc[list(genes), groups]
    ax = _base.axes(ax, 2.6 + 0.42 * len(groups), 1.2 + 0.2 * len(genes))
    limit = float(np.abs(wide.to_numpy()).max()) or 1.0
    norm = mpl.colors.TwoSlopeNorm(0.0, -limit, limit)
    image = ax.imshow(wide.to_numpy(), aspect="auto", cmap=cmap, norm=norm, interpolation="nearest")
    ax.set(xticks=np.arange(len(groups)), yticks=np.arange(len(genes)))
    ax.set_xticklabels(groups, rotation=45, ha="right", rotation_mode="anchor", fontsize="small")
    ax.set_yticklabels(genes, fontsize="small")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    bar = ax.figure.colorbar(image, ax=ax, shrink=min(1.0, 6 / max(len(genes), 1) + 0.3), aspect=25)
    bar.set_label(f"Signed attribution ({_unit(adata, key_added)})")
    bar.outline.set_visible(False)
    return ax


def _unit(adata: AnnData, key_added: str) -> str:
    """Unit of the ages."""
    info: dict[str, Any] = adata.uns[_keys.Keys(key_added).table("attribution")]
    return str(info.get("age_unit") or "years")


def _chosen(table: pd.DataFrame, genes: Sequence[str]) -> pd.DataFrame:
    """Rows of the named genes in their order."""
    names = [genes] if isinstance(genes, str) else list(genes)
    unknown = [name for name in names if name not in set(table["gene"])]
    if unknown or not names:
        raise KeyError(
            f"genes holds {_checks.listed(unknown)}, which have no attribution; choose among {_checks.listed(table['gene'])}."
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
