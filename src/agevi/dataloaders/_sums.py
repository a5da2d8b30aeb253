"""Sums of cells: whole samples, and pseudocells drawn from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from agevi import _checks
from agevi.dataloaders._summed import RowSums, n_in_units
from agevi.nn.inputs import CP10K, GeneInput

MIN_SAMPLES_FOR_RELIABILITY = 8
_BLOCK = 4096  # rows that are summed at a time: scipy copies them as float64
_SD_OFFSET = 1e-3  # keeps genes that hardly differ between samples from being blown up
_LEAST_RELIABILITY = 0.05
_CONSTANT = 1e-6  # largest standard deviation that rounding explains


def sum_rows(x: Any, codes: np.ndarray, n_units: int, dtype: Any = np.float32) -> Any:
    """Sum of the rows of every unit, (n_units, n_genes), sparse where ``x`` is; the code -1 is of no unit."""
    out: Any = sp.csr_matrix((n_units, x.shape[1])) if _checks.is_sparse(x) else np.zeros((n_units, x.shape[1]))
    for start in range(0, len(codes), _BLOCK):
        units = codes[start : start + _BLOCK]
        used = np.flatnonzero(units >= 0)
        if len(used):
            indicator = sp.csr_matrix((np.ones(len(used)), (units[used], used)), shape=(n_units, len(units)))
            out = out + indicator @ x[start : start + _BLOCK]
    return out.astype(dtype, copy=False)


@dataclass(frozen=True)
class SumStats:
    """Moments over the sums of samples."""

    mean: np.ndarray  # (n_genes,) mean of the normalised sums
    sd: np.ndarray  # (n_genes,) their standard deviation
    reliability: np.ndarray  # (n_genes,) share of the variance between samples that is not due to the drawing of cells

    @property
    def scale(self) -> np.ndarray:
        """Factor that values are multiplied by, (n_genes,); 0 for genes that do not differ between samples."""
        # Small but not 0 where the drawing of cells explains the variance: that estimate is noisy, and with 0 the clock
        # would not see the gene at all, so that its attribution would have no sign.
        weight = np.where(self.sd > _CONSTANT, np.maximum(self.reliability, _LEAST_RELIABILITY), 0.0)
        return weight / (self.sd + _SD_OFFSET)

    def fill(self, module: GeneInput) -> None:
        """Set the buffers of a network's input."""
        module.sum_mean.copy_(torch.from_numpy(self.mean))
        module.sum_scale.copy_(torch.from_numpy(self.scale))


@dataclass(frozen=True)
class UnitSums:
    """Sums of the cells of every unit, taken once however many fits read some of the units."""

    x: Any  # (n_cells, n_genes)
    codes: np.ndarray  # (n_cells,) unit from 0, -1 for cells of none
    n_units: int
    normalize: str
    rows: RowSums | None = field(default=None, kw_only=True)  # what rows say of their cells, where they are sums

    @cached_property
    def n_cells(self) -> np.ndarray:
        """Cells of every unit, (n_units,)."""
        return n_in_units(self.codes, self.n_units, None if self.rows is None else self.rows.n_cells)

    @cached_property
    def sums(self) -> Any:
        """As :func:`sum_rows` gives them, (n_units, n_genes)."""
        return sum_rows(self.x, self.codes, self.n_units)

    def values(self, units: Any = slice(None)) -> np.ndarray:
        """Normalised sums (means with ``normalize="none"``), (n, n_genes) float64, dense."""
        dense = _checks.dense(self.sums[units], np.float64)
        if self.normalize == "none":
            return dense / np.maximum(self.n_cells[units], 1)[:, None]
        return np.log1p(dense * (CP10K / np.maximum(dense.sum(axis=1, keepdims=True), 1.0)))

    def stats(self, units: Any = slice(None)) -> SumStats:
        """Moments over the sums of units, and how reliable each gene is, (n_genes,)."""
        # Reliability r is the correlation of two sums of the same samples, were the cells of each drawn twice: r = 1 -
        # mean_s(v_s) / var_s(y_s) within [0, 1], v = (dy/dp)^2 n / (n - 1) sum_c (x_c - p l_c)^2 / (sum_c l_c)^2 with
        # counts x_c and library sizes l_c of n cells, the gene's share p = sum x_c / sum l_c and the normalised sum y:
        # v is the sampling variance of a ratio (Cochran 1977), carried through the logarithm to first order. To that
        # order r is the correlation between halves of the cells over all ways to halve them, stepped up to the whole
        # (Spearman 1910, Brown 1910), yet no cell is drawn. With normalize="none", l_c = 1 and y = p. One cell says
        # nothing about v.
        n_cells, values = self.n_cells[units], self.values(units)
        both = n_cells > 1
        if both.sum() < MIN_SAMPLES_FOR_RELIABILITY:
            # Genes that new data alone have stay out.
            reliability = (np.ptp(values[n_cells > 0], axis=0) > 0).astype(np.float64)
        else:
            variance = values[both].var(axis=0, ddof=1)
            noise = np.maximum(self._noise[units][both].mean(axis=0), 0.0)
            share = np.divide(noise, variance, out=np.ones_like(noise), where=variance > _CONSTANT**2)
            reliability = np.clip(1 - share, 0.0, 1.0)
        values = values[n_cells > 0]
        return SumStats(mean=values.mean(0), sd=values.std(0), reliability=reliability)

    @cached_property
    def _noise(self) -> np.ndarray:
        """Variance that the drawing of cells gives to the values, (n_units, n_genes)."""
        counted = self.normalize != "none"
        if self.rows is None:
            size, library_squares, squares, along = self._moments(counted=counted)
        else:
            moments = self.rows.moments(self.x, self.codes, self.n_units, counted=counted)
            size, library_squares, squares, along = moments
        values = self.values()
        share = np.expm1(values) / CP10K if counted else values
        slope = CP10K / (1 + CP10K * share) if counted else np.ones_like(values)
        factor = self.n_cells / np.maximum(self.n_cells - 1, 1) / np.maximum(size, 1.0) ** 2
        spread = squares - 2 * share * along + share**2 * library_squares[:, None]
        noise: np.ndarray = slope**2 * factor[:, None] * spread
        return noise

    def _moments(self, *, counted: bool) -> tuple[np.ndarray, ...]:
        """Of every unit: sums of l and of l^2, (n_units,), and of x^2 and of l x, (n_units, n_genes); else l is 1."""
        codes = self.codes
        library = np.ones(len(codes))
        if counted:
            parts = (self.x[start : start + _BLOCK] for start in range(0, len(codes), _BLOCK))
            library = np.concatenate([np.asarray(part.sum(axis=1, dtype=np.float64)).ravel() for part in parts])
        size, library_squares = (
            np.bincount(codes[codes >= 0], weights=w[codes >= 0], minlength=self.n_units) for w in (library, library**2)
        )
        squares, along = (np.zeros((self.n_units, self.x.shape[1])) for _ in range(2))  # sums of x^2 and of l x
        for start in range(0, len(codes), _BLOCK):
            used = start + np.flatnonzero(codes[start : start + _BLOCK] >= 0)
            if not len(used):
                continue
            block = sp.csr_matrix(self.x[used], dtype=np.float64)
            block.sum_duplicates()
            units, unit = np.unique(codes[used], return_inverse=True)
            for out, rows, weight in ((squares, block.power(2), np.ones(len(used))), (along, block, library[used])):
                of_unit = sp.csr_matrix((weight, (unit.ravel(), np.arange(len(used)))), shape=(len(units), len(used)))
                out[units] += (of_unit @ rows).toarray()
        return size, library_squares, squares, along


@dataclass(frozen=True)
class LentSums(UnitSums):
    """Sums of units that are those of a larger whole, which were taken there."""

    whole: UnitSums
    place: np.ndarray  # (n_units,) of every unit in the whole

    @cached_property
    def sums(self) -> Any:
        """As :func:`sum_rows` gives them, (n_units, n_genes)."""
        return self.whole.sums[self.place]

    @cached_property
    def _noise(self) -> np.ndarray:
        return self.whole._noise[self.place]


def sum_stats(x: Any, codes: np.ndarray, n_units: int, *, normalize: str) -> SumStats:
    """Moments over sums of samples, and how reliable each gene is, (n_genes,); cells of the code -1 are not used."""
    return UnitSums(x, codes, n_units, normalize).stats()


def sample_means(ages: np.ndarray, sample: np.ndarray, size: np.ndarray | None = None) -> np.ndarray:
    """Mean over the cells of each row's sample, (n_rows,) float32; samples are coded from 0, ``size`` cells a row."""
    n_cells = np.maximum(np.bincount(sample, weights=size), 1)
    means = np.bincount(sample, weights=ages if size is None else ages * size) / n_cells
    return means[sample].astype(np.float32)


def most_common(values: np.ndarray, codes: np.ndarray, n_units: int) -> np.ndarray:
    """Most common value (from 0) of every unit, (n_units,); of ties the lowest, whatever the order of rows."""
    n = int(values.max(initial=0)) + 1
    counts = np.bincount(codes * n + values.astype(np.int64), minlength=n_units * n)
    return counts.reshape(n_units, n).argmax(axis=1)


def sample_groups(sample: np.ndarray, group: pd.Series) -> np.ndarray:
    """Code of every pair of sample and group, (n_cells,), in the order of sample and then of the groups' names."""
    codes, names = pd.factorize(group, sort=True)
    return np.unique(sample * len(names) + codes, return_inverse=True)[1].astype(np.int64, copy=False)


def draw_pseudocells(
    codes: np.ndarray, size: float, n_draws: int, rng: np.random.Generator
) -> tuple[sp.csr_matrix, np.ndarray]:
    """Indicator of the cells summed into each pseudocell, (n_pseudocells, n_cells), and the unit of each pseudocell."""
    # Without replacement ``n_draws`` times: a share of the unit's cells (size below 1, rounded up) or a number of them.
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
