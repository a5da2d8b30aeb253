"""Ages of samples without one of their cells, which say what the cell adds to the age of its sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData

from agevi import _checks
from agevi._compat.scvi import REGISTRY_KEYS
from agevi._progress import Bar
from agevi._threads import n_threads, n_weights, threads
from agevi.dataloaders._query import blocks
from agevi.dataloaders._summed import refuse_sums
from agevi.dataloaders._sums import sample_groups
from agevi.model.base._predict import PREDICT_VALUES, PredictMixin
from agevi.model.base._unit_rows import UnitRows

METHODS = ("auto", "exact", "first_order")
MANY_CELLS = 500
"""Cells of a sum from which on ``"auto"`` takes the first order of linear clocks, then off by 0.3 % of the sd."""


class LeftOut(NamedTuple):
    """Ages of the sample of every cell, in the unit of the clock."""

    whole: np.ndarray  # (n_cells,) float64, of all cells
    without: np.ndarray  # (n_cells,) float64, of all but this one; NaN where it is the only one


class LeftOutMixin(PredictMixin):
    """What a clock predicts for a sample when one of its cells is taken away."""

    linear: ClassVar[bool]

    def predict_left_out(
        self, adata: AnnData, *, method: str, sample_key: str | None, min_gene_coverage: float, bar: Bar
    ) -> LeftOut:
        """Ages of each cell's sample by one of the ``METHODS``; ``bar`` counts cells."""
        refuse_sums(adata, "the part of each cell in an age needs")
        cells = np.arange(adata.n_obs)
        of_sample = self.sample_codes(adata, cells, sample_key)
        if not self.predicts_sums:  # a member of an ensemble, by which a sample has the mean of its cells
            value = self.predict_rows(adata, min_gene_coverage=min_gene_coverage).value.astype(np.float64)
            bar.step(len(cells))
            return _mean_without(value, of_sample, value)
        codes = of_sample
        if self.pseudocell_groupby is not None:
            codes = sample_groups(of_sample, _checks.labels(adata, self.pseudocell_groupby, "pseudocell_groupby"))
        sums = _Sums(UnitRows(self, adata, cells, codes, min_gene_coverage), codes, self.normalize)
        age = self._predict_shell(sums.units.shell, sums.units.match, summed=True)[0].astype(np.float64)
        exact = np.full(len(age), method != "first_order")
        if method == "auto" and self.linear:  # networks bend, so that a tangent is worth less
            exact = sums.n_cells < MANY_CELLS
        present = self.present_genes(sums.units.shell, sums.units.match)
        left = age[codes]  # age of the sum without the cell
        for start, x in self._blocks_of_cells(adata, min_gene_coverage):
            own = np.arange(start, start + x.shape[0])
            own = own[sums.n_cells[codes[own]] > 1]
            for some in _parts(own[exact[codes[own]]], x.shape[1]):
                batch = sums.without(some, x[some - start])
                with threads(n_threads(len(some) * n_weights(self.module))):
                    left[some] = self._predict_batches([batch], present, summed=True)[0]
                bar.step(len(some))
            for some in _parts(own[~exact[codes[own]]], x.shape[1]):
                left[some] -= sums.first_order(some, x[some - start])
                bar.step(len(some))
        # A sample's age is the mean of those of its sums, each weighted by its cells.
        n = sums.n_cells[codes]
        return _mean_without(age[codes], of_sample, n * age[codes] - (n - 1) * left)

    def _blocks_of_cells(self, adata: AnnData, min_gene_coverage: float) -> Iterator[tuple[int, Any]]:
        """Position of the first row and values of the clock's genes, of all cells at once or of blocks from disk."""
        start = 0
        for block in blocks(self.read(adata), None):
            shell, _ = self.query(block, min_gene_coverage=min_gene_coverage, conditioned=False)
            yield start, _checks.matrix(shell, self.setup_args["layer"])
            start += block.n_obs


class _Sums:
    """Sums of cells, or means where values are not normalised, and what taking one cell away makes of them."""

    def __init__(self, units: UnitRows, codes: np.ndarray, normalize: str) -> None:
        self.units, self.codes, self.n_cells, self.counted = units, codes, np.bincount(codes), normalize != "none"
        self.values = _checks.matrix(units.shell, units.layer)  # n_units x n_genes
        self.fields = units.fields()

    def without(self, cells: np.ndarray, x: Any) -> dict[str, torch.Tensor]:
        """A batch to be predicted: the sums of some cells' units without these cells, whose values are ``x``."""
        of = self.codes[cells]
        left = _checks.dense(self.values[of], np.float64)
        if self.counted:
            left = np.maximum(left - _checks.dense(x), 0)  # sums of numbers that are not whole are rounded
        else:
            n = self.n_cells[of][:, None]
            left = (left * n - _checks.dense(x)) / (n - 1)
        rows = {REGISTRY_KEYS.X_KEY: left} | {key: values[of] for key, values in self.fields.items()}
        return {key: torch.from_numpy(np.asarray(values, dtype=np.float32)) for key, values in rows.items()}

    def first_order(self, cells: np.ndarray, x: Any) -> np.ndarray:
        """What the age of the sum loses without the cell, (n,), along the tangent at the sum."""
        of, n = np.unique(self.codes[cells], return_inverse=True)
        slope, sums = self._slopes(of), _checks.dense(self.values[of])
        along = np.einsum("ij,ij->i", slope, sums, dtype=np.float64)[n]
        of_cells = _row_products(x, slope, n)
        if not self.counted:
            return (of_cells - along) / (self.n_cells[of][n] - 1)
        # Shares are read, not counts: without the cell they move by (x - p l) / (L - l), where p are those of the sum,
        # l and L the counts of the cell and of the sum.
        depth, own = sums.sum(axis=1, dtype=np.float64)[n], np.asarray(x.sum(axis=1), dtype=np.float64).ravel()
        return (of_cells - along * own / np.maximum(depth, 1)) * depth / np.maximum(depth - own, 1)

    def _slopes(self, units: np.ndarray) -> np.ndarray:
        """Change of the age of units with the value of each gene in their sum, (n, n_genes) float32."""
        parts = _parts(units, self.values.shape[1])
        return np.concatenate([self.units.slopes(part) for part in parts])


def _row_products(x: Any, slope: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Product of every row with the row ``of`` it of the slopes, (n,) float64."""
    if not sp.issparse(x):
        return np.einsum("ij,ij->i", _checks.dense(x), slope[of], dtype=np.float64)
    x = x.tocsr()
    row = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
    return np.bincount(row, weights=x.data * slope[of[row], x.indices].astype(np.float64), minlength=x.shape[0])


def _parts(cells: np.ndarray, n_genes: int) -> list[np.ndarray]:
    """Positions in parts of which as many values are dense at a time as a prediction takes."""
    size = int(np.clip(PREDICT_VALUES // n_genes, 64, 4096))
    return np.array_split(cells, -(-len(cells) // size)) if len(cells) else []


def _mean_without(value: np.ndarray, of_sample: np.ndarray, taken: np.ndarray) -> LeftOut:
    """Mean of the values of each cell's sample, and that of the others when a cell takes ``taken`` from their sum."""
    n = np.bincount(of_sample)[of_sample]
    total = np.bincount(of_sample, weights=value)[of_sample]
    return LeftOut(total / n, np.where(n > 1, (total - taken) / np.maximum(n - 1, 1), np.nan))
