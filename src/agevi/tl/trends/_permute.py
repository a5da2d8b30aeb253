"""Permutations of values between subjects and of their deviations within subjects, and the p values of these."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

EQUAL = 1e-9  # relative difference below which statistics are equal but for rounding
_VALUES = 1 << 21  # permuted values held at once; the draws depend on it


def permuted(values: np.ndarray, subject: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Values after subjects exchanged means, and the samples of each deviations, (n, n_samples); ``subject`` rises."""
    means = np.bincount(subject, weights=values) / np.bincount(subject)
    out = rng.permuted(np.tile(means, (n, 1)), axis=1)[:, subject]
    deviation = values - means[subject]
    if deviation.any():
        # Subjects rise, so sorting by subject plus a random fraction shuffles within subjects.
        order = np.argsort(subject + rng.random((n, len(values))), axis=1)
        out += deviation[order]
    return out


def p_value(
    statistic: Callable[[np.ndarray], np.ndarray],
    values: np.ndarray,
    subject: np.ndarray,
    found: float,
    n_permutations: int,
    rng: np.random.Generator,
) -> float:
    """Share of permutations whose statistic, (n,) of values (n, n_samples), reaches the one found."""
    reached, step = 0, max(1, _VALUES // len(values))
    for start in range(0, n_permutations, step):
        drawn = statistic(permuted(values, subject, min(step, n_permutations - start), rng))
        reached += int((drawn >= found * (1 - EQUAL)).sum())
    return (1 + reached) / (1 + n_permutations)
