from __future__ import annotations

import pytest
import torch

from agevi.nn.distributions import ZeroInflatedPoisson

RATE, LOGIT = torch.tensor([[0.5, 3.0, 9.0]]), torch.tensor([-1.0, 0.0, 1.0])


def test_samples_have_the_moments():
    torch.manual_seed(0)
    px = ZeroInflatedPoisson(RATE, LOGIT, RATE / RATE.sum())
    draws = px.sample((60_000,))
    assert draws.shape == (60_000, 1, 3)
    assert draws.mean(0)[0].tolist() == pytest.approx(px.mean[0].tolist(), rel=0.03)
    assert draws.var(0)[0].tolist() == pytest.approx(px.variance[0].tolist(), rel=0.05)


def test_probabilities_sum_to_one_and_follow_the_definition():
    px = ZeroInflatedPoisson(RATE, LOGIT)
    p = torch.stack([px.log_prob(torch.full((1, 3), float(k))).exp() for k in range(60)])
    assert p.sum(0)[0].tolist() == pytest.approx([1, 1, 1], rel=1e-5)
    lost = torch.sigmoid(LOGIT)
    assert p[0, 0].tolist() == pytest.approx((lost + (1 - lost) * torch.exp(-RATE[0])).tolist(), rel=1e-5)


def test_normalized_values():
    px = ZeroInflatedPoisson(RATE, LOGIT, RATE / RATE.sum())
    assert torch.equal(px.get_normalized("mu"), RATE)
    assert torch.equal(px.get_normalized("scale"), RATE / RATE.sum())
    with pytest.raises(ValueError, match="normalized key q not recognized"):
        px.get_normalized("q")
