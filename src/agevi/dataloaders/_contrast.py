"""What two types of cells of a sample say against each other."""

from __future__ import annotations

import numpy as np

SCALE = 1e6
"""Counts that a sample is scaled to: a factor on a gene cancels only where log(1 + x) is a logarithm."""
MIN_COUNTS = 500
"""Counts that a sample needs on either side."""


def contrast(target: np.ndarray, reference: np.ndarray, scale: float = SCALE) -> np.ndarray:
    """log(1 + scale * share) of the target's sums minus that of the reference's, (n_samples, n_genes) float32."""
    of_target, of_reference = (np.log1p(scale * sums / np.maximum(totals(sums), 1)) for sums in (target, reference))
    out: np.ndarray = (of_target - of_reference).astype(np.float32)
    return out


def totals(sums: np.ndarray) -> np.ndarray:
    """Counts of every sample, (n_samples, 1)."""
    return sums.sum(axis=1, keepdims=True)


def enough_counts(target: np.ndarray, reference: np.ndarray, min_counts: int = MIN_COUNTS) -> np.ndarray:
    """Whether a sample has the counts on either side, (n_samples,)."""
    counts = np.hstack([totals(target), totals(reference)])
    out: np.ndarray = np.all(counts >= min_counts, axis=1)
    return out
