"""Lines and shrunk shifts of a new cohort against statsmodels, closed forms and simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from agevi.tl.intervals import _recalibration as kernel


@pytest.mark.parametrize(("k", "level"), [(5, 0.9), (10, 0.9), (40, 0.95), (12, 0.5)])
def test_a_line_is_that_of_statsmodels_with_one_more_observation_of_the_slope(k, level):
    rng = np.random.default_rng(k)
    x, new = rng.normal(3, 1, k), np.linspace(-1, 8, 7)
    y = 0.5 + 1.3 * x + rng.normal(0, 0.4, k)
    middle, low, high = kernel.fit_line(x, y, level).apply(new)
    s = np.sqrt(sm.OLS(y, sm.add_constant(x)).fit().scale)
    root = s / kernel.SLOPE_SD  # root * slope = root * 1, with the scatter of an observation
    design = np.vstack([np.column_stack([np.ones(k), x - x.mean()]), [0, root]])
    found = sm.OLS(np.append(y, root), design).fit()
    asked = np.column_stack([np.ones(7), new - x.mean()])
    np.testing.assert_allclose(middle, asked @ found.params, rtol=1e-9)
    left = np.sqrt(((y - design[:-1] @ found.params) ** 2).sum() / (k - 2))
    leverage = np.einsum("ij,jk,ik->i", asked, np.linalg.inv(design.T @ design), asked)
    half = stats.t.ppf((1 + level) / 2, k - 2) * left * np.sqrt(1 + leverage)
    np.testing.assert_allclose(np.column_stack([low, high]), np.column_stack([middle - half, middle + half]), rtol=1e-9)


def test_many_labelled_subjects_have_the_line_of_least_squares():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 1, 20_000)
    y = 0.5 + 1.8 * x + rng.normal(0, 0.4, len(x))
    assert kernel.fit_line(x, y, 0.9).slope == pytest.approx(sm.OLS(y, sm.add_constant(x)).fit().params[1], rel=1e-3)


def test_few_that_tell_no_slope_are_shifted():
    rng = np.random.default_rng(0)
    x = rng.normal(4, 0.05, 10)
    move = kernel.fit_line(x, x + 0.3 + rng.normal(0, 0.3, 10), 0.9)
    assert move.slope == pytest.approx(1, abs=0.1)
    assert abs(move.slope_t) < 2


def test_t_of_the_slope_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    x = rng.normal(size=10)
    y = x + rng.normal(size=10)
    assert kernel.fit_line(x, y, 0.9).slope_t == pytest.approx(sm.OLS(y, sm.add_constant(x)).fit().tvalues[1])
    assert kernel.fit_line(x, 2 * x, 0.9).slope_t > 1e6


@pytest.mark.parametrize(
    ("shift_var", "weight"),
    [
        pytest.param(np.nan, 5 / 6, id="not measured: that of the errors"),
        pytest.param(0.0, 0.0, id="cohorts that never differ"),
        pytest.param(1e9, 1.0, id="cohorts that differ without limit"),
        pytest.param(36.0, 180 / (180 + 12.5), id="as measured"),
    ],
)
def test_a_shift_is_shrunk_by_what_cohorts_differ(shift_var, weight):
    residuals = np.array([-5.0, -2.0, 0.0, 2.0, 5.0, -4.0, 4.0, -3.0, 3.0, 0.0])
    residuals *= np.sqrt(12.5) / residuals.std(ddof=1)
    old = kernel.OldErrors(residuals, shift_var)
    x, y = np.full(5, 40.0), 40.0 + np.array([7, 8, 9, 10, 11.0])
    move = kernel.fit_shift(x, y, old, 0.9)
    assert move.intercept == pytest.approx(9 * weight)
    middle, low, high = move.apply(np.array([50.0]))
    assert middle == pytest.approx(50 + 9 * weight)
    largest = np.abs(residuals).max()  # the 10th of 10 is the ceil(11 * .9)-th
    assert high - middle == pytest.approx(largest * np.sqrt(1 + weight / 5))
    assert middle - low == pytest.approx(high - middle)


def test_a_wider_spread_of_the_labelled_widens_the_interval():
    old = kernel.OldErrors(np.random.default_rng(0).normal(0, 1, 200))
    y = np.array([-20.0, 20, 0, 10, -10])
    move = kernel.fit_shift(np.zeros(5), y, old, 0.9)
    assert move.sd == pytest.approx(y.std(ddof=1))


@pytest.mark.parametrize("kind", ["shift", "line"])
def test_intervals_cover_a_cohort_that_is_off(kind):
    rng, inside, before, n = np.random.default_rng(1), [], [], 600
    for _ in range(n):
        k = 10 if kind == "line" else 7
        shift, x = rng.normal(0, 0.3), rng.normal(4, 0.3, k + 20)
        y = x + shift + rng.normal(0, 0.2, k + 20)
        old = kernel.OldErrors(rng.normal(0, 0.2, 200), 0.09)
        move = kernel.fit_line(x[:k], y[:k], 0.9) if kind == "line" else kernel.fit_shift(x[:k], y[:k], old, 0.9)
        _, low, high = move.apply(x[k:])
        inside.append(((low <= y[k:]) & (y[k:] <= high)).mean())
        before.append((np.abs(y[k:] - x[k:]) <= old.reach(0.9) * old.sd).mean())
    assert np.mean(before) < 0.7
    low, high = (0.885, 0.915) if kind == "line" else (0.89, 0.95)  # the larger of two spreads makes shifts wide
    assert low <= np.mean(inside) <= high


def test_whole_cohorts_left_out_tell_how_cohorts_differ():
    cohort = np.repeat(["a", "b", "c"], 40)
    shift = np.repeat([3.0, -1.0, 4.0], 40)
    noise = np.tile(np.linspace(-2, 2, 40), 3)
    age, predicted = 50 + shift + noise, np.full(120, 50.0)
    old = kernel.old_errors(age, predicted, cohort, cohort)
    assert old.shift_var == pytest.approx((9 + 1 + 16) / 3)
    assert old.sd == pytest.approx(noise.std(ddof=1))
    for fold in (np.arange(120) % 5, None):
        plain = kernel.old_errors(age, predicted, cohort, fold)
        assert np.isnan(plain.shift_var)
        assert plain.sd == pytest.approx((age - predicted).std(ddof=1))


def test_too_few_old_errors_for_a_level_have_no_reach():
    assert np.isnan(kernel.OldErrors(np.arange(8.0)).reach(0.9))
