"""What clocks read of the cells of every unit, gathered in one pass: sums of counts and of their products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

_EXACT = 1 << 24  # whole numbers up to here are float32


@dataclass
class CellSums:
    """Sums over the cells of every unit, to which blocks of cells are added in any order."""

    n_units: int
    library_squares: np.ndarray = field(init=False)  # (n_units,) of l^2, l the counts of a cell
    _parts: list[Any] = field(default_factory=list)  # each (3 n_units, n_genes): sums of x, of x^2 and of l x

    def __post_init__(self) -> None:
        self.library_squares = np.zeros(self.n_units)

    def add(self, x: Any, codes: np.ndarray) -> None:
        """Add cells, (n, n_genes) of counts, by ``codes``, (n,), -1 for cells of no unit."""
        used = np.flatnonzero(codes >= 0)
        block = as_counts(x)
        library = np.asarray(block.sum(axis=1)).ravel()
        self.library_squares += np.bincount(codes[used], weights=library[used] ** 2, minlength=self.n_units)
        self.keep(products(block, codes, library, self.n_units))

    def keep(self, part: Any) -> None:
        """Add a part to the parts, of which each has over twice the values of the next, so that few sums are taken."""
        self._parts.append(part)
        while len(self._parts) > 1 and self._parts[-2].nnz <= 2 * self._parts[-1].nnz:
            self._merge()

    def _merge(self) -> None:
        """Make one of the last two parts."""
        last = self._parts.pop()
        self._parts[-1] = self._parts[-1] + last

    def totals(self) -> list[sp.csr_matrix]:
        """Sums of x, of x^2 and of l x, each (n_units, n_genes); float32 where that holds them exactly."""
        while len(self._parts) > 1:
            self._merge()
        total = self._parts[0].tocsr()
        return [_narrow(total[i * self.n_units : (i + 1) * self.n_units]) for i in range(3)]

    def state(self) -> dict[str, Any]:
        """What was added so far, as plain arrays."""
        return {"library_squares": self.library_squares, "parts": [as_arrays(part) for part in self._parts]}

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Take what :meth:`state` gave."""
        self.library_squares = np.array(state["library_squares"])
        self._parts = [of_arrays(part) for part in state["parts"]]


def as_arrays(x: sp.csr_matrix) -> dict[str, Any]:
    """A CSR matrix as plain arrays."""
    return {"data": x.data, "indices": x.indices, "indptr": x.indptr, "shape": list(x.shape)}


def of_arrays(arrays: Mapping[str, Any]) -> sp.csr_matrix:
    """The CSR matrix that :func:`as_arrays` made into arrays."""
    return sp.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=tuple(arrays["shape"]))


def as_counts(x: Any) -> sp.csr_matrix:
    """Values of cells as a new float64 CSR matrix, in which nothing is stored twice."""
    block = sp.csr_matrix(x, dtype=np.float64, copy=True)
    block.sum_duplicates()
    block.eliminate_zeros()
    return block


def products(block: sp.csr_matrix, codes: np.ndarray, library: np.ndarray, n_units: int) -> sp.csr_matrix:
    """Sums of x, of x^2 and of l x of every unit, (3 n_units, n_genes)."""
    used = np.flatnonzero(codes >= 0)

    def of_unit(weight: np.ndarray) -> sp.csr_matrix:
        return sp.csr_matrix((weight, (codes[used], used)), shape=(n_units, len(codes)))

    one = of_unit(np.ones(len(used)))
    out = sp.vstack([one @ block, one @ block.power(2), of_unit(library[used]) @ block], format="csr")
    out.sort_indices()
    return out


def _narrow(x: sp.csr_matrix) -> sp.csr_matrix:
    """Whole numbers as float32 where it holds them all, float64 elsewhere."""
    exact = not len(x.data) or (np.abs(x.data).max() <= _EXACT and (x.data == np.rint(x.data)).all())
    return x.astype(np.float32) if exact else x
