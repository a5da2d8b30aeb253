"""Rows that are sums of cells, as :func:`agevi.pp.sum_samples` makes them: the one place that knows of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from agevi import _checks, _keys

_MAKER = "agevi.pp.sum_samples"
_BLOCK = 4096  # rows that are summed at a time
_COUNTED = "log1p_cp10k"


def is_summed(adata: AnnData) -> bool:
    """Whether the rows are sums of cells; those whose mark was lost are refused."""
    if _keys.SUMS in adata.uns:
        return True
    if _keys.SUM_SQUARES in adata.layers:
        raise ValueError(
            f"adata.layers has {_keys.SUM_SQUARES!r} of {_MAKER}, and adata.uns[{_keys.SUMS!r}], which marks sums, is "
            "absent. Pass uns_merge='same' to anndata.concat, which keeps it, or delete these layers where rows are "
            "not sums any more."
        )
    return False


def are_of_counts(adata: AnnData) -> bool:
    """Whether rows that are sums are those of raw counts, and not of values as they are."""
    return _COUNTED in map(str, adata.uns[_keys.SUMS].get("normalize", (_COUNTED,)))


def cells_of_rows(adata: AnnData) -> np.ndarray:
    """Cells of every row, (n_obs,) int64: 1, or what rows that are sums say."""
    if not is_summed(adata):
        return np.ones(adata.n_obs, dtype=np.int64)
    n_cells = np.asarray(_checks.column(adata, _keys.N_CELLS, f"adata.uns[{_keys.SUMS!r}]"), dtype=np.float64)
    if not (n_cells >= 1).all() or (n_cells % 1).any():
        raise ValueError(
            f"adata.obs[{_keys.N_CELLS!r}] holds {np.nanmin(n_cells):g}; the cells of a sum are 1 or more. Make "
            f"the sums again with {_MAKER}."
        )
    return n_cells.astype(np.int64)


def cells_of_units(adata: AnnData, codes: np.ndarray, n_units: int, rows: Any = slice(None)) -> np.ndarray:
    """Cells of every unit, (n_units,), by the ``codes`` of ``rows``, -1 for those of none."""
    return n_in_units(codes, n_units, cells_of_rows(adata)[rows])


def n_in_units(codes: np.ndarray, n_units: int, size: np.ndarray | None) -> np.ndarray:
    """The same from the cells of every row; None where rows are cells."""
    used = codes >= 0
    weights = None if size is None else size[used]
    return np.bincount(codes[used], weights=weights, minlength=n_units).astype(np.int64)


def normalizations(*, counts: bool) -> list[str]:
    """What clocks may make of sums, as their mark says it."""
    return [_COUNTED, "none"] if counts else ["none"]


def refuse_sums(adata: AnnData, reader: str, advice: str = "Pass the cells that were summed.") -> None:
    """Refuse sums where single cells are needed; ``reader`` says who needs them, with its verb."""
    if is_summed(adata):
        raise ValueError(f"the rows of adata are sums of cells ({_MAKER}), and {reader} single cells. {advice}")


def check_sums(adata: AnnData, x: Any, where: str) -> None:
    """Refuse rows that are marked as sums and are not sums of counts any more."""
    if is_summed(adata) and are_of_counts(adata):
        advice = f"Put the sums back, or delete adata.uns[{_keys.SUMS!r}] where rows are bulk samples to you."
        _checks.counts(x, where, f"its rows are sums of raw counts by {_MAKER}", advice=advice, empty_ok=True)


@dataclass(frozen=True)
class RowSums:
    """What rows that are sums say of their cells; reliability is computed from it, and no cell is drawn."""

    n_cells: np.ndarray  # (n_rows,)
    squares: Any  # (n_rows, n_genes) sums of x^2
    along: Any  # (n_rows, n_genes) sums of l x, l the counts of a cell
    library_squares: np.ndarray  # (n_rows,) sums of l^2
    counts: bool = True  # whether x are raw counts

    @classmethod
    def of(cls, adata: AnnData) -> RowSums | None:
        """That of sums; None of cells."""
        if not is_summed(adata):
            return None
        for name in (_keys.SUM_SQUARES, _keys.SUM_LIBRARY_PRODUCTS):
            if name not in adata.layers:
                raise KeyError(f"adata.layers has no {name!r}, which sums need; make them again with {_MAKER}.")
        squares, along = (adata.layers[name] for name in (_keys.SUM_SQUARES, _keys.SUM_LIBRARY_PRODUCTS))
        library = _checks.column(adata, _keys.SUM_LIBRARY_SQUARES, f"adata.uns[{_keys.SUMS!r}]")
        counts = are_of_counts(adata)
        return cls(cells_of_rows(adata), squares, along, library.to_numpy(dtype=np.float64), counts)

    def take(self, rows: Any) -> RowSums:
        """That of some rows."""
        squares, along = self.squares[rows], self.along[rows]
        return RowSums(self.n_cells[rows], squares, along, self.library_squares[rows], self.counts)

    def genes(self, columns: Any) -> RowSums:
        """That of some genes, whose products with all counts stay as they are."""
        return replace(self, squares=self.squares[:, columns], along=self.along[:, columns])

    def write(self, out: AnnData) -> AnnData:
        """``out``, an AnnData of agevi's own of the same rows, marked as sums; in place."""
        out.obs[_keys.N_CELLS], out.obs[_keys.SUM_LIBRARY_SQUARES] = self.n_cells, self.library_squares
        out.layers[_keys.SUM_SQUARES], out.layers[_keys.SUM_LIBRARY_PRODUCTS] = self.squares, self.along
        out.uns[_keys.SUMS] = {"normalize": normalizations(counts=self.counts)}
        return out

    def moments(self, x: Any, codes: np.ndarray, n_units: int, *, counted: bool) -> tuple[np.ndarray, ...]:
        """Of every unit: sums of l and of l^2, (n_units,), and of x^2 and of l x, (n_units, n_genes); else l is 1."""
        used = codes >= 0

        def of_rows(values: np.ndarray) -> np.ndarray:
            return np.bincount(codes[used], weights=values[used], minlength=n_units)

        squares = exact_sums(self.squares, codes, n_units)
        if not counted:
            n_cells = of_rows(self.n_cells.astype(np.float64))
            return n_cells, n_cells, squares, exact_sums(x, codes, n_units)
        whole = row_totals(self.along)
        if not np.allclose(whole[used], self.library_squares[used], rtol=1e-9):
            raise ValueError(
                "adata has other genes than when its cells were summed, so that the counts of the cells are not known, "
                f"which the reliability of genes needs. Choose genes first: {_MAKER}(adata[:, genes], ...); or take a "
                "clock without it, such as PLSClock(weights='zscore')."
            )
        library = of_rows(row_totals(x))
        along = exact_sums(self.along, codes, n_units)
        return library, of_rows(self.library_squares), squares, along


def copy_sums(adata: AnnData, out: AnnData, columns: Any = None) -> AnnData:
    """``out``, which has the same rows and the genes ``columns`` (None: all), marked as sums where ``adata`` is."""
    rows = RowSums.of(adata)
    if rows is not None:
        (rows if columns is None else rows.genes(columns)).write(out)
    return out


def row_totals(x: Any) -> np.ndarray:
    """Sum of every row, (n_rows,) float64; scipy's own sum of float32 rounds on the way."""
    return np.asarray(x @ np.ones(x.shape[1])).ravel()


def exact_sums(x: Any, codes: np.ndarray, n_units: int) -> np.ndarray:
    """Sums of rows by ``codes``, (n_units, n_genes) float64, dense."""
    out = np.zeros((n_units, x.shape[1]))
    for start in range(0, len(codes), _BLOCK):
        units = codes[start : start + _BLOCK]
        used = np.flatnonzero(units >= 0)
        if len(used):
            own, of_own = np.unique(units[used], return_inverse=True)
            shape = (len(own), len(units))
            indicator = sp.csr_matrix((np.ones(len(used)), (of_own.ravel(), used)), shape=shape)
            out[own] += _checks.dense(indicator @ x[start : start + _BLOCK], np.float64)
    return out
