"""Statistics of the training cells that a clock keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

_ROWS = 4096


@dataclass(frozen=True)
class GeneStats:
    """Means over training cells."""

    input_mean: np.ndarray  # (n_genes,) mean of the encoder's input
    share: np.ndarray  # (n_genes,) share of all counts
    library: float  # mean counts of a cell


def gene_stats(x: Any, rows: np.ndarray, *, log1p_cp10k: bool) -> GeneStats:
    """Means over the cells ``rows`` of ``x`` (n_cells, n_genes), read in blocks of rows."""
    n_genes = x.shape[1]
    total_input, total_counts = np.zeros(n_genes), np.zeros(n_genes)
    for start in range(0, len(rows), _ROWS):
        block = sp.csr_matrix(x[rows[start : start + _ROWS]], dtype=np.float64)
        library = np.asarray(block.sum(axis=1)).ravel()
        total_counts += np.asarray(block.sum(axis=0)).ravel()
        if log1p_cp10k:
            per_value = np.repeat(1e4 / np.maximum(library, 1.0), np.diff(block.indptr))
            block.data = np.log1p(block.data * per_value)
        total_input += np.asarray(block.sum(axis=0)).ravel()
    return GeneStats(
        input_mean=total_input / len(rows),
        share=total_counts / max(total_counts.sum(), 1.0),
        library=float(total_counts.sum() / len(rows)),
    )
