"""How the ages that the types of one sample give become one, by what their errors share."""

from __future__ import annotations

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage

RULES = ("precision", "mean")
MIN_SAMPLES = 10
"""Samples with held-out ages of two types or more, from which errors can be compared."""
_LEAST_SD = 1e-6  # of a clock without any error
_RIDGE = 1e-9
_STEPS = 50
_CLOSE = 1e-4  # relative change at which the estimate has settled


def error_covariance(errors: np.ndarray) -> np.ndarray:
    r"""Covariance of the errors of types over samples, (n_types, n_types), from ``errors``, (n_samples, n_types).

    NaN stands where a sample lacks a type, at random given the errors of its other types: mean and covariance of a
    normal distribution are found by expectation maximisation (Dempster, Laird & Rubin 1977). Each type keeps its own
    variance; in each step the covariance of the standardised errors is shrunk towards the identity (Ledoit & Wolf
    2004). Types without any error are NaN.
    """
    known = np.isfinite(errors)
    out = np.full((errors.shape[1],) * 2, np.nan)
    there = np.flatnonzero(known.any(axis=0))
    used = known.any(axis=1)
    errors, known = errors[np.ix_(used, there)], known[np.ix_(used, there)]
    sd = np.maximum(np.nanstd(errors, axis=0), _LEAST_SD)
    out[np.ix_(there, there)] = _estimate(errors / sd, known) * np.outer(sd, sd)
    return out


def _estimate(errors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The same of standardised errors, where every type and every sample has one."""
    mean, covariance = np.nanmean(errors, axis=0), np.eye(errors.shape[1])
    patterns, of_sample = np.unique(known, axis=0, return_inverse=True)
    of_sample = of_sample.ravel()
    for _ in range(_STEPS):
        filled, spread = errors.copy(), np.zeros_like(covariance)
        for i, there in enumerate(patterns):
            rows = np.flatnonzero(of_sample == i)
            seen, lost = np.flatnonzero(there), np.flatnonzero(~there)
            if not len(lost):
                continue
            slope = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, lost)])
            filled[np.ix_(rows, lost)] = mean[lost] + (errors[np.ix_(rows, seen)] - mean[seen]) @ slope
            spread[np.ix_(lost, lost)] += len(rows) * (
                covariance[np.ix_(lost, lost)] - covariance[np.ix_(lost, seen)] @ slope
            )
        mean = filled.mean(axis=0)
        centred = filled - mean
        found = (centred.T @ centred + spread) / len(errors)
        share = ledoit_wolf_shrinkage(centred, assume_centered=True) if found.shape[0] > 1 else 0.0
        found = (1 - share) * found + share * np.trace(found) / len(found) * np.eye(len(found))
        found += _RIDGE * np.eye(len(found))  # errors that are always the same
        moved = np.abs(found - covariance).max() / max(np.abs(found).max(), 1e-12)
        covariance = found
        if moved < _CLOSE or known.all():
            break
    return covariance


def combining_weights(covariance: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Weight of every type in every sample, (n_samples, n_types), each row summing to 1, or to 0 without any type.

    ``there`` tells the types that a sample has, (n_samples, n_types). With the covariance of the errors of these,
    weights are those of the mean with the least variance that does not shift ages (Aitken 1936, Bates & Granger 1969).
    A type whose errors are not known has a weight only where no other type is there.
    """
    out = np.zeros(there.shape)
    patterns, of_sample = np.unique(there, axis=0, return_inverse=True)
    for i, pattern in enumerate(patterns):
        used = np.flatnonzero(pattern & np.isfinite(np.diag(covariance)))
        if len(used):
            weight = np.linalg.solve(covariance[np.ix_(used, used)], np.ones(len(used)))
        else:
            used = np.flatnonzero(pattern)
            weight = np.ones(len(used))
        if len(used):
            out[np.ix_(of_sample.ravel() == i, used)] = weight / weight.sum()
    return out
