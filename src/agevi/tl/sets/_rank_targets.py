"""Drug targets among the genes that clocks or classifiers of several diseases rest on."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import false_discovery_control, hypergeom

from agevi import _checks, _keys
from agevi.tl.sets._enrich import ORA_COLUMNS, enrich
from agevi.tl.sets._target_lists import keep_druggable, read_attributions, read_druggable

GENE_COLUMNS = ["disease", "gene", "rank", "attribution", "signed", "rank_all", "in_top", "n_diseases"]
SHARED_COLUMNS = ["gene", "n_diseases", "diseases", "mean_rank", "p", "padj"]
OVERLAP_COLUMNS = ["diseases", "n_diseases", "overlap", "expected", "n_listed", "n_background", "p", "genes"]
JOIN = ";"


@dataclass(frozen=True, eq=False, repr=False)
class TargetRanking:
    """What :func:`agevi.tl.rank_targets` returns: four tables, which :func:`agevi.pl.targets` draws.

    Attributes
    ----------
    genes
        The first ``n_top`` genes of each disease, and those of its top that are compared.
    shared
        Genes in the top ``n_shared`` of two diseases or more.
    overlap
        How many of the top ``n_shared`` genes pairs of diseases, and all of them, have in common.
    enrichment
        Gene sets among the first ``n_top`` genes, as from :func:`agevi.tl.enrich`; empty without ``sets``.
    params
        ``diseases`` in their order, ``n_top``, ``n_shared``, ``n_genes`` (that could be ranked, by disease) and
        ``n_common`` (in all diseases).
    """

    genes: pd.DataFrame
    shared: pd.DataFrame
    overlap: pd.DataFrame
    enrichment: pd.DataFrame
    params: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """A line in place of four tables."""
        diseases = _checks.listed(self.params["diseases"])
        return f"TargetRanking({diseases}: {len(self.genes):,} rows of genes, {len(self.shared):,} shared genes)"


def rank_targets(
    tables: Mapping[str, AnnData | pd.DataFrame | pd.Series],
    *,
    druggable: str | Path | pd.DataFrame | Iterable[str] | None = None,
    sets: Any = None,
    n_top: int = 200,
    n_shared: int = 20,
    group: str = "all",
    gene_symbols: str | None = None,
    key_added: str = _keys.DEFAULT_KEY,
) -> TargetRanking:
    r"""Rank of genes as drug targets in each of several diseases, and the genes that diseases share, with p values.

    The genes of each clock or classifier are reduced to those that drugs act on and ranked by the size of their
    attribution, the largest first. Precious1GPT (Urban et al. 2023) looked for genes that several diseases share among
    their first 20. How many two lists have in common is compared with random lists by the hypergeometric test. The p
    values treat lists as independent: classifiers that were made from one clock, or that share controls or a tissue,
    have genes in common for that reason alone. A high rank says what a model reads, not that a drug would help.

    Parameters
    ----------
    tables
        For each disease, by name: an AnnData after :func:`agevi.tl.attribute_genes`, a table of
        :func:`agevi.get.attribution_df`, or a Series of signed values by gene, such as the coefficients of a published
        clock.
    druggable
        Genes that drugs act on: names; the path of a text file with a gene in each line; or a table, or the path of one
        (text with commas, tabs or semicolons), with a column ``gene``, ``gene_name``, ``gene_symbol`` or ``symbol`` in
        any case, as DrugCentral and DGIdb have them. Files may be compressed by gzip. Genes joined by "|" or ";" are
        taken apart. All genes by default.
    sets
        Gene sets that are tested among the first ``n_top`` genes of each disease, such as a GMT file of ageing genes;
        what :func:`agevi.tl.enrich` takes. The background are the genes that could be ranked: druggable ones of the
        clock. Sets of 5 genes or more in the background are tested.
    n_top
        Genes that are listed for each disease, at most, and tested for ``sets``.
    n_shared
        First genes of each disease that are compared between diseases.
    group
        Group of the attributions. With ``"all"``, a table of one group is taken as it is.
    gene_symbols
        Column of ``adata.var`` with the names of genes, the same for every AnnData in ``tables``, where
        ``adata.var_names`` holds other ones such as Ensembl ids. Of several genes with one symbol the one with the
        largest attribution is taken.
    key_added
        Prefix of the slots of AnnData.

    Returns
    -------
    :class:`agevi.tl.TargetRanking` with DataFrames; nothing is written, since the tables come from several data sets.

    - ``genes``: ``disease``, ``gene``, ``rank`` (from 1, among druggable genes), ``attribution``, ``signed`` (positive
      where the gene raises the prediction; NaN where unknown), ``rank_all`` (among all genes of the clock), ``in_top``
      (whether it is one of the ``n_shared`` genes of this disease that are compared), ``n_diseases`` (for how many it
      is).
    - ``shared``: a row for each gene that is in the top of two diseases or more: ``gene``, ``n_diseases``, their names
      ``diseases`` joined by ";", ``mean_rank`` (over the diseases that give it an attribution, among the genes that all
      have), ``p`` (chance to be in the top of as many diseases, Poisson-binomial) and ``padj`` (Benjamini and Hochberg,
      over all genes in common).
    - ``overlap``: a row for each pair of diseases, and one for all where there are more: ``diseases``, ``n_diseases``,
      ``overlap`` (genes in the top of all of these), ``expected`` by chance, ``n_listed`` (genes in each top, joined by
      ";"), ``n_background``, ``p`` (of this overlap or a larger one) and the ``genes``.
    - ``enrichment``: the columns of ``method="ora"`` of :func:`agevi.tl.enrich`, where ``group`` is the disease.
    - ``params``: a dictionary.

    Raises
    ------
    KeyError
        Attributions or ``gene_symbols`` are absent, or a table lacks a column.
    FileNotFoundError
        A file is absent.
    TypeError
        ``tables``, one of them, ``druggable`` or ``sets`` is of an unknown kind, or attributions are text.
    ValueError
        No gene is druggable (with what may be wrong with the names), the diseases share fewer genes than are compared,
        a gene or disease is named twice or has no name, a file cannot be read, or an argument is out of range.

    Warns
    -----
    UserWarning
        A disease has fewer than ``n_shared`` genes with an attribution other than zero; those are compared.

    Notes
    -----
    Genes with the same attribution are ranked in an order of chance, another one for each name of a disease: in one
    order they would be shared for that reason alone. Diseases are compared on the genes that all of them could rank
    (``n_background`` :math:`= N`), ranked anew among these. With top lists of :math:`n_1, \dots, n_m` genes, the
    overlap of two is hypergeometric. The number of genes in all :math:`m` lists is the end of a chain: the first
    :math:`i` lists have :math:`X_i` genes in common, and given it :math:`X_{i+1}` is hypergeometric with :math:`X_i` of
    :math:`N` genes and :math:`n_{i+1}` draws, which gives its exact distribution. The p value of one gene is that of
    the sum of :math:`m` independent events with probabilities :math:`n_i / N`.

    Examples
    --------
    >>> import agevi, numpy as np, pandas as pd
    >>> genes = [f"gene{i:03d}" for i in range(300)]
    >>> rng = np.random.default_rng(0)
    >>> tables = {name: pd.Series(rng.normal(size=300), genes) for name in ("Parkinson", "diabetes", "COPD")}
    >>> for table in tables.values():
    ...     table["gene007"] = 9.0
    >>> targets = agevi.tl.rank_targets(tables, druggable=genes[:200])
    >>> targets.shared[["gene", "n_diseases", "mean_rank"]].head(1).values.tolist()
    [['gene007', 3, 1.0]]
    >>> targets.overlap["diseases"].tolist()
    ['Parkinson;diabetes', 'Parkinson;COPD', 'diabetes;COPD', 'Parkinson;diabetes;COPD']
    """
    n_top, n_shared = _checks.count(n_top, "n_top"), _checks.count(n_shared, "n_shared")
    full = read_attributions(tables, group, key_added, gene_symbols)
    targets = read_druggable(druggable)
    kept = full if targets is None else {n: keep_druggable(table, targets, n) for n, table in full.items()}
    common = _common_ranks(kept, n_shared)
    lists = {name: set(common.index[common[name] <= n_shared]) for name in kept}
    counts = pd.Series(0, index=common.index, dtype=np.int64)
    for top in lists.values():
        counts[list(top)] += 1
    genes = pd.concat([_listed(n, kept[n], full[n], lists[n], n_top) for n in kept], ignore_index=True)
    genes["n_diseases"] = counts.reindex(genes["gene"], fill_value=0).to_numpy(dtype=np.int64)
    return TargetRanking(
        genes=genes[GENE_COLUMNS],
        shared=_shared(common, lists, counts),
        overlap=_overlaps(lists, len(common)),
        enrichment=_enrichment(kept, sets, n_top),
        params={
            "diseases": list(kept),
            "n_top": n_top,
            "n_shared": n_shared,
            "n_genes": {name: len(table) for name, table in kept.items()},
            "n_common": len(common),
            "n_druggable": None if targets is None else len(targets),
            "group": group,
            "key_added": key_added,
        },
    )


def _ranks(attribution: pd.Series) -> pd.Series:
    """Rank of every gene from 1, the largest first, ties as they come; NaN for genes without any attribution."""
    ranks = attribution.rank(ascending=False, method="first")
    return ranks.where(attribution > 0)


def _common_ranks(tables: dict[str, pd.DataFrame], n_shared: int) -> pd.DataFrame:
    """Ranks of the genes that all tables have among these genes, genes x diseases."""
    genes = next(iter(tables.values())).index
    for table in tables.values():
        genes = genes[genes.isin(table.index)]
    if len(tables) > 1 and len(genes) <= n_shared:
        sizes = ", ".join(f"{name!r} {len(table):,}" for name, table in tables.items())
        raise ValueError(
            f"n_shared={n_shared}, but the tables have {len(genes):,} genes in common ({sizes}); pass a smaller "
            "n_shared, or attributions of clocks that were trained on the same genes."
        )
    # Each table keeps its own order of ties; one common order would make diseases share genes by chance.
    shared = {name: table.loc[table.index.isin(genes), "attribution"] for name, table in tables.items()}
    out = pd.DataFrame({name: _ranks(values) for name, values in shared.items()}, index=genes.sort_values())
    few = out.max().fillna(0).astype(int)
    few = few[few < n_shared]
    if len(tables) > 1 and len(few):
        warnings.warn(
            f"{_checks.listed(few.index)}: only {', '.join(map(str, few))} of the common genes have an attribution "
            f"other than zero; they are compared instead of n_shared={n_shared}.",
            UserWarning,
            stacklevel=_checks.stack_depth(),
        )
    return out


def _listed(name: str, kept: pd.DataFrame, full: pd.DataFrame, top: set[str], n_top: int) -> pd.DataFrame:
    """The first genes of a disease, and those that are compared."""
    ranks = _ranks(kept["attribution"]).dropna().sort_values()
    ranks = ranks[(ranks <= n_top) | ranks.index.isin(top)]
    chosen = kept.loc[ranks.index]
    return pd.DataFrame(
        {
            "disease": name,
            "gene": ranks.index,
            "rank": ranks.to_numpy(dtype=np.int64),
            "attribution": chosen["attribution"].to_numpy(),
            "signed": chosen["signed"].to_numpy(),
            "rank_all": _ranks(full["attribution"])[ranks.index].to_numpy(dtype=np.int64),
            "in_top": ranks.index.isin(top),
        }
    )


def _shared(common: pd.DataFrame, lists: dict[str, set[str]], counts: pd.Series) -> pd.DataFrame:
    """Genes in the top of two diseases or more."""
    if len(lists) < 2:
        return pd.DataFrame(columns=SHARED_COLUMNS)
    p = pd.Series(at_least([len(genes) / len(common) for genes in lists.values()])[counts], index=counts.index)
    padj = pd.Series(false_discovery_control(p), index=counts.index)
    genes = counts.index[counts >= 2]
    table = pd.DataFrame(
        {
            "gene": genes,
            "n_diseases": counts[genes].to_numpy(),
            "diseases": [JOIN.join(name for name, top in lists.items() if gene in top) for gene in genes],
            "mean_rank": common.loc[genes].mean(axis=1).to_numpy(dtype=np.float64),
            "p": p[genes].to_numpy(dtype=np.float64),
            "padj": padj[genes].to_numpy(dtype=np.float64),
        },
        columns=SHARED_COLUMNS,
    )
    return table.sort_values(["n_diseases", "mean_rank"], ascending=[False, True], ignore_index=True)


def at_least(probability: Sequence[float]) -> np.ndarray:
    """Chance that k or more of independent events happen, for k from 0 (Poisson-binomial), (n_events + 1,)."""
    exactly = np.ones(1)  # of no event, none happens
    for q in probability:
        exactly = np.append(exactly, 0.0) * (1 - q) + np.append(0.0, exactly) * q
    return np.cumsum(exactly[::-1])[::-1].clip(0, 1)


def _overlaps(lists: dict[str, set[str]], n_background: int) -> pd.DataFrame:
    """Pairs of diseases, and all."""
    combinations = list(itertools.combinations(lists, 2)) + ([tuple(lists)] if len(lists) > 2 else [])
    rows = []
    for names in combinations:
        genes = set.intersection(*(lists[name] for name in names))
        sizes = [len(lists[name]) for name in names]
        rows.append(
            {
                "diseases": JOIN.join(names),
                "n_diseases": len(names),
                "overlap": len(genes),
                "expected": float(n_background * np.prod(np.asarray(sizes) / n_background)),
                "n_listed": JOIN.join(map(str, sizes)),
                "n_background": n_background,
                "p": overlap_p(len(genes), sizes, n_background),
                "genes": JOIN.join(sorted(genes)),
            }
        )
    return pd.DataFrame(rows, columns=OVERLAP_COLUMNS)


def overlap_p(overlap: int, sizes: Sequence[int], n_background: int) -> float:
    """Chance that random lists of these ``sizes`` have ``overlap`` genes or more in common, exactly."""
    if len(sizes) == 2:
        return float(hypergeom.sf(overlap - 1, n_background, sizes[0], sizes[1]))
    shared = np.arange(max(sizes) + 1)
    chance = hypergeom.pmf(shared, n_background, sizes[0], sizes[1])  # of each number of genes in the first two
    for size in sizes[2:]:
        chance = hypergeom.pmf(shared[:, None], n_background, shared[None], size) @ chance
    return float(min(1.0, chance[overlap:].sum()))


def _enrichment(tables: dict[str, pd.DataFrame], sets: Any, n_top: int) -> pd.DataFrame:
    """Gene sets among the first genes of every disease, each with its own background."""
    if sets is None:
        return pd.DataFrame(columns=ORA_COLUMNS)
    found = []
    for name, table in tables.items():
        # enrich reads an AnnData; one per disease gives each the background of its own druggable genes.
        adata = AnnData(np.zeros((1, len(table)), dtype=np.float32), var=pd.DataFrame(index=table.index))
        keys = _keys.Keys()
        adata.varm[keys.attribution()] = table["attribution"].to_numpy()[:, None]
        adata.uns[keys.attribution()] = {"groups": [name]}
        enrich(adata, sets, n_top=n_top, size_range=(5, None))
        found.append(adata.uns[keys.enrichment])
    return pd.concat(found, ignore_index=True)
