"""Components of a non-negative matrix factorisation, fitted to training subjects."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

_LOWEST_MEAN = 0.01  # of a gene whose counts are brought to variance 1; below, single counts would weigh too much


@dataclass(frozen=True)
class Factorization:
    """What a fit gives."""

    components: np.ndarray  # (n_components, n_genes), of counts, each with sum 1 (0 where it is not used)
    error: float  # Frobenius norm of what is left of the weighted rows
    n_iter: int


def balanced_sample(units: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of at most ``n`` cells, as equally many of every unit as there are, in rising order."""
    if n >= len(units):
        return np.arange(len(units))
    codes, sizes = np.unique(units, return_inverse=True, return_counts=True)[1:]
    tie = rng.random(len(units))
    order = np.lexsort((tie, codes))  # cells by unit, shuffled within
    rank = np.empty(len(units), dtype=np.int64)
    rank[order] = np.arange(len(units)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(np.lexsort((tie, rank))[:n])


def gene_weights(mean: np.ndarray, kind: str) -> np.ndarray:
    """Factor of every gene in the squared error, (n_genes,): one over the mean, as Poisson noise asks, or 1."""
    return 1 / np.maximum(mean, _LOWEST_MEAN) if kind == "poisson" else np.ones_like(mean)


def fit_components(
    values: np.ndarray, weights: np.ndarray, *, n_components: int, max_iter: int, seed: int
) -> Factorization:
    """scikit-learn's NMF of counts, (n_rows, n_genes) float32, dense: faster than sparse at the density of cells."""
    if n_components > min(values.shape):
        raise ValueError(
            f"n_components={n_components}, but the factorisation is fitted to {values.shape[0]:,} rows (training "
            f"cells, or pseudocells of them) of {values.shape[1]:,} genes; pass n_components={min(values.shape)} or "
            "fewer."
        )
    root = np.sqrt(weights).astype(np.float32)
    model = NMF(n_components, max_iter=max_iter, random_state=seed)
    with warnings.catch_warnings():  # max_iter is a choice; what remains to be gained is small
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(values * root)
    components = model.components_ / root
    sums = components.sum(axis=1, keepdims=True)
    components = components / np.where(sums > 0, sums, 1.0)
    return Factorization(components, float(model.reconstruction_err_), int(model.n_iter_))
