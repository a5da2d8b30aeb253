"""Error rates, coverage and bias of the comparison where the truth is known: many cohorts of subjects at once."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from agevi.tl.acceleration import _ancova
from agevi.tl.acceleration._ancova import fit

GROUP, AGE = np.eye(4)[1], np.eye(4)[2]


def cohorts(n_draws, n, m, *, slope=0.6, delta=0.0, shift=10.0, spread=1.0, seed=0):
    """Designs with group, age and sex (n_draws, n + m, 4), and predictions that shrink ages by ``slope``."""
    rng = np.random.default_rng(seed)
    group = np.tile(np.arange(n + m) >= n, (n_draws, 1)).astype(float)
    age = rng.uniform(30, 70, group.shape) + shift * group
    sex = rng.integers(0, 2, group.shape)
    noise = rng.normal(0, 5, group.shape) * np.where(group > 0, spread, 1)
    return np.stack([np.ones_like(group), group, age, sex], axis=2), slope * (age + delta * group) + 1.5 * sex + noise


def rates(x, y, truth):
    """Share of p below .05, coverage of the 95 % interval, and bias."""
    fitted = fit(x, y)
    estimate, se = fitted.contrast(GROUP)
    p = _ancova.two_sided(estimate / se, fitted.df)
    covered = np.abs(estimate - truth) <= fitted.quantile(0.95) * se
    return (p < 0.05).mean(), covered.mean(), estimate.mean() - truth


SCENARIOS = {
    "20/20, slope .6": ({"n": 20, "m": 20}, 0.15),
    "20/20, slope 1, 3 years": ({"n": 20, "m": 20, "slope": 1.0, "delta": 3.0}, 0.15),
    "20/20, slope .6, 6 years": ({"n": 20, "m": 20, "delta": 6.0}, 0.15),
    "50/50, slope 1": ({"n": 50, "m": 50, "slope": 1.0}, 0.1),
    "50/50, slope .6, 3 years": ({"n": 50, "m": 50, "delta": 3.0}, 0.1),
    "50/50, slope .6, 6 years": ({"n": 50, "m": 50, "delta": 6.0}, 0.1),
    "60/15, spread twice as large": ({"n": 60, "m": 15, "spread": 2.0}, np.inf),
}


def check_rates(scenario, n_draws, seed):
    """The bounds for 2,000 draws, wider by what fewer draws are uncertain."""
    arguments, most = SCENARIOS[scenario]
    truth = arguments.get("slope", 0.6) * arguments.get("delta", 0.0)
    x, y = cohorts(n_draws, seed=seed, **arguments)
    rejected, covered, bias = rates(x, y, truth)
    unequal = arguments["n"] != arguments["m"]
    slack = 0.0 if n_draws >= 2000 else 3 * np.sqrt(0.05 * 0.95 / n_draws) - 0.015
    assert (0.925 if unequal else 0.935) - slack <= covered <= 0.965 + slack
    if truth == 0:
        assert 0.035 - slack <= rejected <= (0.075 if unequal else 0.065) + slack
    sd_of_mean = 5 * np.sqrt(1 / arguments["n"] + 1 / arguments["m"]) / np.sqrt(n_draws)
    assert abs(bias) <= most + (0.0 if n_draws >= 2000 else 3 * sd_of_mean)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_intervals_and_p_values_keep_what_they_promise(scenario):
    check_rates(scenario, 500, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_same_with_2000_cohorts(scenario):
    check_rates(scenario, 2000, seed=2)


def test_the_raw_gap_does_not():
    x, y = cohorts(500, 20, 20)
    gap = y - x[..., 2]
    p = scipy.stats.ttest_ind(gap[:, 20:], gap[:, :20], axis=1, equal_var=False).pvalue
    assert (p < 0.05).mean() > 0.3


@pytest.mark.parametrize("n, slope, delta", [(20, 0.6, 6.0), (50, 0.6, 6.0), (50, 0.3, 6.0)])
def test_the_scaled_difference_covers_the_planted_years(n, slope, delta):
    x, y = cohorts(2000, n, n, slope=slope, delta=delta, seed=3)
    fitted = fit(x, y)
    (difference, se), (b, se_b) = fitted.contrast(GROUP), fitted.contrast(AGE)
    known = b / se_b >= 4
    low, high = _ancova.fieller(difference, b, se**2, se_b**2, fitted.cov[:, 1, 2], fitted.quantile(0.95))
    covered = ((low <= delta) & (delta <= high))[known & np.isfinite(low)]
    assert len(covered) > 150
    assert 0.925 <= covered.mean() <= 0.98


@pytest.mark.parametrize("saturating", [False, True])
def test_the_slope_of_the_line_scales_the_difference_of_a_cubic(saturating):
    rng = np.random.default_rng(4)
    group = np.tile(np.repeat([0.0, 1.0], 30), (1000, 1))
    age = rng.uniform(25, 75, group.shape) + 5 * group
    shown = age + 6 * group - 50
    y = 0.6 * (30 * np.tanh(shown / 30) if saturating else shown) + rng.normal(0, 5, age.shape)
    z = (age - 50) / 20
    x = np.stack([np.ones_like(z), group, z, z**2, z**3], axis=2)
    cubic, line = fit(x, y), fit(x[..., :3], y)
    (d, se), (b, se_b) = cubic.contrast(np.eye(5)[1]), line.contrast(np.array([0, 0, 1 / 20]))
    covariance = (cubic.moves(np.eye(5)[1], None) * line.moves(np.array([0, 0, 1 / 20]), None)).sum(axis=-1)
    low, high = _ancova.fieller(d, b, se**2, se_b**2, covariance, cubic.quantile(0.95))
    assert (b / se_b >= 4).mean() > 0.99
    assert 0.93 <= ((low <= 6) & (high >= 6)).mean() <= 0.98


@pytest.mark.parametrize("n", [8, 15, 30])
def test_pairs(n):
    rng = np.random.default_rng(n)
    n_draws = 1000
    age = rng.uniform(30, 70, (n_draws, n))
    own = rng.normal(0, 4, (n_draws, n))
    ages = np.concatenate([age, age + rng.uniform(0, 2, age.shape)], axis=1)
    y = 0.6 * ages + np.tile(own, 2) + rng.normal(0, 3, ages.shape)
    group = np.tile(np.repeat([0.0, 1.0], n), (n_draws, 1))
    x, cluster = np.stack([np.ones_like(group), group, ages], axis=2), np.tile(np.arange(n), 2)
    rejected = {}
    for name, subjects in (("subjects", cluster), ("rows", None)):
        fitted = fit(x, y, subjects)
        estimate, se = fitted.contrast(np.array([0.0, 1.0, 0.0]))
        rejected[name] = (_ancova.two_sided(estimate / se, fitted.df) < 0.05).mean()
    assert 0.03 <= rejected["subjects"] <= 0.07
    assert rejected["rows"] < 0.015  # blind where pairs are taken for independent


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: (*cohorts(300, 20, 20, seed=5), None), id="subjects"),
        pytest.param(lambda: (*cohorts(300, 40, 12, spread=2.0, seed=6), None), id="spread twice as large"),
        pytest.param(lambda: pairs_of(300, 15), id="pairs"),
        pytest.param(lambda: visits_of(300, 16), id="visits of cases and controls"),
    ],
)
def test_the_permutation_keeps_its_error_rate(make):
    x, y, cluster = make()
    rng = np.random.default_rng(0)
    p = np.array([_ancova.permutation_p(xi, yi, 1, 99, rng, cluster) for xi, yi in zip(x, y, strict=True)])
    assert 0.02 <= (p <= 0.05).mean() <= 0.09


def pairs_of(n_draws, n):
    """Two visits of each subject, before and after a treatment that does nothing."""
    rng = np.random.default_rng(7)
    age = rng.uniform(30, 70, (n_draws, n))
    ages = np.concatenate([age, age + 1], axis=1)
    y = 0.6 * ages + np.tile(rng.normal(0, 4, age.shape), 2) + rng.normal(0, 3, ages.shape)
    group = np.tile(np.repeat([0.0, 1.0], n), (n_draws, 1))
    return np.stack([np.ones_like(group), group, ages], axis=2), y, np.tile(np.arange(n), 2)


def visits_of(n_draws, n):
    """One to three visits of each subject, who are all cases or all controls."""
    rng = np.random.default_rng(8)
    cluster = np.repeat(np.arange(n), np.resize([1, 2, 3], n))
    group = np.tile((cluster % 2).astype(float), (n_draws, 1))
    ages = rng.uniform(30, 70, (n_draws, n))[:, cluster] + rng.uniform(0, 2, group.shape)
    y = 0.6 * ages + rng.normal(0, 4, (n_draws, n))[:, cluster] + rng.normal(0, 2, group.shape)
    return np.stack([np.ones_like(group), group, ages], axis=2), y, cluster


def test_few_of_ten_types_are_found_where_none_differ():
    rng = np.random.default_rng(9)
    false = []
    for _ in range(300):
        n = 40
        group, age = np.repeat([0.0, 1.0], 20), rng.uniform(30, 70, n)
        shared = rng.normal(size=(1, n))
        y = 0.6 * age + 5 * (np.sqrt(0.5) * shared + np.sqrt(0.5) * rng.normal(size=(10, n)))
        x = np.tile(np.stack([np.ones(n), group, age], axis=1), (10, 1, 1))
        fitted = fit(x, y)
        estimate, se = fitted.contrast(np.array([0.0, 1.0, 0.0]))
        p = scipy.stats.false_discovery_control(_ancova.two_sided(estimate / se, fitted.df))
        false.append((p < 0.05).any())
    assert np.mean(false) <= 0.07
