from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata, sem

from agevi.metrics._ranks import mean_and_error, rank_stability


@pytest.fixture
def values():
    """12 subjects x 30 genes, rising means."""
    rng = np.random.default_rng(0)
    return np.arange(30.0) + rng.normal(0, 6, (12, 30))


def test_mean_and_error(values):
    mean, error = mean_and_error(values)
    np.testing.assert_allclose(mean, values.mean(0))
    np.testing.assert_allclose(error, sem(values))
    assert np.isnan(mean_and_error(values[:1])[1]).all()


@pytest.mark.slow
def test_ranks_equal_a_bootstrap_written_out(values):
    low, high, selected = rank_stability(values[None], n_top=5, n_boot=4000, rng=np.random.default_rng(1))
    rng, ranks = np.random.default_rng(2), []
    for _ in range(4000):
        ranks.append(rankdata(-values[rng.integers(12, size=12)].mean(0)))
    expected = np.quantile(ranks, [0.025, 0.975], axis=0)
    assert np.abs(low - expected[0]).max() <= 1
    assert np.abs(high - expected[1]).max() <= 1
    np.testing.assert_allclose(selected, (np.array(ranks) <= 5).mean(0), atol=0.04)


def test_subjects_that_agree_give_one_rank():
    values = np.tile([3.0, 1.0, 2.0], (5, 1))
    low, high, selected = rank_stability(values[None], n_top=1, n_boot=10, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(low, [1, 3, 2])
    np.testing.assert_array_equal(high, [1, 3, 2])
    np.testing.assert_array_equal(selected, [1, 0, 0])


def test_clocks_that_disagree_widen_the_ranks():
    """One clock alone is drawn in half of the draws, each of the two in a quarter; both together put the first gene first."""
    values = np.stack([np.tile([9.0, 1.0, 4.0], (6, 1)), np.tile([1.0, 8.0, 4.0], (6, 1))])
    low, high, selected = rank_stability(values, n_top=1, n_boot=4000, rng=np.random.default_rng(0))
    np.testing.assert_allclose(selected, [0.75, 0.25, 0.0], atol=0.03)
    np.testing.assert_array_equal(high, [3, 3, 3])
