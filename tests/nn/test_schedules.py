from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from agevi.nn import schedules


def test_cyclical_kl_is_the_closed_form_over_120_epochs():
    for epoch in range(120):
        t = ((epoch % 40) - 20) / 10
        expected = 0.0 if t < 0 else 1.0 if t >= 1 else (math.exp(5 * t) - 1) / (math.exp(5) - 1)
        assert schedules.cyclical_kl(epoch) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("t_mult", [pytest.param(1, id="equal cycles"), pytest.param(2, id="growing cycles")])
def test_cosine_restarts_equals_torch_over_120_epochs(t_mult):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = CosineAnnealingWarmRestarts(optimizer, 20, t_mult)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for epoch in range(120):
            assert schedules.cosine_restarts(epoch, t_mult=t_mult) == pytest.approx(optimizer.param_groups[0]["lr"])
            scheduler.step()


def test_linear_and_constant():
    assert [schedules.linear_kl(e, n_rise=4) for e in (0, 1, 4, 9)] == [0, 0.25, 1, 1]
    assert schedules.linear_kl(0, n_rise=0) == 1
    assert schedules.constant_kl(7, max_weight=0.5) == 0.5
    assert schedules.constant_lr(7) == 1
