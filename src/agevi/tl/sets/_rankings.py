"""Attributions of genes in the order and within the background in which sets of genes are tested."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from agevi import _checks, _keys, _names, _symbols
from agevi.tl.sets._gene_sets import no_overlap

logger = logging.getLogger(__name__)

BACKGROUNDS = ("model", "all")


@dataclass(frozen=True)
class Ranking:
    """The attributions of one group over the genes of the background."""

    group: str
    genes: pd.Index
    values: np.ndarray  # (n_genes,) NaN where a gene has no attribution

    @property
    def ranked(self) -> np.ndarray:
        """Mask of the genes with an attribution, (n_genes,)."""
        return np.isfinite(self.values)


def rankings(
    adata: AnnData,
    keys: _keys.Keys,
    background: str | Iterable[str],
    groups: Any,
    *,
    signed: bool,
    gene_symbols: str | None = None,
) -> list[Ranking]:
    """Attributions, or their sizes, of every group over the background: ``"model"``, ``"all"`` or names of genes."""
    if not isinstance(background, Iterable):
        raise TypeError(f"background is a {type(background).__name__}; pass 'model', 'all' or a list of genes.")
    names = background if isinstance(background, str) else list(background)
    call = f"agevi.tl.attribute_genes(adata, model, key_added={keys.key_added!r})"
    slot = keys.attribution("signed" if signed else "")
    values = np.asarray(_checks.slot(adata, slot, "varm", call), dtype=np.float64)
    known = _names.several(_checks.slot(adata, keys.attribution_groups, "uns", call).get("groups", []))
    # Both slots are written together, but either can be overwritten or subset by hand.
    if values.ndim != 2 or values.shape[1] != len(known):
        raise ValueError(
            f"adata.varm[{slot!r}] has the shape {values.shape} and adata.uns[{keys.attribution_groups!r}]['groups'] "
            f"{len(known)} names; one of them was replaced. Run {call} again."
        )
    wanted = known if groups is None else _names.several(groups)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise KeyError(
            f"groups={groups!r} names no group of the attribution{f': {unknown[0]!r} is absent' if unknown else ''}. "
            f"Available: {_checks.listed(known)}."
        )
    genes, out = pd.Index(_symbols.names(adata, gene_symbols)), []
    for group in wanted:
        column = values[:, known.index(group)]
        kept = _symbols.largest(genes, column)
        out.append(_over_background(group, genes[kept], column[kept], names, signed))
    return out


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


def members(
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
            f"none of the {len(names):,} sets has between {low:,} and {high or shape[1]:,} genes among the "
            f"{shape[1]:,} of the background (they have {size.min():,} to {size.max():,}); pass another size_range."
        )
    logger.info("%d of %d sets have a fitting size in group %r.", fits.sum(), len(names), ranking.group)
    return member[np.flatnonzero(fits)], names[fits]
