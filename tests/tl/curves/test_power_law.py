"""A law that is put into errors comes out again, and noise does not become a gain."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit

from agevi.tl.curves._power_law import can_fit, change_at_twice, fit_power_law, last_doubling

N = np.array([8.0, 16, 32, 64, 128])


@pytest.mark.parametrize(
    ("a", "b", "c"),
    [
        pytest.param(40.0, 0.5, 3.0, id="root"),
        pytest.param(20.0, 0.25, 0.0, id="no floor"),
        pytest.param(100.0, 1.0, 5.0, id="inverse"),
        pytest.param(0.0, 1.0, 7.0, id="flat"),
        pytest.param(-3.0, 0.5, 9.0, id="rising"),
    ],
)
def test_recovers_the_law(a, b, c):
    error = c + a * N**-b
    fit = fit_power_law(N, error)
    assert fit.at(N)[0] == pytest.approx(error, rel=1e-3)
    true = c + a * 256**-b - error[-1]
    assert fit.change(128)[0] == pytest.approx(true, abs=0.02)
    if a > 0:
        assert fit.b[0] == pytest.approx(b, rel=0.03)
        assert fit.c[0] == pytest.approx(c, abs=0.3)


def test_equals_scipy_with_noise():
    rng = np.random.default_rng(0)
    error = (4 + 30 * N**-0.6) * rng.normal(1, 0.03, 5)
    fit = fit_power_law(N, error)
    (c, a, b), _ = curve_fit(
        lambda n, c, a, b: c + a * n**-b,
        N,
        error,
        p0=(3, 20, 0.5),
        sigma=error,
        bounds=([0, -np.inf, 0.02], [np.inf, np.inf, 2]),
    )
    assert fit.at(N)[0] == pytest.approx(c + a * N**-b, rel=2e-3)
    assert fit.change(128)[0] == pytest.approx(a * 256**-b - a * 128**-b, abs=0.03)


def test_many_curves_at_once():
    error = np.random.default_rng(1).uniform(5, 10, (6, 5))
    together = fit_power_law(N, error)
    apart = [fit_power_law(N, e) for e in error]
    assert together.b == pytest.approx([f.b[0] for f in apart])
    assert (together.c >= 0).all()
    assert ((together.b > 0) & (together.b <= 2)).all()


@pytest.mark.slow
def test_noise_shows_no_gain():
    rng = np.random.default_rng(2)
    shown = []
    for _ in range(100):
        error = rng.normal(10, 0.3, 5)
        found = change_at_twice(N, error, error + rng.normal(0, 0.3, (100, 5)), 0.95)
        shown.append(found["change_high"] < 0)
    assert np.mean(shown) < 0.08


@pytest.mark.parametrize(
    ("n", "tolerance"),
    [
        pytest.param([8, 16, 32, 64], 1e-12, id="half is a level"),
        pytest.param([10, 17, 29, 49, 83], 0.03, id="half lies between two"),
        pytest.param([30, 42, 60], 1e-12, id="half is the smallest"),
        pytest.param([32, 42, 61], 0.03, id="half is just below"),
    ],
)
def test_last_doubling(n, tolerance):
    n = np.array(n, dtype=float)
    law = np.array([[4.0, 30.0, 0.5], [0.0, 15.0, 0.2]])
    error = law[:, :1] + law[:, 1:2] * n ** -law[:, 2:]
    true = law[:, 1] * (n[-1] ** -law[:, 2] - (n[-1] / 2) ** -law[:, 2])
    assert last_doubling(n, error) == pytest.approx(true, rel=tolerance)


CURVES = {
    "power": lambda n: 3 + 40 * n**-0.5,
    "slow": lambda n: 20 * n**-0.1,
    "steep": lambda n: 4 + 3000 * n**-1.9,
    "logistic": lambda n: 4 + 11 / (1 + (n / 60) ** 1.5),
    "ends": lambda n: 4 + 8 * np.exp(-n / 100),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CURVES)
def test_holds_the_change_of_convex_curves(name):
    """Laws and curves that no law fits, with an error of 3 % that the draws share."""
    rng, curve = np.random.default_rng(3), CURVES[name]
    true, held = curve(256.0) - curve(128.0), []
    for _ in range(30):
        error = curve(N) * rng.normal(1, 0.03, 5)
        found = change_at_twice(N, error, error * rng.normal(1, 0.03, (200, 5)), 0.95)
        assert found["change_low"] <= found["change"] <= found["change_high"]
        held.append(found["change_low"] <= true <= found["change_high"])
    assert np.mean(held) >= 0.9


def test_early_curves_may_fall_faster():
    error = 15 - 0.5 * np.array([0.1, 0.3, 1.0, 2.0, 4.0])  # ever faster
    draws = error + np.random.default_rng(4).normal(0, 0.1, (400, 5))
    early, late = (change_at_twice(N, error, draws, 0.95, early=early) for early in (True, False))
    assert early["last_change"] == late["last_change"] == pytest.approx(-1.0)
    assert late["change_low"] == pytest.approx(late["last_low"])
    assert early["change_low"] == pytest.approx(2 * late["last_low"])
    assert early["change_high"] == late["change_high"] == pytest.approx(late["last_high"] / 4, abs=0.05)


@pytest.mark.parametrize("n", [pytest.param([8, 16], id="two levels"), pytest.param([10, 12, 14], id="narrow")])
def test_too_few_levels_are_not_fitted(n):
    assert not can_fit(np.array(n))
    found = change_at_twice(np.array(n), np.ones(len(n)), np.ones((3, len(n))), 0.95)
    assert np.isnan(list(found.values())).all()
