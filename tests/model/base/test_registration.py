"""A model works with its own registration, whatever is set up or done with the AnnData after it."""

from __future__ import annotations

import gc
import pickle
import threading
import weakref

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import agevi
from agevi.dataloaders._own_copies import recall
from agevi.model import CaseControlClassifier, MLPClock, PLSClock, PoissonVAE, TransformerClock
from agevi.model.vae._base import VAEClock
from tests.clocks import TRAINABLE, each_clock, params
from tests.conftest import QUIET
from tests.test_contract import SETUP


@pytest.fixture
def adata(cohort):
    """The cohort with a second set of columns of every kind, all of which differ from the first."""
    obs = cohort.obs
    obs["age2"] = 100 - obs["age"]
    code = obs["donor"].astype("category").cat.codes.to_numpy()
    obs["donor2"] = np.array([f"pair {c // 2}" for c in code])
    obs["age_of_pair"] = obs.groupby("donor2", observed=True)["age"].transform("mean")
    obs["batch2"] = np.where(code % 3 == 0, "x", "y")
    obs["score"], obs["score2"] = np.linspace(0, 1, len(obs)), np.linspace(1, 5, len(obs))
    obs["sex2"] = np.where(code % 2 == 0, "u", "v")
    cohort.layers["twice"] = cohort.X * 2
    return cohort


def kwargs_of(cls):
    return {"TransformerClock": {"tissue_key": "sex"}}.get(cls.__name__, {"batch_key": "batch"}) | {
        "categorical_covariate_keys": ["sex"], "continuous_covariate_keys": ["score"],
    }  # fmt: skip


def make(cls, adata, **setup):
    cls.setup_anndata(adata, **SETUP, **kwargs_of(cls), **setup)
    return cls(adata, **cls.test_params()["init"], **({"encode_covariates": True} if cls is PoissonVAE else {}))


def train(model):
    model.train(**({"max_epochs": 2, **QUIET}))
    return model


def others(adata, own=PoissonVAE):
    """Registrations of other keys, by the class, one of each kind and a view, which a shared column would mix up."""
    for cls in {own: None, PoissonVAE: None, MLPClock: None, PLSClock: None, TransformerClock: None}:
        keys = {"tissue_key": "batch2"} if cls.__name__ == "TransformerClock" else {"batch_key": "batch2"}
        keys |= {"categorical_covariate_keys": ["sex2"], "continuous_covariate_keys": ["score2"]}
        cls.setup_anndata(adata, age_key="age_of_pair", subject_key="donor2", **keys)
        cls.setup_anndata(adata, age_key="age2", subject_key="donor", sample_key="donor", **keys)
        cls.setup_anndata(adata, age_key="age2", subject_key="donor2", sample_key="donor", layer="twice")
        cls.setup_anndata(adata, age_key="age2", subject_key="donor", features=adata.var_names[:20])
    PLSClock.setup_anndata(adata[:, :30], age_key="age2", subject_key="donor2", sample_key="donor")


def results(model, adata):
    """What every verb of a clock gives."""
    agevi.tl.predict_age(adata, model)
    out = [
        model.predict_age(),
        model.predict_age(adata, indices=[5, 3]),
        adata.obs["agevi_role"].astype(str).to_numpy(),
    ]
    verbs = ("get_latent_representation", "get_elbo", "get_reconstruction_error", "get_normalized_expression")
    for verb in verbs if isinstance(model, VAEClock) else ():
        torch.manual_seed(0)  # they draw from the posterior
        out.append(np.asarray(getattr(model, verb)()))
    out += [np.asarray(sorted(model.split_.items())), np.asarray(sorted(map(str, model.age_summary_.items())))]
    out += [frame.to_numpy() for _, frame in sorted(model.history_.items())]
    return out


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-6)
        else:
            np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def _alone():
    return {}


@pytest.mark.slow
@each_clock
@pytest.mark.parametrize("when", ["before training", "after training"])
def test_other_registrations_change_nothing(cls, when, adata, _alone):
    if cls not in _alone:
        _alone[cls] = results(train(make(cls, adata.copy())), adata.copy())
    expected = _alone[cls]
    model = make(cls, adata)
    if when == "after training":
        train(model)
    others(adata, cls)
    if when == "before training":
        train(model)
    assert_same(results(model, adata), expected)
    assert model.setup_args["age_key"] == "age"


@pytest.mark.slow
@each_clock
def test_clocks_of_one_class_side_by_side(cls, adata):
    """Both are trained after both were set up; two clocks of the second registration are alike."""
    alone = {}
    for key in ("age", "age2"):
        copy = adata.copy()
        cls.setup_anndata(copy, age_key=key, subject_key="donor")
        alone[key] = train(cls(copy, **cls.test_params()["init"])).predict_age()
    models = {}
    for key in ("age", "age2"):
        cls.setup_anndata(adata, age_key=key, subject_key="donor")
        models[key] = cls(adata, **cls.test_params()["init"])
    models["again"] = cls(adata, **cls.test_params()["init"])
    for model in models.values():
        train(model)
    for name, key in (("age", "age"), ("age2", "age2"), ("again", "age2")):
        np.testing.assert_allclose(models[name].predict_age(), alone[key], rtol=1e-6)
    assert np.abs(alone["age"] - alone["age2"]).max() > 0.1


@pytest.mark.slow
@each_clock
def test_columns_that_change_after_the_set_up(cls, adata):
    """New and replaced columns, and an ``obs`` without those that were registered."""
    expected = train(make(cls, adata.copy())).predict_age()
    model = make(cls, adata)
    obs = adata.obs
    obs["age"] = 1.0
    obs["note"] = "new"
    split = obs["agevi_split"]
    adata.obs = obs[["note"]].copy()
    adata.obs["agevi_split"] = split
    train(model)
    np.testing.assert_allclose(model.predict_age(model.adata_manager.adata), expected, rtol=1e-6)


def test_a_split_that_is_made_after_the_set_up_is_read(adata):
    del adata.obs["agevi_split"]
    model = make(PLSClock, adata)
    adata.obs["agevi_split"] = np.where(adata.obs["sex"] == adata.obs["sex"].iloc[0], "train", "test")
    train(model)
    assert set(model.split_.values()) == {"train", "test"}


@each_clock
@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda a: a._inplace_subset_obs(np.arange(400)), "other cells (400", id="fewer cells"),
        pytest.param(lambda a: a._inplace_subset_obs(np.arange(480)[::-1]), "in another order", id="other order"),
        pytest.param(lambda a: a._inplace_subset_var(np.arange(50)), "other genes (50", id="fewer genes"),
        pytest.param(lambda a: setattr(a, "var_names", [f"x{i}" for i in range(60)]), "other genes (60", id="names"),
    ],
)
def test_other_cells_or_genes_in_place(cls, change, message, adata):
    model = make(cls, adata)
    change(adata)
    for call in (lambda: train(model), lambda: cls(adata)):
        with pytest.raises(ValueError) as error:
            call()
        assert message in str(error.value)
        assert f"{cls.__name__}.setup_anndata again" in str(error.value)
        assert "_scvi" not in str(error.value)


@each_clock
@pytest.mark.parametrize("how", ["X", "layer", "features", "view"])
def test_values_that_are_replaced_after_the_set_up(cls, how, adata):
    """Training on the old values and predicting from the new ones would be wrong without a word; equal values are taken."""
    data = adata[: adata.n_obs // 2] if how == "view" else adata
    setup = {"layer": {"layer": "twice"}, "features": {"features": adata.var_names[:20]}}.get(how, {})
    model = make(cls, data, **setup)
    for reverse in (False, True):
        old = adata.layers["twice"] if how == "layer" else adata.X
        new = old[:, ::-1].copy() if reverse else old.copy()
        if how == "layer":
            adata.layers["twice"] = new
        else:
            adata.X = new
        if not reverse:
            train(model)
            continue
        with pytest.raises(ValueError, match=r"other values than when it was set up for .*setup_anndata again"):
            train(model)
    assert data.is_view == (how == "view")


@pytest.mark.slow
@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
@pytest.mark.parametrize("setup", [{}, {"layer": "twice"}, {"features": ["gene00", "gene01", "gene02"]}], ids=str)
def test_views_that_were_set_up_keep_no_data_alive(dense, setup, adata):
    data = adata.copy()
    if dense:
        data.X, data.layers["twice"] = data.X.toarray(), data.layers["twice"].toarray()
    alive = weakref.ref(data)
    PLSClock.setup_anndata(data[:100], **SETUP, **setup)
    del data
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("cls", params([c for c in TRAINABLE if c.__name__ != "TransformerClock"]))  # reads any values
def test_values_that_are_normalised_in_place_after_the_set_up(cls, adata):
    adata.X = adata.X.astype(np.float32)
    model = make(cls, adata)
    np.log1p(adata.X.data, out=adata.X.data)
    with pytest.raises(ValueError, match="adata.X has non-integer values"):
        train(model)


@each_clock
@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda a: a.copy(), id="copy"),
        pytest.param(lambda a: a[:100], id="view"),
        pytest.param(lambda a: a[:100].copy(), id="slice"),
        pytest.param(lambda a: pickle.loads(pickle.dumps(a)), id="pickle"),
    ],
)
def test_copies_are_set_up_by_themselves(cls, made, adata):
    cls.setup_anndata(adata, **SETUP)
    with pytest.raises(ValueError) as error:
        cls(made(adata))
    assert f"call {cls.__name__}.setup_anndata(adata, age_key=..., subject_key=...) first" in str(error.value)


def test_another_class_is_named(adata):
    PLSClock.setup_anndata(adata, **SETUP)
    with pytest.raises(ValueError, match=r"not set up for MLPClock; .* It is set up for 'PLSClock'\."):
        MLPClock(adata)


@pytest.mark.slow
@each_clock
def test_a_clock_outlives_a_file(cls, adata, tmp_path):
    """Data that were set up are written as they were, and what is read again does not disturb the clock."""
    expected = train(make(cls, adata.copy())).predict_age()
    before = set(adata.obs), set(adata.uns), set(adata.obsm)
    model = make(cls, adata)
    assert (set(adata.obs), set(adata.uns), set(adata.obsm)) == before
    adata.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad")
    second = make(cls, again)
    train(model), train(second)
    np.testing.assert_allclose(model.predict_age(), expected, rtol=1e-6)
    np.testing.assert_allclose(second.predict_age(), expected, rtol=1e-6)


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, lambda x: x.toarray()], ids=["csr", "csc", "csr_array", "dense"])  # fmt: skip
@pytest.mark.parametrize("layer", [None, "counts"], ids=["X", "layer"])
def test_values_are_shared(form, layer, adata):
    x = form(sp.csr_matrix(adata.X))
    if layer is None:
        adata.X = x
        x = adata.X
    else:
        adata.layers[layer] = x
        x = adata.layers[layer]
    PLSClock.setup_anndata(adata, **SETUP, layer=layer)
    own = recall(PLSClock, adata).adata
    kept = own.X if layer is None else own.layers[layer]
    assert np.shares_memory(getattr(kept, "data", kept), getattr(x, "data", x))


@pytest.mark.slow
def test_threads_set_up_one_anndata(adata):
    keys = ["age", "age2", "age_of_pair"]
    subject = {"age": "donor", "age2": "donor", "age_of_pair": "donor2"}
    adata.obs["agevi_split"] = "train"

    def one(key, data, out):
        MLPClock.setup_anndata(data, age_key=key, subject_key=subject[key])
        model = MLPClock(data, n_hidden=[8])
        model.train(max_epochs=2, **QUIET)
        out[key] = (model.predict_age(), model.setup_args["age_key"])

    alone, found = {}, {}
    for key in keys:
        one(key, adata.copy(), alone)
    models = {}
    for key in keys:  # threads share a class's last registration, so clocks are made one after the other
        MLPClock.setup_anndata(adata, age_key=key, subject_key=subject[key])
        models[key] = MLPClock(adata, n_hidden=[8])

    def fit(key):
        models[key].train(max_epochs=2, **QUIET)
        found[key] = (models[key].predict_age(), models[key].setup_args["age_key"])

    threads = [threading.Thread(target=fit, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for key in keys:
        assert found[key][1] == key
        np.testing.assert_allclose(found[key][0], alone[key][0], rtol=1e-6)


@pytest.mark.slow
def test_a_classifier_reads_the_columns_of_its_clock(adata):
    adata.obs["disease"] = np.where(adata.obs["donor"].astype("category").cat.codes % 2 == 0, "yes", "no")

    def classified(data, between):
        clock = train(make(MLPClock, data))
        between(data)
        model = CaseControlClassifier.from_clock(clock, data, condition_key="disease", control="no")
        between(data)
        model.train(max_epochs=2)
        between(data)
        return model.predict_proba(), model.split_

    alone = classified(adata.copy(), lambda data: None)
    found = classified(adata, others)
    np.testing.assert_allclose(found[0], alone[0], rtol=1e-6)
    assert found[1] == alone[1]


@pytest.mark.slow
def test_what_is_loaded_with_data(adata, tmp_path):
    clock = train(make(PoissonVAE, adata))
    clock.save(tmp_path / "clock")
    torch.manual_seed(0)  # it draws from the posterior
    expected = clock.get_elbo()
    loaded = PoissonVAE.load(tmp_path / "clock", adata)
    others(adata)
    torch.manual_seed(0)
    assert float(loaded.get_elbo()) == pytest.approx(float(expected), rel=1e-5)
    loaded.train(max_epochs=1, **QUIET)
    assert loaded.age_summary_["max"] == clock.age_summary_["max"]


@pytest.mark.slow
def test_differential_expression_groups_by_columns_of_today(adata):
    clock = train(make(PoissonVAE, adata))
    others(adata)
    adata.obs["later"] = np.where(np.arange(adata.n_obs) < 200, "a", "b")
    table = clock.differential_expression(groupby="later", group1="a", silent=True)
    assert set(table["comparison"]) == {"a vs Rest"} or set(table["group1"]) == {"a"}


def test_assigned_tissues_of_a_transformer_are_its_own(adata):
    cls = agevi.model.TransformerClock
    adata.obs["tissue"] = np.where(np.arange(adata.n_obs) % 2 == 0, "blood", "skin")
    adata.obs["tissue2"] = "all"
    cls.setup_anndata(adata, **SETUP, sample_key=None, tissue_key="tissue")
    model = cls(adata, **cls.test_params()["init"])
    cls.setup_anndata(adata, **SETUP, tissue_key="tissue2")
    train(model)
    assert model._levels().max() == 2
