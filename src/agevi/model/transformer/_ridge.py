"""Ridge regression whose penalty is chosen, and whose training rows are predicted, with whole subjects held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

ALPHAS = np.logspace(0, 6, 19)
"""Penalties that are tried, for standardised features; the last leaves next to nothing of the coefficients."""
N_FOLDS = 10


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge regression."""

    coef: np.ndarray  # (n_features,)
    intercept: float
    held_out: np.ndarray  # (n,) prediction of every row from the subjects of the other folds

    def predict(self, z: np.ndarray) -> np.ndarray:
        """Predictions of rows, (n,)."""
        return z @ self.coef + self.intercept


def fit_ridge(z: np.ndarray, y: np.ndarray, fold: np.ndarray) -> Ridge:
    """Ridge of y, (n,), on z, (n, n_features), with the penalty of least squared error on held-out folds."""
    n, mean, middle = len(y), z.mean(axis=0, dtype=np.float64), float(y.mean())
    kernel = (z @ z.T).astype(np.float64)
    kernel += kernel.mean() - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None]
    values, vectors = scipy.linalg.eigh(kernel, driver="evd", overwrite_a=True)
    values = np.maximum(values, 0.0)
    turned, blocks = vectors.T @ (y - middle), [np.flatnonzero(fold == f) for f in np.unique(fold)]
    tried: dict[int, tuple[float, np.ndarray]] = {}

    def error(i: int) -> float:
        if i not in tried:
            shrunk = values / (values + ALPHAS[i])
            residual = y - middle - vectors @ (shrunk * turned)
            found = np.empty(n)
            for rows in blocks:
                # Exact: held-out residuals of the rows B of a linear smoother H are (I - H_BB)^-1 (y - Hy)_B.
                part = vectors[rows]
                hat = (part * shrunk) @ part.T + 1 / n
                found[rows] = y[rows] - np.linalg.solve(np.eye(len(rows)) - hat, residual[rows])
            tried[i] = float(np.mean((found - y) ** 2)), found
        return tried[i][0]

    low, high = 0, len(ALPHAS) - 1
    while low < high:  # the error falls and then rises with the penalty
        between = (low + high) // 2
        low, high = (low, between) if error(between) <= error(between + 1) else (between + 1, high)
    best = min(tried, key=error)
    dual = vectors @ (turned / (values + ALPHAS[best]))
    coef = (dual - dual.mean()) @ z
    return Ridge(coef, middle - float(mean @ coef), tried[best][1])


def folds_of(subject: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fold of every row, (n,): whole subjects, spread over the target."""
    names, code = np.unique(subject, return_inverse=True)
    level = np.bincount(code, y) / np.bincount(code)
    order = np.argsort(level, kind="stable")
    fold = np.empty(len(names), dtype=np.int64)
    n_folds = min(N_FOLDS, len(names))
    for start in range(0, len(names), n_folds):
        block = order[start : start + n_folds]
        fold[block] = rng.permutation(n_folds)[: len(block)]
    return fold[code]
