"""New data in the shape that a clock was trained on, without touching the user's AnnData."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from agevi import _checks, _symbols
from agevi._compat import read_rows

logger = logging.getLogger(__name__)
_BACKED_BLOCK = 16384  # cells read from disk at a time


@dataclass(frozen=True)
class GeneMatch:
    """Where a clock's genes are among the columns of new data."""

    columns: np.ndarray  # (n_genes,) position in the data, -1 where absent
    identical: bool
    covered: float | None = None  # share of the features of a clock's nearest feature set, where it has several

    @property
    def present(self) -> np.ndarray:
        """Mask of the clock's genes that the data have, (n_genes,)."""
        return self.columns >= 0

    @property
    def coverage(self) -> float:
        """Share of the clock's genes that the data have."""
        return float(self.present.mean()) if self.covered is None else self.covered


def match_genes(genes: np.ndarray, names: pd.Index, *, min_coverage: float) -> GeneMatch:
    """Find ``genes`` among ``names``; refuse when fewer than ``min_coverage`` of them are there."""
    identical = len(genes) == len(names) and bool(np.all(genes == names.to_numpy()))
    columns = np.arange(len(genes)) if identical else names.get_indexer(pd.Index(genes))
    match = GeneMatch(columns=columns, identical=identical)
    if match.coverage < min_coverage:
        absent = genes[~match.present]
        raise ValueError(
            f"{len(absent):,} of the clock's {len(genes):,} genes are absent from adata.var_names (e.g. "
            f"{_checks.listed(absent, 2)}; adata has {_checks.listed(names, 2)}){_name_hint(genes, names)} A clock "
            f"needs {min_coverage:.0%} of its genes."
        )
    if not match.present.all():
        logger.info(
            "%d of the clock's %d genes are absent (coverage %.1f %%); they enter at their training mean.",
            (~match.present).sum(), len(genes), 100 * match.coverage,
        )  # fmt: skip
    return match


def _name_hint(genes: np.ndarray, names: pd.Index) -> str:
    """What may be wrong with the names of new data, and what to do, as the middle of a message."""
    wanted = pd.Index(genes)
    why, said = _symbols.mismatch(wanted, names, "the clock uses", "the data use", least=0.2)
    kept = why == "version" and wanted.str.contains(".", regex=False).any()
    mapping = 'mapping={gene.split(".")[0]: gene for gene in clock.genes}'
    after = f", and run pp.align_genes(adata, clock, {mapping}), as the clock kept its own" if kept else ""
    advice = {
        "modality": "A clock fits the modality it was trained on.",
        "kind": "Rename var_names or run pp.align_genes.",
        "version": f"Cut it off, adata.var_names = {_symbols.CUT}{after}.",
        "case": "A clock fits the species it was trained on.",
        "": "Pass data of the same gene annotation, with all genes kept.",
    }
    return f"{said}. {advice[why]}"


def _columns(x: Any, match: GeneMatch) -> Any:
    """``x`` as CSR or dense with the clock's genes in order and zeros for absent ones; shares memory when it can."""
    if sp.issparse(x):
        x = x if x.format == "csr" else x.tocsr()
        if not isinstance(x, sp.csr_matrix):  # csr_array, which scvi-tools does not take
            x = sp.csr_matrix((x.data, x.indices, x.indptr), shape=x.shape, copy=False)
    if match.identical:
        return x
    present = match.present
    if present.all():
        return x[:, match.columns]
    if sp.issparse(x):
        kept = x[:, match.columns[present]]
        target = np.flatnonzero(present)
        return sp.csr_matrix((kept.data, target[kept.indices], kept.indptr), shape=(x.shape[0], len(present)))
    out = np.zeros((x.shape[0], len(present)), dtype=x.dtype)
    out[:, present] = x[:, match.columns[present]]
    return out


def query_shell(
    adata: ad.AnnData, match: GeneMatch, genes: np.ndarray, *, layer: str | None, read: str | None, obs: pd.DataFrame
) -> ad.AnnData:
    """AnnData of the clock's genes with what a model reads: the layer ``read`` as ``layer`` (None: X), and ``obs``."""
    x = _columns(_checks.matrix(adata, read), match)
    var = pd.DataFrame(index=pd.Index(genes, dtype=object))
    if layer is None:
        return ad.AnnData(X=x, obs=obs, var=var)
    return ad.AnnData(obs=obs, var=var, layers={layer: x}, shape=(adata.n_obs, len(genes)))


def blocks(adata: ad.AnnData, indices: Sequence[int] | np.ndarray | None) -> Iterator[ad.AnnData]:
    """``adata`` itself, or the chosen cells of backed data, some at a time."""
    if not adata.isbacked:
        yield adata
        return
    rows = np.arange(adata.n_obs) if indices is None else np.asarray(indices)
    for part in np.array_split(rows, max(1, -(-len(rows) // _BACKED_BLOCK))):
        yield read_rows(adata, part)
