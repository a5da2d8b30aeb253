from __future__ import annotations

import numpy as np
from sklearn.linear_model import Ridge

from agevi.model.celltype._composition import Composition, fit_composition, log_ratios


def cohort(seed=0, n=60, slope=0.02):
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 90, n)
    share = np.exp(rng.normal(0, 0.3, (n, 4)) + slope * np.outer(age - 55, [1, -1, 0, 0]))
    return rng.poisson(200 * share / share.sum(axis=1, keepdims=True)), age


def test_log_ratios_are_centred_and_finite_without_cells():
    found = log_ratios(np.array([[0, 3, 5], [10, 10, 10]]))
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(found[1], 0, atol=1e-12)
    assert np.isfinite(found).all()


def test_shares_that_age_are_found_and_others_are_not():
    counts, age = cohort()
    fitted = fit_composition(counts, age, np.arange(60))
    other, others_age = cohort(seed=1)
    assert np.abs(fitted.ages(other) - others_age).mean() < 0.6 * np.abs(others_age - np.median(age)).mean()
    null = fit_composition(counts, np.random.default_rng(1).permutation(age), np.arange(60))
    assert null.ages(other).std() < 0.35 * others_age.std()


def test_it_is_a_ridge_on_standardised_ratios():
    counts, age = cohort()
    fitted = fit_composition(counts, age, np.arange(60))
    x = (log_ratios(counts) - fitted.mean) / fitted.sd
    fits = [Ridge(alpha).fit(x, age) for alpha in np.logspace(-2, 4, 13)]
    assert any(np.allclose(fit.coef_, fitted.coefficients) for fit in fits)
    np.testing.assert_allclose(fitted.parts(counts).sum(axis=1) + fitted.intercept, fitted.ages(counts))


def test_one_type_alone_says_nothing():
    fitted = fit_composition(np.full((12, 1), 30), np.linspace(20, 80, 12), np.arange(12))
    np.testing.assert_allclose(fitted.ages(np.array([[5], [500]])), 50)


def test_there_and_back():
    fitted = fit_composition(*cohort(), np.arange(60))
    np.testing.assert_array_equal(Composition.of_table(fitted.table()).ages(cohort(2)[0]), fitted.ages(cohort(2)[0]))
    assert Composition.of_table(np.zeros((0, 4))) is None
