"""Cells that occur twice: exact copies by a hash of their values, thinned or noisy ones by their nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import gammaln

from agevi._progress import Bar

_ROWS = 4096
_N_COMPONENTS = 128
_MIN_CELLS = 32
_ALPHA = 0.01
_MAX_PARTS = 48
_FLOOR = 1e-6  # squared distance below which float32 tells nothing
# Of a Gumbel distribution of minima with scale 1: interquartile range, and how far the location is above the median.
_GUMBEL_IQR = np.log(np.log(4)) - np.log(np.log(4 / 3))
_GUMBEL_MEDIAN = -np.log(np.log(2))


@dataclass(frozen=True)
class Rows:
    """What one pass over all values shows of cells and genes."""

    x: Any  # (n_cells, n_genes), whose rows can be sliced
    code: np.ndarray  # (n_cells,) uint64, equal for equal rows
    n_genes: np.ndarray  # (n_cells,) genes that are not zero
    total: np.ndarray  # (n_cells,) sum of values
    detected: np.ndarray  # (n_genes,) share of cells with the gene
    weight: np.ndarray  # (n_genes,) one over the spread of the scaled values, equal for all but the widest genes
    non_negative: bool


@dataclass(frozen=True)
class Pairs:
    """Pairs of cells that are one and the same."""

    first: np.ndarray  # (n_pairs,) position of a cell
    second: np.ndarray  # (n_pairs,) position of the other

    def __len__(self) -> int:
        return len(self.first)

    def where(self, mask: np.ndarray) -> Pairs:
        """Those of a mask (n_pairs,)."""
        return Pairs(self.first[mask], self.second[mask])


def _blocks(x: Any) -> Iterator[tuple[slice, sp.csr_matrix]]:
    """Rows in float64 blocks that may be changed."""
    for start in range(0, x.shape[0], _ROWS):
        rows = slice(start, min(start + _ROWS, x.shape[0]))
        block = sp.csr_matrix(x[rows], dtype=np.float64, copy=True)
        block.sum_duplicates()
        block.eliminate_zeros()
        yield rows, block


def read_rows(x: Any) -> Rows:
    """One pass over finite values (n_cells, n_genes): dense, CSR, CSC (copied to CSR) or on disk."""
    x = x.tocsr() if sp.issparse(x) and x.format == "csc" else x
    n, n_genes = x.shape
    code, filled, total = np.zeros(n, dtype=np.uint64), np.zeros(n, dtype=np.int64), np.zeros(n)
    detected, low = np.zeros(n_genes), 0.0
    sums = np.zeros((4, n_genes))  # values, squares, square roots, absolute values
    for rows, block in _blocks(x):
        code[rows], filled[rows] = row_codes(block), np.diff(block.indptr)
        total[rows] = np.asarray(block.sum(axis=1)).ravel()
        low = min(low, float(block.data.min(initial=0.0)))
        detected += np.bincount(block.indices, minlength=n_genes)
        size = np.abs(block.data)
        for i, values in enumerate((block.data, size**2, np.sqrt(size), size)):
            sums[i] += np.bincount(block.indices, weights=values, minlength=n_genes)
    mean, square, root, absolute = sums / n
    variance = np.maximum(square - mean**2 if low < 0 else absolute - root**2, 0.0)
    typical = np.sqrt(variance.mean())
    weight = 1 / np.maximum(np.sqrt(variance), typical if typical > 0 else 1.0)
    return Rows(x, code, filled, total, detected / n, weight, low >= 0)


def row_codes(block: sp.csr_matrix) -> np.ndarray:
    """A 64-bit code of every row, (n_rows,), from genes and values alone; the float64 CSR block stores no zeros."""
    genes = _mix(block.indices.astype(np.uint64))
    codes = _mix(block.data.view(np.uint64) ^ genes)
    upto = np.r_[np.zeros(1, np.uint64), np.cumsum(codes, dtype=np.uint64)]  # overflow is wanted: sums modulo 2**64
    return upto[block.indptr[1:]] - upto[block.indptr[:-1]]


def _mix(x: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit numbers whose bits look random (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def exact_copies(rows: Rows) -> Pairs:
    """Pairs of equal cells, each with the next of its kind, except empty cells and those that may agree by chance."""
    candidates = np.flatnonzero(rows.n_genes > 0)
    _, kind, size = np.unique(rows.code[candidates], return_inverse=True, return_counts=True)
    twice = size[kind] > 1
    candidates, kind = candidates[twice], kind[twice]
    told = ~_may_be_chance(rows, candidates)
    candidates, kind = candidates[told], kind[told]
    order = np.lexsort((candidates, kind))
    candidates, kind = candidates[order], kind[order]
    same = kind[:-1] == kind[1:]
    return Pairs(candidates[:-1][same], candidates[1:][same])


def _may_be_chance(rows: Rows, cells: np.ndarray) -> np.ndarray:
    """Whether another cell may have the same genes by chance, (n_cells,)."""
    # The genes of a cell are taken as drawn one after the other by how often they are seen at all: a few common genes
    # prove nothing. Where nearly all genes have a value, the values are the proof.
    log_share = np.log(np.maximum(rows.detected / max(rows.detected.sum(), 1e-12), 1e-300))
    out = np.zeros(len(cells), dtype=bool)
    for start in range(0, len(cells), _ROWS):
        part = cells[start : start + _ROWS]
        block = sp.csr_matrix(rows.x[part], dtype=np.float64).astype(bool)
        log_chance = gammaln(rows.n_genes[part] + 1) + block @ log_share
        full = rows.n_genes[part] > 0.5 * rows.x.shape[1]
        likely = log_chance + 2 * np.log(rows.x.shape[0]) > np.log(_ALPHA)
        out[start : start + _ROWS] = np.where(full, rows.n_genes[part] < 5, likely)
    return out


def project(rows: Rows, n_components: int, rng: np.random.Generator) -> np.ndarray:
    """Random combinations of scaled genes for every cell, (n_cells, n_components) float32, centred."""
    # What is peculiar to one cell survives random combinations, and would not survive a principal component analysis.
    n_genes = rows.x.shape[1]
    mixing = (rng.standard_normal((n_genes, n_components)) * rows.weight[:, None]).astype(np.float32)
    out = np.empty((rows.x.shape[0], n_components), dtype=np.float32)
    for part, block in _blocks(rows.x):
        if rows.non_negative:
            # Roots of counts have about the same noise in every gene; at length 1, depth does not count.
            block.data = np.sqrt(block.data)
            length = np.sqrt(np.bincount(_row_of(block), weights=block.data**2, minlength=block.shape[0]))
            block.data /= length[_row_of(block)]
        out[part] = block.astype(np.float32) @ mixing
    out -= out.mean(axis=0)
    return out


def _row_of(block: sp.csr_matrix) -> np.ndarray:
    """Row of every stored value."""
    return np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))


def whitened(z: np.ndarray) -> np.ndarray:
    """Rows of length 1 in a basis in which all directions vary alike, (n_cells, rank) float32; ``z`` is centred."""
    # Differences between types fill few directions and weigh little then; unrelated cells are nearly at right angles,
    # and a copy that lost a share 1 - p of its counts is at a cosine near sqrt(p).
    values, vectors = np.linalg.eigh((z.T @ z).astype(np.float64) / len(z))
    kept = values > 1e-6 * max(values[-1], 1e-30)
    out: np.ndarray = z @ (vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32)
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
    return out


def n_parts(rows: Rows) -> int:
    """Parts that cells are dealt into for the search for near copies."""
    return int(np.clip(np.count_nonzero(rows.n_genes) // 8, 4, _MAX_PARTS))


def near_copies(rows: Rows, rng: np.random.Generator, bar: Bar | None = None) -> Pairs:
    """Pairs of cells far more alike than either is to its nearest neighbours in each of :func:`n_parts` parts."""
    n, bar = n_parts(rows), bar or Bar()
    filled = np.flatnonzero(rows.n_genes > 0)
    none = Pairs(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    if len(filled) < _MIN_CELLS:
        bar.step(n)
        return none
    # Among few cells many directions would be all directions, in which everybody is equally far from everybody.
    z = whitened(project(rows, min(_N_COMPONENTS, len(filled) // 4), rng)[filled])
    if z.shape[1] < 2:
        bar.step(n)
        return none
    # Smallest distances to parts follow a Gumbel distribution on the log scale, fitted to each cell: no threshold.
    nearest = _nearest_in_parts(z, n, bar)
    location, scale = _gumbel(nearest)
    surprise = (nearest - location) / scale + np.log(n)  # log chance of a minimum over all parts, n_parts x n
    # A partner may be suspicious from its own side alone, so the weaker bound admits candidates.
    found = []
    for part in range(n):
        cells = np.flatnonzero(surprise[part] < np.log(_ALPHA))
        found.append(np.column_stack([cells, _partner(z, cells, part, n)]))
    ends = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    distance = _log_distance(np.einsum("ij,ij->i", z[ends[:, 0]], z[ends[:, 1]]))
    log_chance = (distance[:, None] - location[ends]) / scale[ends] + np.log(n)
    # Below what is expected of the nearest of all cells for one of the two, and unusual for the other.
    kept = (log_chance.min(axis=1) < np.log(_ALPHA / len(z))) & (log_chance.max(axis=1) < np.log(_ALPHA))
    return Pairs(filled[ends[kept, 0]], filled[ends[kept, 1]])


def _log_distance(cosine: np.ndarray) -> np.ndarray:
    """Log of the squared distance of vectors of length 1."""
    return np.log(np.maximum(2 - 2 * cosine, _FLOOR))


def _nearest_in_parts(z: np.ndarray, n_parts: int, bar: Bar | None = None) -> np.ndarray:
    """Log squared distance from every cell to the nearest cell of every part but itself, (n_parts, n_cells)."""
    best = np.full((n_parts, len(z)), -1.0, dtype=np.float32)  # highest cosine
    for a in range(n_parts):
        left = np.ascontiguousarray(z[a::n_parts])
        for b in range(a, n_parts):
            right = left if a == b else np.ascontiguousarray(z[b::n_parts])
            for start in range(0, len(left), _ROWS):
                cosine = left[start : start + _ROWS] @ right.T
                if a == b:
                    own = np.arange(start, start + len(cosine))
                    cosine[own - start, own] = -1.0
                of_left = best[b, a::n_parts][start : start + _ROWS]
                np.maximum(of_left, cosine.max(axis=1), out=of_left)
                if a != b:
                    of_right = best[a, b::n_parts]
                    np.maximum(of_right, cosine.max(axis=0), out=of_right)
        if bar is not None:
            bar.step()
    return _log_distance(best)


def _gumbel(minima: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Location and scale of every cell's minima (n_parts, n_cells), (n_cells,) each."""
    # The scale is never below the median one, since few parts tell it badly.
    low, middle, high = np.quantile(minima, [0.25, 0.5, 0.75], axis=0)
    scale = (high - low) / _GUMBEL_IQR
    scale = np.maximum(scale, max(float(np.median(scale)), 1e-6))
    return middle + _GUMBEL_MEDIAN * scale, scale


def _partner(z: np.ndarray, cells: np.ndarray, part: int, n_parts: int) -> np.ndarray:
    """Nearest cell in a part for each of some cells, none being its own, (n,)."""
    members = np.arange(part, len(z), n_parts)
    out = np.empty(len(cells), dtype=np.int64)
    for start in range(0, len(cells), _ROWS):
        own = cells[start : start + _ROWS]
        cosine = z[own] @ z[members].T
        cosine[own[:, None] == members] = -1.0
        out[start : start + _ROWS] = members[cosine.argmax(axis=1)]
    return out
