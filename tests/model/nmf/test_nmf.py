from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp
from anndata import AnnData
from sklearn.decomposition import NMF

from agevi.model.nmf import NMFClock
from agevi.model.nmf._factorization import balanced_sample, fit_components, gene_weights
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}
PLAIN = {"gene_weight": "none", "train_unit": "cell", "n_fit": 10_000}


def fit(adata, setup=None, **init):
    NMFClock.setup_anndata(adata, **SETUP, **(setup or {}))
    model = NMFClock(adata, **({"n_components": 5, "n_hidden": [8], "n_fit": 500} | init))
    model.train(max_epochs=1, **QUIET)
    return model


def dense(adata):
    return sp.csr_matrix(adata.X).toarray().astype(float)


def cells(adata, role):
    return np.flatnonzero((adata.obs["agevi_split"] == role).to_numpy())


def projected(x, h, weight):
    """Loadings of least weighted squared error, row by row."""
    root = np.sqrt(weight)
    return np.stack([scipy.optimize.nnls((h * root).T, row * root)[0] for row in x])


def test_loss_equals_scikit_learn(cohort):
    model = fit(cohort, {"normalize": "none"}, max_iter=1000, **PLAIN)
    train, test = (dense(cohort)[cells(cohort, role)] for role in ("train", "test"))
    reference = NMF(5, max_iter=1000, random_state=0).fit(train)
    got = model.get_reconstruction_error(indices=cells(cohort, "train"))
    assert got == pytest.approx(reference.reconstruction_err_, rel=1e-3)
    expected = np.linalg.norm(test - reference.transform(test) @ reference.components_)
    got = model.get_reconstruction_error(indices=cells(cohort, "test"))
    assert got == pytest.approx(expected, rel=1e-3)
    assert got == pytest.approx(model.get_reconstruction_error(cohort[cells(cohort, "test")].copy()), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("gene_weight", ["poisson", "none"])
@pytest.mark.parametrize("unit", ["cell", "pseudocell"])
def test_projection_is_non_negative_least_squares(cohort, gene_weight, unit):
    model = fit(cohort, gene_weight=gene_weight, train_unit=unit)
    x, h = dense(cohort), model.get_components().to_numpy().T
    mean = x[cells(cohort, "train")].mean(0)
    weight = 1 / np.maximum(mean, 0.01) if gene_weight == "poisson" else np.ones_like(mean)
    loadings = projected(x, h, weight)
    error = np.sqrt((((x - loadings @ h) ** 2) * weight).sum())
    assert model.get_reconstruction_error() == pytest.approx(error, rel=1e-5)
    per_10k = loadings * 1e4 / x.sum(1, keepdims=True)
    np.testing.assert_allclose(model.get_latent_representation(), per_10k, rtol=1e-3, atol=0.1)
    raw = fit(cohort.copy(), {"normalize": "none"}, gene_weight=gene_weight, train_unit=unit)
    loadings = projected(x, raw.get_components().to_numpy().T, weight)
    np.testing.assert_allclose(raw.get_latent_representation(), loadings, rtol=1e-3, atol=0.02)


def test_depth_is_no_signal(cohort):
    model = fit(cohort)
    deeper = cohort.copy()
    deeper.X = cohort.X * 3
    np.testing.assert_allclose(model.predict_age(deeper), model.predict_age(cohort), rtol=1e-4)


@pytest.mark.slow
def test_absent_genes_have_no_part_in_the_error(cohort):
    model = fit(cohort, gene_weight="none")
    x, h = dense(cohort), model.get_components().to_numpy().T
    kept = np.setdiff1d(np.arange(cohort.n_vars), np.arange(4, 13))
    counts = x[cells(cohort, "train")].sum(0)
    library = x[:, kept].sum(1, keepdims=True) / (counts[kept].sum() / counts.sum())
    loadings = projected(x[:, kept], h[:, kept], np.ones(len(kept)))
    got = model.get_latent_representation(cohort[:, kept].copy())
    np.testing.assert_allclose(got, loadings * 1e4 / library, rtol=1e-3, atol=0.1)


def test_components_are_the_programs_of_the_simulation(cohort):
    rng = np.random.default_rng(0)
    programs = np.zeros((4, 60))
    for k in range(4):
        programs[k, k * 15 : k * 15 + 20] = rng.gamma(2.0, size=programs[k, k * 15 : k * 15 + 20].size)
    programs /= programs.sum(1, keepdims=True)
    usage = rng.gamma(0.5, 200, (cohort.n_obs, 4))
    adata = AnnData(sp.csr_matrix(rng.poisson(usage @ programs + 0.01).astype(np.float32)), cohort.obs.copy())
    table = fit(adata, n_components=4, train_unit="cell").get_components()
    assert list(table.index) == list(adata.var_names)
    assert list(table.columns) == ["component_0", "component_1", "component_2", "component_3"]
    assert (table.to_numpy() >= 0).all()
    np.testing.assert_allclose(table.sum(), 1, rtol=1e-5)
    found = table.to_numpy().T
    cosine = (programs @ found.T) / np.outer(np.linalg.norm(programs, axis=1), np.linalg.norm(found, axis=1))
    assert (cosine.max(1) > 0.95).all()
    assert len(set(cosine.argmax(1))) == 4


def test_equally_many_cells_of_every_subject():
    units = np.repeat([5, 2, 9], [100, 3, 40])
    chosen = balanced_sample(units, 43, np.random.default_rng(0))
    assert (np.diff(chosen) > 0).all()
    assert {int(u): int((units[chosen] == u).sum()) for u in np.unique(units)} == {2: 3, 5: 20, 9: 20}
    other = balanced_sample(units, 43, np.random.default_rng(1))
    assert not np.array_equal(chosen, other)
    np.testing.assert_array_equal(balanced_sample(units, 143, np.random.default_rng(0)), np.arange(143))


def test_weighted_rows_have_equal_poisson_noise():
    mean = np.array([0.1, 1.0, 50.0])
    counts = np.random.default_rng(0).poisson(mean, (200_000, 3))
    np.testing.assert_allclose((counts * np.sqrt(gene_weights(mean, "poisson"))).var(0), 1, rtol=0.02)
    assert gene_weights(np.array([0.0]), "poisson") == pytest.approx(100)
    np.testing.assert_array_equal(gene_weights(mean, "none"), 1)


def test_unused_components_are_zero():
    one = np.outer(np.arange(1.0, 21), np.arange(1.0, 11)).astype(np.float32)
    result = fit_components(one, np.ones(10), n_components=3, max_iter=500, seed=0)
    sums = result.components.sum(1)
    assert np.isfinite(result.components).all()
    assert ((np.abs(sums - 1) < 1e-5) | (sums == 0)).all()
    assert result.error < 1e-2 * np.linalg.norm(one)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"gene_weight": "sd"}, ValueError, "gene_weight='sd' is not known; choose one of 'poisson', 'none'"),
        ({"n_components": 0}, ValueError, "n_components=0 is out of range"),
        ({"n_components": 61}, ValueError, "n_components=61, but adata has 60 genes"),
        ({"n_components": 2.5}, TypeError, "n_components=2.5"),
        ({"n_components": 10, "n_fit": 9}, ValueError, "n_fit=9 is out of range"),
        ({"max_iter": 0}, ValueError, "max_iter=0 is out of range"),
    ],
)
def test_bad_arguments(cohort, kwargs, error, message):
    NMFClock.setup_anndata(cohort, **SETUP)
    with pytest.raises(error, match=message):
        NMFClock(cohort, **kwargs)


def test_more_components_than_training_cells(cohort):
    few = cohort[cohort.obs.groupby("donor", observed=True).cumcount().to_numpy() < 1].copy()
    n = int((few.obs["agevi_split"] == "train").sum())
    with pytest.raises(ValueError, match=f"fitted to {n} rows .*; pass n_components={n} or fewer"):
        fit(few, n_components=n + 1, train_unit="cell")
    fit(few, n_components=n, train_unit="cell")


def test_verbs_need_a_trained_clock(cohort):
    NMFClock.setup_anndata(cohort, **SETUP)
    model = NMFClock(cohort, n_components=3)
    for verb in ("get_components", "get_reconstruction_error"):
        with pytest.raises(RuntimeError, match=f"{verb} needs a trained model"):
            getattr(model, verb)()


def test_it_refuses_values_that_are_no_counts(cohort):
    cohort.X = np.log1p(dense(cohort)).astype(np.float32)
    with pytest.raises(ValueError, match="NMFClock is fitted to raw counts"):
        NMFClock.setup_anndata(cohort, **SETUP, normalize="none")
