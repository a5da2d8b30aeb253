from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import gaussian_kde
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict

import agevi
from agevi.dataloaders._sums import sum_stats
from agevi.model.linear import PLSClock
from agevi.model.linear._pls import _maps
from tests.test_gates import check_message

SETUP = {"age_key": "age", "subject_key": "donor"}


def fit(adata, setup=None, **init):
    PLSClock.setup_anndata(adata, **SETUP, **(setup or {}))
    model = PLSClock(adata, **init)
    model.train()
    return model


def sample_table(adata, role):
    """log1p CP10K of the sums of the samples in a role, (n, n_genes), and their ages."""
    cells = (adata.obs["agevi_split"] == role).to_numpy()
    donors = adata.obs["donor"][cells].astype(str).to_numpy()
    sums = pd.DataFrame(sp.csr_matrix(adata.X).toarray()[cells]).groupby(donors).sum()
    ages = adata.obs["age"][cells].groupby(donors).first()
    values = np.log1p(sums.to_numpy() / sums.to_numpy().sum(1, keepdims=True) * 1e4)
    return values, ages.to_numpy(dtype=float), ages.index


def averaged_ridge(model, x, y, new, sample_weight=None):
    """Predictions at ``new`` from scikit-learn's ridge with every penalty, averaged by the errors of the search."""
    table = model.cv_results_
    n_subjects = sum(role == "train" for role in model.split_.values())
    share = (table["mse"] / table["mse"].min()) ** (-n_subjects / 4)
    np.testing.assert_allclose(table["weight"], share / share.sum(), rtol=1e-9)
    each = [Ridge(alpha=a).fit(x, y, sample_weight=sample_weight).predict(new) for a in table["value"]]
    return np.average(each, axis=0, weights=share)


@pytest.mark.parametrize(
    ("init", "reference"),
    [
        pytest.param({"n_components": 3}, PLSRegression(n_components=3, scale=False), id="pls"),
        pytest.param({"method": "ridge"}, None, id="ridge"),
    ],
)
def test_equals_scikit_learn(cohort, init, reference):
    model = fit(cohort, {"age_transform": "none"}, weights="zscore", **init)
    x, y, _ = sample_table(cohort, "train")
    mean, sd = x.mean(0), np.where(x.std(0) > 0, x.std(0), 1)
    test, _, names = sample_table(cohort, "test")
    x, new = (x - mean) / sd, (test - mean) / sd
    expected = averaged_ridge(model, x, y, new) if reference is None else np.ravel(reference.fit(x, y).predict(new))
    cells = (cohort.obs["agevi_split"] == "test").to_numpy()
    donors = cohort.obs["donor"][cells].astype(str).to_numpy()
    got = pd.Series(model.predict_age(level="sample")[cells]).groupby(donors).first().loc[names]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_reliable_genes_weigh_more(cohort):
    model = fit(cohort, n_components=1)
    plain = fit(cohort.copy(), n_components=1, weights="zscore")
    codes, _ = pd.factorize(cohort.obs["donor"].astype(str), sort=True)
    train = (cohort.obs["agevi_split"] == "train").to_numpy()
    codes = np.unique(np.where(train, codes, -1), return_inverse=True)[1] - 1
    stats = sum_stats(sp.csr_matrix(cohort.X), codes, codes.max() + 1, normalize="log1p_cp10k")
    # With one component a coefficient is the covariance with age times a constant, and the weight enters twice.
    ratio = (model.coefficients() / plain.coefficients()).loc[list(cohort.var_names)].to_numpy()
    weight = (stats.scale * stats.sd) ** 2
    np.testing.assert_allclose(ratio / ratio.max(), weight / weight.max(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n", [1, 4, 7])
def test_components_build_on_one_another(n):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 12)), rng.normal(size=40)
    coefficients, intercept = _maps(x, y, np.ones(40), list(range(1, 9)), "pls")
    alone = PLSRegression(n_components=n, scale=False).fit(x, y)
    np.testing.assert_allclose(x @ coefficients[n - 1] + intercept[n - 1], alone.predict(x).ravel(), atol=1e-8)


@pytest.mark.parametrize("method", ["pls", "ridge"])
def test_a_weight_is_a_number_of_rows(method):
    rng = np.random.default_rng(0)
    x, y, weight = rng.normal(size=(40, 12)), rng.normal(size=40), rng.integers(1, 5, 40)
    coefficients, intercept = _maps(x, y, weight.astype(float), [4], method)
    reference = PLSRegression(n_components=4, scale=False) if method == "pls" else Ridge(alpha=4)
    expected = reference.fit(np.repeat(x, weight, axis=0), np.repeat(y, weight)).predict(x).ravel()
    np.testing.assert_allclose(x @ coefficients[0] + intercept[0], expected, atol=1e-8)


@pytest.mark.parametrize("subject_weight", ["equal", "cells", "density"])
def test_weights_of_subjects(cohort, subject_weight):
    rng = np.random.default_rng(0)
    cohort = cohort[rng.random(cohort.n_obs) < 0.5].copy()
    init = {"method": "ridge", "weights": "zscore", "subject_weight": subject_weight}
    model = fit(cohort, {"age_transform": "none"}, **init)
    x, y, names = sample_table(cohort, "train")
    weight = np.ones(len(y))
    if subject_weight == "cells":
        weight = cohort.obs["donor"].astype(str).value_counts()[names].to_numpy(dtype=float)
    if subject_weight == "density":
        rarity = 1 / gaussian_kde(y)(y)
        weight = np.clip(rarity / rarity.mean(), 0.2, 5)
    mean, sd = x.mean(0), np.where(x.std(0) > 0, x.std(0), 1)
    test, _, names = sample_table(cohort, "test")
    expected = averaged_ridge(model, (x - mean) / sd, y, (test - mean) / sd, weight / weight.mean())
    cells = (cohort.obs["agevi_split"] == "test").to_numpy()
    donors = cohort.obs["donor"][cells].astype(str).to_numpy()
    got = pd.Series(model.predict_age(level="sample")[cells]).groupby(donors).first().loc[names]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_the_visits_of_a_subject_share_its_weight():
    adata = agevi.datasets.simulate_cohort(n_subjects=30, n_cells=20, n_genes=50)
    donors = adata.obs["donor"].astype(str)
    adata.obs["visit"] = donors + np.where(donors.isin(donors.unique()[:10]), np.arange(600) % 4, 0).astype(str)
    adata.obs["agevi_split"] = "train"
    model = fit(adata, {"sample_key": "visit", "age_transform": "none"}, method="ridge", weights="zscore")
    sums = pd.DataFrame(adata.X.toarray()).groupby(adata.obs["visit"].to_numpy()).sum()
    x = np.log1p(sums.to_numpy() / sums.to_numpy().sum(1, keepdims=True) * 1e4)
    y = adata.obs.groupby("visit")["age"].first().loc[sums.index].to_numpy(dtype=float)
    owner = sums.index.str.slice(0, -1)
    weight = 1 / owner.value_counts()[owner].to_numpy()
    x = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)
    expected = averaged_ridge(model, x, y, x, weight / weight.mean())
    got = pd.Series(model.predict_age(level="sample")).groupby(adata.obs["visit"].to_numpy()).first().loc[sums.index]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


@pytest.mark.parametrize("method", ["pls", "ridge"])
def test_the_search_equals_scikit_learn(cohort, method):
    x, y, _ = sample_table(cohort, "train")
    init = {"weights": "zscore", "method": method, "n_folds": len(y)}  # every subject alone, so that nothing is drawn
    table = fit(cohort, {"age_transform": "none"}, **init).cv_results_
    x, y = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1), (y - y.mean()) / y.std()
    for row in table.iloc[:: len(table) - 1].itertuples():
        clock = PLSRegression(int(row.value), scale=False) if method == "pls" else Ridge(alpha=row.value)
        predicted = cross_val_predict(clock, x, y, cv=LeaveOneOut())
        assert row.mse == pytest.approx(np.mean((np.ravel(predicted) - y) ** 2), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("values", ["counts", "means"])
@pytest.mark.parametrize("init", [{}, {"weights": "zscore"}, {"method": "ridge"}], ids=str)
def test_the_order_of_cells_changes_nothing(cohort, init, values):
    setup = {}
    if values == "means":
        cohort.X, setup = cohort.X.log1p(), {"normalize": "none"}
    order = np.random.default_rng(0).permutation(cohort.n_obs)
    other = cohort[order].copy()
    other.obs_names = [f"other{i}" for i in range(other.n_obs)]
    donors = pd.Categorical(other.obs["donor"].astype(str))
    other.obs["donor"] = donors.reorder_categories(donors.categories[::-1])
    got, expected = (fit(a, setup, **init).predict_age(level="sample") for a in (other, cohort))
    np.testing.assert_allclose(got, expected[order], atol=1e-6 if values == "counts" else 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("init", [{}, {"weights": "zscore"}, {"method": "ridge"}], ids=str)
def test_the_seed_hardly_matters(cohort, init):
    ages = np.stack([fit(cohort, rng=seed, **init).predict_age(level="sample") for seed in range(3)])
    change = np.abs(ages[1:] - ages[0])
    assert change.mean() < 0.2
    assert change.max() < 1
    assert change.max() > 0  # it is a seed


@pytest.mark.slow
def test_the_search_holds_whole_subjects_out(cohort):
    donors = cohort.obs["donor"].astype(str)
    cohort.obs["visit"] = donors + np.where(np.arange(cohort.n_obs) % 2, "a", "b")
    model = fit(cohort, {"sample_key": "visit"})
    table = model.cv_results_
    assert list(table["value"]) == list(range(1, len(table) + 1))
    assert np.isfinite(table["mse"]).all()
    assert np.isfinite(model.predict_age(level="sample")).all()


def test_cells_agree_with_their_sample_on_average(cohort):
    model = fit(cohort)
    train = (cohort.obs["agevi_split"] == "train").to_numpy()
    frame = cohort.obs.assign(cell=model.predict_age(), whole=model.predict_age(level="sample"))[train]
    means = frame.groupby("donor", observed=True)[["cell", "whole"]].mean()
    assert means["cell"].mean() == pytest.approx(means["whole"].mean(), rel=1e-3)


@pytest.mark.parametrize(
    ("init", "error", "message"),
    [
        (
            {"subject_weight": "sample"},
            ValueError,
            "subject_weight='sample' is not known; choose one of 'equal', 'cells'",
        ),
        ({"method": "lasso"}, ValueError, "method='lasso' is not known; choose one of 'pls', 'ridge'"),
        ({"weights": "rank"}, ValueError, "weights='rank' is not known"),
        ({"n_components": "auto"}, TypeError, "n_components='auto' is a str"),
        ({"n_components": 0}, ValueError, "n_components=0 is out of range"),
        ({"n_folds": 1}, ValueError, "n_folds=1 is out of range"),
    ],
)
def test_bad_arguments(cohort, init, error, message):
    PLSClock.setup_anndata(cohort, **SETUP)
    with pytest.raises(error) as raised:
        PLSClock(cohort, **init)
    check_message(raised, message)


def test_more_components_than_samples_are_cut(cohort):
    assert np.isfinite(fit(cohort, n_components=500).predict_age(level="sample")).all()


@pytest.mark.parametrize("method", ["pls", "ridge"])
@pytest.mark.parametrize("n_subjects", [2, 3])
def test_few_subjects(cohort, n_subjects, method):
    donors = cohort.obs["donor"].astype(str)
    cohort.obs["agevi_split"] = np.where(donors.isin(donors.unique()[:n_subjects]), "train", "test")
    model = fit(cohort, method=method)
    predicted = model.predict_age(level="sample")
    assert np.isfinite(predicted).all()
    train = (cohort.obs["agevi_split"] == "train").to_numpy()
    if method == "pls" and n_subjects == 2:  # one component goes through two points
        np.testing.assert_allclose(predicted[train], cohort.obs["age"][train], rtol=1e-3)


@pytest.mark.slow
def test_learns_age_on_held_out_subjects():
    adata = agevi.datasets.simulate_cohort(n_subjects=80, n_cells=40, n_genes=300, effect_range=(0.1, 0.3), rng=0)
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", test_size=0.3, rng=0)
    model = fit(adata)
    agevi.tl.predict_age(adata, model)
    agevi.tl.aggregate_subjects(adata)
    metrics = agevi.get.metrics_df(adata).loc["test"]
    assert metrics["mae"] < 0.5 * metrics["mae_median"]
