from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from agevi.model.celltype._combine import combining_weights, error_covariance

TRUTH = np.array([[4.0, 1.0, 0.0], [1.0, 9.0, 2.0], [0.0, 2.0, 16.0]])


def errors(n, seed=0):
    return np.random.default_rng(seed).multivariate_normal([1, -2, 0], TRUTH, size=n)


def test_without_gaps_it_is_ledoit_and_wolf_of_standardised_errors():
    found = errors(60)
    sd = found.std(axis=0)
    expected = ledoit_wolf((found - found.mean(axis=0)) / sd, assume_centered=True)[0] * np.outer(sd, sd)
    np.testing.assert_allclose(error_covariance(found), expected, rtol=1e-6)


def test_gaps_are_filled_by_what_the_other_types_say():
    whole = errors(4000)
    gaps = whole.copy()
    gaps[:2000, 0] = np.nan
    gaps[1000:3000, 2] = np.nan
    np.testing.assert_allclose(error_covariance(gaps), TRUTH, atol=0.9)
    alone = gaps.copy()
    alone[:, 1] = np.nan  # a type that was never held out
    found = error_covariance(alone)
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[np.ix_([0, 2], [0, 2])]).all()


def test_errors_that_never_differ_are_no_division_by_zero():
    assert np.isfinite(error_covariance(np.zeros((12, 2)))).all()
    assert np.isfinite(error_covariance(np.repeat(errors(12)[:, :1], 2, axis=1))).all()


def test_weights_are_those_of_the_least_variance():
    weight = combining_weights(TRUTH, np.ones((1, 3), dtype=bool))[0]
    inverse = np.linalg.inv(TRUTH)
    np.testing.assert_allclose(weight, inverse.sum(axis=1) / inverse.sum())
    for step in np.random.default_rng(0).normal(size=(20, 3)):
        other = weight + step - step.mean()
        assert other @ TRUTH @ other >= weight @ TRUTH @ weight


def test_weights_of_the_types_that_are_there():
    there = np.array([[True, True, False], [False, False, True], [False, False, False], [True, True, False]])
    weight = combining_weights(TRUTH, there)
    part = np.linalg.inv(TRUTH[:2, :2])
    np.testing.assert_allclose(weight[0, :2], part.sum(axis=1) / part.sum())
    np.testing.assert_array_equal(weight[[0, 3]], weight[[3, 0]])
    np.testing.assert_array_equal(weight[1:3], [[0, 0, 1], [0, 0, 0]])


def test_a_type_with_unknown_errors_counts_only_alone():
    covariance = TRUTH.copy()
    covariance[2], covariance[:, 2] = np.nan, np.nan
    weight = combining_weights(covariance, np.array([[True, True, True], [False, False, True]]))
    assert weight[0, 2] == 0
    assert weight[1, 2] == 1


def test_two_types_with_the_same_errors_count_once():
    one, own = errors(500, 1)[:, 0], errors(500, 2)[:, 0]
    covariance = error_covariance(np.stack([one, one + 1e-3 * own, own], axis=1))
    weight = combining_weights(covariance, np.ones((1, 3), dtype=bool))[0]
    assert weight[2] == pytest.approx(0.5, abs=0.06)
