"""Tables of :mod:`agevi.get` about genes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _names, _symbols

_ATTRIBUTION = ("signed", "se", "rank_low", "rank_high", "selected")


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
    adata
        Annotated data after :func:`agevi.tl.attribute_genes`.
    group
        Group of cells; ``"all"`` are all cells, None every group, one after the other.
    n_top
        First genes of each group; all that the clock knows by default.
    gene_symbols
        Column of ``adata.var`` that is added after ``gene`` under its name, as scanpy does; where a gene has no symbol, its
        name stands there.
    key_added
        Prefix of the slots.

    Returns
    -------
    A table with the columns ``gene``, ``group``, ``rank`` (from 1), ``attribution``, ``signed``, ``se``, ``rank_low``,
    ``rank_high`` and ``selected``, as :func:`agevi.tl.attribute_genes` describes them. Genes that the clock does not know
    are left out.

    Raises
    ------
    KeyError
        :func:`agevi.tl.attribute_genes` was not run, or ``gene_symbols`` is absent.
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
    >>> agevi.get.attribution_df(adata, n_top=3)["rank"].tolist()
    [1, 2, 3]
    """
    keys = _keys.Keys(key_added)
    call = "agevi.tl.attribute_genes(adata, model)"
    groups = _names.several(_checks.slot(adata, keys.table("attribution"), "uns", call)["groups"])
    if group is not None:
        _checks.group(group, groups, f"adata.uns[{keys.table('attribution')!r}]")
    values = np.asarray(_checks.slot(adata, keys.attribution(), "varm", call))
    known = np.flatnonzero(~np.isnan(values[:, 0]))
    n_top = len(known) if n_top is None else _checks.count(n_top, "n_top", high=len(known))
    out = []
    for name in groups if group is None else [group]:
        column = groups.index(name)
        chosen = known[np.argsort(-values[known, column], kind="stable")[:n_top]]
        parts = {part: _part(adata, keys, part, chosen, column) for part in ("", *_ATTRIBUTION)}
        out.append(
            pd.DataFrame(
                {"gene": adata.var_names[chosen], "group": name, "rank": np.arange(1, n_top + 1)}
                | {part or "attribution": part_values for part, part_values in parts.items()}
            )
        )
    return _with_symbols(adata, pd.concat(out, ignore_index=True), gene_symbols)


def _with_symbols(adata: AnnData, table: pd.DataFrame, gene_symbols: str | None) -> pd.DataFrame:
    """A table of genes with the column of their symbols; rows of other names, as those of sets, keep theirs."""
    if gene_symbols is None:
        return table
    symbols = _symbols.names(adata, gene_symbols)
    column = "symbol" if gene_symbols in table else gene_symbols
    table.insert(list(table).index("gene") + 1, column, [symbols.get(gene, gene) for gene in table["gene"]])
    return table


def _part(adata: AnnData, keys: _keys.Keys, part: str, genes: np.ndarray, column: int) -> np.ndarray:
    """One quantity of some genes in one group, (n_genes,) float64."""
    values: np.ndarray = np.asarray(adata.varm[keys.attribution(part)])[genes, column].astype(np.float64)
    return values


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
    adata
        Annotated data after :func:`agevi.tl.enrich`.
    groups
        Keep these groups of the attribution; all by default.
    max_padj
        Keep sets with an adjusted p value up to this.
    key_added
        Prefix of the slots.

    Returns
    -------
    A copy of the table with the columns that :func:`agevi.tl.enrich` lists.

    Raises
    ------
    KeyError
        :func:`agevi.tl.enrich` was not run, or not on this group.

    Examples
    --------
    >>> import agevi, numpy as np
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=4, n_cells=5, n_genes=50)
    >>> adata.varm["agevi_attribution"] = np.arange(50.0)[:, None]  # stands for tl.attribute_genes(adata, model)
    >>> adata.uns["agevi_attribution"] = {"groups": ["all"]}
    >>> agevi.tl.enrich(adata, {"last": adata.var_names[-8:], "first": adata.var_names[:8]}, n_top=10)
    >>> agevi.get.enrichment_df(adata, max_padj=0.05)["term"].tolist()
    ['last']
    """
    call = f"agevi.tl.enrich(adata, sets, key_added={key_added!r})"
    table: pd.DataFrame = _checks.slot(adata, _keys.Keys(key_added).table("enrichment"), "uns", call)
    wanted = list(table["group"].unique()) if groups is None else _names.several(groups)
    unknown = [name for name in wanted if name not in set(table["group"])]
    if unknown:
        raise KeyError(
            f"groups={groups!r}: {unknown[0]!r} is not in the table of agevi.tl.enrich. "
            f"Available: {_checks.listed(table['group'].unique())}."
        )
    return table[table["group"].isin(wanted) & (table["padj"] <= max_padj)].reset_index(drop=True)


def perturbation_df(
    adata: AnnData,
    *,
    group: str | None = None,
    gene_symbols: str | None = None,
    key_added: str = _keys.DEFAULT_KEY,
) -> pd.DataFrame:
    """Change of predicted ages when genes are perturbed, in the unit of the age column.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.perturb_genes`.
    group
        Rows of this group; all by default.
    gene_symbols
        Column of ``adata.var`` that is added after ``gene`` under its name, as scanpy does.
    key_added
        Prefix of the slots.

    Returns
    -------
    A copy of the table with the columns that :func:`agevi.tl.perturb_genes` lists, the largest changes of a group first.

    Raises
    ------
    KeyError
        :func:`agevi.tl.perturb_genes` was not run, or ``gene_symbols`` is absent.
    ValueError
        The group is unknown.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.PLSClock(adata)
    >>> model.train()
    >>> agevi.tl.perturb_genes(adata, model, ["gene000", "gene001"])
    >>> sorted(agevi.get.perturbation_df(adata)["gene"])
    ['gene000', 'gene001']
    """
    slot = _keys.Keys(key_added).table("perturbation")
    table: pd.DataFrame = _checks.slot(adata, slot, "uns", "agevi.tl.perturb_genes(adata, model)")
    if group is not None:
        name = _checks.group(group, list(dict.fromkeys(table["group"].astype(str))), f"adata.uns[{slot!r}]")
        table = table[table["group"].astype(str) == name]
    return _with_symbols(adata, table.reset_index(drop=True), gene_symbols)


def programs_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """Latent dimensions or components by their part in predicted ages, in the unit of the age column.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.age_programs`.
    key_added
        Prefix of the slots.

    Returns
    -------
    A copy of the table with the columns that :func:`agevi.tl.age_programs` lists, the largest part first.

    Raises
    ------
    KeyError
        :func:`agevi.tl.age_programs` was not run.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.model.NMFClock.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.NMFClock(adata, n_components=3, n_hidden=[8], n_fit=300)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> agevi.tl.age_programs(adata, model)
    >>> sorted(agevi.get.programs_df(adata)["program"])
    ['component_0', 'component_1', 'component_2']
    """
    slot = _keys.Keys(key_added).table("programs")
    table: pd.DataFrame = _checks.slot(adata, slot, "uns", "agevi.tl.age_programs(adata, model)")
    return table.rename_axis("program").reset_index()
