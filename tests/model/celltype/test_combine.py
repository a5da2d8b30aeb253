from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from agevi.model.celltype._combine import Errors, error_covariance

TRUTH = np.array([[1.0, 0.3, 0.0], [0.3, 1.0, 0.5], [0.0, 0.5, 1.0]])


def errors(n, seed=0):
    return np.random.default_rng(seed).multivariate_normal([0, 0, 0], TRUTH, size=n)


def known(variance, correlation=TRUTH):
    return Errors(correlation, np.asarray(variance, dtype=float), np.full(len(variance), 50.0))


def test_without_gaps_it_is_ledoit_and_wolf():
    found = errors(60)
    expected = ledoit_wolf(found, assume_centered=True)[0]
    np.testing.assert_allclose(error_covariance(found), expected, rtol=1e-6, atol=1e-8)


def test_gaps_are_filled_by_what_the_other_types_say():
    gaps = errors(4000)
    gaps[:2000, 0] = np.nan
    gaps[1000:3000, 2] = np.nan
    np.testing.assert_allclose(error_covariance(gaps), TRUTH, atol=0.12)
    alone = gaps.copy()
    alone[:, 1] = np.nan  # a type that was never held out
    found = error_covariance(alone)
    assert (found[1] == 0).all()
    assert np.isfinite(found[np.ix_([0, 2], [0, 2])]).all()


def test_errors_that_never_differ_are_no_division_by_zero():
    for same in (np.zeros((12, 2)), np.repeat(errors(12)[:, :1], 2, axis=1)):
        found = Errors.of(same, np.full((12, 2), 9.0), np.full(2, 9.0))
        weight = found.weights(np.full((1, 2), 9.0))
        np.testing.assert_allclose(weight, 0.5, atol=1e-3)


def test_variance_falls_with_the_number_of_cells():
    rng = np.random.default_rng(0)
    n_cells = rng.integers(3, 200, (6000, 2)).astype(float)
    sd = np.sqrt(np.array([9.0, 25.0]) + np.array([400.0, 0.0]) / n_cells)
    found = Errors.of(rng.normal(size=sd.shape) * sd, n_cells, np.median(n_cells, axis=0))
    np.testing.assert_allclose(found.variance[0], [9, 400], rtol=0.15)
    np.testing.assert_allclose(found.variance[1, 0], 25, rtol=0.1)
    assert found.variance[1, 1] < 40
    few, many = found.weights(np.array([[3.0, 100], [150, 100]]))
    assert few[0] < 0.25
    assert many[0] > 0.6


def test_weights_are_those_of_the_least_variance():
    of = known([[4, 0], [1, 80], [16, 0]])
    n = np.array([[10.0, 10, 10]])
    covariance = TRUTH * np.sqrt(np.outer([4, 9, 16], [4, 9, 16]))
    weight = of.weights(n)[0]
    inverse = np.linalg.inv(covariance)
    np.testing.assert_allclose(weight, inverse.sum(axis=1) / inverse.sum())
    for step in np.random.default_rng(0).normal(size=(20, 3)):
        other = weight + step - step.mean()
        assert other @ covariance @ other >= weight @ covariance @ weight


def test_weights_of_the_types_that_are_there():
    of = known([[4, 0], [9, 0], [16, 0]])
    weight = of.weights(np.array([[5.0, 7, 0], [0, 0, 3], [0, 0, 0], [50, 70, 0]]))
    part = np.linalg.inv((TRUTH * np.outer([2, 3, 4], [2, 3, 4]))[:2, :2])
    np.testing.assert_allclose(weight[0, :2], part.sum(axis=1) / part.sum())
    np.testing.assert_allclose(weight[0], weight[3])
    np.testing.assert_array_equal(weight[1:3], [[0, 0, 1], [0, 0, 0]])


def test_a_type_with_unknown_errors_counts_only_alone():
    correlation = TRUTH.copy()
    correlation[2], correlation[:, 2] = 0, 0
    weight = known([[4, 0], [9, 0], [0, 0]], correlation).weights(np.array([[1.0, 1, 1], [0, 0, 1]]))
    assert weight[0, 2] == 0
    assert weight[1, 2] == 1


def test_two_types_with_the_same_errors_count_once():
    one, own = errors(500, 1)[:, 0], errors(500, 2)[:, 0]
    found = Errors.of(np.stack([one, one + 1e-3 * own, own], axis=1), np.full((500, 3), 9.0), np.full(3, 9.0))
    assert found.weights(np.full((1, 3), 9.0))[0, 2] == pytest.approx(0.5, abs=0.06)


def test_equal_weights():
    np.testing.assert_allclose(Errors.equal(np.ones(2)).weights(np.array([[1.0, 500], [0, 3]])), [[0.5, 0.5], [0, 1]])
