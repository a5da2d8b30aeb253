"""Elastic nets on more rows than can be dense: second moments of screened genes, gathered in blocks of rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from agevi.model.linear._scaled_rows import SampleTargets, ScaledRows
from agevi.model.linear._solver import elastic_net_gram

logger = logging.getLogger(__name__)

MOMENT_BYTES = 1_500_000_000
"""Memory for the moments."""
GENES_PER_PASS = 1024
_MIN_GENES = 64
_EXACT_BYTES = 300_000_000  # up to here moments are float64
_STEP = 0.8  # warm starts fail over larger steps of the penalty
_SLACK = 1e-4  # relative excess of a gradient that counts as a violation; above the rounding of float32 moments


@dataclass(frozen=True)
class LinearMap:
    """A fitted linear map of standardised values to standardised ages."""

    coefficients: np.ndarray  # (n_genes,)
    intercept: float
    converged: bool


class MomentProblem:
    """Elastic nets along falling penalties, outside each fold and on all samples, from rows that are read in blocks."""

    # Cells matter only through covariances of genes with the target, which means of samples give, since their cells
    # have one age, and of genes that may enter with one another. They are screened in by how strongly they pull at the
    # residual; after every fit the conditions of the optimum are checked for ALL genes, and a further pass gathers
    # those that violate them. So a fit is exact, and a path ends where genes want to enter beside those that fill the
    # memory.
    def __init__(
        self,
        rows: ScaledRows,
        samples: SampleTargets,
        evaluated: np.ndarray | None = None,
        *,
        max_iter: int = 1000,
        tol: float = 1e-6,
        max_bytes: int = MOMENT_BYTES,
        genes_per_pass: int = GENES_PER_PASS,
    ) -> None:
        self.rows, self.samples, self.genes_per_pass = rows, samples, genes_per_pass
        self.max_iter, self.tol = max_iter, tol
        means = rows.unit_means(len(samples.target))  # n_samples x n_genes
        self.evaluated = means if evaluated is None else evaluated
        self.n_sets, n_genes = samples.n_folds + 1, rows.n_genes  # all samples outside each fold, then all
        inside = np.array(
            [samples.fold != k for k in range(samples.n_folds)] + [np.ones(len(samples.fold), dtype=bool)]
        )
        weight = inside * samples.weight  # n_sets x n_samples
        self.total = weight.sum(axis=1)
        self.mean = weight @ means / self.total[:, None]  # n_sets x n_genes
        self.y_mean = weight @ samples.target / self.total
        self.xy = (weight * samples.target) @ means / self.total[:, None] - self.mean * self.y_mean[:, None]
        itemsize = 8 if self.n_sets * n_genes**2 * 8 <= _EXACT_BYTES else 4
        self.capacity = int(min(n_genes, max(max_bytes // (self.n_sets * n_genes * itemsize), _MIN_GENES)))
        # Memory is taken as rows are filled.
        self.moments = np.empty((self.n_sets, self.capacity, n_genes), dtype=f"f{itemsize}")
        self.screened = np.empty(0, dtype=np.int64)  # genes in the order of their rows of moments
        self.place = np.full(n_genes, -1)  # row of every gene, -1 where it has none
        self.begin()

    def begin(self) -> None:
        """Forget the coefficients of the last path."""
        self.coefficients = np.zeros_like(self.xy)  # n_sets x n_genes
        self.gradient = self.xy.copy()
        self.l1 = np.abs(self.xy).max(axis=1)  # at which the coefficients above are a solution
        self.converged = True

    def largest(self) -> float:
        """Largest absolute covariance of a gene with the target."""
        return float(np.abs(self.xy[-1]).max())

    def errors(self, alpha: float, l1_ratio: float) -> np.ndarray | None:
        """Mean squared error of each fold, (n_folds,), going on from the last call; None where the memory is full."""
        folds = range(self.samples.n_folds)
        if self._move(folds, alpha, l1_ratio):
            return np.array([self._error(k) for k in folds])
        logger.info(
            "The path at l1_ratio=%g ends at alpha=%.3g, where genes want to enter beside the %d in memory.",
            l1_ratio, alpha, self.capacity,
        )  # fmt: skip
        return None

    def refit(self, alpha: float, l1_ratio: float) -> LinearMap:
        """The net on all samples."""
        self.begin()
        whole = self._move([self.n_sets - 1], alpha, l1_ratio)
        b = self.coefficients[-1]
        return LinearMap(b.copy(), float(self.y_mean[-1] - self.mean[-1] @ b), whole and self.converged)

    # --- moving along a path -----------------------------------------------------------------------------------

    def _move(self, sets: range | list[int], alpha: float, l1_ratio: float) -> bool:
        """Bring the coefficients of ``sets`` to a penalty; False where the memory does not hold the genes for it."""
        while True:
            missing = np.zeros(self.rows.n_genes, dtype=bool)
            for k in sets:  # one pass serves them all
                missing |= self._advance(k, alpha * l1_ratio, l1_ratio)
            if not missing.any():
                return True
            if not self._screen_in(missing):
                return False

    def _advance(self, k: int, l1: float, l1_ratio: float) -> np.ndarray:
        """Bring the coefficients of set ``k`` to a penalty, or to where the genes in the mask returned should enter."""
        missing = np.zeros(self.rows.n_genes, dtype=bool)
        for step in _steps(self.l1[k], l1):
            missing = self._fit(k, step, step * (1 - l1_ratio) / l1_ratio)
            if missing.any():
                break
        return missing

    def _fit(self, k: int, l1: float, l2: float) -> np.ndarray:
        """Solve for set ``k``; mask of the genes that should enter and are not screened in."""
        b, gradient = self.coefficients[k].copy(), self.gradient[k]
        # Strong rule (Tibshirani et al. 2012): others hardly ever enter in this step.
        working = (np.abs(gradient) >= 2 * l1 - self.l1[k]) | (b != 0)
        while True:
            genes = np.flatnonzero(working & (self.place >= 0))
            b[genes], settled = elastic_net_gram(
                self._gram(k, genes), self.xy[k, genes], l1, l2, b[genes], max_iter=self.max_iter, tol=self.tol
            )
            gradient = self.xy[k] - self._product(k, b)
            enters = (np.abs(gradient) > l1 * (1 + _SLACK)) & (b == 0)
            if not (enters & ~working).any():
                break
            working |= enters
        self.coefficients[k], self.gradient[k] = b, gradient
        self.converged &= settled
        missing = enters & (self.place < 0)
        if not missing.any():
            self.l1[k] = l1
        return missing

    def _gram(self, k: int, genes: np.ndarray) -> np.ndarray:
        """Covariances of ``genes`` with one another in set ``k``, float64."""
        raw = self.moments[k][np.ix_(self.place[genes], genes)].astype(np.float64)
        return raw / self.total[k] - np.outer(self.mean[k, genes], self.mean[k, genes])

    def _product(self, k: int, b: np.ndarray) -> np.ndarray:
        """Covariances of all genes with one another, times ``b``, which is 0 for genes that are not screened in."""
        n = len(self.screened)
        slope = b[self.screened]
        raw = slope.astype(self.moments.dtype) @ self.moments[k, :n]
        return raw / self.total[k] - self.mean[k] * float(self.mean[k] @ b)

    def _error(self, fold: int) -> float:
        """Mean squared error of the samples of a fold."""
        held = self.samples.fold == fold
        b = self.coefficients[fold]
        predicted = self.y_mean[fold] + (self.evaluated[held] - self.mean[fold]) @ b
        return float(np.average((self.samples.target[held] - predicted) ** 2, weights=self.samples.weight[held]))

    # --- moments -----------------------------------------------------------------------------------------------

    def _screen_in(self, missing: np.ndarray) -> bool:
        """Gather the moments of further genes, the ``missing`` ones first; False where there is no room for them."""
        n = len(self.screened)
        room = min(self.genes_per_pass, self.capacity - n)
        wanted = int(missing.sum())
        if self.capacity - n < wanted:
            return False
        pull = np.abs(self.gradient).max(axis=0)
        pull[missing] = np.inf
        pull[self.place >= 0] = -np.inf
        new = np.sort(np.argsort(-pull, kind="stable")[: max(room, wanted)])
        logger.debug("A pass over %d rows gathers the moments of %d genes.", len(self.rows.index), len(new))
        self._gather(new, slice(n, n + len(new)))
        self.place[new] = np.arange(n, n + len(new))
        self.screened = np.concatenate([self.screened, new])
        return True

    def _gather(self, new: np.ndarray, where: slice) -> None:
        """Fill rows of the moments with the products of genes ``new`` with all genes."""
        rows, samples, dtype = self.rows, self.samples, self.moments.dtype
        of_row = (samples.weight / np.bincount(rows.unit, minlength=len(samples.weight)))[rows.unit].astype(dtype)
        self.moments[:, where] = 0
        for fold in range(samples.n_folds):
            for part in rows.parts(np.flatnonzero(samples.fold[rows.unit] == fold)):
                block = rows.standardized(part, dtype)  # n_part x n_genes
                self.moments[fold, where] += (block[:, new] * of_row[part, None]).T @ block
        self.moments[-1, where] = self.moments[:-1, where].sum(axis=0)
        for fold in range(samples.n_folds):
            np.subtract(self.moments[-1, where], self.moments[fold, where], out=self.moments[fold, where])


def _steps(before: float, after: float) -> Iterator[float]:
    """Penalties on the way, each a fifth below the one before at most."""
    if 0 < after < before:
        n = int(np.ceil(np.log(after / before) / np.log(_STEP)))
        yield from np.geomspace(before, after, n + 1)[1:]
    else:
        yield after
