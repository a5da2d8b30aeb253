from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from agevi.tl.intervals._posterior_age import age_densities, summarise
from agevi.tl.intervals._posterior_model import Data, Draws, log_density, log_density_on_grid, pyro_model
from tests.tl.intervals import simulated
from tests.tl.intervals.simulated import GRID


def some_draws(n_draws, n_types, seed=0):
    rng = np.random.default_rng(seed)
    arrays = [
        rng.normal(0, 0.3, (n_draws, n_types)), rng.normal(0.7, 0.2, (n_draws, n_types)),
        rng.uniform(0.3, 0.9, (n_draws, n_types)), rng.dirichlet(np.ones(3), n_draws), rng.uniform(3, 30, n_draws),
    ]  # fmt: skip
    return Draws(*(torch.from_numpy(a) for a in arrays))


def explicit(values, cells, age, draws, i):
    """Log density of one sample by scipy, from its covariance matrix."""
    a, b, s, f, df = (getattr(draws, k)[i].numpy() for k in ("intercept", "slope", "scale", "shares", "df"))
    there = ~np.isnan(values)
    covariance = f[0] * np.outer(s, s) + np.diag(s**2 * (f[1] + f[2] / cells))
    return scipy.stats.multivariate_t.logpdf(
        values[there], (a + b * age)[there], covariance[np.ix_(there, there)], df=float(df)
    )


def test_density_equals_that_of_the_covariance_matrix():
    values, cells, age = simulated.predictions(7, 4, np.random.default_rng(1), missing=0.5)
    draws = some_draws(3, 4)
    found = log_density(Data.of(values, cells), torch.from_numpy(age), draws).numpy()
    expected = [[explicit(values[j], cells[j], age[j], draws, i) for j in range(7)] for i in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_density_on_a_grid_is_the_mean_over_draws():
    data, _ = simulated.data(6, 3, np.random.default_rng(2), missing=0.4)
    draws, grid = some_draws(5, 3), torch.linspace(-3, 3, 11, dtype=torch.float64)
    found = log_density_on_grid(data, grid, draws).numpy()
    by_point = torch.stack(
        [log_density(data, point.expand(6), draws) for point in grid], -1
    )  # draws x samples x points
    np.testing.assert_allclose(found, np.log(np.exp(by_point.numpy()).mean(0)), rtol=1e-9)


def test_pyro_counts_each_prior_once():
    import pyro

    data, age = simulated.data(9, 2, np.random.default_rng(3))
    one = Draws(*(value[0] for value in vars(some_draws(1, 2)).values()))
    values = vars(one) | {"df": one.df - 2}
    trace = pyro.poutine.trace(pyro.poutine.condition(pyro_model, values)).get_trace(data, torch.from_numpy(age))
    stats = scipy.stats
    prior = (
        stats.norm.logpdf(one.intercept).sum()
        + stats.norm.logpdf(one.slope, 0.7, 0.5).sum()
        + stats.halfnorm.logpdf(one.scale).sum()
        + stats.dirichlet.logpdf(one.shares, np.ones(3))
        + stats.gamma.logpdf(values["df"], 2, scale=10)
    )
    likelihood = log_density(data, torch.from_numpy(age), one).sum()
    assert trace.log_prob_sum() == pytest.approx(prior + float(likelihood), rel=1e-9)


def normal_posterior(values, cells, n_types):
    """Mean and deviation of the age in closed form, for normal errors and a standard normal prior."""
    draws = simulated.truth(n_types)
    b, s, f = (getattr(draws, k)[0].numpy() for k in ("slope", "scale", "shares"))
    out = []
    for y, n in zip(values, cells, strict=True):
        there = ~np.isnan(y)
        covariance = (f[0] * np.outer(s, s) + np.diag(s**2 * (f[1] + f[2] / n)))[np.ix_(there, there)]
        weights = np.linalg.solve(covariance, b[there])
        precision = 1 + weights @ b[there]
        out.append((weights @ y[there] / precision, precision**-0.5))
    return np.array(out).T


@pytest.mark.parametrize("n_types", [1, 4])
def test_equals_the_closed_form_with_known_parameters(n_types):
    values, cells, _ = simulated.predictions(200, n_types, np.random.default_rng(4))
    prior = np.broadcast_to(-(GRID**2) / 2, (200, len(GRID)))
    density = age_densities(Data.of(values, cells), simulated.truth(n_types), GRID, prior)
    found = summarise(density, GRID, 0.9)
    mean, sd = normal_posterior(values, cells, n_types)
    np.testing.assert_allclose(found["mean"], mean, atol=1e-3 * sd.min())
    np.testing.assert_allclose(found["sd"], sd, rtol=1e-3)
    np.testing.assert_allclose(found["lower"], scipy.stats.norm.ppf(0.05, mean, sd), atol=0.01 * sd.min())
    np.testing.assert_allclose(found["upper"], scipy.stats.norm.ppf(0.95, mean, sd), atol=0.01 * sd.min())


def test_cells_narrow_their_own_share_only():
    """With ever more cells the interval ends at that of errors of the sample and of the type."""
    prior = np.zeros((4, len(GRID)))
    cells = np.array([0.1, 1, 100, 1e6])[:, None]
    density = age_densities(Data.of(np.zeros((4, 1)), cells), simulated.truth(1), GRID, prior)
    sd = summarise(density, GRID, 0.9)["sd"]
    slope, scale, (sample, of_type, of_cells) = 0.8, 0.4, simulated.SHARES
    expected = scale * np.sqrt(sample + of_type + of_cells / cells[:, 0]) / slope
    np.testing.assert_allclose(sd, expected, rtol=1e-3)
    assert sd[-1] == pytest.approx(scale * np.sqrt(sample + of_type) / slope, rel=1e-3)


def test_large_data_are_read_in_blocks(monkeypatch):
    data, _ = simulated.data(50, 2, np.random.default_rng(5))
    draws, prior = some_draws(20, 2), np.zeros((50, len(GRID)))
    whole = age_densities(data, draws, GRID, prior)
    monkeypatch.setattr("agevi.tl.intervals._posterior_age._VALUES", 7 * 20 * len(GRID))
    np.testing.assert_allclose(age_densities(data, draws, GRID, prior), whole, rtol=1e-12)
