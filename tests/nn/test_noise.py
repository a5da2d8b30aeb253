from __future__ import annotations

import pytest
import torch

from agevi.nn.noise import Dropout, InputNoise, resample, thin

COUNTS = torch.full((40_000,), 8.0)


@pytest.mark.parametrize("level", [0.1, 0.5])
def test_thinning_has_the_moments_of_a_binomial(level):
    torch.manual_seed(0)
    x = thin(COUNTS, level)
    assert x.mean().item() == pytest.approx(8 * (1 - level), rel=0.02)
    assert x.var().item() == pytest.approx(8 * level * (1 - level), rel=0.05)
    assert (x == x.round()).all()


@pytest.mark.parametrize("level", [0.1, 1.0, 5.0])
def test_resampling_keeps_the_mean_and_scales_the_variance(level):
    torch.manual_seed(0)
    x = resample(COUNTS, level)
    assert x.mean().item() == pytest.approx(8, rel=0.02)
    assert x.var().item() == pytest.approx(8 * level, rel=0.05)
    assert (x >= 0).all()


def test_gaussian_noise_has_its_scale_per_gene():
    torch.manual_seed(0)
    noise = InputNoise(2, kind="gaussian", level=0.5)
    noise.scale.copy_(torch.tensor([1.0, 4.0]))
    sd = noise.on_input(torch.zeros(20_000, 2)).std(0)
    assert sd.tolist() == pytest.approx([0.5, 2.0], rel=0.03)


@pytest.mark.parametrize("kind", ["gaussian", "binomial", "poisson"])
def test_noise_is_off_at_level_0_and_outside_training(kind):
    x, state = COUNTS[:8].reshape(4, 2), torch.random.get_rng_state()
    for noise in (InputNoise(2, kind=kind, level=0.0), InputNoise(2, kind=kind, level=0.4).eval()):
        assert noise.on_counts(x) is x
        assert noise.on_input(x) is x
    assert torch.equal(torch.random.get_rng_state(), state)
    noisy = InputNoise(2, kind=kind, level=0.4)
    assert noisy.on_counts(x) is x if kind == "gaussian" else not torch.equal(noisy.on_counts(x), x)
    assert noisy.on_input(x) is not x if kind == "gaussian" else noisy.on_input(x) is x


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_its_share_everywhere_alike_and_keeps_the_mean(p):
    torch.manual_seed(0)
    x = torch.ones(400, 501, requires_grad=True)
    out = Dropout(p)(x)
    dropped = out == 0
    assert dropped.float().mean().item() == pytest.approx(p, abs=0.004)
    for lane in range(4):  # four values share a draw, and must not share their fate
        assert dropped.flatten()[lane::4].float().mean().item() == pytest.approx(p, abs=0.008)
    pairs = dropped.flatten()[:200_000].view(-1, 4).float()
    assert (torch.corrcoef(pairs.T) - torch.eye(4)).abs().max() < 0.02
    assert out[~dropped].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-4)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


def test_dropout_follows_the_seed_and_rests_outside_training():
    x = torch.ones(3, 7)
    torch.manual_seed(1)
    first = Dropout(0.4)(x)
    torch.manual_seed(1)
    assert torch.equal(Dropout(0.4)(x), first)
    assert torch.equal(Dropout(0.4).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(1.0)(x), torch.zeros_like(x))
