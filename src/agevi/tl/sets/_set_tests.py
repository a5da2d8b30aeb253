"""Tests of sets of genes: Fisher's on the top genes, and decoupler's on all."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.stats import hypergeom

from agevi.tl.sets._rankings import Ranking

N_PERMUTATIONS = 1000
"""Permutations of genes behind the p values of ``method="gsea"``."""
_RANKED = 0.1  # share of genes that a ranking must tell apart: below it permuted sets hold none of them
_BLOCK = 1 << 22  # values of the table of sets that are dense at once


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
