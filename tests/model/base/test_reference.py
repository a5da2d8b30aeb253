"""What a clock keeps of its training cohorts, against sums by hand, and in bundles."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.io._files import BundleError
from agevi.model.base._reference import PREFIX, Reference
from tests.clocks import every_clock
from tests.conftest import QUIET


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    cohort, subject = np.repeat([0, 1], [30, 20]), np.arange(50)
    shift = rng.normal(size=(2, 42))
    factors = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 42)) * 3
    return (factors + rng.normal(size=(50, 42)) + shift[cohort]).astype(np.float32), cohort, subject


def fitted(values, cohort, subject, slopes=None):
    about = dict.fromkeys(("age_mean", "age_sd"), 1.0)
    slopes = np.ones(values.shape[1]) if slopes is None else slopes
    return Reference.fit(
        values, cohort, subject, slopes, by="lab", names=["a", "b"], n_subjects=[30, 20], mean_age=[1.0, 2.0],
        left_out=[], **about,
    )  # fmt: skip


def outside_by_hand(rows, train, cohort, n_components):
    """Squared distances from the nearest cohort, outside of the components of the singular value decomposition."""
    means = np.stack([train[cohort == c].mean(axis=0) for c in np.unique(cohort)])
    within = train - means[cohort]
    sd = np.sqrt((within**2).sum(axis=0) / (len(train) - len(means)))
    v = np.linalg.svd(within / sd, full_matrices=False)[2][:n_components]
    z = (rows[:, None] - means) / sd
    return (z**2).sum(-1).min(1) if not n_components else ((z - z @ v.T @ v) ** 2).sum(-1).min(1)


def test_samples_outside_are_those_of_a_singular_value_decomposition(values):
    x, cohort, subject = values
    found = fitted(*values)
    rows = np.concatenate([x + 0.1, x + 4])
    distance = outside_by_hand(rows.astype(float), x.astype(float), cohort, len(found.components))
    clear = np.abs(distance / found.limit - 1) > 0.02  # components are kept in half precision
    assert clear.sum() > 90
    all_there = np.ones(42, dtype=bool)
    np.testing.assert_array_equal(found.outside(rows, all_there)[clear], (distance > found.limit)[clear])
    np.testing.assert_allclose(found.components @ found.components.astype(float).T, np.eye(14), atol=5e-3)


def test_the_limit_is_that_of_samples_whose_components_come_from_others():
    """Pure noise in more genes than samples, where components of the samples themselves explain most of them."""
    rng = np.random.default_rng(1)
    x, cohort = rng.normal(size=(120, 300)), np.arange(120) % 2
    found = fitted(x.astype(np.float32), cohort, np.arange(120))
    new = rng.normal(size=(400, 300)).astype(np.float32)
    assert 0.01 < found.outside(new, np.ones(300, dtype=bool)).mean() < 0.25  # 5 % of those that made it
    assert found.outside(new + 2, np.ones(300, dtype=bool)).all()


def test_the_samples_of_a_subject_are_held_out_together():
    rng = np.random.default_rng(2)
    x = np.repeat(rng.normal(size=(40, 60)), 3, axis=0) + 1e-3 * rng.normal(size=(120, 60))
    cohort, subject = np.repeat(np.arange(40) % 2, 3), np.repeat(np.arange(40), 3)
    together = fitted(x.astype(np.float32), cohort, subject)
    apart = fitted(x.astype(np.float32), cohort, np.arange(120))
    assert apart.limit < 0.6 * together.limit


def test_genes_that_are_absent_or_never_vary_do_not_count(values):
    x, cohort, subject = values
    x = x.copy()
    x[:, 0] = 1
    found = fitted(x, cohort, subject, slopes=np.arange(42.0))
    new = x.copy()
    new[:, 0], new[:, 1] = 50, 1e6
    present = np.arange(42) != 1
    assert found.outside(new, present).mean() < 0.5
    assert found.importance[0] == 0
    within = x - np.stack([x[cohort == c].mean(axis=0) for c in (0, 1)])[cohort]
    sd = np.sqrt((within**2).sum(axis=0) / 48)
    expected = np.arange(42.0) * np.where(np.arange(42) == 0, 0, sd)
    np.testing.assert_allclose(found.importance, expected / expected.sum(), rtol=1e-4)


@pytest.fixture(scope="module")
def cohorts():
    adata = agevi.datasets.simulate_cohort(
        n_subjects=30, n_cells=12, n_genes=40, n_age_genes=10, n_batches=2, n_cell_types=2, rng=3
    )
    adata.obs["all"] = "train"
    adata.obsm["X_table"] = np.log1p(adata.X.toarray())
    return adata


def trained(cls, adata):
    params = cls.test_params()
    expects = {"layer": None, "obsm_key": "X_table"} if cls.expects == "continuous" else {}
    cls.setup_anndata(adata, age_key="age", subject_key="donor", **params.get("setup", {}), **expects)
    model = cls(adata, **params["init"])
    training = params["train"] | ({"max_epochs": 1} if "max_epochs" in params["train"] else {})
    model.train(split_key="all", **training, **({} if cls.solves_rows or not training else QUIET))
    return model


@every_clock
def test_every_clock_keeps_its_cohorts_and_predicts_from_their_rows(cls, cohorts, tmp_path):
    model = trained(cls, cohorts)
    assert model.cohorts is None
    model.set_cohorts(cohorts, by="batch")
    if not cls.of_types:  # whose types have fewer
        assert model.cohorts["n_subjects"].tolist() == [15, 15]
        ages = cohorts.obs.groupby("donor", observed=True)[["age", "batch"]].first()
        np.testing.assert_allclose(model.cohorts["mean_age"], ages.groupby("batch", observed=True)["age"].mean())
    new = cohorts.copy()
    new.obs["donor"] = "new_" + new.obs["donor"].astype(str)
    found = agevi.tl.check_transport(new, model, by="batch")
    assert (found["outside"] < 0.5).all()
    for name, clock in model.judged().items():
        cells = model.judged_cells(new, np.arange(new.n_obs))[name]
        own = new[cells].copy()
        agevi.tl.predict_age(own, clock)
        agevi.tl.aggregate_subjects(own)
        table = agevi.get.subjects_df(own)
        batch = own.obs.groupby("donor", observed=True)["batch"].first().reindex(table["subject"]).to_numpy()
        expected = table.groupby(batch, observed=True)["predicted"].mean().to_numpy()
        np.testing.assert_allclose(found.loc[found["clock"] == name, "level"], expected, rtol=2e-4)
    model.save(tmp_path / "clock")
    loaded = agevi.io.load_clock(tmp_path / "clock")
    pd.testing.assert_frame_equal(loaded.cohorts, model.cohorts)
    pd.testing.assert_frame_equal(agevi.tl.check_transport(new, loaded, by="batch"), found)
    if model.judged().keys() == {""}:
        assert "2 cohorts by 'batch'" in (tmp_path / "clock" / "README.md").read_text()
        ensemble = agevi.model.EnsembleClock([model, loaded])
        assert ensemble.cohorts is not None
        ensemble.save(tmp_path / "ensemble")
        both = agevi.tl.check_transport(new, agevi.io.load_clock(tmp_path / "ensemble"), by="batch")
        assert both["outside"].tolist() == np.repeat(found["outside"].to_numpy(), 2).tolist()


@pytest.fixture(scope="module")
def pls(cohorts):
    model = trained(agevi.model.PLSClock, cohorts)
    model.set_cohorts(cohorts, by="batch")
    return model


def test_training_again_forgets_the_cohorts(cohorts):
    model = trained(agevi.model.PLSClock, cohorts)
    model.set_cohorts(cohorts, by="batch")
    model.train(split_key="all")
    assert model.cohorts is None


def test_cohorts_that_were_held_out_and_those_that_were_not(cohorts, pls):
    adata = cohorts.copy()
    agevi.tl.cross_validate(adata, agevi.model.PLSClock, age_key="age", subject_key="donor", fold_key="batch")
    agevi.tl.aggregate_subjects(adata)
    pls.set_cohorts(adata, by="batch", left_out="agevi")
    table = agevi.get.subjects_df(adata)
    error = (table["predicted"] - table["age"]).groupby(table["fold"].astype(str)).mean()
    np.testing.assert_allclose(pls.cohorts["left_out"], error)
    with pytest.raises(ValueError, match=r"left_out='agevi' do not hold out the cohorts in adata.obs\['cell_type'\]"):
        pls.set_cohorts(adata, by="cell_type", left_out="agevi")
    with pytest.raises(KeyError, match="aggregate_subjects"):
        pls.set_cohorts(adata, by="batch", left_out="other")


def test_what_is_refused(cohorts, pls):
    with pytest.raises(ValueError, match="several in"):
        pls.set_cohorts(cohorts, by="cell_type")
    with pytest.raises(KeyError, match="'lab' is not a column"):
        pls.set_cohorts(cohorts, by="lab")
    some = cohorts[cohorts.obs["donor"].astype(str) != "d03"].copy()
    with pytest.raises(ValueError, match=r"lacks 1 of the subjects that trained the clock \('d03'\)"):
        pls.set_cohorts(some, by="batch")
    with pytest.raises(RuntimeError, match="trained"):
        agevi.model.PLSClock(cohorts).set_cohorts(cohorts, by="batch")


@pytest.mark.parametrize(
    "change",
    [
        lambda meta, tensors: meta["training_cohorts"].update(names=[1, 2]),
        lambda meta, tensors: meta["training_cohorts"].update(n_subjects=[1]),
        lambda meta, tensors: meta["training_cohorts"].update(limit="5"),
        lambda meta, tensors: meta["training_cohorts"].pop("by"),
        lambda meta, tensors: meta.pop("training_cohorts"),
        lambda meta, tensors: tensors.pop(PREFIX + "means"),
        lambda meta, tensors: tensors.update({PREFIX + "factor": tensors[PREFIX + "factor"][:-1].clone()}),
        lambda meta, tensors: tensors.update({"clocks.0." + PREFIX + "factor": tensors[PREFIX + "factor"].clone()}),
    ],
)
def test_a_bundle_with_odd_cohorts_is_refused(change, pls, tmp_path):
    from agevi.io._bundle import read_bundle, write_bundle

    pls.save(tmp_path / "clock")
    bundle = read_bundle(tmp_path / "clock")
    meta, tensors = json.loads(json.dumps(bundle.meta)), dict(bundle.tensors)
    change(meta, tensors)
    write_bundle(tmp_path / "clock", meta, tensors, "card", overwrite=True)
    with pytest.raises(BundleError):
        agevi.io.load_clock(tmp_path / "clock")


def test_a_classifier_on_a_clock_that_knows_its_cohorts_is_saved_and_loaded(cohorts, tmp_path):
    cohorts = cohorts.copy()
    ill = cohorts.obs["donor"].isin(cohorts.obs["donor"].unique()[::2])
    cohorts.obs["condition"] = np.where(ill, "case", "control")
    clock = trained(agevi.model.PoissonVAE, cohorts)
    clock.set_cohorts(cohorts, by="batch")
    how = {"condition_key": "condition", "control": "control"}
    model = agevi.model.CaseControlClassifier.from_clock(clock, cohorts, **how)
    model.train(max_epochs=1, split_key="all", accelerator="cpu")
    model.save(tmp_path / "classifier")
    assert agevi.io.load_clock(tmp_path / "classifier").cohorts is None
