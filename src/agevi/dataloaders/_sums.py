"""Sums of cells: whole samples, and pseudocells drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from agevi.nn.inputs import CP10K, GeneInput

MIN_SAMPLES_FOR_RELIABILITY = 8
_BLOCK = 4096  # rows that are summed at a time: scipy copies them as float64
_SD_OFFSET = 1e-3  # keeps genes that hardly differ between samples from being blown up
_LEAST_RELIABILITY = 0.05
_CONSTANT = 1e-6  # largest standard deviation that rounding explains


def sum_rows(x: Any, codes: np.ndarray, n_units: int) -> Any:
    """Sum of the rows of every unit, (n_units, n_genes), sparse where ``x`` is.

    Parameters
    ----------
    x
        Values, (n_cells, n_genes), CSR or dense.
    codes
        Unit of every cell, (n_cells,); -1 for cells that belong to none.
    n_units
        Number of units.
    """
    out: Any = sp.csr_matrix((n_units, x.shape[1])) if sp.issparse(x) else np.zeros((n_units, x.shape[1]))
    for start in range(0, len(codes), _BLOCK):
        units = codes[start : start + _BLOCK]
        used = np.flatnonzero(units >= 0)
        if len(used):
            indicator = sp.csr_matrix((np.ones(len(used)), (units[used], used)), shape=(n_units, len(units)))
            out = out + indicator @ x[start : start + _BLOCK]
    return out.astype(np.float32)


@dataclass(frozen=True)
class SumStats:
    """Moments over the sums of samples."""

    mean: np.ndarray  # (n_genes,) mean of the normalised sums
    sd: np.ndarray  # (n_genes,) their standard deviation
    reliability: np.ndarray  # (n_genes,) share of the variance between samples that halves agree on; 0 without any

    @property
    def scale(self) -> np.ndarray:
        """Factor that values are multiplied by, (n_genes,); 0 for genes that do not differ between samples.

        Where halves do not agree the factor is small but not 0: the estimate is noisy, and with 0 the clock would not see the
        gene at all, so that its attribution would have no sign.
        """
        weight = np.where(self.sd > _CONSTANT, np.maximum(self.reliability, _LEAST_RELIABILITY), 0.0)
        scale: np.ndarray = weight / (self.sd + _SD_OFFSET)
        return scale

    def fill(self, module: GeneInput) -> None:
        """Set the buffers of a network's input."""
        module.sum_mean.copy_(torch.from_numpy(self.mean))
        module.sum_scale.copy_(torch.from_numpy(self.scale))


def unit_values(x: Any, codes: np.ndarray, n_units: int, *, normalize: str) -> np.ndarray:
    """Normalised sums of units (means with ``normalize="none"``), (n_units, n_genes) float64, dense."""
    sums = sum_rows(x, codes, n_units)
    dense = np.asarray(sums.todense() if sp.issparse(sums) else sums, dtype=np.float64)
    if normalize == "none":
        return dense / np.maximum(np.bincount(codes[codes >= 0], minlength=n_units), 1)[:, None]
    return np.log1p(dense * (CP10K / np.maximum(dense.sum(axis=1, keepdims=True), 1.0)))


def sum_stats(x: Any, codes: np.ndarray, n_units: int, *, normalize: str, rng: np.random.Generator) -> SumStats:
    r"""Moments over the sums of samples, and how reliable each gene is.

    Cells of every sample are split into random halves with sums :math:`a` and :math:`b`, normalised and centred per
    gene over samples. The reliability of the whole is the intraclass correlation of the halves, stepped up to the
    full length (Spearman 1910, Brown 1910):

    .. math::

        \rho = \frac{\overline{ab}}{\tfrac12 (\overline{a^2} + \overline{b^2})} \text{ within } [0, 1], \qquad
        r = \frac{2 \rho}{1 + \rho}

    Parameters
    ----------
    x
        Values, (n_cells, n_genes).
    codes
        Sample of every cell, (n_cells,); -1 for cells that are not to be used.
    n_units
        Number of samples.
    normalize
        As in :class:`agevi.nn.inputs.GeneInput`.
    rng
        Source of the halves.
    """
    n_cells = np.bincount(codes[codes >= 0], minlength=n_units)
    values = unit_values(x, codes, n_units, normalize=normalize)[n_cells > 0]
    half = _halves(codes, rng)
    both = n_cells > 1
    if both.sum() < MIN_SAMPLES_FOR_RELIABILITY:
        reliability = (np.ptp(values, axis=0) > 0).astype(np.float64)  # genes that new data alone have stay out
    else:
        a, b = (unit_values(x, np.where(half == h, codes, -1), n_units, normalize=normalize)[both] for h in (0, 1))
        a, b = a - a.mean(0), b - b.mean(0)
        agreed = (a * b).mean(0) / (0.5 * ((a**2).mean(0) + (b**2).mean(0)) + 1e-12)
        rho = np.clip(agreed, 0.0, 1.0)
        reliability = 2 * rho / (1 + rho)
    return SumStats(mean=values.mean(0), sd=values.std(0), reliability=reliability)


def _halves(codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """0 or 1 for every cell, at random and as evenly as possible within each unit."""
    order = np.lexsort((rng.random(len(codes)), codes))
    of = codes[order]
    start = np.r_[True, of[1:] != of[:-1]]
    rank = np.arange(len(of)) - np.maximum.accumulate(np.where(start, np.arange(len(of)), 0))
    out = np.empty(len(codes), dtype=np.int64)
    out[order] = rank % 2
    return out


def sample_means(ages: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Mean over the cells of each cell's sample, (n_cells,).

    Parameters
    ----------
    ages
        Age of every cell, (n_cells,).
    sample
        Code of every cell's sample, from 0, (n_cells,).
    """
    n_cells = np.maximum(np.bincount(sample), 1)
    means = np.bincount(sample, weights=ages) / n_cells
    return means[sample].astype(np.float32)


def sample_groups(sample: np.ndarray, group: pd.Series) -> np.ndarray:
    """Code of every pair of sample and group, (n_cells,), in the order of sample and then of the groups' names."""
    codes, names = pd.factorize(group, sort=True)
    return np.unique(sample * len(names) + codes, return_inverse=True)[1].astype(np.int64, copy=False)


def draw_pseudocells(
    codes: np.ndarray, size: float, n_draws: int, rng: np.random.Generator
) -> tuple[sp.csr_matrix, np.ndarray]:
    """Indicator of the cells that are summed into each pseudocell.

    Parameters
    ----------
    codes
        Unit of every cell, (n_cells,); -1 for cells that belong to none.
    size
        Cells of a pseudocell: a share of the unit's cells (below 1, rounded up) or a number (1 and above, all of
        the unit's cells where it has fewer), drawn without replacement.
    n_draws
        Pseudocells of every unit.
    rng
        Source of randomness.

    Returns
    -------
    (n_pseudocells, n_cells) of ones, and the unit of every pseudocell, (n_pseudocells,).
    """
    used = np.flatnonzero(codes >= 0)
    units, inverse, n_cells = np.unique(codes[used], return_inverse=True, return_counts=True)
    wanted = np.ceil(size * n_cells).astype(np.int64) if size < 1 else np.minimum(int(size), n_cells)
    first = np.cumsum(n_cells) - n_cells
    rows, columns = [], []
    for draw in range(n_draws):
        order = np.lexsort((rng.random(len(used)), inverse))  # cells by unit, shuffled within
        rank = np.arange(len(used)) - first[inverse[order]]
        kept = order[rank < wanted[inverse[order]]]
        rows.append(draw * len(units) + inverse[kept])
        columns.append(used[kept])
    row, column = np.concatenate(rows), np.concatenate(columns)
    shape = (n_draws * len(units), len(codes))
    # In float32, because scipy would copy float32 counts for a product with float64.
    return sp.csr_matrix((np.ones(len(row), dtype=np.float32), (row, column)), shape=shape), np.tile(units, n_draws)
