from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import gammaln

from agevi.nn.likelihoods import log_factorial_sum, poisson_nll


@pytest.mark.parametrize("shape", [pytest.param((7, 30), id="cells"), pytest.param((3, 7, 30), id="draws of cells")])
def test_poisson_nll_equals_torch(shape):
    generator = torch.Generator().manual_seed(0)
    log_rate = torch.randn(shape, generator=generator, dtype=torch.float64) * 2
    x = torch.poisson(log_rate.exp(), generator=generator)
    expected = -torch.distributions.Poisson(log_rate.exp()).log_prob(x).sum(-1)
    assert torch.allclose(poisson_nll(x, log_rate), expected, rtol=0, atol=1e-6)


def test_poisson_nll_gradient():
    log_rate = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    x = torch.poisson(torch.ones(4, 6, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda r: poisson_nll(x, r), log_rate)


def test_log_factorial_equals_scipy():
    x = np.random.default_rng(0).poisson(3, (5, 40)).astype(float)
    np.testing.assert_allclose(log_factorial_sum(torch.from_numpy(x)), gammaln(x + 1).sum(1))
