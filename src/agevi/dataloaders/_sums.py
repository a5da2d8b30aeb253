"""Sums of cells: whole samples, and pseudocells drawn from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp


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
    used = np.flatnonzero(codes >= 0)
    ones = np.ones(len(used), dtype=np.float64)
    out = sp.csr_matrix((ones, (codes[used], used)), shape=(n_units, len(codes))) @ x
    return out.astype(np.float32)


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
    return sp.csr_matrix((np.ones(len(row)), (row, column)), shape=shape), np.tile(units, n_draws)
