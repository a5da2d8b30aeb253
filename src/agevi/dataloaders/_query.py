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
from torch.utils.weak import WeakIdKeyDictionary

from agevi import _checks, _gene_names
from agevi._compat import on_disk, read_rows

logger = logging.getLogger(__name__)
_FEW = 0.9  # share of the genes under which they are too few without a warning; tl.check_transport has the same
_BACKED_BLOCK = 16384  # cells read from disk at a time, at most
_BACKED_BYTES = 1 << 27  # of their values, about
_ENOUGH = 0.8  # share of a clock's genes from which on names are surely those of the data
_TOLD: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""For data, what was logged about them since the call that reads them began."""


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


def match_genes(
    genes: np.ndarray,
    adata: ad.AnnData,
    *,
    min_coverage: float,
    known: pd.DataFrame | None = None,
    enough: float | None = None,
) -> GeneMatch:
    """Find ``genes`` in ``adata``; refuse when fewer than ``min_coverage`` of them are there.

    Where ``adata.var_names`` has fewer than ``enough`` of them (default: ``min_coverage``, and 0.8 at least, since
    data named by symbols have ids where a gene has no symbol), they are looked for by their other names, which are
    ``known``, and by those in ``adata.var``.
    """
    names = adata.var_names
    if len(genes) == len(names) and bool(np.all(genes == names.to_numpy())):
        return GeneMatch(columns=np.arange(len(genes)), identical=True)
    enough = max(min_coverage, _ENOUGH) if enough is None else enough
    found = _gene_names.locate(genes, known, adata.var, enough=enough)
    match = GeneMatch(found.columns, np.array_equal(found.columns, np.arange(len(names))))
    if match.coverage < min_coverage:
        raise ValueError(_refusal(genes, adata, found, known, min_coverage))
    if found.how:
        tell(adata, _gene_names.message(found, pd.Index(genes), adata.var))
    share = f"coverage {100 * match.coverage:.1f} %"
    few = f"{(~match.present).sum():,} of the clock's {len(genes):,} genes are absent ({share})"
    if min_coverage and match.coverage < _FEW:
        tell(
            adata,
            f"{few}; they enter at their training mean, so that ages are less exact and may all be off. Judge them by "
            "agevi.tl.check_transport, or pass data with all genes kept.",
            logging.WARNING,
        )
    elif not found.how and not match.present.all():
        tell(adata, f"{few}; they enter at their training mean.")
    return match


def tell(adata: ad.AnnData, text: str, level: int = logging.INFO) -> None:
    """Log a line on the genes of ``adata``, once in a call of the user."""
    told = _TOLD.setdefault(adata, set())
    if text not in told:
        told.add(text)
        logger.log(level, "%s", text)


def begin(adata: Any) -> None:
    """Let the lines of :func:`tell` be logged again: a call of the user begins."""
    if isinstance(adata, ad.AnnData):
        _TOLD.pop(adata, None)


def _refusal(
    genes: np.ndarray, adata: ad.AnnData, found: _gene_names.Located, known: pd.DataFrame | None, least: float
) -> str:
    """Which genes are absent, why, and what to do."""
    index, names = pd.Index(genes), adata.var_names
    absent = genes[~index.isin(names)]
    wanted, there = _gene_names.namings(index, known), _gene_names.namings_of(adata.var)
    why, said = _gene_names.why_not(wanted, there, least=0.2)
    if found.how and why != "species":
        why, said = "", f"; {found.n:,} are found {found.how}"
    kind, column = wanted[0].kind, "" if why == "species" else _other_column(index, adata.var, least)
    advice = {
        "species": "A clock fits the species it was trained on.",
        "modality": "A clock fits the modality it was trained on.",
        "kind": f"Put {_gene_names.KINDS[kind]} into adata.var[{kind!r}], rename var_names, or run pp.align_genes with "
        "mapping=....",
        "case": "A clock fits the species it was trained on.",
    }.get(why, "Pass data of the same gene annotation, with all genes kept.")
    if column:
        advice += (
            f" adata.var[{column!r}] holds such names; if they are names of the same genes, run pp.align_genes(adata, "
            f"clock, mapping={column!r})."
        )
    return (
        f"{len(absent):,} of the clock's {len(genes):,} genes are absent from adata.var_names (e.g. "
        f"{_checks.listed(absent, 2)}; adata has {_checks.listed(names, 2)}){said}. {advice} A clock needs {least:.0%} "
        "of its genes."
    )


def _other_column(genes: pd.Index, var: pd.DataFrame, least: float) -> str:
    """A column of ``var`` that holds names of the clock, of which nothing says whether they are of the same genes."""
    for name in var:
        if pd.api.types.is_numeric_dtype(var[name]):
            continue
        if genes.isin(set(var[name].dropna().astype(str))).mean() >= max(least, 0.5):
            return str(name)
    return ""


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


def blocks(
    adata: ad.AnnData, indices: Sequence[int] | np.ndarray | None, batch_size: int = 1, *, even: bool = True
) -> Iterator[ad.AnnData]:
    """``adata`` itself, or the chosen cells of data on disk, some whole batches at a time.

    Batches of all cells are those of the blocks: nearly ``even`` ones, or such of ``batch_size`` and what is left.
    """
    if not on_disk(adata):
        yield adata
        return
    rows = np.arange(adata.n_obs) if indices is None else np.asarray(indices)
    n_batches = max(1, -(-len(rows) // batch_size))
    sizes = np.full(n_batches, len(rows) // n_batches) + (np.arange(n_batches) < len(rows) % n_batches)
    ends = np.cumsum(sizes if even else np.full(n_batches, batch_size))
    step = max(1, _n_rows(adata) // batch_size)
    for part in np.split(rows, ends[step - 1 : -1 : step]):
        out = read_rows(adata, part)
        _TOLD[out] = _TOLD.setdefault(adata, set())  # of all blocks together
        yield out


def _n_rows(adata: ad.AnnData) -> int:
    """Cells on disk that are read at a time."""
    source = adata._adata_ref if adata.is_view else adata
    on_disk = [_checks.readable(x, "") for x in (source.X, *source.layers.values()) if _checks.is_stored(x)]
    return min(_BACKED_BLOCK, _BACKED_BYTES // max(1, sum(x.n_row_bytes for x in on_disk)))
