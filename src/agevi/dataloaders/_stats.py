"""Statistics of the training cells that a clock keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from agevi.nn.inputs import CP10K, GeneInput

_ROWS = 4096


@dataclass(frozen=True)
class GeneStats:
    """Moments over training cells."""

    input_mean: np.ndarray  # (n_genes,) mean of the normalised values
    input_sd: np.ndarray  # (n_genes,) their standard deviation, 1 for genes that do not vary
    input_max: float  # the largest normalised value
    mean: np.ndarray  # (n_genes,) mean of the values
    mean_square: np.ndarray  # (n_genes,) mean of their squares
    zero_share: np.ndarray  # (n_genes,) share of zeros
    library: float  # mean counts of a cell
    library_square: float  # mean of their squares

    @property
    def share(self) -> np.ndarray:
        """Share of every gene in all counts, (n_genes,)."""
        return self.mean / max(self.mean.sum(), 1e-12)

    def fill(self, module: GeneInput) -> None:
        """Set the buffers of a network's input."""
        module.mean.copy_(torch.from_numpy(self.input_mean))
        module.sd.copy_(torch.from_numpy(self.input_sd))
        module.share.copy_(torch.from_numpy(self.share))
        module.mean_library.fill_(max(self.library, 1.0))


def log1p_cp10k(x: sp.csr_matrix) -> sp.csr_matrix:
    """log(1 + counts per 10,000) of every row, float64, as a new matrix."""
    x = sp.csr_matrix(x, dtype=np.float64, copy=True)
    x.sum_duplicates()
    x.data = _log1p_cp10k(x.data, np.asarray(x.sum(axis=1)).ravel(), x.indptr)
    return x


def _log1p_cp10k(values: np.ndarray, library: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    """The same for the stored values of rows with ``library`` counts each."""
    scaled = values * np.repeat(CP10K / np.maximum(library, 1.0), np.diff(indptr))
    torch.from_numpy(scaled).log1p_()  # faster than numpy's
    return scaled


def gene_stats(x: Any, rows: np.ndarray, *, normalize: str) -> GeneStats:
    """Moments over the cells at ``rows`` of ``x``, (n_cells, n_genes), dense or CSR, read in blocks of rows."""
    n, n_genes = max(len(rows), 1), x.shape[1]
    sums = np.zeros((5, n_genes))  # values, squares, normalised values, their squares, non-zeros
    largest, library_square = -np.inf, 0.0
    for start in range(0, len(rows), _ROWS):
        block = sp.csr_matrix(x[rows[start : start + _ROWS]], dtype=np.float64)
        block.sum_duplicates()
        block.eliminate_zeros()
        values, library = block.data, np.asarray(block.sum(axis=1)).ravel()
        scaled = _log1p_cp10k(values, library, block.indptr) if normalize == "log1p_cp10k" else values
        gene = block.indices.astype(np.intp)
        for row, weights in zip(sums, (values, values**2, scaled, scaled**2, None), strict=True):
            row += np.bincount(gene, weights, minlength=n_genes)
        library_square += float((library**2).sum())
        largest = max(largest, float(scaled.max(initial=0.0 if len(values) < block.shape[0] * n_genes else -np.inf)))
    mean, mean_square, input_mean, input_square, filled = sums / n
    variance = input_square - input_mean**2
    varies = variance > 1e-10 * np.maximum(input_square, 1e-12)
    return GeneStats(
        input_mean=input_mean,
        input_sd=np.sqrt(np.where(varies, variance, 1.0)),
        input_max=largest,
        mean=mean,
        mean_square=mean_square,
        zero_share=1 - filled,
        library=float(mean.sum()),
        library_square=library_square / n,
    )
