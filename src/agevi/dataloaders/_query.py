"""New data in the shape that a clock was trained on, without touching the user's AnnData."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from agevi import _checks

logger = logging.getLogger(__name__)

ENSEMBL = re.compile(r"^ENS[A-Z]*G\d{6,}")
CPG = re.compile(r"^c[gh]\.?\d+")
_VERSIONED = r"^(ENS[A-Z]*G\d{6,})\..*$"
VERSIONS = "the names differ in the version that Ensembl ids end with"
CUT = 'adata.var_names.str.split(".").str[0]'


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
    """What may be wrong with the names, as the middle of a message."""
    kinds = [kind_of_name(str(n)) for n in (genes[0], names[0])]
    if kinds[0] != kinds[1] and "CpG sites" in kinds:
        return f"; the data hold {kinds[1]}, the clock reads {kinds[0]}. A clock fits the modality it was trained on."
    if kinds[0] != kinds[1]:
        return f"; the data use {kinds[1]}, the clock uses {kinds[0]}. Rename var_names or run pp.align_genes."
    difference = spelling(pd.Index(genes), names, least=0.2)
    if difference == "version":
        kept = pd.Index(genes).str.contains(".", regex=False).any()
        mapping = 'mapping={gene.split(".")[0]: gene for gene in clock.genes}'
        after = f", and run pp.align_genes(adata, clock, {mapping}), as the clock kept its own" if kept else ""
        return f"; {VERSIONS}. Cut it off, adata.var_names = {CUT}{after}."
    if difference == "case":
        return "; the names differ in case, as mouse and human symbols do. A clock fits the species it was trained on."
    return ". Pass data of the same gene annotation, with all genes kept."


def spelling(genes: pd.Index, names: pd.Index, *, least: float = 0.0) -> str:
    """What keeps ``genes`` from being among ``names``: ``"version"`` (of Ensembl ids), ``"case"`` or ``""``.

    Parameters
    ----------
    genes, names
        Names.
    least
        Share of the genes that must be there with one spelling for all.
    """
    genes, names = genes.astype(str), names.astype(str)
    needed = max(2 * len(genes.intersection(names)), least * len(genes))
    without = [index.str.replace(_VERSIONED, r"\1", regex=True) for index in (genes, names)]
    if len(without[0].intersection(without[1])) > needed:
        return "version"
    return "case" if len(genes.str.upper().intersection(names.str.upper())) > needed else ""


def kind_of_name(name: str) -> str:
    """What sort of name of a feature it is."""
    if CPG.match(name):
        return "CpG sites"
    return "Ensembl ids" if ENSEMBL.match(name) else "symbols"


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
    """An AnnData of the clock's genes that holds no more than a model reads.

    Parameters
    ----------
    adata
        The user's data; never written to.
    match
        From :func:`match_genes`.
    genes
        The clock's genes.
    layer
        Layer that holds the values in the new AnnData, None for X.
    read
        Layer that holds them in ``adata``, None for X.
    obs
        The columns that the model reads, index as ``adata.obs_names``.
    """
    x = _columns(_checks.matrix(adata, read), match)
    var = pd.DataFrame(index=pd.Index(genes, dtype=object))
    if layer is None:
        return ad.AnnData(X=x, obs=obs, var=var)
    return ad.AnnData(obs=obs, var=var, layers={layer: x}, shape=(adata.n_obs, len(genes)))
