from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Normal, Poisson, kl_divergence

from agevi._compat.scvi import REGISTRY_KEYS
from agevi.dataloaders._fields import AGE, CELLS, DECODED, SUBJECT, SUMMED
from agevi.model.vae._module import ClockVAEModule
from agevi.nn.rows import as_csr

N, G = 8, 12


def make(**kwargs) -> ClockVAEModule:
    torch.manual_seed(0)
    sizes = {"n_latent": 3, "n_hidden": [6], "n_head": [4], "dropout_rate": 0.0}
    return ClockVAEModule(G, **(sizes | kwargs)).eval()


def batch(**extra) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.poisson(torch.full((N, G), 2.0), generator=generator)
    return {REGISTRY_KEYS.X_KEY: x, REGISTRY_KEYS.BATCH_KEY: torch.zeros(N, 1), **extra}


def reconstruction(output) -> torch.Tensor:
    return sum(output.reconstruction_loss.values())


@pytest.mark.parametrize("rate", ["softmax", "softplus"])
def test_reconstruction_is_the_poisson_likelihood_of_px(rate):
    module, tensors = make(rate=rate).double(), {k: v.double() for k, v in batch().items()}
    inference, generative, output = module(tensors)
    px, x = generative["px"], tensors[REGISTRY_KEYS.X_KEY]
    expected = -Poisson(px.rate).log_prob(x).sum(-1)
    assert torch.allclose(reconstruction(output), expected, rtol=0, atol=1e-6)
    kl = kl_divergence(inference["qz"], Normal(0.0, 1.0)).sum(-1)
    assert torch.allclose(output.kl_local["kl_divergence_z"], kl)
    assert output.loss.item() == pytest.approx((expected + kl).mean().item())
    assert torch.allclose(px.scale.sum(-1), torch.ones(N, dtype=torch.float64))


def test_softmax_rate_sums_to_the_library():
    module, tensors = make(), batch()
    _, generative, _ = module(tensors)
    assert torch.allclose(generative["px"].rate.sum(-1), tensors[REGISTRY_KEYS.X_KEY].sum(-1), rtol=1e-4)


def test_encoder_input_is_log1p_cp10k_and_does_not_depend_on_depth():
    module, x = make(), batch()[REGISTRY_KEYS.X_KEY]
    got = module.encoder_input(x, module.input.library_size(x))
    np.testing.assert_allclose(got.numpy(), np.log1p(x.numpy() / x.numpy().sum(-1, keepdims=True) * 1e4), rtol=1e-5)
    assert torch.allclose(module.encoder_input(3 * x, module.input.library_size(3 * x)), got, atol=1e-5)
    assert (make(normalize="none").encoder_input(x, module.input.library_size(x)) == x).all()


def test_absent_genes_enter_at_their_training_mean():
    module, x = make(), batch()[REGISTRY_KEYS.X_KEY]
    module.input.mean.copy_(torch.arange(G))
    module.input.share.fill_(1 / G)
    present = torch.arange(G) >= 3
    library = module.input.library_size(x * present, present)
    assert torch.allclose(library, (x * present).sum(-1, keepdim=True) * G / (G - 3))
    got = module.encoder_input(x * present, library, present)
    assert (got[:, :3] == torch.arange(3.0)).all()


def test_empty_cells_are_finite():
    module, tensors = make(), batch()
    tensors[REGISTRY_KEYS.X_KEY][0] = 0
    _, _, output = module(tensors)
    assert torch.isfinite(output.loss)
    assert torch.isfinite(module.age(module.latent_mean(**module._get_inference_input(tensors)))).all()


def test_age_term_weighs_subjects_and_skips_unlabelled_cells():
    module = make(age_weight=0.5, age_loss="mse")
    module.input.mean_library.fill_(24.0)
    ages = torch.tensor([[1.0], [2.0], [3.0], [float("nan")], *[[0.0]] * 4])
    tensors = batch(**{AGE: ages, SUBJECT: torch.arange(N).unsqueeze(-1)})
    weights = torch.linspace(0.5, 2, N)
    inference, _, output = module(tensors, loss_kwargs={"subject_weights": weights, "kl_weight": 0.0})
    error = (module.head(inference["qz"].loc) - ages.squeeze(-1)) ** 2 * weights
    expected = reconstruction(output).mean() + 0.5 * 24 * error.nansum() / 7
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("encode", "changes"), [(False, False), (True, True)], ids=["decoder only", "encoder too"])
def test_covariates_reach_the_encoder_only_on_request(encode, changes):
    module = make(n_batch=2, n_cats_per_cov=[3], n_continuous_cov=1, encode_covariates=encode)
    x = batch()[REGISTRY_KEYS.X_KEY]

    def latent(batch_index):
        return module.latent_mean(x, torch.full((N, 1), batch_index), torch.ones(N, 1), torch.zeros(N, 1))

    assert bool((latent(0) - latent(1)).abs().max() > 1e-4) == changes


def test_decoder_conditions_on_the_batch():
    module = make(n_batch=2)
    z, library = torch.zeros(N, 3), torch.ones(N, 1)
    index = torch.zeros(N, 1)
    first = module.generative(z, library, index)["px"].rate
    second = module.generative(z, library, index, transform_batch=1)["px"].rate
    assert (first - second).abs().max() > 1e-4


@pytest.mark.slow
def test_marginal_likelihood_equals_brute_force_for_a_flat_decoder():
    module = make()
    torch.nn.init.zeros_(module.logits.weight)
    torch.nn.init.zeros_(module.encoder.log_variance.weight)  # a posterior near the prior, so that weights vary little
    torch.nn.init.zeros_(module.encoder.mean.weight)
    tensors = batch()
    x = tensors[REGISTRY_KEYS.X_KEY]
    rate = torch.softmax(module.logits.bias, 0) * x.sum(-1, keepdim=True)
    exact = Poisson(rate).log_prob(x).sum(-1)  # z does not matter, so the integral over it is 1
    got = module.marginal_ll(tensors, n_mc_samples=4000, n_mc_samples_per_pass=500)
    assert torch.allclose(got, exact, atol=0.05)


@pytest.mark.parametrize("form", ["csr", "dense"])
def test_sums_age_and_cells_are_reconstructed_as_with_masks_of_one_matrix(form):
    module = make(n_batch=2, standardize=True, sums=True).double().train()
    module.input.mean.copy_(torch.linspace(5, 6, G))
    module.input.sum_mean.copy_(torch.linspace(6, 7, G))
    module.input.sum_scale.copy_(torch.linspace(1, 3, G))
    n, codes = 3, torch.arange(N)[:, None] % 2
    x = batch()[REGISTRY_KEYS.X_KEY].double()
    cells = as_csr(x[n:]) if form == "csr" else x[n:]
    fields = {REGISTRY_KEYS.BATCH_KEY: codes, AGE: 50.0 + torch.arange(N)[:, None], SUBJECT: codes}
    weights = torch.tensor([1.0, 3.0])
    torch.manual_seed(2)
    given = {"loss_kwargs": {"kl_weight": 0.7, "subject_weights": weights}, "generative_kwargs": {"decode": False}}
    _, _, output = module({REGISTRY_KEYS.X_KEY: x[:n], CELLS: cells, SUMMED: True, **fields}, **given)
    output.loss.backward()
    got = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()

    summed = (torch.arange(N) < n)[:, None]
    values = torch.log1p(x / x.sum(-1, keepdim=True) * 1e4)
    scaled = (values - module.input.sum_mean) * module.input.sum_scale
    mean, sd = module.encoder(torch.where(summed, scaled, (values - module.input.mean) / module.input.sd))
    torch.manual_seed(2)
    z, alone = Normal(mean, sd).rsample(), ~summed.squeeze(-1)
    hidden = module.decoder(z[alone], torch.nn.functional.one_hot(codes[alone].squeeze(-1), 2).double())
    rate = x[alone].sum(-1, keepdim=True) * torch.softmax(module.logits(hidden), -1)
    kl = kl_divergence(Normal(mean, sd), Normal(0.0, 1.0)).sum(-1)[alone]
    nll = -Poisson(rate).log_prob(x[alone]).sum(-1)
    error = torch.nn.functional.huber_loss(module.head(mean[:n]), fields[AGE][:n, 0].double(), reduction="none")
    loss = nll.mean() + 0.7 * kl.mean() + module.input.mean_library * (error * weights[codes[:n, 0]]).mean()
    loss.backward()
    assert output.loss.item() == pytest.approx(loss.item(), rel=1e-9)
    assert torch.allclose(reconstruction(output), nll)
    for name, p in module.named_parameters():
        assert torch.allclose(got[name], p.grad, rtol=1e-6, atol=1e-9), name
    assert torch.allclose(output.extra_metrics["predicted_age"], module.age(mean[:n]).float())


def test_cells_that_are_not_decoded_have_ages_alone():
    ages = torch.linspace(20.0, 80.0, N)[:, None]
    module, tensors = make(age_loss="mse"), batch(**{AGE: ages, SUBJECT: torch.zeros(N, 1)})
    last = {k: v[-3:] for k, v in tensors.items()}

    def output(fields):
        torch.manual_seed(0)
        with torch.no_grad():
            module.encoder.log_variance.bias.fill_(-60.0)  # draws are the means, whatever the number of rows
            return module(fields, generative_kwargs={"decode": False})[2]

    some = output(tensors | {DECODED: last[REGISTRY_KEYS.X_KEY]})
    whole, alone = output(tensors), output(last)
    assert torch.allclose(reconstruction(some), reconstruction(alone), atol=0.05)
    assert torch.allclose(some.kl_local["kl_divergence_z"], whole.kl_local["kl_divergence_z"][-3:])
    assert torch.equal(some.extra_metrics["predicted_age"], whole.extra_metrics["predicted_age"])
    assert some.n_obs_minibatch == 3
    age_term = whole.loss - reconstruction(whole).mean() - whole.kl_local["kl_divergence_z"].mean()
    expected = reconstruction(alone).mean() + alone.kl_local["kl_divergence_z"].mean() + age_term
    assert some.loss.item() == pytest.approx(expected.item(), rel=1e-3)
