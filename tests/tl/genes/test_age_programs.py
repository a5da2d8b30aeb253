from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import sem

import agevi
from agevi.model import DenoisingVAE, EnsembleClock, GaussianVAE, MLPClock, NMFClock, PLSClock, PoissonVAE
from tests.files import stored
from tests.tl.genes.test_attribute_genes import PLAIN, SETUP, fit, widened


@pytest.fixture(scope="module")
def fitted(_cohort):
    """A Poisson VAE whose head is linear in the latent space, on plain ages."""
    adata = _cohort.copy()
    model = fit(adata, PoissonVAE, setup=PLAIN, n_hidden=[16], n_latent=5)
    model.module.age_scale.highest.fill_(1e6)
    return model


def latents(model, adata):
    """Latent means of the donors' summed counts, by the module itself, (n_donors, n_latent), and who trained."""
    code = np.unique(adata.obs["donor"].astype(str), return_inverse=True)[1]
    x = sp.csr_matrix((np.ones(len(code)), (code, np.arange(len(code))))) @ adata.X
    n = x.shape[0]
    with torch.no_grad():
        z = model.module.eval().latent_mean(
            torch.tensor(x.toarray(), dtype=torch.float32), torch.zeros(n, 1), summed=True
        )
    role = adata.obs.groupby(adata.obs["donor"].astype(str))["agevi_split"].first().astype(str)
    return z.numpy(), (role == "train").to_numpy()


@pytest.mark.slow
def test_a_linear_head_gives_its_weight_times_the_distance_from_the_background(cohort, fitted):
    z, train = latents(fitted, cohort)
    weight = fitted.module.head.output.weight.detach().numpy()[0] * float(fitted.module.age_scale.sd)
    part = weight * (z - z[train].mean(0))
    agevi.tl.age_programs(cohort, fitted)
    table = cohort.uns["agevi_programs"].sort_values("position")
    np.testing.assert_allclose(table["attribution"], np.abs(part).mean(0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(table["se"], sem(np.abs(part)), rtol=1e-3, atol=1e-4)
    assert (np.sign(table["signed"]) == np.sign(weight)).all()
    assert table["share"].sum() == pytest.approx(1)
    assert table.index.tolist() == [f"latent_{k}" for k in range(5)]
    assert cohort.uns["agevi_programs"]["attribution"].is_monotonic_decreasing


def test_loadings_are_steps_of_the_decoder(cohort, fitted):
    z = latents(fitted, cohort)[0]
    module, mean, sd = fitted.module, torch.tensor(z.mean(0)), torch.tensor(z.std(0))
    agevi.tl.age_programs(cohort, fitted, n_genes=6)
    loadings, table = cohort.varm["agevi_programs"], cohort.uns["agevi_programs"].sort_values("position")
    for k in range(5):
        step = torch.zeros(5)
        step[k] = sd[k]
        with torch.no_grad():
            up, down = (
                torch.log_softmax(module.logits(module.decoder((mean + s)[None])), -1)[0] for s in (step, -step)
            )
        np.testing.assert_allclose(loadings[:, k], (up - down).numpy() / 2, atol=2e-4)
        towards = loadings[:, k] * (1 if table["signed"].iloc[k] >= 0 else -1)
        order = np.argsort(-towards)
        assert table["genes_up"].iloc[k].split(";") == list(cohort.var_names[order[:6]])
        assert table["genes_down"].iloc[k].split(";") == list(cohort.var_names[order[::-1][:6]])


@pytest.mark.slow
def test_components_of_a_factorisation(cohort):
    model = fit(cohort, NMFClock, n_components=4, n_hidden=[6])
    agevi.tl.age_programs(cohort, model, n_genes=3)
    table = agevi.get.programs_df(cohort)
    assert sorted(table["program"]) == [f"component_{k}" for k in range(4)]
    for _, row in table.iterrows():
        weight = model.get_components()[row["program"]].to_numpy() * np.sqrt(model.module.gene_weight.numpy())
        np.testing.assert_allclose(cohort.varm["agevi_programs"][:, row["position"]], weight, rtol=1e-5)
        best = ";".join(model.genes[np.argsort(-weight)[:3]])
        assert (row["genes_up"], row["genes_down"]) == ((best, "") if row["signed"] >= 0 else ("", best))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cls", "init", "setup"),
    [
        pytest.param(PoissonVAE, {"train_unit": "cell", "n_head": [6]}, {}, id="cells"),
        pytest.param(GaussianVAE, {}, {"batch_key": "batch"}, id="gaussian"),
        pytest.param(DenoisingVAE, {"gene_likelihood": "zinb"}, {}, id="zinb"),
        pytest.param(
            PoissonVAE,
            {"encode_covariates": True, "rate": "softplus"},
            {"batch_key": "batch", "categorical_covariate_keys": ["sex"], "continuous_covariate_keys": ["depth"]},
            id="covariates",
        ),
    ],
)
def test_every_autoencoder(cohort, cls, init, setup):
    cohort.obs["depth"] = np.log(np.asarray(cohort.X.sum(1)).ravel())
    model = fit(cohort, cls, setup=setup, n_hidden=[8], n_latent=3, **init)
    agevi.tl.age_programs(cohort, model, n_samples=40)
    assert np.isfinite(cohort.varm["agevi_programs"]).all()
    assert (cohort.uns["agevi_programs"]["attribution"] > 0).all()


def test_genes_that_the_clock_does_not_know_are_nan(cohort, fitted):
    wider = widened(cohort)
    agevi.tl.age_programs(wider, fitted)
    assert np.isnan(wider.varm["agevi_programs"][-1]).all()
    assert np.isfinite(wider.varm["agevi_programs"][:-1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore")
def test_everything_written_survives_a_file(cohort, fitted, tmp_path, form):
    agevi.tl.age_programs(cohort, fitted)
    back = stored(cohort, form, tmp_path)
    pd.testing.assert_frame_equal(
        agevi.get.programs_df(back), agevi.get.programs_df(cohort), check_dtype=False, check_index_type=False
    )


def test_copy(cohort, fitted):
    out = agevi.tl.age_programs(cohort, fitted, copy=True)
    assert "agevi_programs" in out.varm
    assert "agevi_programs" not in cohort.varm


@pytest.mark.slow
def test_clocks_without_programs_are_refused(cohort, fitted):
    linear, mlp = fit(cohort, PLSClock), fit(cohort, MLPClock, n_hidden=[4])
    for model in (linear, mlp):
        with pytest.raises(ValueError, match="has no decoder and no components .* of a PoissonVAE or an NMFClock"):
            agevi.tl.age_programs(cohort, model)
    with pytest.raises(ValueError, match="the programs of each clock in it that has one"):
        agevi.tl.age_programs(cohort, EnsembleClock([linear, mlp]))
    PoissonVAE.setup_anndata(cohort, **SETUP)
    with pytest.raises(RuntimeError, match=r"tl\.age_programs needs a trained model"):
        agevi.tl.age_programs(cohort, PoissonVAE(cohort))
    with pytest.raises(ValueError, match="n_genes=61 is out of range"):
        agevi.tl.age_programs(cohort, fitted, n_genes=61)
    with pytest.raises(KeyError, match=r"run agevi\.tl\.age_programs"):
        agevi.get.programs_df(cohort)
