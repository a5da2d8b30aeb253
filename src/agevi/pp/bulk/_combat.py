"""ComBat in two steps: what training samples say about every batch, and its application to any sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

_CONVERGED = 1e-4  # change of an estimate, relative to it, at which iterations end
_MAX_ITERATIONS = 10_000
_ROUNDING = 1e-14  # of a squared value: a variance below it is none

Blocks = Callable[[], Iterator[tuple[slice, np.ndarray]]]
"""Rows of the data in float64, block by block, with their position; called once for each pass."""


@dataclass(frozen=True, eq=False)
class Combat:
    """What ComBat learnt."""

    mean: np.ndarray  # (n_genes,) grand mean over the batches, at the mean covariates
    effects: np.ndarray  # (n_covariates, n_genes)
    shift: np.ndarray  # (n_batches, n_genes) what is subtracted from the samples of a batch
    weight: np.ndarray  # (n_batches, n_genes) what the rest is multiplied by

    def apply(self, x: np.ndarray, batch: np.ndarray, covariates: np.ndarray) -> np.ndarray:
        """Values of rows (n_rows, n_genes) without the effects of their batch, a position in ``shift``."""
        expected = self.mean + covariates @ self.effects
        out: np.ndarray = x - expected
        out -= self.shift[batch]
        out *= self.weight[batch]
        out += expected
        return out


def fit_combat(blocks: Blocks, batch: np.ndarray, covariates: np.ndarray) -> Combat:
    """ComBat fitted in two passes over blocks; ``batch``, (n_rows,), has two rows each, covariates are independent."""
    # Johnson, Li and Rabinovic 2007, parametric priors: grand mean + covariates + shift of the batch + stretched noise.
    size = np.bincount(batch).astype(np.float64)
    n_batches = len(size)
    design = np.hstack([np.eye(n_batches)[batch], covariates])  # n_rows x (n_batches + n_covariates)
    solve = np.linalg.pinv(design)
    estimate: np.ndarray = sum((solve[:, rows] @ x for rows, x in blocks()), start=np.zeros(1))
    squares = np.zeros((n_batches, estimate.shape[1]))  # of the residuals of each batch, whose mean is zero
    for rows, x in blocks():
        residual = x - design[rows] @ estimate
        squares += design[rows, :n_batches].T @ residual**2
    means, effects = estimate[:n_batches], estimate[n_batches:]
    grand = size @ means / size.sum()
    variance = squares.sum(0) / size.sum()
    varies = variance > _ROUNDING * (means**2).max(0)
    shift, weight = means - grand, np.ones_like(means)
    scale = np.sqrt(variance[varies])
    for b in range(n_batches):
        spread = squares[b, varies] / (size[b] - 1) / scale**2
        gamma, delta = _shrunk(shift[b, varies] / scale, spread, size[b])
        shift[b, varies], weight[b, varies] = gamma * scale, 1 / np.sqrt(delta)
    return Combat(grand, effects, shift, weight)


def _shrunk(gamma: np.ndarray, delta: np.ndarray, n: float) -> tuple[np.ndarray, np.ndarray]:
    """Posterior shift and variance ratio of every gene in one batch of ``n`` samples."""
    centre, spread = gamma.mean(), gamma.var()  # normal prior of the shifts
    m, s2 = delta.mean(), max(delta.var(ddof=1), _ROUNDING * delta.mean() ** 2)
    shape, rate = 2 + m**2 / s2, m * (1 + m**2 / s2)  # inverse gamma prior of the variance ratios
    squares = (n - 1) * delta  # about the batch's own mean
    g, d = gamma, delta
    for _ in range(_MAX_ITERATIONS):
        g_new = (spread * n * gamma + d * centre) / (spread * n + d)
        d_new = (0.5 * (squares + n * (gamma - g_new) ** 2) + rate) / (0.5 * n + shape - 1)
        # The published rule divides by the signed shift. A strict one moves results by some 1e-5 from other software.
        change = max(
            (np.abs(g_new - g) / np.where(g == 0, 1, g)).max(), (np.abs(d_new - d) / np.maximum(d, 1e-300)).max()
        )
        g, d = g_new, d_new
        if change < _CONVERGED:
            break
    return g, d
