"""Tables about genes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _names, _symbols
from agevi.get._read import documented, read, stored


@documented
def attribution_df(
    adata: AnnData,
    *,
    group: str | None = "all",
    n_top: int | None = None,
    gene_symbols: str | None = None,
    key_added: str = _keys.DEFAULT_KEY,
) -> pd.DataFrame:
    """What every gene adds to predicted ages, the largest first, in the unit of the age column.

    Parameters
    ----------
    %(after_attribution)s
    group
        Group of cells; ``"all"`` are all cells, None every group, one after the other.
    n_top
        First genes of each group; all that the clock knows by default.
    %(gene_symbols)s
    %(key_added)s

    Returns
    -------
    A table with the columns ``gene``, ``group``, ``rank`` (from 1), ``attribution``, ``signed``, ``se``, ``rank_low``,
    ``rank_high`` and ``selected``, as :func:`agevi.tl.attribute_genes` describes them. Genes that the clock does not
    know are left out.

    Raises
    ------
    KeyError
        :func:`agevi.tl.attribute_genes` was not run, or ``gene_symbols`` is absent.
    ValueError
        The group is unknown, or there are fewer than ``n_top`` genes.

    Examples
    --------
    %(example_model)s
    >>> agevi.tl.attribute_genes(adata, model)
    >>> agevi.get.attribution_df(adata, n_top=3)["rank"].tolist()
    [1, 2, 3]
    """
    keys = _keys.Keys(key_added)
    groups = _names.several(stored(adata, "attribution", key_added)["groups"])
    if group is not None:
        _checks.group(group, groups, f"adata.uns[{keys.attribution_groups!r}]")
    values = np.asarray(stored(adata, "attribution", key_added, "varm"))
    known = np.flatnonzero(~np.isnan(values[:, 0]))
    n_top = len(known) if n_top is None else _checks.count(n_top, "n_top", high=len(known))
    out = []
    for name in groups if group is None else [group]:
        column = groups.index(name)
        chosen = known[np.argsort(-values[known, column], kind="stable")[:n_top]]
        table = pd.DataFrame({"gene": adata.var_names[chosen], "group": name, "rank": np.arange(1, n_top + 1)})
        for part in _keys.ATTRIBUTION_PARTS:
            of_genes = np.asarray(adata.varm[keys.attribution(part)])[chosen, column]
            table[part or "attribution"] = of_genes.astype(np.float64)
        out.append(table)
    return _with_symbols(adata, pd.concat(out, ignore_index=True), gene_symbols)


def _with_symbols(adata: AnnData, table: pd.DataFrame, gene_symbols: str | None) -> pd.DataFrame:
    """A table of genes with the column of their symbols; rows of other names, as those of sets, keep theirs."""
    if gene_symbols is None:
        return table
    symbols = _symbols.names(adata, gene_symbols)
    column = "symbol" if gene_symbols in table else gene_symbols
    table.insert(list(table).index("gene") + 1, column, [symbols.get(gene, gene) for gene in table["gene"]])
    return table


@documented
def enrichment_df(
    adata: AnnData,
    *,
    groups: str | Sequence[str] | None = None,
    max_padj: float = 1.0,
    key_added: str = _keys.DEFAULT_KEY,
) -> pd.DataFrame:
    """Gene sets among the important genes of a clock, the smallest p value first in each group.

    Parameters
    ----------
    %(after_enrichment)s
    groups
        Keep these groups of the attribution; all by default.
    max_padj
        Keep sets with an adjusted p value up to this.
    %(key_added)s

    %(returns_enrichment)s

    Raises
    ------
    KeyError
        :func:`agevi.tl.enrich` was not run, or not on this group.

    Examples
    --------
    %(example_enrichment)s
    >>> agevi.get.enrichment_df(adata, max_padj=0.05)["term"].tolist()
    ['last']
    """
    table: pd.DataFrame = stored(adata, "enrichment", key_added)
    wanted = list(table["group"].unique()) if groups is None else _names.several(groups)
    unknown = [name for name in wanted if name not in set(table["group"])]
    if unknown:
        raise KeyError(
            f"groups={groups!r}: {unknown[0]!r} is not in the table of agevi.tl.enrich. "
            f"Available: {_checks.listed(table['group'].unique())}."
        )
    return table[table["group"].isin(wanted) & (table["padj"] <= max_padj)].reset_index(drop=True)


@documented
def perturbation_df(
    adata: AnnData, *, group: str | None = None, gene_symbols: str | None = None, key_added: str = _keys.DEFAULT_KEY
) -> pd.DataFrame:
    """Change of predicted ages when genes are perturbed, in the unit of the age column.

    Parameters
    ----------
    %(after_perturbation)s
    group
        Rows of this group; all by default.
    %(gene_symbols)s
    %(key_added)s

    %(returns_perturbation)s

    Raises
    ------
    KeyError
        :func:`agevi.tl.perturb_genes` was not run, or ``gene_symbols`` is absent.
    ValueError
        The group is unknown.

    Examples
    --------
    %(example_model)s
    >>> agevi.tl.perturb_genes(adata, model, ["gene000", "gene001"])
    >>> sorted(agevi.get.perturbation_df(adata)["gene"])
    ['gene000', 'gene001']
    """
    table = read(adata, "perturbation", key_added)
    if group is not None:
        groups = table["group"].astype(str)
        slot = _keys.Keys(key_added).perturbation
        name = _checks.group(group, list(dict.fromkeys(groups)), f"adata.uns[{slot!r}]")
        table = table[groups == name].reset_index(drop=True)
    return _with_symbols(adata, table, gene_symbols)
