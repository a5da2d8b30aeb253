"""A law that is put into errors comes out again, and noise does not become a gain."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit

from agevi.tl._power_law import can_fit, change_at_twice, fit_power_law

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


def test_noise_shows_no_gain():
    rng = np.random.default_rng(2)
    shown = []
    for _ in range(100):
        error = rng.normal(10, 0.3, 5)
        found = change_at_twice(N, error, error + rng.normal(0, 0.3, (100, 5)), 0.95)
        shown.append(found["change_high"] < 0)
    assert np.mean(shown) < 0.08


@pytest.mark.parametrize("n", [pytest.param([8, 16], id="two levels"), pytest.param([10, 12, 14], id="narrow")])
def test_too_few_levels_are_not_fitted(n):
    assert not can_fit(np.array(n))
    found = change_at_twice(np.array(n), np.ones(len(n)), np.ones((3, len(n))), 0.95)
    assert np.isnan(list(found.values())).all()
