"""How firmly a ranking of genes stands: means over subjects, and their ranks when subjects are drawn anew."""

from __future__ import annotations

import numpy as np

from agevi.metrics._metric import Array


def mean_and_error(values: Array) -> tuple[Array, Array]:
    """Mean over the rows of (n_subjects, n_genes), and its standard error, (n_genes,) each; NaN for one subject."""
    n = len(values)
    error = values.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(values.shape[1], np.nan)
    return values.mean(axis=0), error


def rank_stability(
    values: Array, *, n_top: int, n_boot: int, rng: np.random.Generator, level: float = 0.95
) -> tuple[Array, Array, Array]:
    """Low and high ranks of genes by mean of (n_clocks, n_subjects, n_genes), and share of draws up to ``n_top``."""
    # Subjects and clocks are drawn with replacement; rank 1 is the largest value.
    n_clocks, n, n_genes = values.shape
    draws = rng.multinomial(n, np.full(n, 1 / n), size=n_boot).astype(values.dtype)  # n_boot x n_subjects
    of_clocks = rng.multinomial(n_clocks, np.full(n_clocks, 1 / n_clocks), size=n_boot).astype(values.dtype)
    means = np.zeros((n_boot, n_genes), dtype=values.dtype)
    for k in range(n_clocks):
        means += of_clocks[:, [k]] * (draws @ values[k])
    ranks = np.empty((n_boot, n_genes), dtype=np.int32)
    np.put_along_axis(ranks, np.argsort(-means, axis=1, kind="stable"), np.arange(1, n_genes + 1, dtype=np.int32), 1)
    low, high = np.quantile(ranks, [(1 - level) / 2, (1 + level) / 2], axis=0, method="inverted_cdf")
    return low.astype(np.float64), high.astype(np.float64), (ranks <= n_top).mean(axis=0)
