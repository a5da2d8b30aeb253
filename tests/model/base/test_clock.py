from __future__ import annotations

import gc
import hashlib
import weakref

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import agevi
from agevi.model import PoissonVAE
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}


def fingerprint(adata):
    """Everything a failing call must leave alone."""
    x = sp.csr_matrix(adata.X)
    values = [x.data, x.indices, x.indptr]
    return (
        [hashlib.sha256(np.ascontiguousarray(v)).hexdigest() for v in values],
        type(adata.X),
        pd.util.hash_pandas_object(adata.obs.astype(str)).sum(),
        list(adata.obs),
        list(adata.var),
        sorted(adata.uns),
        sorted(adata.obsm),
        sorted(adata.varm),
        sorted(adata.layers),
    )


# --- registration --------------------------------------------------------------------------------------------


def test_setup_writes_nothing(cohort):
    before, obs = fingerprint(cohort), cohort.obs.copy()
    PoissonVAE.setup_anndata(cohort, **SETUP)
    assert fingerprint(cohort) == before
    pd.testing.assert_frame_equal(cohort.obs, obs)


@pytest.mark.parametrize(
    ("change", "setup", "error", "message"),
    [
        pytest.param(None, {"subject_key": "donr"}, KeyError, "closest: 'donor'", id="subject column"),
        pytest.param(None, {"batch_key": "bach"}, KeyError, "batch_key='bach'.*closest: 'batch'", id="batch column"),
        pytest.param(None, {"layer": "counts"}, KeyError, "layer='counts' is not in adata.layers", id="layer"),
        pytest.param(None, {"normalize": "log"}, ValueError, "normalize='log' is not known", id="normalize"),
        pytest.param(None, {"age_transform": "sqrt"}, ValueError, "age_transform='sqrt' is not known", id="transform"),
        pytest.param(
            None, {"continuous_covariate_keys": ["sex"]}, TypeError, "categorical_covariate_keys", id="covariate of text"
        ),
        pytest.param(
            lambda a: a.obs.loc.__setitem__((a.obs_names[0], "batch"), np.nan), {"batch_key": "batch"}, ValueError,
            "missing in 1 cells", id="batch missing",
        ),
        pytest.param(
            lambda a: setattr(a, "X", sp.csr_matrix(a.X) * 0.5), {}, ValueError, "raw counts.*layer=", id="no counts"
        ),
        pytest.param(
            lambda a: a.obs.__setitem__("age", np.arange(a.n_obs) % 90), {}, ValueError, "and pass sample_key='sample'",
            id="two ages",
        ),
    ],
)  # fmt: skip
def test_setup_refuses_and_changes_nothing(cohort, change, setup, error, message):
    if change:
        change(cohort)
    before = fingerprint(cohort)
    with pytest.raises(error, match=message):
        PoissonVAE.setup_anndata(cohort, **(SETUP | setup))
    assert fingerprint(cohort) == before


def test_visits_have_their_own_ages():
    adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=16, n_genes=40, n_visits=2, rng=0)
    PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor", sample_key="sample")
    model = PoissonVAE(adata, n_hidden=[8], n_latent=3, n_head=[])
    model.train(max_epochs=1, **QUIET)
    assert set(model.split_) == set(adata.obs["donor"].astype(str))
    train = adata.obs[adata.obs["donor"].astype(str).map(model.split_) == "train"]
    assert model.age_summary_["n_samples"] == train["sample"].nunique()
    assert model.age_summary_["n_subjects"] == train["donor"].nunique()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        pytest.param({"gene_likelihood": "negbin"}, "'poisson', 'zip', 'nb', 'zinb'", id="unknown likelihood"),
        pytest.param({"rate": "exp"}, "'softmax', 'softplus'", id="rate"),
        pytest.param({"age_loss": "l2"}, "'huber', 'mse', 'mae'", id="age loss"),
        pytest.param({"subject_weight": "none"}, "'equal', 'cells'", id="subject weight"),
    ],
)
def test_constructor_refuses(cohort, kwargs, message):
    PoissonVAE.setup_anndata(cohort, **SETUP)
    with pytest.raises(ValueError, match=message):
        PoissonVAE(cohort, **kwargs)


# --- prediction ----------------------------------------------------------------------------------------------


def as_dense(x):
    return x.toarray() if sp.issparse(x) else np.asarray(x)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: a[:, ::-1].copy(), id="genes reversed"),
        pytest.param(lambda a: a[:, ::-1], id="view with genes reversed"),
        pytest.param(lambda a: setattr(a, "X", sp.csc_matrix(a.X)), id="csc"),
        pytest.param(lambda a: setattr(a, "X", sp.csr_array(a.X)), id="csr_array"),
        pytest.param(lambda a: setattr(a, "X", as_dense(a.X)), id="dense"),
        pytest.param(lambda a: setattr(a, "X", np.asfortranarray(as_dense(a.X))), id="dense, column order"),
        pytest.param(lambda a: setattr(a, "X", sp.csr_matrix(a.X).astype(np.int32)), id="int32"),
        pytest.param(lambda a: setattr(a, "X", sp.csr_matrix(a.X).astype(np.float64)), id="float64"),
        pytest.param(lambda a: setattr(a, "obs", a.obs.drop(columns=["age", "batch"])), id="no age and no batch"),
        pytest.param(lambda a: a.obs.__setitem__("batch", "never seen"), id="unseen batch"),
    ],
)
def test_prediction_does_not_depend_on_form(cohort, trained, change):
    expected = trained.predict_age(cohort.copy())
    changed = change(cohort)
    adata = cohort if changed is None else changed
    before, is_view = fingerprint(adata), adata.is_view
    np.testing.assert_allclose(trained.predict_age(adata), expected, atol=1e-3)
    assert fingerprint(adata) == before
    assert adata.is_view == is_view


def test_indices_and_batch_size(cohort, trained):
    everything = trained.predict_age(cohort)
    np.testing.assert_allclose(
        trained.predict_age(cohort, indices=[5, 2, 9], batch_size=2), everything[[5, 2, 9]], rtol=1e-5
    )
    np.testing.assert_allclose(trained.predict_age(), everything, rtol=1e-6)
    assert everything.dtype == np.float32


def test_a_cell_alone_and_an_empty_cell(cohort, trained):
    x = as_dense(cohort.X)
    x[0] = 0
    cohort.X = x
    assert np.isfinite(trained.predict_age(cohort)).all()
    np.testing.assert_allclose(trained.predict_age(cohort[7].copy()), trained.predict_age(cohort)[[7]], rtol=1e-5)


def test_a_few_missing_genes_shift_little(cohort, trained):
    full = trained.predict_age(cohort)
    part = trained.predict_age(cohort[:, 6:].copy())
    zeroed = cohort.copy()
    zeroed.X = as_dense(zeroed.X) * (np.arange(60) >= 6)
    assert np.abs(part - full).mean() < np.abs(trained.predict_age(zeroed) - full).mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda a: a[:, :20].copy(), "40 of the clock's 60 genes are absent", id="genes missing"),
        pytest.param(lambda a: setattr(a, "X", np.log1p(as_dense(a.X))), "raw counts", id="log data"),
        pytest.param(lambda a: setattr(a, "X", -as_dense(a.X)), "negative values", id="negative"),
        pytest.param(lambda a: setattr(a, "var_names", ["g"] * 60), "repeated names", id="repeated genes"),
    ],
)
@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_prediction_refuses_and_changes_nothing(cohort, trained, change, message):
    changed = change(cohort)
    adata = cohort if changed is None else changed
    before = fingerprint(adata)
    with pytest.raises(ValueError, match=message):
        agevi.tl.predict_age(adata, trained)
    assert fingerprint(adata) == before


def test_untrained_clocks_refuse(cohort):
    PoissonVAE.setup_anndata(cohort, **SETUP)
    model = PoissonVAE(cohort)
    with pytest.raises(RuntimeError, match=r"needs a trained model; call model.train\(\) or PoissonVAE.load"):
        model.predict_age()
    with pytest.raises(RuntimeError, match="trained"):
        model.save("nowhere")


def test_sample_level_needs_a_clock_of_sums(trained):
    with pytest.raises(ValueError, match="tl.aggregate_subjects"):
        trained.predict_age(level="sample")
    with pytest.raises(ValueError, match="level='donor' is not known"):
        trained.predict_age(level="donor")


def test_encoded_covariates_must_be_known(cohort):
    PoissonVAE.setup_anndata(cohort, batch_key="batch", continuous_covariate_keys=["size_factor"], **SETUP)
    model = PoissonVAE(cohort, n_hidden=[8], n_latent=3, n_head=[], encode_covariates=True)
    model.train(max_epochs=1, **QUIET)
    new = cohort.copy()
    new.obs["batch"] = "elsewhere"
    with pytest.raises(ValueError, match="holds 'elsewhere', which the clock never saw; it knows"):
        model.predict_age(new)
    del new.obs["batch"]
    with pytest.raises(KeyError, match="batch_key='batch' is not a column"):
        model.predict_age(new)


@pytest.mark.slow
def test_data_are_let_go(cohort, trained):
    adata = cohort.copy()
    PoissonVAE.setup_anndata(adata, **SETUP)
    model = PoissonVAE(adata, n_hidden=[8], n_latent=3)
    refs = [weakref.ref(adata), weakref.ref(model), weakref.ref(model.adata_manager.adata)]
    trained.predict_age(adata)
    trained.get_latent_representation(adata)
    del adata, model
    gc.collect()
    assert [ref() for ref in refs] == [None, None, None]


# --- scvi-tools' verbs ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("foreign", [False, True], ids=["own data", "new data"])
def test_verbs(cohort, trained, foreign):
    adata = None
    if foreign:
        adata = cohort[:, ::-1].copy()
        adata.obs["donor"] = "new"
        del adata.obs["age"]
        before = fingerprint(adata)
    n, g = 480, 60
    latent = trained.get_latent_representation(adata)
    assert latent.shape == (n, 5)
    np.testing.assert_allclose(latent, trained.predict_rows(cohort).latent, atol=1e-5)
    elbo = float(trained.get_elbo(adata))
    assert np.isfinite(elbo)
    assert elbo < float(trained.get_marginal_ll(adata, n_mc_samples=8))
    assert np.isfinite(float(next(iter(trained.get_reconstruction_error(adata).values()))))
    expression = trained.get_normalized_expression(adata, n_samples=2, transform_batch=str(cohort.obs["batch"].iloc[0]))
    assert expression.shape == (n, g)
    np.testing.assert_allclose(expression.to_numpy().sum(1), 1, rtol=1e-4)
    assert trained.posterior_predictive_sample(adata, n_samples=2).shape == (n, g, 2)
    if foreign:
        assert fingerprint(adata) == before


def test_elbo_means_what_scvi_means(trained):
    """The mean over cells of -(reconstruction + KL), without the age term."""
    torch.manual_seed(0)
    recon = float(next(iter(trained.get_reconstruction_error().values())))
    torch.manual_seed(0)  # the same draws from the posterior
    elbo = float(trained.get_elbo())
    q = [np.asarray(v) for v in trained.get_latent_representation(return_dist=True)]
    kl = 0.5 * (q[0] ** 2 + q[1] - 1 - np.log(q[1])).sum(1).mean()
    assert kl > 1
    assert elbo == pytest.approx(-(abs(recon) + kl), rel=1e-4)


@pytest.mark.parametrize("foreign", [False, True], ids=["own data", "new data"])
def test_differential_expression(cohort, trained, foreign):
    table = trained.differential_expression(cohort if foreign else None, groupby="cell_type", silent=True)
    assert set(table["comparison"].str.split(" vs ").str[0]) == set(cohort.obs["cell_type"].astype(str))
    assert len(table) == 60 * cohort.obs["cell_type"].nunique()


@pytest.mark.parametrize(
    "verb",
    [
        "convert_legacy_save", "differential_abundance", "get_aggregated_posterior", "get_feature_correlation_matrix",
        "get_importance_weights", "get_latent_library_size", "load_registry",
        "setup_annbatch", "view_setup_args",
    ],
)  # fmt: skip
def test_verbs_that_would_not_work_are_not_there(trained, verb):
    assert not hasattr(trained, verb)
    assert not hasattr(PoissonVAE, verb)
    with pytest.raises(AttributeError, match=f"PoissonVAE has no {verb}: "):
        getattr(trained, verb)


def test_verbs_do_not_write_to_a_copy_of_the_training_data(trained):
    copy = trained.adata.copy()
    before = fingerprint(copy)
    np.testing.assert_allclose(trained.get_latent_representation(copy), trained.get_latent_representation(), atol=1e-6)
    assert fingerprint(copy) == before


def test_verbs_forget_nothing_that_was_set_up(cohort, trained):
    PoissonVAE.setup_anndata(cohort, **SETUP)
    trained.get_latent_representation(trained.adata[:50].copy())
    assert not PoissonVAE(cohort, n_hidden=[8], n_latent=3, n_head=[]).is_trained


def test_verbs_need_no_ages(cohort, trained):
    cohort.obs["age"] = "unknown"
    assert trained.get_latent_representation(cohort).shape == (480, 5)


def test_clocks_that_are_held_move_together(trained):
    """Without values on ``meta``, a device that every machine has."""
    inner = agevi.model.EnsembleClock([trained])
    outer = agevi.model.EnsembleClock([inner, trained])
    assert [type(clock).__name__ for clock in outer.own_clocks] == ["EnsembleClock", "PoissonVAE"]
    assert outer.members() == [*outer.own_clocks[0].own_clocks, outer.own_clocks[1]]
    assert trained.members() == [trained] and trained.own_clocks == ()
    outer.to_device("meta")
    for clock in (outer, *outer.own_clocks, *outer.members()):
        assert clock.device.type == "meta"
    assert trained.device.type == inner.device.type == "cpu"
