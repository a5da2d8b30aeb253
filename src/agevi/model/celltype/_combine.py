"""How the ages that the types of one sample give become one, by what their errors share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from sklearn.covariance import ledoit_wolf_shrinkage

RULES = ("precision", "mean")
MIN_SAMPLES = 10
"""Samples with held-out ages from which errors of types can be compared."""
_LEAST_VARIANCE = 1e-6  # of a clock without any error
_RIDGE = 1e-9
_STEPS = 50
_CLOSE = 1e-4  # relative change at which the estimate has settled
_REWEIGHTINGS = 5


@dataclass(frozen=True)
class Errors:
    r"""Errors of types: :math:`\Sigma_s = D_s R D_s` in a sample with :math:`n_{st}` cells of type :math:`t`.

    The variance of a type is :math:`d_{st}^2 = a_t + b_t / n_{st}`: what the type does not know, and the noise of few
    cells. Types whose errors were never seen have a variance of 0, which no other type has.
    """

    correlation: np.ndarray  # (n_types, n_types)
    variance: np.ndarray  # (n_types, 2) a and b
    usual: np.ndarray  # (n_types,) median number of cells of a training sample

    @classmethod
    def equal(cls, usual: np.ndarray) -> Errors:
        """Types that all have equal weight, whatever their cells."""
        n = len(usual)
        return cls(np.eye(n), np.tile([1.0, 0.0], (n, 1)), usual)

    @classmethod
    def of(cls, errors: np.ndarray, n_cells: np.ndarray, usual: np.ndarray) -> Errors:
        """From the errors of held-out samples, NaN where a sample lacks a type, and its cells of each type."""
        variance = np.stack([_variance(e, n) for e, n in zip(errors.T, n_cells.T, strict=True)])
        covariance = error_covariance(errors / _sd(variance, n_cells))
        scale = np.diag(covariance)  # what the model of the variance misses
        unit = np.sqrt(np.where(scale > 0, scale, 1.0))
        return cls(covariance / np.outer(unit, unit), variance * scale[:, None], usual)

    def weights(self, n_cells: np.ndarray) -> np.ndarray:
        """Weight of every type in every sample, (n_samples, n_types), from its cells of each, 0 for types it lacks.

        Those of the mean with the least variance that does not shift ages (Aitken 1936, Bates & Granger 1969); they sum
        to 1, or to 0 without any type. A type with unknown errors has a weight only where no other type is there.
        """
        out, there, known = np.zeros(n_cells.shape), n_cells > 0, self.variance.any(axis=1)
        sd = _sd(self.variance, n_cells)
        for pattern in np.unique(there, axis=0):
            rows, used = np.flatnonzero((there == pattern).all(axis=1)), np.flatnonzero(pattern & known)
            if len(used):
                within = sd[np.ix_(rows, used)]
                covariance = self.correlation[np.ix_(used, used)] * within[:, :, None] * within[:, None, :]
                weight = np.linalg.solve(covariance, np.ones((len(rows), len(used), 1)))[:, :, 0]
            else:
                used = np.flatnonzero(pattern)
                weight = np.ones((len(rows), len(used)))
            if len(used):
                out[np.ix_(rows, used)] = weight / weight.sum(axis=1, keepdims=True)
        return out


def _sd(variance: np.ndarray, n_cells: np.ndarray) -> np.ndarray:
    """Standard deviation of the error of every type in every sample, (n_samples, n_types)."""
    found: np.ndarray = np.sqrt(np.maximum(variance[:, 0] + variance[:, 1] / np.maximum(n_cells, 1), _LEAST_VARIANCE))
    return found


def _variance(errors: np.ndarray, n_cells: np.ndarray) -> np.ndarray:
    """What does not and what does fall with the number of cells, (2,), by least squares with the weights they imply."""
    known = np.isfinite(errors)
    if not known.any():
        return np.zeros(2)
    square, terms = errors[known] ** 2, np.stack([np.ones(known.sum()), 1 / n_cells[known]], axis=1)
    found = np.array([square.mean(), 0.0])
    for _ in range(_REWEIGHTINGS):
        weight = 1 / np.maximum(terms @ found, _LEAST_VARIANCE)
        found = nnls(terms * weight[:, None], square * weight)[0]
    return found if found.any() else np.array([_LEAST_VARIANCE, 0.0])


def error_covariance(errors: np.ndarray) -> np.ndarray:
    """Second moments of standardised errors of types, (n_types, n_types), from ``errors``, (n_samples, n_types).

    NaN stands where a sample lacks a type, at random given the errors of its other types: the moments of a normal
    distribution are found by expectation maximisation (Dempster, Laird & Rubin 1977) and shrunk in each step towards a
    multiple of the identity (Ledoit & Wolf 2004). Types without any error are 0.
    """
    known = np.isfinite(errors)
    out = np.zeros((errors.shape[1],) * 2)
    there, used = np.flatnonzero(known.any(axis=0)), known.any(axis=1)
    out[np.ix_(there, there)] = _estimate(errors[np.ix_(used, there)], known[np.ix_(used, there)])
    return out


def _estimate(errors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The same where every type and every sample has an error."""
    covariance = np.diag(np.maximum(np.nanmean(errors**2, axis=0), _RIDGE))
    patterns, of_sample = np.unique(known, axis=0, return_inverse=True)
    for _ in range(_STEPS):
        filled, spread = errors.copy(), np.zeros_like(covariance)
        for i, there in enumerate(patterns):
            rows = np.flatnonzero(of_sample.ravel() == i)
            seen, lost = np.flatnonzero(there), np.flatnonzero(~there)
            if not len(lost):
                continue
            slope = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, lost)])
            filled[np.ix_(rows, lost)] = errors[np.ix_(rows, seen)] @ slope
            left = covariance[np.ix_(lost, lost)] - covariance[np.ix_(lost, seen)] @ slope
            spread[np.ix_(lost, lost)] += len(rows) * left
        found = (filled.T @ filled + spread) / len(errors)
        share = ledoit_wolf_shrinkage(filled, assume_centered=True) if len(found) > 1 else 0.0
        found = (1 - share) * found + (share * np.trace(found) / len(found) + _RIDGE) * np.eye(len(found))
        moved = np.abs(found - covariance).max() / np.abs(found).max()
        covariance = found
        if moved < _CLOSE or known.all():
            break
    return covariance
