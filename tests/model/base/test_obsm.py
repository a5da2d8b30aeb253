"""Clocks on tables of obsm: equal to clocks on an AnnData whose X the table is, whatever becomes of it."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.dataloaders._own_copies import recall
from agevi.model import (
    MODELS,
    CaseControlClassifier,
    EnsembleClock,
    LinearClock,
    MLPClock,
    NMFClock,
    PLSClock,
    PoissonVAE,
)
from tests.clocks import params
from tests.conftest import QUIET

KEYS = {"age_key": "age", "subject_key": "donor"}
READS = [cls for cls in MODELS if cls.trainable and cls.expects != "counts"]
PROTEINS = [f"CD{i}" for i in range(6)]


def train(cls, adata, **setup):
    params = cls.test_params()
    cls.setup_anndata(adata, **KEYS, **params.get("setup", {}), **setup)
    model = cls(adata, **params["init"] | params.get("continuous", {}))
    model.train(**params["train"], **QUIET)
    return model


@pytest.fixture
def cohort(cohort):
    """The cohort with an array and a table of proteins."""
    counts = cohort.X.toarray()
    cohort.obsm["X_rep"] = np.log1p(counts[:, :6]) - 1
    cohort.obsm["protein"] = pd.DataFrame(counts[:, 6:12], index=cohort.obs_names, columns=PROTEINS)
    return cohort


def as_genes(adata, values, names):
    return ad.AnnData(values, obs=adata.obs.copy(), var=pd.DataFrame(index=names))


@pytest.mark.parametrize("cls", params(READS, fast=("ElasticNetClock", "MLPClock")))
def test_every_clock_reads_what_one_on_x_reads(cls, cohort, tmp_path):
    before, table = cohort.copy(), cohort.obsm["X_rep"]
    model = train(cls, cohort, obsm_key="X_rep")
    other = as_genes(cohort, table, [f"X_rep_{i}" for i in range(6)])
    level = {"level": "sample"} if model.predicts_sums else {}
    expected = train(cls, other, normalize="none", age_transform="none").predict_age(**level)
    np.testing.assert_array_equal(model.predict_age(**level), expected)
    assert model.genes.tolist() == other.var_names.tolist()
    assert np.shares_memory(recall(cls, cohort).adata.X, table)
    pd.testing.assert_frame_equal(cohort.obs, before.obs)
    assert list(cohort.obsm) == list(before.obsm)
    assert not cohort.uns.keys() - before.uns.keys()
    model.save(tmp_path / "clock")
    loaded = agevi.io.load_clock(tmp_path / "clock")
    new = ad.AnnData(obs=cohort.obs[["donor", "cell_type"]].copy(), obsm={"X_rep": table})
    np.testing.assert_array_equal(loaded.predict_age(new, **level), expected)
    assert " 6 dimensions, " in model._model_summary_string
    assert "6 dimensions" in (tmp_path / "clock" / "README.md").read_text()
    attached = agevi.io.load_clock(tmp_path / "clock", cohort)
    np.testing.assert_array_equal(attached.predict_age(**level), expected)
    new.obsm["X_reps"] = new.obsm.pop("X_rep")
    with pytest.raises(KeyError, match="obsm_key='X_rep' is not in adata.obsm; closest: 'X_reps'"):
        loaded.predict_age(new)
    new.obsm["X_rep"] = table[:, :4]
    with pytest.raises(ValueError, match="has 4 dimensions, and the clock reads 6"):
        loaded.predict_age(new)


@pytest.mark.parametrize("cls", [PoissonVAE, NMFClock], ids=lambda cls: cls.__name__)
def test_clocks_of_counts_refuse(cls, cohort):
    with pytest.raises(
        ValueError, match=f"{cls.__name__} is fitted to raw counts of genes and cannot read adata.obsm.*PLSClock"
    ):
        cls.setup_anndata(cohort, **KEYS, obsm_key="X_rep")


def test_a_denoising_clock_of_counts_refuses(cohort):
    cls = agevi.model.DenoisingVAE
    cls.setup_anndata(cohort, **KEYS, obsm_key="X_rep")
    with pytest.raises(ValueError, match="DenoisingVAE is fitted to raw counts of genes"):
        cls(cohort)


def test_samples_are_means_of_log_ratios(cohort):
    model = train(PLSClock, cohort, obsm_key="protein", normalize="clr")
    counts = cohort.obsm["protein"].to_numpy()
    ratios = np.log1p(counts / np.exp(np.log1p(counts).mean(axis=1, keepdims=True)))
    means = pd.DataFrame(ratios, columns=PROTEINS).groupby(cohort.obs["donor"].to_numpy()).mean()
    module = model.module
    score = (means.to_numpy() - module.input.mean.numpy()) / module.input.sd.numpy() @ module.coefficients.numpy()
    ages = module.age_scale.mean.numpy() + module.age_scale.sd.numpy() * (score + float(module.intercept))
    found = pd.Series(model.predict_age(level="sample"), dtype=float).groupby(cohort.obs["donor"].to_numpy()).first()
    assert np.corrcoef(found, ages)[0, 1] > 0.9999


def test_a_table_in_another_order_and_with_more_columns(cohort):
    model = train(PLSClock, cohort, obsm_key="protein", normalize="clr", features=PROTEINS[1:5])
    assert model.genes.tolist() == PROTEINS[1:5]
    expected, new = model.predict_age(), cohort.copy()
    new.obsm["protein"] = new.obsm["protein"][PROTEINS[::-1]].assign(other=1.0)
    np.testing.assert_array_equal(model.predict_age(new), expected)
    cohort.obsm["protein"] = new.obsm["protein"]
    model.train(**QUIET)  # the values are those that were set up
    np.testing.assert_array_equal(model.predict_age(), expected)


def test_a_table_that_was_replaced_is_refused(cohort):
    PLSClock.setup_anndata(cohort, **KEYS, obsm_key="X_rep")
    model = PLSClock(cohort)
    cohort.obsm["X_rep"] = cohort.obsm["X_rep"] + 1
    with pytest.raises(ValueError, match=r"adata.obsm\['X_rep'\] holds other values than when it was set up"):
        model.train()
    with pytest.raises(ValueError, match="array without names"):
        PLSClock.setup_anndata(cohort, **KEYS, obsm_key="X_rep", features=["X_rep_1"])


def test_tools_on_a_representation(cohort):
    model = train(MLPClock, cohort, obsm_key="X_rep")
    agevi.tl.predict_age(cohort, model)
    assert cohort.uns["agevi"]["gene_coverage"] == 1
    expected = model.predict_age(level="sample")
    np.testing.assert_array_equal(cohort.obs["agevi_predicted_sample"], expected)
    with pytest.raises(ValueError, match=r"whose dimensions are not genes.*agevi.pp.from_obsm\(adata, 'X_rep'\)"):
        agevi.tl.attribute_genes(cohort, model)
    dimensions = agevi.pp.from_obsm(cohort, "X_rep")
    np.testing.assert_array_equal(model.predict_age(dimensions, level="sample"), expected)
    agevi.tl.attribute_genes(dimensions, model, n_samples=10)
    assert np.isfinite(dimensions.varm["agevi_attribution"]).all()
    agevi.tl.perturb_genes(dimensions, model, ["X_rep_2"])
    assert np.isfinite(dimensions.uns["agevi_perturbation"]["change"]).all()


def test_an_ensemble_of_genes_and_a_representation(cohort, tmp_path):
    clocks = [train(PLSClock, cohort), train(PLSClock, cohort, obsm_key="X_rep")]
    ensemble = EnsembleClock(clocks, scale="age")
    expected = np.mean([clock.predict_age(cohort, level="sample") for clock in clocks], axis=0)
    np.testing.assert_allclose(ensemble.predict_age(cohort, level="sample"), expected, rtol=1e-5)
    ensemble.save(tmp_path / "both")
    assert "66 genes and dimensions" in (tmp_path / "both" / "README.md").read_text()
    loaded = agevi.io.load_clock(tmp_path / "both")
    np.testing.assert_allclose(loaded.predict_age(cohort, level="sample"), expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"read different matrices \(adata.X, adata.obsm\['X_rep'\]\)"):
        agevi.tl.attribute_genes(cohort, ensemble)


@pytest.mark.slow
def test_a_classifier_and_its_comparison(cohort, tmp_path):
    cohort.obs["condition"] = np.where(cohort.obs["donor"].cat.codes % 2, "case", "control")
    clock = train(MLPClock, cohort, obsm_key="X_rep")
    model = CaseControlClassifier.from_clock(clock, cohort, condition_key="condition", control="control")
    model.train(max_epochs=2)
    expected = model.predict_proba(cohort)
    model.save(tmp_path / "classifier")
    np.testing.assert_array_equal(agevi.io.load_clock(tmp_path / "classifier").predict_proba(cohort), expected)
    options = {"condition_key": "condition", "control": "control", "n_folds": 2, "n_repeats": 1, "n_boot": 5}
    options |= {"train_kwargs": {"max_epochs": 1}, "refit_clock": True, "clock_kwargs": {"max_epochs": 1}}
    agevi.tl.compare_transfer(cohort, clock, **options)
    cohort.obsm["X_other"] = cohort.obsm["X_rep"].copy()
    agevi.tl.compare_transfer(cohort, clock, obsm_key="X_other", **options, key_added="other")
    pd.testing.assert_frame_equal(cohort.uns["other_transfer"], cohort.uns["agevi_transfer"])
    with pytest.raises(ValueError, match=r"layer='x', but the clock reads adata.obsm\['X_rep'\]"):
        agevi.tl.compare_transfer(cohort, clock, layer="x", **options)


@pytest.mark.slow
def test_backed_data(cohort, tmp_path):
    cohort.write_h5ad(tmp_path / "cohort.h5ad")
    backed = ad.read_h5ad(tmp_path / "cohort.h5ad", backed="r")
    for obsm_key in ("X_rep", "protein"):
        model = train(PLSClock, cohort, obsm_key=obsm_key)
        expected = model.predict_age(level="sample")
        np.testing.assert_array_equal(model.predict_age(backed, level="sample"), expected)
        np.testing.assert_array_equal(train(PLSClock, backed, obsm_key=obsm_key).predict_age(level="sample"), expected)
    view = backed[100:200]
    np.testing.assert_allclose(model.predict_age(view), model.predict_age(cohort[100:200].copy()), rtol=1e-5)
    backed.file.close()


def test_published_coefficients_of_proteins(cohort):
    clock = LinearClock.from_coefficients(pd.Series({"CD3": 2.0, "CD5": -1.0}), 30.0, obsm_key="protein")
    values = cohort.obsm["protein"]
    np.testing.assert_allclose(clock.predict_age(cohort), 30 + 2 * values["CD3"] - values["CD5"], rtol=1e-6)


def test_two_ages_of_a_subject_need_samples(cohort):
    cohort.obs["age"] += np.arange(cohort.n_obs) % 2
    with pytest.raises(ValueError, match="has two ages .*pass sample_key='sample'"):
        PLSClock.setup_anndata(cohort, **KEYS, obsm_key="X_rep")
