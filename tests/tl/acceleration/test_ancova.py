"""The arithmetic of the comparison, against statsmodels, scipy, plain loops and simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm

from agevi.tl.acceleration import _ancova
from agevi.tl.acceleration._ancova import fit

GROUP = np.array([0.0, 1.0, 0.0])
CASES = [
    pytest.param(20, 20, 2, 1.0, id="20 and 20"),
    pytest.param(60, 15, 4, 2.0, id="60 and 15, spread twice as large"),
    pytest.param(5, 4, 0, 0.5, id="5 and 4"),
]


def cohort(n, m, n_covariates=0, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    group = np.r_[np.zeros(n), np.ones(m)]
    age = rng.normal(50, 12, n + m) + 10 * group
    x = np.column_stack([np.ones(n + m), group, age, rng.normal(size=(n + m, n_covariates))])
    y = 20 + 0.6 * (age + 3 * group) + 5 * rng.normal(size=n + m) * np.where(group, spread, 1)
    return x, y


@pytest.mark.parametrize("n, m, n_covariates, spread", CASES)
def test_equals_statsmodels_and_scipy(n, m, n_covariates, spread):
    x, y = cohort(n, m, n_covariates, spread)
    ours, theirs = fit(x, y), sm.OLS(y, x).fit(cov_type="HC3", use_t=True)
    np.testing.assert_allclose(ours.beta, theirs.params, rtol=1e-8)
    np.testing.assert_allclose(ours.cov, theirs.cov_params(), rtol=1e-8)
    assert ours.sd == pytest.approx(np.sqrt(theirs.mse_resid), rel=1e-8)
    assert ours.df == theirs.df_resid
    estimate, se = ours.contrast(np.eye(x.shape[1])[1])
    q = ours.quantile(0.95)
    np.testing.assert_allclose([estimate - q * se, estimate + q * se], theirs.conf_int()[1], rtol=1e-8)
    assert _ancova.two_sided(estimate / se, ours.df) == pytest.approx(theirs.pvalues[1], rel=1e-8)
    assert _ancova.two_sided(2.1, 17) == pytest.approx(2 * scipy.stats.t.sf(2.1, 17))


def test_many_simulations_at_once_equal_each_alone():
    parts = [cohort(12, 9, 1, seed=seed) for seed in range(4)]
    x, y = (np.stack(part) for part in zip(*parts, strict=True))
    together = fit(x, y)
    cluster = np.repeat(np.arange(7), 3)
    clustered = fit(x, y, cluster)
    for i, (xi, yi) in enumerate(parts):
        np.testing.assert_allclose(together.cov[i], fit(xi, yi).cov, rtol=1e-10)
        np.testing.assert_allclose(clustered.cov[i], fit(xi, yi, cluster).cov, rtol=1e-10)


def test_moves_of_two_coefficients_give_their_covariance():
    x, y, cluster = visits([2] * 9)
    for subjects in (None, cluster):
        fitted = fit(x, y, subjects)
        one, two = fitted.moves(GROUP, subjects), fitted.moves(np.array([0.0, 0.0, 1.0]), subjects)
        assert one @ two == pytest.approx(fitted.cov[1, 2])


def visits(sizes, seed=1):
    """Samples of subjects who have several, in mixed order."""
    rng = np.random.default_rng(seed)
    cluster = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    age = rng.uniform(30, 70, len(sizes))[cluster] + rng.uniform(0, 3, len(cluster))
    group = (rng.random(len(cluster)) < 0.5).astype(float)
    y = 20 + 0.6 * age + 3 * rng.normal(size=len(sizes))[cluster] + 2 * rng.normal(size=len(cluster))
    return np.column_stack([np.ones(len(cluster)), group, age]), y, cluster


@pytest.mark.parametrize("sizes", [[2] * 9, [1, 3, 2, 2, 5, 1, 2]], ids=["pairs", "uneven visits"])
def test_the_jackknife_equals_leaving_each_subject_out(sizes):
    x, y, cluster = visits(sizes)
    left = [np.linalg.lstsq(x[cluster != c], y[cluster != c], rcond=None)[0] for c in range(len(sizes))]
    left, g = np.array(left), len(sizes)
    centred = left - left.mean(axis=0)
    ours = fit(x, y, cluster)
    np.testing.assert_allclose(ours.cov, (g - 1) / g * centred.T @ centred, rtol=1e-8)
    assert ours.df == g - 1


def plain_freedman_lane(x, y, orders):
    """Share of permutations of the reduced model's residuals whose |t| reaches that of the data, by a loop."""
    z = np.delete(x, 1, axis=1)
    line = z @ np.linalg.lstsq(z, y, rcond=None)[0]
    t = [abs(sm.OLS(line + r, x).fit(cov_type="HC3").tvalues[1]) for r in [y - line, *((y - line)[o] for o in orders)]]
    return np.mean(np.array(t) >= t[0] * (1 - 1e-9))


def test_permutation_equals_a_loop():
    x, y = cohort(10, 8, 1, seed=3)
    # The draws of the package, as positions.
    n = len(y)
    orders = np.random.default_rng(5).permuted(np.tile(np.arange(n), (199, 1)), axis=1)
    p = _ancova.permutation_p(x, y, 1, 199, np.random.default_rng(5))
    assert p == pytest.approx(plain_freedman_lane(x, y, orders), abs=1e-12)
    assert 0.005 < p < 0.9


def test_permutation_agrees_with_t_where_that_is_exact():
    x, y = cohort(30, 30, seed=2)
    fitted = fit(x, y)
    estimate, se = fitted.contrast(GROUP)
    p = _ancova.permutation_p(x, y, 1, 4000, np.random.default_rng(0))
    assert p == pytest.approx(float(_ancova.two_sided(estimate / se, fitted.df)), abs=0.02)


def test_permutation_of_pairs_ignores_the_order_of_rows():
    x, y, cluster = visits([2] * 12)
    order = np.argsort(cluster, kind="stable")
    p = [
        _ancova.permutation_p(x[o], y[o], 1, 300, np.random.default_rng(0), cluster[o])
        for o in (order, np.arange(len(y)))
    ]
    assert p[0] == pytest.approx(p[1], abs=0.08)  # other draws within subjects
    assert np.isnan(_ancova.permutation_p(x, y, 1, 0, np.random.default_rng(0), cluster))


def test_constant_predictions_have_no_p():
    x, _ = cohort(6, 6)
    assert np.isnan(_ancova.permutation_p(x, np.ones(12), 1, 50, np.random.default_rng(0)))


def test_fieller():
    # Two independent estimates of 10 (se 1) and 2 (se .1): Fieller's closed form with g = q² var / d².
    q = 1.96
    g = q**2 * 0.01 / 4
    half = q / 2 * np.sqrt(1 * (1 - g) + 25 * 0.01)
    expected = (5 - half) / (1 - g), (5 + half) / (1 - g)
    assert _ancova.fieller(10.0, 2.0, 1.0, 0.01, 0.0, q) == pytest.approx(expected)
    # With a certain denominator it is the interval divided by it; with an uncertain one it is unbounded.
    assert _ancova.fieller(10.0, 2.0, 1.0, 0.0, 0.0, q) == pytest.approx(((10 - q) / 2, (10 + q) / 2))
    assert np.isnan(_ancova.fieller(10.0, 2.0, 1.0, 1.5, 0.0, q)).all()
    # The delta method agrees where the denominator is well known.
    low, high = _ancova.fieller(3.0, 0.6, 1.0, 0.0004, 0.003, q)
    delta = np.sqrt(np.array([1 / 0.6, -3 / 0.36]) @ np.array([[1, 0.003], [0.003, 0.0004]]) @ [1 / 0.6, -3 / 0.36])
    assert (low, high) == pytest.approx((5 - q * delta, 5 + q * delta), rel=0.02)


def test_deviations_equal_leaving_subjects_out():
    x, y, cluster = visits([2, 1, 3, 1, 1, 2, 2, 1, 1])
    x, is_reference = x[:, [0, 2]], cluster < 6
    found = _ancova.deviations(x, y, is_reference, cluster)
    for i in range(len(y)):
        used = is_reference & (cluster != cluster[i])
        theirs = sm.OLS(y[used], x[used]).fit().get_prediction(x[i]).summary_frame(alpha=0.1)
        assert found.expected[i] == pytest.approx(theirs["mean"].iloc[0])
        reach = scipy.stats.t.ppf(0.95, found.df[i]) * found.spread[i]
        assert found.expected[i] - reach == pytest.approx(theirs["obs_ci_lower"].iloc[0])


def test_a_sample_whose_covariate_the_reference_lacks_has_no_expectation():
    x, y, cluster = visits([1] * 12)
    level = (np.arange(12) == 11).astype(float)
    found = _ancova.deviations(np.column_stack([x[:, [0, 2]], level[cluster]]), y, cluster < 8, cluster)
    assert np.isnan(found.expected[cluster == 11]).all()
    plain = _ancova.deviations(x[:, [0, 2]], y, cluster < 8, cluster)
    np.testing.assert_allclose(found.expected[cluster != 11], plain.expected[cluster != 11])


def test_who_decides_a_term_alone():
    x, _, cluster = visits([2, 2, 1, 3])
    alone = np.column_stack([x, cluster == 3])
    assert _ancova.fitted_exactly(alone, cluster).tolist() == (cluster == 3).tolist()
    assert not _ancova.fitted_exactly(alone).any()
    single = np.column_stack([x, np.arange(8) == 5])
    assert np.flatnonzero(_ancova.fitted_exactly(single)).tolist() == [5]
