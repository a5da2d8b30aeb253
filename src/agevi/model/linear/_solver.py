"""Elastic net from centred moments G = X'WX / sum(W), c = X'Wy / sum(W): b'Gb / 2 - c'b + l1 |b|_1 + l2 |b|^2 / 2."""

from __future__ import annotations

import numpy as np
from scipy import linalg

_NEWTON_STEPS = 20
_GRADIENT_STEPS = 200
_JITTERS = (0.0, 1e-9, 1e-7, 1e-5)  # times the mean of the diagonal; for columns that depend on others


def elastic_net_gram(
    gram: np.ndarray,
    xy: np.ndarray,
    l1: float,
    l2: float,
    start: np.ndarray | None = None,
    *,
    tol: float = 1e-6,
    max_iter: int = 1000,
) -> tuple[np.ndarray, bool]:
    """Coefficients of the elastic net, (n_genes,), and whether they are as near to the optimum as asked."""
    b = np.zeros(len(xy)) if start is None else np.array(start, dtype=np.float64)
    limit = tol * float(np.abs(xy).max(initial=0.0))
    for _ in range(-(-max_iter // (_NEWTON_STEPS + _GRADIENT_STEPS))):
        # Primal-dual active sets (semismooth Newton): assume signs, solve exactly; a repeated assumption is the
        # solution. From a warm start a few steps do. It may cycle, so accelerated proximal gradient steps, which always
        # converge, follow.
        found = _newton(gram, xy, l1, l2, b)
        if found is not None:
            return found, True
        b = _proximal_gradient(gram, xy, l1, l2, b)
        if violation(xy - gram @ b - l2 * b, b, l1).max() <= limit:
            return b, True
    return b, False


def violation(gradient: np.ndarray, coefficients: np.ndarray, l1: float) -> np.ndarray:
    """By how much each coefficient misses the conditions of an optimum, (n_genes,); ``gradient`` is c - Gb - l2 b."""
    at_zero = np.maximum(np.abs(gradient) - l1, 0.0)
    return np.where(coefficients == 0, at_zero, np.abs(gradient - l1 * np.sign(coefficients)))


def _newton(gram: np.ndarray, xy: np.ndarray, l1: float, l2: float, start: np.ndarray) -> np.ndarray | None:
    """The solution, or None where the signs do not settle."""
    b, before = start, None
    for _ in range(_NEWTON_STEPS):
        moved = b + xy - gram @ b - l2 * b
        signs = np.where(np.abs(moved) > l1, np.sign(moved), 0.0)
        if before is not None and np.array_equal(signs, before):
            return b
        active = np.flatnonzero(signs)
        b, before = np.zeros(len(xy)), signs
        b[active] = _solve(gram[np.ix_(active, active)], xy[active] - l1 * signs[active], l2)
    return None


def _solve(gram: np.ndarray, right: np.ndarray, l2: float) -> np.ndarray:
    """``right`` divided by the Gram matrix with ``l2`` on its diagonal."""
    if not len(right):
        return right
    diagonal = np.arange(len(right))
    mean = float(gram[diagonal, diagonal].mean())
    for jitter in _JITTERS:
        matrix = gram.copy()
        matrix[diagonal, diagonal] += l2 + jitter * mean
        try:
            return linalg.cho_solve(linalg.cho_factor(matrix, overwrite_a=True, check_finite=False), right)
        except linalg.LinAlgError:
            continue
    return np.asarray(linalg.lstsq(gram, right)[0])


def _proximal_gradient(gram: np.ndarray, xy: np.ndarray, l1: float, l2: float, start: np.ndarray) -> np.ndarray:
    """Accelerated proximal gradient steps (Beck and Teboulle 2009), restarted whenever they overshoot."""
    step = 1.0 / (_largest_eigenvalue(gram) + l2)
    b, point, momentum = start, start, 1.0
    for _ in range(_GRADIENT_STEPS):
        moved = point + step * (xy - gram @ point - l2 * point)
        new = np.sign(moved) * np.maximum(np.abs(moved) - step * l1, 0.0)
        if (point - new) @ (new - b) > 0:
            momentum = 1.0
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        point = new + (momentum - 1) / following * (new - b)
        b, momentum = new, following
    return b


def _largest_eigenvalue(gram: np.ndarray) -> float:
    """An upper estimate of the largest eigenvalue."""
    vector = np.ones(len(gram)) + np.arange(len(gram)) / len(gram)  # not orthogonal to the leading one by symmetry
    for _ in range(30):
        product = gram @ vector
        size = float(np.linalg.norm(product))
        if size == 0:
            return max(float(np.abs(gram).sum(axis=1).max()), 1e-12)
        vector = product / size
    # The power method comes from below; the row sums bound from above.
    return min(1.2 * float(vector @ gram @ vector), float(np.abs(gram).sum(axis=1).max()))
