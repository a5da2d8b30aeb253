from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit, gammaln

from agevi.nn.likelihoods import log_factorial_sum, nb_nll, normal_nll, poisson_nll, zinb_nll, zip_nll

RNG = np.random.default_rng(0)
LOG_RATE = RNG.normal(0, 2, (7, 30))
RATE = np.exp(LOG_RATE)
X = RNG.poisson(RATE * RNG.gamma(1.0, 1.0, RATE.shape)).astype(float)
LOG_THETA = RNG.normal(0, 2, 30)
ZERO_LOGIT = RNG.normal(0, 2, 30)


def nb(x: np.ndarray) -> np.ndarray:
    theta = np.exp(LOG_THETA)
    return stats.nbinom.logpmf(x, theta, theta / (theta + RATE))


def inflated(log_p: np.ndarray, log_p_of_zero: np.ndarray) -> np.ndarray:
    lost = expit(ZERO_LOGIT)
    return np.where(X == 0, np.log(lost + (1 - lost) * np.exp(log_p_of_zero)), np.log(1 - lost) + log_p)


ZEROS = np.zeros_like(X)
CASES = {
    "poisson": (lambda x, m, r: poisson_nll(x, m, r), lambda: stats.poisson.logpmf(X, RATE)),
    "zip": (
        lambda x, m, r: zip_nll(x, m, r, torch.from_numpy(ZERO_LOGIT)),
        lambda: inflated(stats.poisson.logpmf(X, RATE), -RATE),
    ),
    "nb": (lambda x, m, r: nb_nll(x, m, r, torch.from_numpy(LOG_THETA)), lambda: nb(X)),
    "zinb": (
        lambda x, m, r: zinb_nll(x, m, r, torch.from_numpy(LOG_THETA), torch.from_numpy(ZERO_LOGIT)),
        lambda: inflated(nb(X), nb(ZEROS)),
    ),
    "normal": (
        lambda x, m, r: normal_nll(x, m, torch.from_numpy(np.exp(LOG_THETA))),
        lambda: stats.norm.logpdf(X, LOG_RATE, np.exp(LOG_THETA)),
    ),
}
each = pytest.mark.parametrize("kind", CASES)


@each
def test_equals_scipy(kind):
    ours, scipys = CASES[kind]
    got = ours(torch.from_numpy(X), torch.from_numpy(LOG_RATE), torch.from_numpy(RATE))
    np.testing.assert_allclose(got.numpy(), -scipys().sum(-1), rtol=1e-9, atol=1e-6)


@each
def test_draws_of_cells_have_one_value_each(kind):
    ours, _ = CASES[kind]
    x, m, r = (torch.from_numpy(np.stack([v, v[::-1]])) for v in (X, LOG_RATE, RATE))
    got = ours(x, m, r)
    assert got.shape == (2, 7)
    assert torch.allclose(got[1].flip(0), got[0])


@each
def test_gradients(kind):
    ours, _ = CASES[kind]
    x = torch.from_numpy(X[:3, :6])
    log_rate = torch.from_numpy(LOG_RATE[:3, :6]).requires_grad_()
    small = {
        "zip": lambda m, t: zip_nll(x, m, m.exp(), t),
        "nb": lambda m, t: nb_nll(x, m, m.exp(), t),
        "zinb": lambda m, t: zinb_nll(x, m, m.exp(), t, -t),
        "normal": lambda m, t: normal_nll(x, m, t.exp()),
        "poisson": lambda m, t: poisson_nll(x, m),
    }[kind]
    parameter = torch.from_numpy(LOG_THETA[:6]).requires_grad_(kind != "poisson")
    assert torch.autograd.gradcheck(small, (log_rate, parameter))


@pytest.mark.parametrize("log_theta", [15.0, 25.0])
def test_a_negative_binomial_without_dispersion_is_a_poisson(log_theta):
    x, m, r = (torch.from_numpy(v) for v in (X, LOG_RATE, RATE))
    got = nb_nll(x, m, r, torch.full((30,), log_theta, dtype=torch.float64))
    assert torch.allclose(got, poisson_nll(x, m, r), rtol=1e-3)


def test_log_factorial_equals_scipy():
    x = np.random.default_rng(0).poisson(3, (5, 40)).astype(float)
    np.testing.assert_allclose(log_factorial_sum(torch.from_numpy(x)), gammaln(x + 1).sum(1))
