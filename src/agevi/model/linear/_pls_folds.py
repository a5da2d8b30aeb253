"""Errors of partial least squares in many folds at once, from inner products of samples."""

from __future__ import annotations

import numpy as np

_LEAST = 1e-7  # of the first covariance with age: what rounding leaves of products where nothing is left to explain
_BLOCK = 2**22  # values that are kept of each component, in all folds of a step


def pls_errors(x: np.ndarray, y: np.ndarray, weight: np.ndarray, held: np.ndarray, most: int) -> np.ndarray:
    """Mean squared error of rows that are ``held`` out, (n_folds, n), with 1 to ``most`` components, (n_folds, most).

    The components are those of the rows, (n, n_genes), that are not held out in a fold; one ``weight`` a row.
    """
    products, size = x @ x.T, max(1, _BLOCK // (most * len(x)))
    parts = range(0, len(held), size)
    return np.concatenate([_errors(products, y, weight, held[start : start + size], most) for start in parts])


def _errors(products: np.ndarray, y: np.ndarray, weight: np.ndarray, held: np.ndarray, most: int) -> np.ndarray:
    """The same from inner products of rows, (n, n), of which the rows in a fold are centred and weighted."""
    own = np.where(held, 0.0, weight)
    share, root = own / own.sum(axis=1, keepdims=True), np.sqrt(own)
    judge = np.where(held, weight, 0.0)
    judge /= judge.sum(axis=1, keepdims=True)
    level = share @ y
    left, predicted = (y - level[:, None]) * root, np.repeat(level[:, None], len(y), axis=1)
    scores, along = (np.zeros((most, *held.shape)) for _ in range(2))  # of weighted rows, and of all as they are
    errors, first = np.zeros((len(held), most)), np.zeros(len(held))
    done = np.zeros(len(held), dtype=bool)
    for a in range(most):
        # The direction is a sum of rows, of which only the weights are known.
        of_rows = root * left
        of_rows -= share * of_rows.sum(axis=1, keepdims=True)
        value = of_rows @ products
        length = np.sqrt(np.maximum((of_rows * value).sum(axis=1), 0.0))
        first = length if a == 0 else first
        done |= length <= _LEAST * first  # further components add nothing
        value -= (share * value).sum(axis=1, keepdims=True)
        value /= np.where(done, 1.0, length)[:, None]
        value[done] = 0.0
        score = root * value
        for again in range(2):  # rounding leaves something of earlier scores the first time
            overlap = np.einsum("bfn,fn->bf", scores[:a], score)
            score -= np.einsum("bf,bfn->fn", overlap, scores[:a])
            if not again:
                value -= np.einsum("bf,bfn->fn", overlap, along[:a])
        size = np.linalg.norm(score, axis=1)
        size = np.where(done, 1.0, size)[:, None]
        scores[a], along[a] = score / size, value / size
        covered = (scores[a] * left).sum(axis=1, keepdims=True)
        left -= covered * scores[a]
        predicted += covered * along[a]
        errors[:, a] = (judge * (predicted - y) ** 2).sum(axis=1)
    return errors
