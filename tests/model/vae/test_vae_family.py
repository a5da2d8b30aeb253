"""Likelihoods and noise of the autoencoder clocks, on the side of AnnData."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from scipy import stats

from agevi.model import DenoisingVAE, GaussianVAE, PoissonVAE
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}
SMALL = {"n_hidden": [16], "n_latent": 4, "n_head": [8]}


def fit(cls, adata, epochs=3, setup=None, **init):
    cls.setup_anndata(adata, **SETUP, **(setup or {}))
    model = cls(adata, **(SMALL | init))
    model.train(max_epochs=epochs, early_stopping=False, **QUIET)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("setup", [{}, {"normalize": "none"}], ids=["log1p_cp10k", "none"])
def test_denoising_without_noise_is_the_gaussian_vae_bit_for_bit(cohort, setup):
    plain = fit(GaussianVAE, cohort.copy(), setup=setup)
    denoising = fit(
        DenoisingVAE, cohort.copy(), setup=setup, gene_likelihood="normal", noise="gaussian", noise_level=0.0
    )
    np.testing.assert_array_equal(denoising.predict_age(), plain.predict_age())
    np.testing.assert_array_equal(denoising.history["elbo_train"], plain.history["elbo_train"])


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "level"), [("gaussian", 2.0), ("binomial", 0.5), ("poisson", 3.0)])
def test_noise_changes_training_and_never_prediction(cohort, noise, level):
    clean = fit(DenoisingVAE, cohort.copy(), noise=noise, noise_level=0.0)
    noisy = fit(DenoisingVAE, cohort.copy(), noise=noise, noise_level=level)
    assert not np.array_equal(clean.predict_age(), noisy.predict_age())
    np.testing.assert_array_equal(noisy.predict_age(), noisy.predict_age())
    np.testing.assert_array_equal(noisy.get_latent_representation(), noisy.get_latent_representation())


def test_the_loss_of_a_noisy_step_is_against_the_clean_cell(cohort):
    model = fit(DenoisingVAE, cohort, noise="binomial", noise_level=0.5)
    module, seen = model.module.train(), {}
    module.encoder.register_forward_hook(lambda m, args, out: seen.update(input=args[0]))
    tensors = next(iter(model._make_data_loader(model.adata_manager.adata, batch_size=64)))
    x = tensors["X"]
    _, outputs, loss = module(tensors)
    px = outputs["px"]
    expected = -stats.poisson.logpmf(x.numpy(), px.rate.detach().numpy()).sum(1)
    np.testing.assert_allclose(loss.reconstruction_loss["reconstruction_loss"].detach(), expected, rtol=1e-3)
    np.testing.assert_allclose(px.rate.detach().sum(1), x.sum(1), rtol=1e-4)  # the library of the clean cell
    assert not torch.allclose(seen["input"], module.input(x))


@pytest.mark.slow
@pytest.mark.parametrize("standardize", [True, False])
def test_gaussian_noise_relative_to_the_largest_value(cohort, standardize):
    kwargs = {"noise": "gaussian", "noise_level": 0.5, "standardize": standardize, "noise_relative_to": "max"}
    model = fit(DenoisingVAE, cohort, epochs=1, **kwargs)
    train = cohort[(cohort.obs["agevi_split"] == "train").to_numpy()]
    x = sp.csr_matrix(train.X).toarray()
    values = np.log1p(x / x.sum(1, keepdims=True) * 1e4)
    sd = values.std(0) if standardize else np.ones(values.shape[1])
    np.testing.assert_allclose(model.module.noise.scale, values.max() / sd, rtol=1e-4)
    relative = fit(DenoisingVAE, cohort, epochs=1, **(kwargs | {"noise_relative_to": "input_sd"}))
    np.testing.assert_allclose(relative.module.noise.scale, 1 if standardize else values.std(0), rtol=1e-4)


def test_the_scaler_of_the_gaussian_vae_sees_training_subjects_only(cohort):
    model = fit(GaussianVAE, cohort, epochs=1)
    x = sp.csr_matrix(cohort.X).toarray()[(cohort.obs["agevi_split"] == "train").to_numpy()]
    values = np.log1p(x / x.sum(1, keepdims=True) * 1e4)
    np.testing.assert_allclose(model.module.input.mean, values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(model.module.input.sd, values.std(0), rtol=1e-4)


def test_the_gaussian_likelihood_is_that_of_px(cohort):
    model = fit(GaussianVAE, cohort)
    torch.manual_seed(0)
    tensors = next(iter(model._make_data_loader(model.adata_manager.adata, batch_size=64)))
    _, outputs, loss = model.module(tensors)
    values = model.module.input.normalized(tensors["X"]).numpy()
    px = outputs["px"]
    expected = -stats.norm.logpdf(values, px.loc.detach(), px.scale.detach()).sum(1)
    np.testing.assert_allclose(loss.reconstruction_loss["reconstruction_loss"].detach(), expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cls", "kwargs", "names"),
    [
        pytest.param(PoissonVAE, {}, {"mean"}, id="poisson"),
        pytest.param(PoissonVAE, {"gene_likelihood": "zip"}, {"mean", "dropout"}, id="zip"),
        pytest.param(PoissonVAE, {"gene_likelihood": "nb"}, {"mean", "dispersions"}, id="nb"),
        pytest.param(PoissonVAE, {"gene_likelihood": "zinb"}, {"mean", "dispersions", "dropout"}, id="zinb"),
        pytest.param(GaussianVAE, {}, {"mean", "sd"}, id="normal"),
        pytest.param(DenoisingVAE, {"gene_likelihood": "zinb"}, {"mean", "dispersions", "dropout"}, id="denoising"),
    ],
)
def test_verbs_of_scvi_tools(cohort, tmp_path, cls, kwargs, names):
    model = fit(cls, cohort, **kwargs)
    n, g = cohort.shape
    parameters = model.get_likelihood_parameters()
    assert {k: v.shape for k, v in parameters.items()} == dict.fromkeys(names, (n, g))
    draws = model.get_likelihood_parameters(n_samples=3, indices=[4, 2])
    assert draws["mean"].shape == (3, 2, g)
    assert model.get_likelihood_parameters(n_samples=3, indices=[4, 2], give_mean=True)["mean"].shape == (2, g)
    assert model.posterior_predictive_sample(n_samples=2, indices=[0, 1]).shape == (2, g, 2)
    for draw in (model.get_normalized_expression, model.get_likelihood_parameters):
        draws = []
        for seed in (1, None, 1):  # the global seeds decide, as docs/user_guide/reproducibility.md says
            if seed is not None:
                torch.manual_seed(seed)
            found = draw()
            draws.append(np.asarray(found["mean"] if isinstance(found, dict) else found))
        np.testing.assert_array_equal(draws[0], draws[2])
        assert (draws[0] != draws[1]).any()
    expression = model.get_normalized_expression()
    assert expression.shape == (n, g)
    assert np.isfinite(expression.to_numpy()).all()
    assert (expression.to_numpy() >= 0).all()
    assert np.isfinite(float(model.get_elbo(return_mean=True)))
    assert np.isfinite(model.get_marginal_ll(n_mc_samples=4, return_mean=True))
    result = model.differential_expression(groupby="sex", silent=True)
    assert np.isfinite(result["bayes_factor"]).all()
    model.save(tmp_path / "clock")
    np.testing.assert_array_equal(cls.load(tmp_path / "clock").predict_age(cohort), model.predict_age())


# --- what each likelihood finds in data of its own and of the others ---------------------------------------------

KINDS = ("poisson", "zip", "nb", "zinb")
GENES, SUBJECTS, CELLS = 60, 40, 150


def drawn(kind: str, *, mean: float = 4.0, spread: float = 0.5, alike: bool = False) -> AnnData:
    """Cells without structure: every gene has its rate (or all the same), dispersion around 1, and loss."""
    rng = np.random.default_rng(0)
    n = SUBJECTS * CELLS
    share = np.full(GENES, 1 / GENES) if alike else rng.dirichlet(np.full(GENES, 2.0))
    rate = mean * GENES * share * np.ones((n, 1))
    if kind in ("nb", "zinb"):
        theta = np.exp(rng.normal(0, spread, GENES))
        rate = rate * rng.gamma(theta, 1 / theta, rate.shape)
    x = rng.poisson(rate)
    lost = rng.uniform(0.1, 0.5, GENES)
    if kind in ("zip", "zinb"):
        x = x * (rng.random(x.shape) >= lost)
    donors = np.repeat([f"d{i:02d}" for i in range(SUBJECTS)], CELLS)
    obs = pd.DataFrame({"donor": donors, "age": np.repeat(rng.uniform(20, 90, SUBJECTS), CELLS)})
    obs["agevi_split"] = np.repeat(np.r_[["train"] * 28, ["validation"] * 4, ["test"] * 8], CELLS)
    obs.index = [f"c{i}" for i in range(n)]
    adata = AnnData(sp.csr_matrix(x, dtype=np.float32), obs=obs)
    adata.uns["lost"] = lost
    adata.uns["mean"] = mean * GENES * share
    return adata


def held_out_nats(adata: AnnData, kind: str) -> tuple[float, PoissonVAE]:
    """Negative ELBO per held-out cell. The rate does not depend on depth, so that the truth is in every model."""
    PoissonVAE.setup_anndata(adata, **SETUP)
    model = PoissonVAE(
        adata, n_hidden=[16], n_latent=2, n_head=[], dropout_rate=0.0, gene_likelihood=kind, rate="softplus",
        age_weight=0.0,
    )  # fmt: skip
    plan = {"kl_schedule": "constant", "lr": 0.002, "lr_kwargs": {"t_0": 10}}
    model.train(max_epochs=10, batch_size=128, early_stopping=False, plan_kwargs=plan, **QUIET)
    test = np.flatnonzero(adata.obs["agevi_split"] == "test")
    torch.manual_seed(0)
    return -float(model.get_elbo(indices=test, return_mean=True)), model


@pytest.mark.slow  # four likelihoods are fitted to the end
@pytest.mark.usefixtures("usual_fits")
@pytest.mark.parametrize("truth", KINDS)
def test_no_likelihood_beats_the_true_one(truth):
    adata = drawn(truth)
    nats, models = {}, {}
    for kind in KINDS:
        nats[kind], models[kind] = held_out_nats(adata, kind)
    for kind in KINDS:
        assert nats[kind] > nats[truth] * (1 - 1e-3), nats
    if truth in ("zip", "zinb"):
        dropout = models[truth].get_likelihood_parameters(indices=[0])["dropout"][0]
        counted = adata.uns["mean"] > 2
        error = np.abs(dropout - adata.uns["lost"])[counted].mean()
        assert error < 0.05


@pytest.mark.slow
@pytest.mark.usefixtures("usual_fits")
def test_poisson_loses_on_overdispersed_counts():
    adata = drawn("nb", mean=1.0, spread=0.0, alike=True)
    poisson, nb = (held_out_nats(adata, kind)[0] for kind in ("poisson", "nb"))
    of_nb = -stats.nbinom.logpmf(np.arange(80), 1, 0.5) @ stats.nbinom.pmf(np.arange(80), 1, 0.5)
    assert nb == pytest.approx(GENES * of_nb, rel=0.01)  # the entropy of the truth
    assert poisson > 1.02 * nb


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        pytest.param(PoissonVAE, {}, id="softmax"),
        pytest.param(PoissonVAE, {"rate": "softplus"}, id="softplus"),
        pytest.param(PoissonVAE, {"gene_likelihood": "zip"}, id="zip"),
        pytest.param(GaussianVAE, {}, id="normal"),
        pytest.param(GaussianVAE, {"standardize": False}, id="normal, not standardised"),
    ],
)
def test_the_decoder_starts_at_the_means_of_training_cells(cohort, cls, kwargs):
    cls.setup_anndata(cohort, **SETUP)
    model = cls(cohort, **(SMALL | kwargs))
    torch.nn.init.zeros_(model.module.logits.weight)
    train = (cohort.obs["agevi_split"] == "train").to_numpy()
    model._fit_buffers(train)
    x = torch.from_numpy(sp.csr_matrix(cohort.X).toarray()[train])
    module = model.module.eval()
    with torch.no_grad():
        px = module.generative(torch.zeros(len(x), 4), module.input.library_size(x).log(), torch.zeros(len(x), 1))["px"]
    values = module.input.normalized(x) if cls is GaussianVAE else x
    np.testing.assert_allclose(px.mean.mean(0), values.mean(0), rtol=1e-3)


@pytest.mark.parametrize("cls", [PoissonVAE, GaussianVAE, DenoisingVAE])
@pytest.mark.parametrize("n_latent", [0, -3])
def test_a_latent_space_has_a_dimension(cls, cohort, n_latent):
    cls.setup_anndata(cohort, **SETUP)
    with pytest.raises(ValueError, match=f"n_latent={n_latent} is out of range; pass a whole number, 1 or more"):
        cls(cohort, n_latent=n_latent)


def test_groups_of_differential_expression_are_found_by_name(cohort):
    cohort.obs["arm"] = cohort.obs["donor"].astype("category").cat.codes.to_numpy() % 2
    PoissonVAE.setup_anndata(cohort, age_key="age", subject_key="donor")
    model = PoissonVAE(cohort, n_latent=3, n_hidden=[8])
    model.train(max_epochs=1, **QUIET)
    tables = []
    for one, two in ((1, 0), ("1", "0"), ([1.0], 0.0), (["1"], None)):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - scvi-tools draws from it
        tables.append(model.differential_expression(groupby="arm", group1=one, group2=two, silent=True))
    for table in tables[1:3]:
        pd.testing.assert_frame_equal(table, tables[0])
    assert len(tables[3]) == len(tables[0])
    with pytest.raises(ValueError, match=r"group1='2' is not in adata.obs\['arm'\].* Available: '0', '1'\."):
        model.differential_expression(cohort, groupby="arm", group1=2, silent=True)
