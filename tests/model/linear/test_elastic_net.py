from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import gaussian_kde
from sklearn.linear_model import ElasticNet, ElasticNetCV
from sklearn.preprocessing import StandardScaler

import agevi
from agevi.dataloaders._folds import assign_folds
from agevi.model.linear import ElasticNetClock
from tests.conftest import QUIET
from tests.test_gates import check_message, check_style

SETUP = {"age_key": "age", "subject_key": "donor"}
RATIOS = [0.1, 0.9]
TRAIN_UNITS = ["sample", "pseudocell", "cell"]


@pytest.fixture(scope="module")
def _donors():
    adata = agevi.datasets.simulate_cohort(n_subjects=30, n_cells=25, n_genes=80, n_age_genes=30, rng=2)
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", rng=0)
    return adata


@pytest.fixture
def donors(_donors):
    return _donors.copy()


def make(adata, setup=None, **kwargs) -> ElasticNetClock:
    ElasticNetClock.setup_anndata(adata, **SETUP, **(setup or {}))
    return ElasticNetClock(adata, **({"l1_ratios": RATIOS, "alphas": 30} | kwargs))


def fit(adata, setup=None, train=None, **kwargs) -> ElasticNetClock:
    model = make(adata, setup, **kwargs)
    model.train(**(train or {}))
    return model


def pseudobulk(adata, unit="donor") -> pd.DataFrame:
    """log1p CP10K of summed counts, computed the plain way."""
    sums = pd.DataFrame(sp.csr_matrix(adata.X).toarray().astype(float)).groupby(adata.obs[unit].to_numpy(str)).sum()
    return np.log1p(sums.div(sums.sum(axis=1), axis=0) * 1e4)


def first_per(adata, column, unit="donor") -> pd.Series:
    return adata.obs.groupby(adata.obs[unit].to_numpy(str))[column].first()


# --- against scikit-learn ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("transform", ["none", "log"])
@pytest.mark.parametrize("tol", [1e-4, 1e-8])
def test_equals_elastic_net_cv_on_the_same_folds(donors, transform, tol):
    model = fit(donors, {"age_transform": transform}, tol=tol, max_iter=100_000, alphas=40)
    bulk, age = pseudobulk(donors), first_per(donors, "age").astype(float)
    train = (first_per(donors, "agevi_split") == "train").to_numpy()
    scaler = StandardScaler().fit(bulk[train])
    z = scaler.transform(bulk)
    scale = np.log(age + 2) if transform == "log" else age
    mean, sd = scale[train].mean(), scale[train].std(ddof=0)
    fold = assign_folds(age[train].to_numpy(), np.ones(train.sum(), dtype=bool), None, 5, np.random.default_rng(0))
    cv = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(5)]
    reference = ElasticNetCV(l1_ratio=RATIOS, alphas=40, cv=cv, tol=tol, max_iter=100_000)
    reference.fit(z[train], (scale[train] - mean) / sd)
    assert model.alpha_ == pytest.approx(reference.alpha_, rel=1e-6)
    assert model.l1_ratio_ == reference.l1_ratio_
    np.testing.assert_allclose(model.module.coefficients, reference.coef_, atol=1e-6)
    expected = reference.predict(z) * sd + mean
    expected = np.exp(expected) - 2 if transform == "log" else expected
    found = pd.Series(model.predict_age(level="sample")).groupby(donors.obs["donor"].to_numpy(str)).first()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_single_cells_weigh_subjects_equally(donors):
    cells = donors.obs.groupby("donor", observed=True).cumcount().to_numpy()
    donors = donors[(donors.obs["donor"] != donors.obs["donor"].iloc[0]) | (cells < 4)].copy()
    model = fit(donors, {"age_transform": "none"}, train_unit="cell", alphas=[0.05], l1_ratios=0.5)
    train = (donors.obs["agevi_split"] == "train").to_numpy()
    x = sp.csr_matrix(donors.X).toarray().astype(float)
    x = np.log1p(x / x.sum(1, keepdims=True) * 1e4)
    z = StandardScaler().fit(x[train]).transform(x)
    age = donors.obs["age"].to_numpy(float)
    per_donor = first_per(donors[train], "age").astype(float)
    mean, sd = per_donor.mean(), per_donor.std(ddof=0)
    weight = 1 / donors.obs[train].groupby("donor", observed=True)["age"].transform("size").to_numpy()
    reference = ElasticNet(alpha=0.05, l1_ratio=0.5, tol=1e-9, max_iter=100_000)
    reference.fit(z[train], (age[train] - mean) / sd, sample_weight=weight)
    np.testing.assert_allclose(model.module.coefficients, reference.coef_, atol=1e-5)
    np.testing.assert_allclose(model.predict_age(), reference.predict(z) * sd + mean, atol=1e-2)


@pytest.mark.slow
def test_pseudocells_of_all_cells_are_samples(donors):
    whole = fit(donors, train_unit="pseudocell", pseudocell_size=10**6, n_pseudocells=2, alphas=[0.05])
    samples = fit(donors, alphas=[0.05], tol=1e-9, max_iter=100_000)
    np.testing.assert_allclose(whole.predict_age(level="sample"), samples.predict_age(level="sample"), atol=1e-2)


def test_pseudocells_do_not_shift_samples(donors):
    model = fit(donors, {"age_transform": "none"}, train_unit="pseudocell", pseudocell_size=3)
    train = donors[(donors.obs["agevi_split"] == "train").to_numpy()].copy()
    predicted = pd.Series(model.predict_age(train, level="sample")).groupby(train.obs["donor"].to_numpy(str)).first()
    assert predicted.mean() == pytest.approx(first_per(train, "age").mean(), abs=1e-3)


# --- units ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("transform", ["none", "log"])
@pytest.mark.parametrize("train_unit", ["sample", "pseudocell"])
def test_cells_lie_on_the_level_of_their_samples(donors, train_unit, transform):
    model = fit(donors, {"age_transform": transform}, train_unit=train_unit)
    train = donors[(donors.obs["agevi_split"] == "train").to_numpy()].copy()
    frame = pd.DataFrame({"cell": model.predict_age(train), "sample": model.predict_age(train, level="sample")})
    means = frame.groupby(train.obs["donor"].to_numpy(str)).mean()
    assert means["cell"].mean() == pytest.approx(means["sample"].mean(), abs=1e-2)
    assert model.predicts_sums


@pytest.mark.slow
def test_a_clock_of_cells_predicts_cells_only(donors):
    model = fit(donors, train_unit="cell")
    assert float(model.module.cell_offset) == 0
    with pytest.raises(ValueError, match="level='sample' needs a clock that was trained on sums"):
        model.predict_age(level="sample")


@pytest.mark.slow
@pytest.mark.parametrize("train_unit", TRAIN_UNITS)
def test_months_are_twelve_times_years(donors, train_unit):
    years = fit(donors, {"age_transform": "none"}, train_unit=train_unit).predict_age()
    donors.obs["age"] = donors.obs["age"] * 12
    months = fit(donors, {"age_transform": "none", "age_unit": "months", "min_age": -12.0}, train_unit=train_unit)
    np.testing.assert_allclose(months.predict_age(), years * 12, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("train_unit", TRAIN_UNITS)
def test_held_out_subjects_do_not_shape_the_clock(donors, train_unit):
    other = donors.copy()
    held = (other.obs["agevi_split"] != "train").to_numpy()
    other.obs.loc[held, "age"] = 33.0
    x = other.X.toarray()
    x[held] = x[held][:, ::-1]
    other.X = x
    a, b = (fit(adata, train_unit=train_unit).module.state_dict() for adata in (donors, other))
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("train_unit", TRAIN_UNITS)
def test_visits_of_a_subject_share_a_fold_and_its_weight(donors, train_unit):
    visit = donors.obs.groupby("donor", observed=True).cumcount().to_numpy() % 2
    later = np.isin(donors.obs["donor"], donors.obs["donor"].unique()[:6]) & (visit == 1)
    donors.obs["visit"] = donors.obs["donor"].astype(str) + np.where(later, " b", " a")
    donors.obs.loc[later, "age"] += 3
    model = make(donors, {"sample_key": "visit"}, train_unit=train_unit)
    train = (donors.obs["agevi_split"] == "train").to_numpy()
    cells = model._training_cells(train)
    samples = model._samples(model.module, cells, np.random.default_rng(0))
    assert len(samples.target) == donors.obs["visit"][train].nunique()
    by_subject = pd.DataFrame({"fold": samples.fold, "weight": samples.weight}).groupby(cells.subject)
    assert (by_subject["fold"].nunique() == 1).all()
    assert np.ptp(by_subject["weight"].sum()) < 1e-9
    model.train()
    assert np.isfinite(model.predict_age()).all()


def test_weights_of_cells(donors):
    cells = donors.obs.groupby("donor", observed=True).cumcount().to_numpy()
    donors = donors[(donors.obs["donor"] != donors.obs["donor"].iloc[0]) | (cells < 4)].copy()
    model = make(donors, subject_weight="cells")
    cells = model._training_cells(np.ones(donors.n_obs, dtype=bool))
    samples = model._samples(model.module, cells, np.random.default_rng(0))
    np.testing.assert_allclose(samples.weight / samples.weight.max(), cells.n_cells / cells.n_cells.max())


@pytest.mark.parametrize("train_unit", TRAIN_UNITS)
def test_weights_by_density(donors, train_unit):
    model = make(donors, train_unit=train_unit, subject_weight="density")
    cells = model._training_cells(np.ones(donors.n_obs, dtype=bool))
    samples = model._samples(model.module, cells, np.random.default_rng(0))
    rarity = 1 / gaussian_kde(cells.age)(cells.age)
    expected = np.clip(rarity / rarity.mean(), 0.2, 5)
    np.testing.assert_allclose(samples.weight, expected / expected.mean())


# --- what is kept --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("train_unit", TRAIN_UNITS)
def test_a_saved_clock_is_the_same(donors, tmp_path, train_unit):
    model = fit(donors, train_unit=train_unit)
    model.save(tmp_path / "clock")
    loaded = ElasticNetClock.load(tmp_path / "clock")
    assert loaded.predicts_sums == model.predicts_sums
    assert (loaded.alpha_, loaded.l1_ratio_) == (model.alpha_, model.l1_ratio_)
    pd.testing.assert_frame_equal(loaded.cv_results_, model.cv_results_)
    pd.testing.assert_series_equal(loaded.coefficients(), model.coefficients())
    if model.predicts_sums:
        np.testing.assert_array_equal(loaded.predict_age(donors, level="sample"), model.predict_age(level="sample"))


def test_history_is_at_the_level_of_samples(donors):
    model = fit(donors)
    agevi.tl.predict_age(donors, model)
    agevi.tl.aggregate_subjects(donors)
    table = donors.uns["agevi_subjects"]
    error = (table["predicted"] - table["age"]).abs().groupby(table["role"]).mean()
    for role in ("train", "validation"):
        assert model.history[f"age_mae_{role}"].iloc[0, 0] == pytest.approx(error[role], rel=1e-5)
    assert model.best_epoch_ == 1


@pytest.mark.parametrize("transform", ["none", "log"])
def test_coefficients_are_slopes_of_the_age(donors, transform):
    model = fit(donors, {"age_transform": transform, "normalize": "none"}, alphas=[0.05])
    slopes = model.coefficients()
    assert list(slopes.abs()) == sorted(slopes.abs(), reverse=True)
    assert slopes.name == "years per sd"
    gene, mean, sd = slopes.index[0], model.module.input.mean.numpy(), model.module.input.sd.numpy()
    j = list(donors.var_names).index(gene)
    middle = mean - sd * float(model.module.intercept) / float(model.module.coefficients[j]) * (np.arange(80) == j)
    step = 0.01 * sd * (np.arange(80) == j)  # around the point where the standardised age is 0
    probe = donors[:2].copy()
    probe.X = np.array([middle - step, middle + step])
    probe.obs["donor"] = ["low", "high"]
    low, high = model.predict_age(probe, level="sample")
    assert (high - low) / 0.02 == pytest.approx(slopes.iloc[0], rel=1e-2)


@pytest.mark.slow
def test_training_again_starts_anew(donors):
    model, fresh = fit(donors), make(donors)
    model.train(train_roles=("train", "validation"))
    fresh.train(train_roles=("train", "validation"))
    np.testing.assert_array_equal(model.predict_age(), fresh.predict_age())
    assert set(model.split_.values()) == {"train", "test"}
    assert "age_mae_validation" not in model.history


def test_arguments_of_networks_are_taken(donors):
    plain = fit(donors).predict_age()
    extra = {"max_epochs": 7, "batch_size": 3, "early_stopping": False, "devices": 1, "plan_kwargs": {"lr": 1.0}}
    model = fit(donors, train=extra | {"early_stopping_patience": 5, "callbacks": [], **QUIET})
    np.testing.assert_array_equal(model.predict_age(), plain)


# --- odd data ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("train_unit", TRAIN_UNITS)
def test_constant_genes_have_no_weight(donors, train_unit):
    x = donors.X.toarray()
    x[:, :3] = 0
    donors.X = x
    model = fit(donors, train_unit=train_unit)
    assert (model.module.coefficients[:3] == 0).all()
    x[:, 0] = 5
    donors.X = x
    assert np.isfinite(model.predict_age(donors)).all()


@pytest.mark.parametrize("train_unit", TRAIN_UNITS)
@pytest.mark.parametrize("n_subjects", [2, 4])
def test_fewer_subjects_than_folds(donors, train_unit, n_subjects, caplog):
    labelled = donors.obs["donor"].isin(donors.obs["donor"].unique()[:n_subjects])
    donors.obs["mine"] = np.where(labelled, "train", "test")
    with caplog.at_level(logging.INFO, "agevi"):
        model = fit(donors, train={"split_key": "mine"}, train_unit=train_unit)
    assert f"{n_subjects} subjects train, fewer than n_folds=5; each is held out alone." in caplog.text
    assert np.isfinite(model.predict_age()).all()


@pytest.mark.slow
def test_two_samples_with_cells_of_very_different_numbers(donors):
    cells = donors.obs.groupby("donor", observed=True).cumcount().to_numpy()
    few = donors.obs["donor"].isin(donors.obs["donor"].unique()[:10]).to_numpy()
    donors = donors[~few | (cells < 1)].copy()
    for train_unit in TRAIN_UNITS:
        assert np.isfinite(fit(donors, train_unit=train_unit).predict_age()).all()


def test_it_warns_where_it_does_not_converge(donors):
    model = make(donors, max_iter=1, tol=1e-12)
    with pytest.warns(UserWarning, match="did not converge in max_iter=1 iterations; raise max_iter") as raised:
        model.train()
    check_style(str(raised[0].message))


@pytest.mark.slow
@pytest.mark.parametrize("train_unit", TRAIN_UNITS)
def test_it_learns_age_on_held_out_subjects(train_unit):
    adata = agevi.datasets.simulate_cohort(n_subjects=80, n_cells=40, n_genes=300, effect_range=(0.1, 0.3), rng=0)
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", test_size=0.3, rng=0)
    model = fit(adata, train_unit=train_unit)
    agevi.tl.predict_age(adata, model)
    agevi.tl.aggregate_subjects(adata)
    table = adata.uns["agevi_subjects"]
    test, median = table[table["role"] == "test"], table["age"][table["role"] == "train"].median()
    assert (test["predicted"] - test["age"]).abs().mean() < 0.7 * (test["age"] - median).abs().mean()


# --- bad arguments -------------------------------------------------------------------------------------------

BAD = {
    "unit": ({"train_unit": "donor"}, ValueError, "train_unit='donor' is not known; choose one of 'sample'"),
    "no penalties": ({"alphas": []}, ValueError, "alphas is empty; pass one positive number or more"),
    "negative penalty": ({"alphas": [0.1, -1]}, ValueError, "alphas holds -1; pass positive numbers"),
    "no number of penalties": ({"alphas": 0.5}, TypeError, "alphas=0.5 is a float; pass a whole number"),
    "penalties as text": ({"alphas": ["a"]}, TypeError, "alphas=['a'] is not numeric"),
    "no ridge": ({"l1_ratios": [0.0, 0.5]}, ValueError, "l1_ratios holds 0; pass positive numbers"),
    "share above 1": ({"l1_ratios": 1.5}, ValueError, "l1_ratios holds 1.5; shares of the l1 penalty are above 0"),
    "one fold": ({"n_folds": 1}, ValueError, "n_folds=1 is out of range; pass a whole number, 2 or more"),
    "size": ({"pseudocell_size": 2.5}, ValueError, "pseudocell_size=2.5 is neither a share below 1 nor a whole number"),
    "weights": ({"subject_weight": "sample"}, ValueError, "subject_weight='sample' is not known"),
    "tolerance": ({"tol": 0}, ValueError, "tol holds 0; pass positive numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(donors, case):
    kwargs, error, message = BAD[case]
    with pytest.raises(error) as raised:
        make(donors, **kwargs)
    check_message(raised, message)


def test_unknown_arguments_of_train(donors):
    model = make(donors)
    with pytest.raises(TypeError) as raised:
        model.train(enable_progres_bar=False)
    check_message(raised, "got 'enable_progres_bar', which neither")
    check_message(raised, "; closest: 'enable_progress_bar'")
    assert not model.is_trained


def test_coefficients_need_a_fit(donors):
    with pytest.raises(RuntimeError) as raised:
        make(donors).coefficients()
    check_message(raised, "model.coefficients needs a trained model")
