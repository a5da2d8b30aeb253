from __future__ import annotations

import gc
import weakref

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import agevi
from agevi.dataloaders._own_copies import recall
from agevi.model import ElasticNetClock, PLSClock, PoissonVAE, TransformerClock
from tests.clocks import each_clock_of_counts
from tests.conftest import QUIET
from tests.model.transformer import masked
from tests.test_gates import check_message, check_style, snapshot

KEYS = {"age_key": "age", "subject_key": "donor"}
SMALL = {
    "PoissonVAE": {"n_hidden": [8], "n_latent": 3, "n_head": []},
    "GaussianVAE": {"n_hidden": [8], "n_latent": 3, "n_head": []},
    "DenoisingVAE": {"n_hidden": [8], "n_latent": 3, "n_head": []},
    "MLPClock": {"n_hidden": [8]},
    "NMFClock": {"n_components": 3, "n_hidden": [8], "n_fit": 100},
}


def train(cls, adata, **setup):
    cls.setup_anndata(adata, **KEYS, **setup)
    model = cls(adata, **SMALL.get(cls.__name__, {}))
    model.train(max_epochs=2, **QUIET)
    return model


@pytest.fixture
def features(cohort):
    """A third of the genes, in an order of its own, and many that the data lack, as in lists of drug targets."""
    return [*cohort.var_names[::3][::-1], *(f"absent{i}" for i in range(100))]


@pytest.mark.slow
@each_clock_of_counts
def test_equals_a_clock_of_the_subset_and_predicts_from_all_genes(cls, cohort, features, tmp_path):
    kept = cohort.var_names[::3]
    subset = train(cls, cohort[:, kept].copy())
    model = train(cls, cohort, features=features)
    assert model.genes.tolist() == kept.tolist()
    expected = subset.predict_age(cohort)
    np.testing.assert_allclose(model.predict_age(), expected, rtol=1e-6)
    np.testing.assert_allclose(model.predict_age(cohort), expected, rtol=1e-6)
    assert model.split_ == subset.split_
    assert cohort.n_vars == 60
    model.save(tmp_path / "clock")
    loaded = agevi.io.load_clock(tmp_path / "clock")
    np.testing.assert_allclose(loaded.predict_age(cohort[:, ::-1].copy()), expected, rtol=1e-4)
    assert "features" not in loaded.setup_args


@pytest.mark.slow
def test_the_rest_of_the_genes_is_not_looked_at(cohort, features):
    expected = train(PLSClock, cohort, features=features).predict_age(cohort)
    others = ~cohort.var_names.isin(features)
    x = cohort.X.toarray()
    x[:, others] = np.random.default_rng(0).poisson(3, x[:, others].shape)
    cohort.X = sp.csr_matrix(x)
    np.testing.assert_allclose(train(PLSClock, cohort, features=features).predict_age(cohort), expected, rtol=1e-6)


def test_absent_ones_of_few_features_are_named(cohort):
    with pytest.warns(UserWarning, match="2 of the 4 features are absent from adata.var_names") as caught:
        model = train(PLSClock, cohort, features=["gene01", "gene02", "gene1", "EGFR", np.nan])
    assert model.genes.tolist() == ["gene01", "gene02"]
    (warning,) = [w for w in caught if "features are absent" in str(w.message)]
    assert "(e.g. 'gene1', 'EGFR'); 2 train the clock. Correct those names" in str(warning.message)
    check_style(str(warning.message))
    assert warning.filename == __file__


def test_coverage_is_that_of_the_features(cohort, features):
    model = train(PLSClock, cohort, features=features)
    agevi.tl.predict_age(cohort, model)
    assert cohort.uns["agevi"]["gene_coverage"] == 1.0
    with pytest.raises(ValueError, match="13 of the clock's 20 genes are absent"):
        model.predict_age(cohort[:, :21].copy())


def test_tools_take_all_data(cohort, features):
    model = train(PoissonVAE, cohort, features=features)
    agevi.tl.predict_age(cohort, model)
    agevi.tl.attribute_genes(cohort, model)
    known = np.isfinite(cohort.varm["agevi_attribution"][:, 0])
    assert cohort.var_names[known].tolist() == cohort.var_names[::3].tolist()
    assert set(agevi.get.attribution_df(cohort)["gene"]) == set(cohort.var_names[::3])
    np.testing.assert_allclose(model.get_latent_representation(cohort), cohort.obsm["X_agevi"], rtol=1e-5)
    assert model.get_normalized_expression(cohort).shape == (cohort.n_obs, 20)


@pytest.mark.slow
def test_a_layer_a_view_and_dense_values(cohort, features):
    expected = train(PLSClock, cohort, features=features).predict_age(cohort)
    layered = cohort.copy()
    layered.layers["counts"], layered.X = cohort.X.toarray(), cohort.X * 0
    model = train(PLSClock, layered, features=features, layer="counts")
    np.testing.assert_allclose(model.predict_age(layered), expected, rtol=1e-5)
    view = cohort[:, :]
    np.testing.assert_allclose(train(PLSClock, view, features=features).predict_age(cohort), expected, rtol=1e-6)
    assert view.is_view


def test_a_split_that_is_made_after_the_set_up_is_used(cohort, features):
    split = cohort.obs.pop("agevi_split")
    PLSClock.setup_anndata(cohort, **KEYS, features=features)
    model = PLSClock(cohort)
    cohort.obs["agevi_split"] = ["train", "test"] * (cohort.n_obs // 2)
    with pytest.raises(ValueError, match="a subject is held out as a whole"):
        model.train()
    cohort.obs["agevi_split"] = split
    model.train()
    assert pd.Series(model.split_)[cohort.obs["donor"]].tolist() == split.astype(str).tolist()


@pytest.mark.slow
def test_models_and_sets_of_features_stand_beside_each_other(cohort, features):
    small = train(PLSClock, cohort, features=features)
    network = train(PoissonVAE, cohort)
    whole = train(PLSClock, cohort)
    other = train(PLSClock, cohort, features=cohort.var_names[:30])
    assert [len(model.genes) for model in (small, network, whole, other)] == [20, 60, 60, 30]
    for model in (small, network, whole, other):
        np.testing.assert_allclose(model.predict_age(), model.predict_age(cohort), rtol=1e-5)
    latent = network.get_latent_representation()
    np.testing.assert_allclose(latent, network.get_latent_representation(cohort), rtol=1e-6)
    small.train()
    assert small.predict_age().shape == (cohort.n_obs,)


def test_a_view_that_is_set_up_leaves_the_whole_as_it_was(cohort):
    PLSClock.setup_anndata(cohort, **KEYS)
    view = cohort[:, :30]
    PLSClock.setup_anndata(view, **KEYS)
    assert len(PLSClock(view).genes) == 30
    assert len(PLSClock(cohort).genes) == 60


@pytest.mark.slow
def test_cross_validation_and_comparison(cohort, features):
    arguments = {"n_folds": 3, "rng": 0}
    subset = cohort[:, cohort.var_names[::3]].copy()
    agevi.tl.cross_validate(subset, PLSClock, **KEYS, **arguments)
    agevi.tl.cross_validate(cohort, PLSClock, **KEYS, setup_kwargs={"features": features}, **arguments)
    np.testing.assert_allclose(cohort.obs["agevi_predicted"], subset.obs["agevi_predicted"], rtol=1e-5)
    agevi.tl.cross_validate(
        cohort, PLSClock, **KEYS, setup_kwargs={"features": pd.Index(features)}, key_added="again", **arguments
    )
    np.testing.assert_allclose(cohort.obs["again_predicted"], cohort.obs["agevi_predicted"], rtol=1e-6)


@pytest.mark.slow
def test_the_copy_goes_with_the_data():
    adata = agevi.datasets.simulate_cohort(n_subjects=6, n_cells=5, n_genes=30)
    PLSClock.setup_anndata(adata, **KEYS, features=adata.var_names[:10])
    gone = weakref.ref(recall(PLSClock, adata).adata)
    del adata
    gc.collect()
    assert gone() is None


CASES = {
    "a text": ({"features": "gene01"}, TypeError, "features is a str; pass names of genes in a list"),
    "a number": ({"features": 20}, TypeError, "features is a int; pass names"),
    "an empty list": ({"features": []}, ValueError, "none of the 0 features is among adata.var_names"),
    "other names": ({"features": ["EGFR", "KDR"]}, ValueError, "none of the 2 features (e.g. 'EGFR', 'KDR') is among adata.var_names"),
    "Ensembl ids": (
        {"features": ["ENSG00000146648"]}, ValueError, "the data use symbols, the features are Ensembl ids. Pass names as in",
    ),
    "a mask": ({"features": pd.Series([True, False])}, TypeError, "features is a mask of 2 True and False; pass names of genes, such as adata.var_names[mask]"),
    "a mask of numpy": ({"features": np.array([True] * 61)}, TypeError, "features is a mask of 61 True and False"),
    "another case": ({"features": ["GENE01"]}, ValueError, "; the names differ in case, as mouse and human symbols do. Pass names as in adata.var_names."),
    "a layer that is not there": ({"features": ["gene01"], "layer": "raw"}, KeyError, "layer='raw' is not in adata.layers"),
    "genes without counts": ({"features": ["silent"]}, ValueError, "holds only zeros"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refuses(cohort, case):
    arguments, error, words = CASES[case]
    empty = ad.AnnData(sp.csr_matrix((cohort.n_obs, 1), dtype=np.float32), var=pd.DataFrame(index=["silent"]))
    empty.obs_names = cohort.obs_names
    adata = ad.concat([cohort, empty], axis=1, merge="first")
    adata.obs = cohort.obs.copy()
    before = snapshot(adata)
    with pytest.raises(error) as raised:
        ElasticNetClock.setup_anndata(adata, **KEYS, **arguments)
    check_message(raised, words)
    assert snapshot(adata) == before


@pytest.mark.slow
def test_what_was_measured_of_chosen_features_is_kept():
    adata = masked.samples()
    kept = adata.var_names[5:25]
    subset, full = adata[:, kept].copy(), adata
    ages = []
    for data, setup in ((subset, {}), (full, {"features": kept[::-1].tolist()})):
        TransformerClock.setup_anndata(data, **masked.SETUP, **setup)
        model = TransformerClock(data, **masked.SMALL)
        model.train(max_epochs=2, **QUIET)
        ages.append(model.predict_age(full))
    np.testing.assert_allclose(ages[1], ages[0], rtol=1e-5)
    assert model.genes.tolist() == kept.tolist()


def test_versions_of_ensembl_ids_are_named(cohort):
    cohort.var_names = [f"ENSG{i:011d}.3" for i in range(cohort.n_vars)]
    with pytest.raises(ValueError) as raised:
        PLSClock.setup_anndata(cohort, **KEYS, features=["ENSG00000000005"])
    check_message(raised, 'Ensembl ids end with, which adata.var_names.str.split(".").str[0] cuts off. Pass names')
