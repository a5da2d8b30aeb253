from __future__ import annotations

import numpy as np
import scipy.stats

from agevi.tl.trends import _permute
from agevi.tl.trends._permute import p_value, permuted


def test_permuted_values_keep_means_between_and_deviations_within_subjects():
    age = np.array([30.0, 50, 54, 61, 40, 43, 80])
    subject = np.array([0, 1, 1, 1, 2, 2, 3])
    drawn = permuted(age, subject, 5000, np.random.default_rng(0))
    mean = np.stack([drawn[:, subject == s].mean(axis=1) for s in range(4)], axis=1)
    np.testing.assert_allclose(np.sort(mean, axis=1), np.tile([30.0, 41.5, 55, 80], (5000, 1)))
    for s in range(4):
        deviation = np.sort(drawn[:, subject == s] - mean[:, [s]], axis=1)
        own = age[subject == s] - age[subject == s].mean()
        np.testing.assert_allclose(deviation, np.tile(np.sort(own), (5000, 1)), atol=1e-10)
    first = np.unique(mean[:, 0], return_counts=True)[1]
    assert scipy.stats.chisquare(first).pvalue > 1e-3  # each subject has each mean equally often
    order = np.unique((drawn[:, 1:4] - mean[:, [1]]).round(6), axis=0, return_counts=True)[1]
    assert len(order) == 6
    assert scipy.stats.chisquare(order).pvalue > 1e-3  # each order of a subject's visits equally often


def test_p_value_counts_the_permutations_that_reach_the_statistic(monkeypatch):
    """In blocks of 7 draws, beside all draws one by one from the same stream."""
    values, subject = np.random.default_rng(1).normal(size=12), np.arange(12)
    half = np.repeat([1.0, -1.0], 6)
    found = values @ half
    monkeypatch.setattr(_permute, "_VALUES", 7 * len(values))
    p = p_value(lambda drawn: drawn @ half, values, subject, found, 100, np.random.default_rng(2))
    rng = np.random.default_rng(2)
    drawn = np.concatenate([permuted(values, subject, n, rng) for n in [7] * 14 + [2]])
    assert p == (1 + (drawn @ half >= found - 1e-9).sum()) / 101
