from __future__ import annotations

import pytest
import torch

from agevi.nn.blocks import GaussianEncoder, Stack


@pytest.mark.parametrize(
    ("widths", "n_covariates", "n_output"),
    [
        pytest.param([8, 4], 0, 4, id="two blocks"),
        pytest.param([8], 3, 8, id="with covariates"),
        pytest.param([], 0, 5, id="identity"),
        pytest.param([], 3, 8, id="identity with covariates"),
    ],
)
def test_shapes(widths, n_covariates, n_output):
    stack = Stack(5, widths, dropout_rate=0.1, n_covariates=n_covariates)
    covariates = torch.zeros(6, n_covariates) if n_covariates else None
    assert stack(torch.zeros(6, 5), covariates).shape == (6, n_output) == (6, stack.n_output)
    assert stack(torch.zeros(2, 6, 5), covariates).shape == (2, 6, n_output)


def test_draws_are_treated_as_rows():
    stack = Stack(5, [4], dropout_rate=0.0).eval()
    x = torch.randn(3, 6, 5)
    assert torch.allclose(stack(x), torch.stack([stack(row) for row in x]), atol=1e-6)


def test_variance_has_a_floor():
    encoder = GaussianEncoder(Stack(5, [4], dropout_rate=0.0), 2, min_variance=0.25).eval()
    torch.nn.init.constant_(encoder.log_variance.bias, -100)
    mean, sd = encoder(torch.zeros(3, 5))
    assert mean.shape == sd.shape == (3, 2)
    assert torch.allclose(sd, torch.full_like(sd, 0.5))
