from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm

from agevi.tl.acceleration import _norms

ERRORS = {
    "normal": lambda rng, size: rng.normal(size=size),
    "heavy tails": lambda rng, size: rng.standard_t(4, size=size) / np.sqrt(2),
    "skewed": lambda rng, size: (rng.gamma(4, size=size) - 4) / 2,
}


def references(rng, n_references, n, error="normal", spread=0.0):
    """Ages and predictions of slope 0.6, whose spread changes by ``spread`` on the log scale in 20 years."""
    age = rng.uniform(20, 90, (n_references, n))
    noise = 5 * np.exp(spread * (age - 55) / 20) * ERRORS[error](rng, age.shape)
    return age, 20 + 0.6 * age + noise


def powers(age, norms):
    z = (age - norms.centre) / norms.scale
    return z[:, None] ** np.arange(norms.coefficients.shape[-1])


@pytest.mark.parametrize("degree", [1, 3])
def test_equals_weighted_least_squares_of_statsmodels(degree):
    rng = np.random.default_rng(0)
    age, predicted = (values[0] for values in references(rng, 1, 60, spread=0.4))
    norms = _norms.fit(age, predicted, np.asarray(60), degree=degree)
    assert norms.spread > 0.1
    relative = np.exp(norms.spread * (age - norms.centre) / norms.scale)
    found = sm.WLS(predicted, powers(age, norms), weights=relative**-2).fit()
    np.testing.assert_allclose(norms.coefficients, found.params)
    np.testing.assert_allclose(norms.sigma**2, found.mse_resid)
    np.testing.assert_allclose(norms.sigma**2 * norms.covariance, found.cov_params(), atol=1e-12)
    new = np.array([30.0, 55.0, 80.0])
    mean, sd = norms.expected(new)
    at = np.exp(norms.spread * (new - norms.centre) / norms.scale)
    expected = found.get_prediction(powers(new, norms), weights=at**-2)
    np.testing.assert_allclose(mean, expected.predicted_mean)
    np.testing.assert_allclose(sd, expected.se_obs)


def test_constant_spread_is_the_prediction_interval_of_a_line():
    """Where residuals show no trend, ordinary least squares: its standard error of a new observation, from scipy's line."""
    rng = np.random.default_rng(1)
    age, noise = np.repeat(np.linspace(20, 80, 20), 2), np.tile([1.0, -1.0], 20)
    predicted = 0.5 * age + noise + rng.normal(0, 1e-9, 40)
    norms = _norms.fit(age, predicted, np.asarray(40), degree=1)
    assert norms.spread == pytest.approx(0, abs=1e-6)
    line = scipy.stats.linregress(age, predicted)
    s = np.sqrt(np.sum((predicted - line.intercept - line.slope * age) ** 2) / 38)
    sd = s * np.sqrt(1 + 1 / 40 + (90 - age.mean()) ** 2 / np.sum((age - age.mean()) ** 2))
    assert norms.expected(np.array([90.0]))[1] == pytest.approx(sd)


def test_the_spread_is_found():
    rng = np.random.default_rng(2)
    age, predicted = references(rng, 50, 400, spread=0.4)
    norms = _norms.fit(age, predicted, np.full(50, 400), degree=1)
    slope = norms.spread / norms.scale * 20
    assert slope.mean() == pytest.approx(0.4, abs=0.02)
    flat = _norms.fit(*references(rng, 200, 30), np.full(200, 30), degree=1)
    assert (flat.spread == 0).mean() > 0.5  # chance makes no trend in most small references


@pytest.mark.parametrize("spread", [0.0, 0.35], ids=["equal spread", "spread changes"])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(("n", "degree", "ks"), [(20, 1, 0.03), (50, 3, 0.025), (200, 3, 0.02)])
def test_centiles_of_new_samples_are_uniform(n, degree, ks, error, spread):
    rng = np.random.default_rng(3)
    age, predicted = references(rng, 500, n, error, spread)
    new_age, new = references(rng, 500, 20, error, spread)
    norms = _norms.fit(age, predicted, np.full(500, n), degree=degree)
    centile = _norms.score(norms, new_age, new)["centile"]
    assert scipy.stats.kstest(centile.ravel() / 100, "uniform").statistic < ks
    inside = (centile > 2.5) & (centile < 97.5)
    assert 0.925 < inside.mean() < 0.965
    for part in (new_age < 40, new_age > 70):
        assert 0.88 < inside[part].mean() < 0.99


def test_normal_centiles_of_skewed_predictions_would_not_be():
    """What the ranks are for: centiles of Student's t are off where errors are skewed, at any number of subjects."""
    rng = np.random.default_rng(4)
    norms = _norms.fit(*references(rng, 500, 200, "skewed"), np.full(500, 200), degree=1)
    z = _norms.score(norms, *references(rng, 500, 20, "skewed"))["z"]
    assert scipy.stats.kstest(scipy.stats.t.cdf(z.ravel(), 198), "uniform").statistic > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.35])
def test_scores_of_the_reference_do_not_go_with_age(spread):
    rng = np.random.default_rng(5)
    of_mean, of_spread = [], []
    for _ in range(20):
        age, predicted = (values[0] for values in references(rng, 1, 200, spread=spread))
        found = _norms.score_left_out(age, predicted, np.arange(200), degree=1)
        of_mean.append(np.corrcoef(age, found["z"])[0, 1])
        of_spread.append(np.corrcoef(age, np.abs(found["z"]))[0, 1])
        assert found["z"].std() == pytest.approx(1, abs=0.03)
    assert abs(np.mean(of_mean)) < 0.02  # chance would give 0.07 in each
    assert np.abs(of_mean).max() < 0.07
    assert abs(np.mean(of_spread)) < 0.03


def test_leaving_out_is_a_fit_without_the_subject():
    rng = np.random.default_rng(6)
    age, predicted = (values[0] for values in references(rng, 1, 30))
    subject = np.repeat(np.arange(15), 2)
    found = _norms.score_left_out(age, predicted, subject, degree=1)
    rest = subject != 4
    norms = _norms.fit(age[rest], predicted[rest], np.asarray(14), degree=1)
    expected = _norms.score(norms, age[~rest], predicted[~rest])
    for name, values in expected.items():
        np.testing.assert_allclose(found[name][~rest], values, err_msg=name)


def test_copies_of_samples_tell_nothing_new():
    rng = np.random.default_rng(7)
    age, predicted = (values[0] for values in references(rng, 1, 40, spread=0.3))
    once = _norms.fit(age, predicted, np.asarray(40), degree=1)
    twice = _norms.fit(np.repeat(age, 2), np.repeat(predicted, 2), np.asarray(40), degree=1)
    grid = np.array([10.0, 50.0, 95.0])
    np.testing.assert_allclose(once.expected(grid), twice.expected(grid), rtol=0.005)
    z = np.array([-5.0, -1.0, 0.3, 5.0])
    np.testing.assert_allclose(once.centile(z), twice.centile(z), atol=1.5)


def test_centiles_and_deviations_are_inverse_and_rise():
    rng = np.random.default_rng(8)
    norms = _norms.fit(*(values[0] for values in references(rng, 1, 25)), np.asarray(25), degree=1)
    share = np.array([0.01, 1.0, 2.5, 30.0, 50.0, 97.5, 99.99])
    z = norms.deviation(share)
    assert (np.diff(z) > 0).all()
    np.testing.assert_allclose(norms.centile(z), share)
    again = _norms.Norms.from_dict(norms.to_dict())
    np.testing.assert_allclose(again.centile(z), share)


def test_beyond_the_reference_the_spread_is_that_of_its_end():
    rng = np.random.default_rng(9)
    age, predicted = (values[0] for values in references(rng, 1, 5000, spread=0.5))
    norms = _norms.fit(age, predicted, np.asarray(5000), degree=1)
    inside, outside = norms.expected(np.array([90.0, 150.0]))[1]
    assert outside == pytest.approx(inside, rel=0.02)
