from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.io._bundle import BundleError
from agevi.model import PoissonVAE
from tests.conftest import QUIET
from tests.io.bundles import sign


@pytest.fixture
def bundle(trained, tmp_path):
    trained.save(tmp_path / "clock")
    return tmp_path / "clock"


@pytest.mark.parametrize("load", [agevi.io.load_clock, PoissonVAE.load], ids=["load_clock", "PoissonVAE.load"])
def test_a_loaded_clock_predicts_the_same(cohort, trained, bundle, load):
    clock = load(bundle)
    new = cohort.copy()
    del new.obs["age"]
    np.testing.assert_array_equal(clock.predict_age(new), trained.predict_age(cohort))
    assert clock.split_ == trained.split_
    assert clock.best_epoch_ == trained.best_epoch_
    assert clock.age_summary_ == trained.age_summary_
    for name, frame in trained.history.items():
        np.testing.assert_array_equal(clock.history[name], frame)
    agevi.tl.predict_age(new, clock)
    assert (new.obs["agevi_role"].astype(str) == cohort.obs["agevi_split"].astype(str)).all()


def test_files(bundle):
    assert sorted(f.name for f in bundle.iterdir()) == ["README.md", "clock.json", "weights.safetensors"]
    meta = json.loads((bundle / "clock.json").read_text())
    assert meta["class"] == "PoissonVAE"
    assert meta["setup"]["batch_key"] == "batch"
    assert set(meta["versions"]) >= {"agevi", "scvi-tools", "torch", "anndata", "python"}
    card = (bundle / "README.md").read_text()
    assert "Predicts" in card
    assert "load_clock" in card


@pytest.mark.parametrize(
    "changes",
    [{"init": {"n_latents": 3}}, {"init": {"n_latent": "many"}}, {"setup": None}, {"genes": 7}, {"split": None}],
    ids=["argument unknown", "value", "no setup", "genes", "no roles"],
)
def test_a_signed_bundle_that_makes_no_clock_is_refused(bundle, changes):
    sign(bundle, **changes)
    with pytest.raises(
        BundleError, match=r"clock does not describe a PoissonVAE.*or was edited\. Save the clock again\.$"
    ):
        agevi.io.load_clock(bundle)


def test_a_signed_classifier_of_a_linear_clock_is_refused(cohort, tmp_path):
    agevi.model.PLSClock.setup_anndata(cohort, age_key="age", subject_key="donor")
    linear = agevi.model.PLSClock(cohort)
    linear.train()
    linear.save(tmp_path / "linear")
    own = json.loads((tmp_path / "linear" / "clock.json").read_text())
    sign(
        tmp_path / "linear",
        **{"class": "CaseControlClassifier"},
        clock=own,
        init={"condition_key": "c", "control": "a", "case": "b"},
    )
    with pytest.raises(
        BundleError,
        match=r"CaseControlClassifier that this.*TypeError: clock is a PLSClock, which has no network",
    ):
        agevi.io.load_clock(tmp_path / "linear")


def test_saving_again_gives_the_same_bytes(bundle, tmp_path):
    agevi.io.load_clock(bundle).save(tmp_path / "again")
    for name in ("clock.json", "weights.safetensors", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (bundle / name).read_bytes()


def test_verbs_of_a_loaded_clock(cohort, trained, bundle):
    clock = agevi.io.load_clock(bundle)
    np.testing.assert_allclose(
        clock.get_latent_representation(cohort), trained.get_latent_representation(cohort), atol=1e-6
    )
    batch = str(cohort.obs["batch"].iloc[0])
    np.testing.assert_allclose(
        clock.get_normalized_expression(cohort, transform_batch=batch).mean(),
        trained.get_normalized_expression(cohort, transform_batch=batch).mean(),
        rtol=0.3,
    )
    for verb in ("predict_age", "get_latent_representation", "get_elbo", "train"):
        with pytest.raises(RuntimeError, match="loaded without data; pass adata"):
            getattr(clock, verb)()


def test_attached_data_train_on(cohort, trained, bundle):
    clock = PoissonVAE.load(bundle, adata=cohort)
    np.testing.assert_allclose(clock.predict_age(), trained.predict_age(cohort), rtol=1e-6)
    n = len(clock.history["age_mae_train"])
    clock.train(max_epochs=2, **QUIET)
    assert len(clock.history["age_mae_train"]) == n + 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda a: a[:, ::-1].copy(), r"pass adata\[:, clock.genes\]", id="other gene order"),
        pytest.param(lambda a: a[:, 1:].copy(), "1 of the clock's 60 genes are absent", id="gene missing"),
        pytest.param(
            lambda a: a.obs.__setitem__("batch", "elsewhere"),
            "holds 'elsewhere', which the clock never saw",
            id="batch",
        ),
    ],
)
def test_data_that_do_not_fit_are_refused(cohort, bundle, change, message):
    changed = change(cohort)
    with pytest.raises(ValueError, match=message):
        PoissonVAE.load(bundle, adata=cohort if changed is None else changed)


def test_another_class_is_refused(bundle, monkeypatch):
    class OtherVAE(PoissonVAE):
        pass

    with pytest.raises(ValueError, match="holds a PoissonVAE, not a OtherVAE; use PoissonVAE.load"):
        OtherVAE.load(bundle)
    monkeypatch.setattr(agevi.model.base._save, "KNOWN", {"OtherVAE": OtherVAE})
    with pytest.raises(ValueError, match="holds a clock of class 'PoissonVAE'; this version of agevi knows OtherVAE"):
        agevi.io.load_clock(bundle)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setup",
    [
        pytest.param({"layer": "counts"}, id="layer"),
        pytest.param({"categorical_covariate_keys": ["sex", "cell_type"]}, id="categorical covariates"),
        pytest.param({"continuous_covariate_keys": ["size_factor"], "batch_key": "batch"}, id="batch and continuous"),
        pytest.param({"age_transform": "log", "age_unit": "months"}, id="log ages in months"),
        pytest.param({"age_transform": "horvath", "age_unit": "weeks"}, id="Horvath's ages in weeks"),
        pytest.param({"normalize": "none"}, id="no normalisation"),
    ],
)
def test_every_kind_of_setup_comes_back(cohort, tmp_path, setup):
    cohort.layers["counts"] = cohort.X.copy()
    PoissonVAE.setup_anndata(cohort, age_key="age", subject_key="donor", **setup)
    model = PoissonVAE(cohort, n_hidden=[8], n_latent=3, n_head=[4], encode_covariates=True)
    model.train(max_epochs=1, **QUIET)
    model.save(tmp_path / "clock")
    clock = agevi.io.load_clock(tmp_path / "clock")
    np.testing.assert_array_equal(clock.predict_age(cohort), model.predict_age(cohort))
    assert clock.setup_args == model.setup_args


def test_integer_categories_come_back(cohort, tmp_path):
    cohort.obs["batch"] = pd.Categorical(np.where(cohort.obs["batch"] == cohort.obs["batch"].iloc[0], 3, 0))
    PoissonVAE.setup_anndata(cohort, age_key="age", subject_key="donor", batch_key="batch")
    model = PoissonVAE(cohort, n_hidden=[8], n_latent=3, n_head=[4], encode_covariates=True)
    model.train(max_epochs=1, **QUIET)
    model.save(tmp_path / "clock")
    np.testing.assert_array_equal(
        agevi.io.load_clock(tmp_path / "clock").predict_age(cohort), model.predict_age(cohort)
    )


def test_an_existing_clock_is_replaced_only_on_request(trained, bundle):
    with pytest.raises(FileExistsError, match="overwrite=True"):
        trained.save(bundle)
    trained.save(bundle, overwrite=True)
    assert agevi.io.load_clock(bundle).is_trained


@pytest.mark.slow
def test_a_pickle_of_scvi_tools_is_opened_only_when_trusted(cohort, tmp_path):
    PoissonVAE.setup_anndata(cohort, age_key="age", subject_key="donor")
    model = PoissonVAE(cohort, n_hidden=[8], n_latent=3, n_head=[4])
    model.train(max_epochs=1, **QUIET)
    agevi._compat.scvi.BaseModelClass.save(model, str(tmp_path / "pickled"))
    for load in (PoissonVAE.load, agevi.io.load_clock):
        with pytest.raises(ValueError, match="pickle"):
            load(tmp_path / "pickled")
    with pytest.raises(TypeError, match="adata is a NoneType"):
        PoissonVAE.load(tmp_path / "pickled", trusted=True)
    clock = PoissonVAE.load(tmp_path / "pickled", adata=cohort, trusted=True)
    np.testing.assert_allclose(clock.predict_age(cohort), model.predict_age(cohort), rtol=1e-6)
    clock.save(tmp_path / "clock")
    np.testing.assert_allclose(agevi.io.load_clock(tmp_path / "clock").predict_age(cohort), model.predict_age(cohort))


def test_trusted_changes_nothing_for_a_bundle(trained, bundle, cohort):
    clock = PoissonVAE.load(bundle, trusted=True)
    np.testing.assert_array_equal(clock.predict_age(cohort), trained.predict_age(cohort))
