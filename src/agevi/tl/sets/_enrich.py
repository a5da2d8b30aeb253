"""Sets of genes, such as pathways, among the genes that a clock's ages rest on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.stats import false_discovery_control, hypergeom

from agevi import _checks, _keys
from agevi._progress import steps
from agevi.tl._store import store_table
from agevi.tl.sets._gene_sets import read_sets
from agevi.tl.sets._rankings import Ranking, members, rankings

METHODS = ("ora", "gsea", "ulm")
ORA_COLUMNS = ["group", "term", "overlap", "set_size", "n_top", "n_background", "odds_ratio", "p", "padj"]
ORA_COLUMNS += ["combined_score", "genes"]
SCORE_COLUMNS = ["group", "term", "set_size", "n_background", "score", "p", "padj"]
N_PERMUTATIONS = 1000
"""Permutations of genes behind the p values of ``method="gsea"``."""
_RANKED = 0.1  # share of genes that a ranking must tell apart: below it permuted sets hold none of them
_BLOCK = 1 << 22  # values of the table of sets that are dense at once


def enrich(  # noqa: PLR0913
    adata: AnnData,
    sets: Any,
    *,
    n_top: int = 100,
    method: Literal["ora", "gsea", "ulm"] = "ora",
    background: str | Iterable[str] = "model",
    groups: str | Sequence[str] | None = None,
    size_range: tuple[int, int | None] = (5, 500),
    gene_symbols: str | None = None,
    rng: int | np.random.Generator | None = 0,
    key_added: str = _keys.DEFAULT_KEY,
    copy: bool = False,
) -> AnnData | None:
    """Over-representation of gene sets among the genes that matter most to a clock, as odds ratio and p value.

    ``method="ora"`` takes the ``n_top`` genes with the largest mean absolute attribution and asks of each set whether
    it holds more of them than chance would give: Fisher's exact test, one-sided. The numbers follow Enrichr (Kuleshov
    et al. 2016). ``"gsea"`` (Subramanian et al. 2005) and ``"ulm"`` (Badia-i-Mompel et al. 2022) rank all genes by
    their mean signed attribution, so a high score says that the genes of a set raise the predicted age and a low one
    that they lower it. All p values treat genes as independent, which they are not. In the user guide's benchmark 1 of
    20 linear clocks trained on shuffled ages had a false set with ``"ora"``, but 11 and 16 with ``"gsea"`` and
    ``"ulm"``, so use these two for directions. A set shows what the clock reads, not what ageing does.

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
    gene_symbols
        Column of ``adata.var`` with the names that sets and background use, where ``adata.var_names`` holds other ones
        such as Ensembl ids. Of several genes with one symbol the one with the largest attribution is taken.
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
        There are no attributions, a group or ``gene_symbols`` is unknown, or a table of sets lacks a column.
    FileNotFoundError
        The file is absent, or Reactome is neither there nor can be downloaded.
    TypeError
        ``sets`` is of an unknown kind, or the genes of a set are not a list.
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
    keys = _keys.Keys(key_added)
    _checks.unique_names(adata)
    _checks.choice(method, METHODS, "method")
    n_top = _checks.count(n_top, "n_top")
    low, high = _sizes(size_range)
    generator = _checks.generator(rng)
    net, origin = read_sets(sets)
    ranked = rankings(adata, keys, background, groups, signed=method != "ora", gene_symbols=gene_symbols)
    tables, tested = [], []
    for ranking in steps(ranked, len(ranked), f"gene sets, {method}", "groups", show=method == "gsea"):
        member, names = members(adata, ranking, net, (low, high), weighted=method == "ulm")
        if method == "ora":
            table = over_represented(ranking, member, n_top)
        else:
            table = scored(ranking, member, method, int(generator.integers(1, 2**31)))
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
        "groups": [ranking.group for ranking in ranked],
        "sets": origin,
        "n_sets": net["source"].nunique(),
        "n_tested": tested,
        "gene_symbols": gene_symbols,
        "min_size": low,
        "max_size": high,
        "rng": rng,
        "n_permutations": N_PERMUTATIONS if method == "gsea" else None,
    }
    return store_table(adata, keys, "enrichment", pd.concat(tables, ignore_index=True), params, copy=copy)


def _sizes(size_range: Any) -> tuple[int, int | None]:
    """Fewest and most genes of a set."""
    values = list(size_range) if isinstance(size_range, tuple | list | np.ndarray) else []
    if len(values) != 2:
        raise ValueError(
            f"size_range={size_range!r} is not a pair; pass the fewest and the most genes, such as (5, 500)."
        )
    low = _checks.count(values[0], "size_range[0]")
    return low, None if values[1] is None else _checks.count(values[1], "size_range[1]", low=low)


def over_represented(ranking: Ranking, member: sp.csr_array, n_top: int) -> pd.DataFrame:
    """Fisher's test of every set (a row of ``member``) among the top genes by mean absolute attribution."""
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
    """p, odds ratio and combined score of each set by Fisher's exact test, one-sided, as Enrichr computes them."""
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
    """Minus the natural logarithm of p, times the odds ratio."""
    return np.abs(log_p) * odds_ratio


def scored(ranking: Ranking, member: sp.csr_array, method: str, seed: int) -> pd.DataFrame:
    """Score and p value of every set, whose weights ``member`` holds, from decoupler's method on the ranked genes."""
    import decoupler as dc  # takes a second

    n_ranked, n_genes = np.count_nonzero(ranking.values), len(ranking.values)
    if n_ranked < _RANKED * n_genes:
        raise ValueError(
            f"method={method!r} ranks all genes, but {n_ranked:,} of {n_genes:,} have an attribution other than zero "
            f"in group {ranking.group!r}; use method='ora'."
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
