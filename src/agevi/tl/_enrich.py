"""Sets of genes, such as pathways, among the genes that a clock's ages rest on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.stats import false_discovery_control, hypergeom

from agevi import _checks, _keys
from agevi.tl._gene_sets import no_overlap, read_sets

logger = logging.getLogger(__name__)

NOUN = "enrichment"
METHODS = ("ora", "gsea", "ulm")
BACKGROUNDS = ("model", "all")
N_PERMUTATIONS = 1000
"""Permutations of genes behind the p values of ``method="gsea"``."""
ORA_COLUMNS = ["group", "term", "overlap", "set_size", "n_top", "n_background", "odds_ratio", "p", "padj"]
ORA_COLUMNS += ["combined_score", "genes"]
SCORE_COLUMNS = ["group", "term", "set_size", "n_background", "score", "p", "padj"]
_RANKED = 0.1  # share of genes that a ranking must tell apart: below it permuted sets hold none of them
_BLOCK = 1 << 22  # values of the table of sets that are dense at once


@dataclass(frozen=True)
class Ranking:
    """The attributions of one group over the genes of the background.

    Attributes
    ----------
    group
        Name of the group.
    genes
        Genes of the background.
    values
        Attribution of each, (n_genes,), NaN where a gene has none.
    """

    group: str
    genes: pd.Index
    values: np.ndarray

    @property
    def ranked(self) -> np.ndarray:
        """Mask of the genes with an attribution, (n_genes,)."""
        return np.isfinite(self.values)


def enrich(
    adata: AnnData,
    sets: Any,
    *,
    n_top: int = 100,
    method: Literal["ora", "gsea", "ulm"] = "ora",
    background: str | Iterable[str] = "model",
    groups: str | Sequence[str] | None = None,
    size_range: tuple[int, int | None] = (5, 500),
    rng: int | np.random.Generator | None = 0,
    key_added: str = _keys.DEFAULT_KEY,
    copy: bool = False,
) -> AnnData | None:
    """Over-representation of gene sets among the genes that matter most to a clock, as odds ratio and p value.

    ``method="ora"`` takes the ``n_top`` genes with the largest mean absolute attribution and asks of each set whether
    it holds more of them than chance would give: Fisher's exact test, one-sided. The numbers follow Enrichr (Kuleshov et
    al. 2016). ``"gsea"`` (Subramanian et al. 2005) and ``"ulm"`` (Badia-i-Mompel et al. 2022) rank all genes by their
    mean signed attribution, so a high score says that the genes of a set raise the predicted age and a low one that
    they lower it. All p values take genes for independent, which they are not: sets of genes that rise and fall
    together come out too often, and they tell what the clock reads, not what ageing does.

    Parameters
    ----------
    adata
        Annotated data after ``agevi.tl.attribute_genes``.
    sets
        ``"reactome"``; the path of a GMT file, plain or ``.gz``; a dictionary of names and lists of genes; or a
        DataFrame with the columns ``source`` and ``target`` as decoupler has them (``weight``, if there, is used by
        ``"ulm"``). Reactome is read from the file that the environment variable ``AGEVI_REACTOME`` names, else from
        ``~/.cache/agevi/ReactomePathways.gmt`` (``$XDG_CACHE_HOME/agevi``), to which it is downloaded once.
    n_top
        Genes that ``"ora"`` takes. Genes without any attribution are never taken.
    method
        ``"ora"``: Fisher's exact test; ``"gsea"``: enrichment score normalised by 1,000 permutations of the genes;
        ``"ulm"``: t value of a linear model of the attribution on membership. The latter two are decoupler's.
    background
        ``"model"``: the genes that the model saw, which are those of ``adata`` with an attribution; ``"all"``: all
        genes of ``adata``; or a list of genes. A gene that could not be among the top ones makes sets look enriched
        that only follow what was measured, so leave ``"model"`` unless you know better.
    groups
        Groups of the attribution; all by default.
    size_range
        Fewest and most genes of a set in the background; other sets are not tested. None stands for no upper limit.
    rng
        Seed or generator of the permutations.
    key_added
        Prefix of the slots that are read and written.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets:

    ``adata.uns[f"{key_added}_enrichment"]``
        DataFrame with a row per group and set, the smallest p value first in each group. Always ``group``, ``term``,
        ``set_size`` and ``n_background`` (genes of the set in the background, and of the background, int64), ``p`` and
        ``padj`` (float64; Benjamini and Hochberg over all sets tested in the group, also those without a top gene).

        - From ``"ora"``: ``overlap`` (top genes in the set), ``n_top``, ``odds_ratio``, ``combined_score`` (minus the
          natural logarithm of ``p``, times ``odds_ratio``) and ``genes`` (the overlap, most important first, joined by
          ";"). Where the odds ratio is infinite, its denominator is taken as 1, as Enrichr does.
        - From ``"gsea"`` and ``"ulm"``: ``score``, the normalised enrichment score or the t value.
    ``adata.uns[f"{key_added}_enrichment_params"]``
        The arguments, where the sets come from, their number ``n_sets``, and how many were tested in each group
        (``n_tested``).

    Raises
    ------
    KeyError
        There are no attributions, a group is unknown, or a table of sets lacks a column.
    FileNotFoundError
        The file is absent, or Reactome is neither there nor can be downloaded.
    TypeError
        ``sets`` is of no known kind, or the genes of a set are no list.
    ValueError
        The sets are empty, share no gene with the background or are all too small or too large, ``n_top`` is larger
        than the number of genes, ``"gsea"`` or ``"ulm"`` meet a clock of few genes, or an argument is out of range.

    Warns
    -----
    UserWarning
        Fewer than ``n_top`` genes have an attribution other than zero, as in a sparse linear clock; those are taken.

    Examples
    --------
    >>> import agevi, numpy as np
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=4, n_cells=5, n_genes=50)
    >>> adata.varm["agevi_attribution"] = np.arange(50.0)[::-1, None]  # stands for tl.attribute_genes(adata, model)
    >>> adata.uns["agevi_attribution"] = {"groups": ["all"]}
    >>> sets = {"first": adata.var_names[:8], "last": adata.var_names[-8:]}
    >>> agevi.tl.enrich(adata, sets, n_top=10)
    >>> agevi.get.enrichment_df(adata)[["term", "overlap", "set_size", "p"]].round(4).values.tolist()
    [['first', 8, 8, 0.0], ['last', 0, 8, 1.0]]
    """
    _checks.anndata(adata)
    _checks.unique_names(adata)
    _checks.choice(method, METHODS, "method")
    n_top = _checks.count(n_top, "n_top")
    low, high = _sizes(size_range)
    generator = _checks.generator(rng)
    keys = _keys.Keys(key_added)
    net, origin = read_sets(sets)
    rankings = _rankings(adata, keys, background, groups, signed=method != "ora")
    tables, tested = [], []
    for ranking in rankings:
        member, names = _members(adata, ranking, net, (low, high), weighted=method == "ulm")
        if method == "ora":
            table = over_represented(ranking, member, n_top)
        else:
            table = _scored(ranking, member, method, int(generator.integers(1, 2**31)))
        table["group"] = np.full(len(names), ranking.group, dtype=object)
        table["term"] = names
        table["padj"] = false_discovery_control(table["p"])
        strength = table["odds_ratio" if method == "ora" else "score"].abs()
        order = np.lexsort((names.astype(str), -strength, table["p"]))
        tables.append(table.iloc[order][ORA_COLUMNS if method == "ora" else SCORE_COLUMNS])
        tested.append(len(names))
    params = {
        "method": method,
        "n_top": n_top,
        "background": background if isinstance(background, str) else "list",
        "groups": [ranking.group for ranking in rankings],
        "sets": origin,
        "n_sets": net["source"].nunique(),
        "n_tested": tested,
        "min_size": low,
        "max_size": high,
        "rng": rng,
        "n_permutations": N_PERMUTATIONS if method == "gsea" else None,
    }
    stored = _keys.to_uns(pd.concat(tables, ignore_index=True)), _keys.to_uns(params)
    out = adata.copy() if copy else adata
    out.uns[keys.table(NOUN)], out.uns[keys.table_params(NOUN)] = stored
    return out if copy else None


def _sizes(size_range: Any) -> tuple[int, int | None]:
    """Fewest and most genes of a set."""
    values = list(size_range) if isinstance(size_range, tuple | list | np.ndarray) else []
    if len(values) != 2:
        raise ValueError(
            f"size_range={size_range!r} is not a pair; pass the fewest and the most genes, such as (5, 500)."
        )
    low = _checks.count(values[0], "size_range[0]")
    return low, None if values[1] is None else _checks.count(values[1], "size_range[1]", low=low)


def _rankings(
    adata: AnnData, keys: _keys.Keys, background: str | Iterable[str], groups: Any, *, signed: bool
) -> list[Ranking]:
    """The attributions of every wanted group over the background."""
    call = f"agevi.tl.attribute_genes(adata, model, key_added={keys.key_added!r})"
    slot = keys.table("attribution_signed" if signed else "attribution")
    values = np.asarray(_checks.slot(adata, slot, "varm", call), dtype=np.float64)
    known = [str(name) for name in _checks.slot(adata, keys.table("attribution"), "uns", call).get("groups", [])]
    if values.ndim != 2 or values.shape[1] != len(known):
        raise ValueError(
            f"adata.varm[{slot!r}] has the shape {values.shape} and adata.uns[{keys.table('attribution')!r}]['groups'] "
            f"{len(known)} names; one of them was replaced. Run {call} again."
        )
    wanted = known if groups is None else [str(name) for name in ([groups] if isinstance(groups, str) else groups)]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise KeyError(
            f"groups={groups!r} names no group of the attribution{f': {unknown[0]!r} is absent' if unknown else ''}. "
            f"Available: {_checks.listed(known)}."
        )
    genes = adata.var_names.astype(str)
    return [_over_background(group, genes, values[:, known.index(group)], background, signed) for group in wanted]


def _over_background(
    group: str, genes: pd.Index, values: np.ndarray, background: str | Iterable[str], signed: bool
) -> Ranking:
    """One group's attributions, aligned to the background."""
    seen = np.isfinite(values)
    if not seen.any():
        raise ValueError(f"group {group!r} has no gene with an attribution; pass groups=[...] without it.")
    if isinstance(background, str):
        whole = _checks.choice(background, BACKGROUNDS, "background") == "all"
        if whole and signed and not seen.all():
            raise ValueError(
                f"background='all' has {(~seen).sum():,} genes without an attribution, which cannot be ranked; pass "
                "background='model' or method='ora'."
            )
        return Ranking(group, genes, values) if whole else Ranking(group, genes[seen], values[seen])
    names = pd.Index(np.unique(np.asarray([str(name) for name in background], dtype=object)))
    shared = genes[seen].intersection(names)
    if not len(shared):
        raise ValueError(
            f"background holds {len(names):,} genes{f' (e.g. {_checks.listed(names, 2)})' if len(names) else ''}, and "
            f"none of the {seen.sum():,} genes that the model saw (e.g. {_checks.listed(genes[seen], 2)}) is one of "
            "them; pass background='model', or a list of names as in adata.var_names."
        )
    order = shared if signed else shared.append(names.difference(shared))  # genes without a rank only count
    return Ranking(group, order, pd.Series(values, index=genes).reindex(order).to_numpy())


def _members(
    adata: AnnData, ranking: Ranking, net: pd.DataFrame, sizes: tuple[int, int | None], *, weighted: bool
) -> tuple[sp.csr_array, np.ndarray]:
    """Weights of the genes in the sets of a fitting size, (n_sets, n_genes), and the names of these sets."""
    column = ranking.genes.get_indexer(pd.Index(net["target"]))
    there = column >= 0
    if not there.any():
        raise ValueError(no_overlap(adata, ranking.genes, net["target"].unique()))
    row, names = pd.factorize(net["source"].to_numpy(dtype=object))
    weight = net["weight"].to_numpy() if weighted else np.ones(len(net))
    shape = (len(names), len(ranking.genes))
    member = sp.csr_array((weight[there], (row[there], column[there])), shape=shape)
    size = np.bincount(row[there], minlength=len(names))
    low, high = sizes
    # A set that holds the whole background has nothing to be compared with.
    fits = (size >= low) & (size < shape[1]) & (size <= (shape[1] if high is None else high))
    if not fits.any():
        raise ValueError(
            f"none of the {len(names):,} sets has between {low:,} and {high or shape[1]:,} genes among the {shape[1]:,} "
            f"of the background (they have {size.min():,} to {size.max():,}); pass another size_range."
        )
    logger.info("%d of %d sets have a fitting size in group %r.", fits.sum(), len(names), ranking.group)
    return member[np.flatnonzero(fits)], names[fits]


def over_represented(ranking: Ranking, member: sp.csr_array, n_top: int) -> pd.DataFrame:
    """Fisher's test of every set among the top genes.

    Parameters
    ----------
    ranking
        Mean absolute attributions.
    member
        Sets x genes, ones where a gene is in a set.
    n_top
        Genes to take.
    """
    n_genes = len(ranking.genes)
    n_ranked = int(ranking.ranked.sum())
    if n_top > n_ranked or n_top >= n_genes:
        raise ValueError(
            f"n_top={n_top:,}, but the background has {n_genes:,} genes, {n_ranked:,} of them with an attribution in "
            f"group {ranking.group!r}; pass a smaller n_top, a tenth of them or fewer."
        )
    score = np.nan_to_num(ranking.values, nan=0.0)
    top = np.argsort(-score, kind="stable")[:n_top]
    top = top[score[top] > 0]
    if len(top) < n_top:
        if not len(top):
            raise ValueError(f"all attributions of group {ranking.group!r} are zero; no gene can be called important.")
        warnings.warn(
            f"only {len(top):,} genes have an attribution other than zero in group {ranking.group!r}; they are taken "
            f"instead of n_top={n_top:,}.",
            UserWarning,
            stacklevel=3,
        )
    rank = np.full(n_genes, n_top, dtype=np.int64)
    rank[top] = np.arange(len(top))
    size = np.diff(member.indptr)
    overlap = np.add.reduceat(rank[member.indices] < len(top), member.indptr[:-1], dtype=np.int64)
    p, odds_ratio, combined = fisher(overlap, size, len(top), n_genes)
    names = ranking.genes.to_numpy(dtype=object)
    found = [np.sort(rank[own][rank[own] < len(top)]) for own in np.split(member.indices, member.indptr[1:-1])]
    return pd.DataFrame(
        {
            "overlap": overlap,
            "set_size": size.astype(np.int64),
            "n_top": len(top),
            "n_background": n_genes,
            "odds_ratio": odds_ratio,
            "combined_score": combined,
            "p": p,
            "genes": np.asarray([";".join(names[top[own]]) for own in found], dtype=object),
        }
    )


def fisher(
    overlap: np.ndarray, size: np.ndarray, n_top: int, n_background: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One-sided p value of Fisher's exact test, odds ratio and combined score in Enrichr's convention, each (n_sets,).

    Parameters
    ----------
    overlap
        Top genes in each set.
    size
        Genes of each set.
    n_top
        Top genes.
    n_background
        All genes.
    """
    p = hypergeom.sf(overlap - 1, n_background, size, n_top).clip(0, 1)
    only_set, only_top = size - overlap, n_top - overlap
    neither = n_background - size - only_top
    odds_ratio = overlap * neither / np.maximum(only_set * only_top, 1)
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    tiny = p == 0  # below the smallest float, while its logarithm is not
    if tiny.any():
        log_p[tiny] = hypergeom.logsf(overlap[tiny] - 1, n_background, size[tiny], n_top)
    return p, odds_ratio, combined_score(log_p, odds_ratio)


def combined_score(log_p: np.ndarray, odds_ratio: np.ndarray) -> np.ndarray:
    """Minus the natural logarithm of p, times the odds ratio.

    Parameters
    ----------
    log_p
        Natural logarithm of the p value.
    odds_ratio
        Odds ratio.
    """
    return np.abs(log_p) * odds_ratio


def _scored(ranking: Ranking, member: sp.csr_array, method: str, seed: int) -> pd.DataFrame:
    """Score and p value of every set from decoupler's method on the ranked genes."""
    import decoupler as dc  # takes a second

    n_ranked, n_genes = np.count_nonzero(ranking.values), len(ranking.values)
    if n_ranked < _RANKED * n_genes:
        raise ValueError(
            f"method={method!r} ranks all genes, but {n_ranked:,} of {n_genes:,} have an attribution other than zero in "
            f"group {ranking.group!r}; use method='ora'."
        )
    values = ranking.values[None]
    if method == "gsea":
        # The seed is never 0, for which some versions of decoupler do not permute.
        offsets = np.diff(member.indptr).astype(np.int64)
        starts = member.indptr[:-1].astype(np.int64)
        indices = member.indices.astype(np.int64)
        score, p = dc.mt.gsea.func(values, indices, starts, offsets, times=N_PERMUTATIONS, seed=seed)
        p = p.clip(1 / (N_PERMUTATIONS + 1), 1)  # no fewer than one in all permutations and the data
    else:
        step = max(1, _BLOCK // member.shape[1])
        blocks = [
            dc.mt.ulm.func(values, member[start : start + step].toarray().T)
            for start in range(0, member.shape[0], step)
        ]
        score, p = (np.concatenate([np.atleast_2d(block[i]) for block in blocks], axis=1) for i in (0, 1))
    return pd.DataFrame(
        {
            "set_size": np.diff(member.indptr).astype(np.int64),
            "n_background": len(ranking.genes),
            "score": np.asarray(score, dtype=np.float64).ravel(),
            "p": np.asarray(p, dtype=np.float64).ravel(),
        }
    )
