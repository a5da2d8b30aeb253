from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from agevi.datasets import _counts, _simulate, simulate_cohort
from tests.files import stored

PLAIN = {"n_cell_types": 1, "n_modules": 0, "subject_sd": 0.0, "n_batches": 1, "n_age_genes": 0, "library_sd": 0.0}


def age_response(adata: ad.AnnData) -> np.ndarray:
    """Log fold change by age of every cell and gene, written from the documented formulae alone."""
    truth, var = adata.uns["truth"], adata.var
    age, reference = adata.obs["biological_age"].to_numpy()[:, None], truth["reference_age"]
    linear = (age - reference) / 20
    curve = (
        np.exp(-(reference - truth["saturation_start"]) / 20) - np.exp(-(age - truth["saturation_start"]) / 20)
    ) / (1 - np.exp(-1))
    own = adata.obs["cell_type"].astype(str).to_numpy()[:, None] == var["effect_cell_type"].astype(str).to_numpy()
    kind = var["kind"].astype(str).to_numpy()
    response = np.select(
        [kind == "linear", kind == "saturating", (kind == "cell_type") & own], [linear, curve, linear], 0.0
    )
    return response * var["effect"].to_numpy() * truth["ageing_rates"][adata.obs["cell_type"].cat.codes][:, None]


def expected(adata: ad.AnnData) -> np.ndarray:
    """Expected counts given everything that is recorded, subject effects averaged out."""
    obs, var, truth = adata.obs, adata.var, adata.uns["truth"]
    log_mean = np.log(var["baseline_mean"].to_numpy()) + age_response(adata)
    log_mean = log_mean + adata.varm["cell_type_effect"].T[obs["cell_type"].cat.codes]
    log_mean += adata.varm["batch_effect"].T[obs["batch"].cat.codes]
    log_mean += np.outer(obs["sex"] == "male", var["sex_effect"])
    for k, activity in enumerate(np.asarray(adata.obsm["module_activity"]).T):
        log_mean += np.outer(activity, var["loading"].where(var["module"] == f"module{k}", 0.0))
    return np.exp(log_mean + truth["subject_sd"] ** 2 / 2) * obs["size_factor"].to_numpy()[:, None]


def assert_standard_normal(z: np.ndarray) -> None:
    """Scores are centred, of unit variance and without outliers, within Monte-Carlo error."""
    n = len(z)
    assert abs(z.mean()) < 4.5 / np.sqrt(n)
    assert abs((z**2).mean() - 1) < 5 * np.sqrt(2 / n)
    assert np.abs(z).max() < 5.5


@pytest.mark.slow
@pytest.mark.parametrize("dispersion", [pytest.param(0.0, id="poisson"), pytest.param(0.5, id="negative-binomial")])
@pytest.mark.parametrize("dropout", [pytest.param(0.0, id="kept"), pytest.param(0.3, id="dropout")])
def test_marginal_moments_match_closed_form(dispersion: float, dropout: float) -> None:
    adata = simulate_cohort(20, 1000, 150, **PLAIN, dispersion=dispersion, dropout=dropout, library_size=300, rng=1)
    adata = adata[:, adata.var["sex_effect"] == 0]
    x, n, mean = adata.X.toarray().astype(float), adata.n_obs, adata.var["baseline_mean"].to_numpy()
    zero = np.exp(-mean) if dispersion == 0 else (1 + dispersion * mean) ** (-1 / dispersion)
    zero = dropout + (1 - dropout) * zero
    first = (1 - dropout) * mean
    variance = (1 - dropout) * (mean + (1 + dispersion) * mean**2) - first**2
    assert_standard_normal((x.mean(0) - first) / np.sqrt(variance / n))
    assert_standard_normal(((x == 0).mean(0) - zero) / np.sqrt(zero * (1 - zero) / n))
    squares = (x - first) ** 2
    assert_standard_normal((squares.mean(0) - variance) / (squares.std(0) / np.sqrt(n)))


@pytest.mark.slow
def test_library_sizes_are_log_normal_with_mean_one() -> None:
    settings = {**PLAIN, "library_sd": 0.5}
    adata = simulate_cohort(20, 1000, 150, **settings, dispersion=0.3, library_size=900, rng=2)
    log_size = np.log(adata.obs["size_factor"].to_numpy(float))
    assert abs(log_size.std() - 0.5) < 4.5 * 0.5 / np.sqrt(2 * adata.n_obs)
    assert abs(log_size.mean() + 0.5**2 / 2) < 4.5 * 0.5 / np.sqrt(adata.n_obs)
    adata = adata[:, adata.var["sex_effect"] == 0]
    x, mean = adata.X.toarray().astype(float), adata.var["baseline_mean"].to_numpy()
    spread = np.exp(0.5**2)  # E[size^2]
    squares = (x - mean) ** 2
    variance = mean + mean**2 * (1.3 * spread - 1)
    z = (squares.mean(0) - variance) / (squares.std(0) / np.sqrt(adata.n_obs))
    assert np.abs(z).max() < 6  # genes share the size factors, so the scores are not independent


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"n_age_genes": 150, "effect_range": (0.3, 0.9)}, id="age"),
        pytest.param({"n_age_genes": 150, "effect_range": (0.3, 0.9), "n_cell_types": 4}, id="age-in-cell-types"),
        pytest.param(
            {
                "n_age_genes": 150,
                "effect_range": (0.3, 0.9),
                "n_cell_types": 3,
                "ageing_rates": [0.0, 1.0, -0.5],
                "composition_sd": 0.7,
            },
            id="ageing-rates",
        ),
        pytest.param({"n_modules": 4}, id="modules"),
        pytest.param({"n_batches": 3, "batch_sd": 0.5}, id="batches"),
        pytest.param({"library_sd": 0.5}, id="library"),
        pytest.param({"n_age_genes": 150, "effect_range": (0.3, 0.9), "acceleration": 15.0}, id="acceleration"),
        pytest.param({"n_age_genes": 150, "n_visits": 3}, id="visits"),
        pytest.param(
            {
                "n_age_genes": 150,
                "n_cell_types": 3,
                "n_modules": 3,
                "n_batches": 2,
                "library_sd": 0.3,
                "missing_age": 0.3,
            },
            id="everything",
        ),
    ],
)
def test_counts_follow_every_planted_effect(settings: dict) -> None:
    """Residuals, and their products with age, are centred and have the variance of the law: nothing is left or lost."""
    adata = simulate_cohort(40, 250, 300, **{**PLAIN, **settings}, dispersion=0.3, rng=3)
    mean = expected(adata)
    residual, variance = adata.X.toarray() - mean, mean + 0.3 * mean**2
    age = (adata.obs["biological_age"].to_numpy() - adata.uns["truth"]["reference_age"])[:, None] / 20
    assert_standard_normal(residual.sum(0) / np.sqrt(variance.sum(0)))
    assert_standard_normal((residual * age).sum(0) / np.sqrt((variance * age**2).sum(0)))
    assert_standard_normal((residual**2 - variance).sum(0) / np.sqrt(((residual**2 - variance) ** 2).sum(0)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "saturating", "cell_type"])
def test_effects_estimated_without_the_truth_equal_the_planted(kind: str) -> None:
    """Maximum likelihood in a Poisson regression of the counts on the documented curve gives the planted effect back."""
    settings = {**PLAIN, "n_age_genes": 300, "n_cell_types": 2, "composition_shift": 0.0}
    adata = simulate_cohort(100, 100, 300, **settings, dispersion=0.0, rng=4)
    genes = (adata.var["kind"] == kind) & (adata.var["sex_effect"] == 0)
    curve = np.divide(age_response(adata)[:, genes], adata.var["effect"].to_numpy()[genes])  # 1 per unit of effect
    x, planted = adata.X.toarray()[:, genes].astype(float), adata.var["effect"].to_numpy()[genes]
    types = adata.obs["cell_type"].cat.codes.to_numpy()
    scores = []
    for j in range(x.shape[1]):
        design = np.column_stack([types == 0, types == 1, curve[:, j]]).astype(float)
        beta = np.array([np.log(x[types == 0, j].mean()), np.log(x[types == 1, j].mean()), 0.0])
        for _ in range(8):
            mu = np.exp(design @ beta)
            information = design.T @ (design * mu[:, None])
            beta += np.linalg.solve(information, design.T @ (x[:, j] - mu))
        scores.append((beta[2] - planted[j]) / np.sqrt(np.linalg.inv(information)[2, 2]))
    assert_standard_normal(np.array(scores))
    assert 0.03 <= np.abs(planted).min() and np.abs(planted).max() <= 0.15 and len(np.unique(np.sign(planted))) == 2


@pytest.mark.slow
def test_module_genes_covary_as_their_loadings_say() -> None:
    adata = simulate_cohort(1500, 4, 60, **{**PLAIN, "n_modules": 2}, dispersion=0.0, library_size=2000, rng=5)
    var = adata.var
    assert var["module"].value_counts().drop("").tolist() == [6, 6]
    activity = np.asarray(adata.obsm["module_activity"], float)
    assert np.allclose(activity.var(0), 1, atol=0.12)
    of_subject = activity.reshape(1500, 4, 2)
    between = (of_subject[:, 0] * of_subject[:, 1]).mean(0)  # covariance of two cells of one subject
    assert np.allclose(between, adata.uns["truth"]["module_subject_share"], atol=0.1)
    x = adata.X.toarray().astype(float)
    for module in ("module0", "module1"):
        genes = np.flatnonzero((var["module"] == module) & (var["sex_effect"] == 0))
        m, w = var["baseline_mean"].to_numpy()[genes], var["loading"].to_numpy()[genes]
        mean = m * np.exp(w**2 / 2)
        covariance = np.outer(mean, mean) * np.expm1(np.outer(w, w))
        products = (x[:, genes] - mean)[:, :, None] * (x[:, genes] - mean)[:, None]
        by_subject = products.reshape(1500, 4, len(genes), -1).mean(1)  # cells of a subject are not independent
        z = (by_subject.mean(0) - covariance) / (by_subject.std(0) / np.sqrt(1500))
        assert np.abs(z[~np.eye(len(genes), dtype=bool)]).max() < 4.5


def test_subject_effects_are_shared_by_a_subjects_cells() -> None:
    """Variance between subjects of the log of their mean counts is the planted one plus sampling noise."""
    settings = {**PLAIN, "subject_sd": 0.3}
    adata = simulate_cohort(300, 60, 40, **settings, dispersion=0.0, library_size=4000, rng=6)
    adata = adata[:, (adata.var["sex_effect"] == 0) & (adata.var["baseline_mean"] > 20)]
    means = adata.X.toarray().astype(float).reshape(300, 60, -1).mean(1)
    m = adata.var["baseline_mean"].to_numpy() * np.exp(0.3**2 / 2)
    variance = m**2 * np.expm1(0.3**2) + m / 60
    squares = (means - m) ** 2
    assert np.abs((means.mean(0) - m) / np.sqrt(variance / 300)).max() < 4
    assert np.abs((squares.mean(0) - variance) / (squares.std(0) / np.sqrt(300))).max() < 4


def test_composition_follows_age() -> None:
    adata = simulate_cohort(60, 400, 5, n_age_genes=0, n_cell_types=3, composition_shift=0.5, rng=7)
    truth = adata.uns["truth"]
    z = (truth["sample_age"] - truth["reference_age"])[:, None] / 20
    np.testing.assert_allclose(truth["composition_slope"], [-0.5, 0, 0.5])
    weight = np.exp(truth["composition_log_weight"] + z * truth["composition_slope"])
    share = weight / weight.sum(1, keepdims=True)
    np.testing.assert_allclose(share, truth["sample_composition"])
    counts = (
        pd.crosstab(adata.obs["donor"], adata.obs["cell_type"]).loc[truth["samples"], truth["cell_types"]].to_numpy()
    )
    chi2 = ((counts - 400 * share) ** 2 / (400 * share)).sum()  # 60 subjects x 2 degrees of freedom
    assert abs(chi2 - 120) < 4.5 * np.sqrt(240)


@pytest.mark.slow
def test_composition_differs_between_subjects() -> None:
    """Log weights of a subject have the planted spread, are those of all its visits, and cells are drawn from them."""
    adata = simulate_cohort(1500, 40, 3, n_age_genes=0, n_visits=2, composition_shift=0, composition_sd=0.7, rng=11)
    truth = adata.uns["truth"]
    share = truth["sample_composition"]
    np.testing.assert_allclose(share[::2], share[1::2])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        log_ratio = np.log(share[::2, a] / share[::2, b])
        assert abs(log_ratio.mean() - (a - b) * np.log(0.6)) < 4.5 * 0.7 * np.sqrt(2 / 1500)
        assert abs(log_ratio.std() / (0.7 * np.sqrt(2)) - 1) < 4.5 / np.sqrt(2 * 1500)
    counts = pd.crosstab(adata.obs["sample"], adata.obs["cell_type"]).loc[truth["samples"], truth["cell_types"]]
    z = (counts.to_numpy() - 40 * share) / np.sqrt(40 * share * (1 - share))
    assert np.abs(z.mean(0)).max() < 4.5 / np.sqrt(3000)
    assert np.abs((z**2).mean(0) - 1).max() < 0.15


def test_opposite_rates_change_the_same_genes_in_opposite_directions() -> None:
    """The same genes rise with age in one type and fall in the other by the planted effect; kinds hold for all types."""
    settings = {**PLAIN, "n_age_genes": 100, "n_cell_types": 2, "composition_shift": 0.0, "effect_range": (0.2, 0.5)}
    adata = simulate_cohort(100, 200, 100, **settings, ageing_rates=[1, -1], dispersion=0.0, library_size=4000, rng=12)
    assert adata.var["kind"].value_counts().to_dict() == {"linear": 50, "saturating": 50}
    assert (adata.var["effect_cell_type"] == "").all()
    linear = ((adata.var["kind"] == "linear") & (adata.var["sex_effect"] == 0)).to_numpy()
    effect, donor, slopes = adata.var["effect"].to_numpy()[linear], adata.obs["donor"].astype(str), []
    for name in ("type0", "type1"):
        of_type = (adata.obs["cell_type"] == name).to_numpy()
        means = adata[of_type].to_df().groupby(donor[of_type]).mean().to_numpy()[:, linear]
        age = adata.obs[of_type].groupby(donor[of_type])["age"].first().to_numpy() / 20
        slopes.append(np.polyfit(age, np.log(means), 1)[0])
    np.testing.assert_allclose(slopes, [effect, -effect], atol=0.06)


def test_rates_of_one_are_the_default() -> None:
    one, default = (simulate_cohort(5, 10, 50, n_cell_types=1, ageing_rates=r, rng=14) for r in ([1], None))
    assert (one.X != default.X).nnz == 0


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.3, 0.8])
@pytest.mark.parametrize("n_batches", [2, 5])
def test_batches_correlate_with_age_as_asked(correlation: float, n_batches: int) -> None:
    adata = simulate_cohort(100, 1, 5, n_age_genes=2, n_batches=n_batches, batch_age_correlation=correlation, rng=8)
    number = adata.obs["batch"].str.removeprefix("batch").astype(int)
    found = np.corrcoef(number, adata.obs["age"])[0, 1]
    assert abs(found - correlation) < 0.03
    assert abs(adata.uns["truth"]["batch_age_correlation"] - found) < 1e-12
    assert adata.obs["batch"].value_counts().eq(100 // n_batches).all()


def test_cases_are_biologically_older() -> None:
    adata = simulate_cohort(40, 2, 5, n_age_genes=2, case_fraction=0.25, acceleration=7.5, missing_age=0.2, rng=9)
    subjects = adata.obs.groupby("donor", observed=True).first()
    age = pd.Series(adata.uns["truth"]["sample_age"], index=adata.uns["truth"]["samples"])
    assert subjects["condition"].value_counts().to_dict() == {"control": 30, "case": 10}
    assert subjects["age"].isna().sum() == 8 and subjects["biological_age"].notna().all()
    np.testing.assert_allclose(
        subjects["biological_age"] - age[subjects.index], np.where(subjects["condition"] == "case", 7.5, 0.0), atol=1e-9
    )
    known = subjects["age"].notna()
    np.testing.assert_array_equal(subjects["age"][known], age[subjects.index[known]])


def test_visits_are_samples_of_one_subject() -> None:
    adata = simulate_cohort(
        6, [1, 2, 3, 4, 5, 6], 10, n_age_genes=2, n_visits=3, missing_age=0.5, acceleration=5, rng=10
    )
    obs = adata.obs
    assert len(obs) == 3 * 21
    samples = obs.drop_duplicates("sample").set_index("sample")
    assert samples.index.tolist()[:4] == ["d0_v1", "d0_v2", "d0_v3", "d1_v1"]
    assert obs.groupby("sample", observed=True).size().tolist() == [n for n in range(1, 7) for _ in range(3)]
    gaps = np.diff(adata.uns["truth"]["sample_age"].reshape(6, 3), axis=1)
    assert ((gaps >= 1) & (gaps <= 5)).all()
    one_per_subject = samples.groupby("donor", observed=True)[["sex", "condition"]].nunique()
    assert (one_per_subject == 1).all(axis=None)
    missing = samples["age"].isna().groupby(samples["donor"], observed=True).sum()
    assert sorted(missing) == [0, 0, 0, 3, 3, 3]


def test_columns_and_types() -> None:
    adata = simulate_cohort(n_subjects=5, n_cells=4, n_genes=20, n_age_genes=6)
    assert adata.X.format == "csr" and adata.X.dtype == np.float32 and adata.X.has_sorted_indices
    assert list(adata.obs.columns) == [
        "donor", "age", "biological_age", "sex", "condition", "batch", "cell_type", "size_factor"
    ]  # fmt: skip
    assert adata.obs.groupby("donor", observed=True).size().eq(4).all()
    assert adata.obs["age"].between(20, 90).all()
    assert adata.var["kind"].value_counts().to_dict() == {"none": 14, "linear": 2, "saturating": 2, "cell_type": 2}
    assert adata.obs_names.is_unique and adata.var_names.is_unique


def test_a_fifth_of_the_genes_are_age_genes_by_default() -> None:
    assert (simulate_cohort(3, 2, 40).var["effect"] != 0).sum() == 8


def test_one_cell_type_has_no_cell_type_effects() -> None:
    adata = simulate_cohort(3, 2, 20, n_age_genes=10, n_cell_types=1, n_batches=1)
    assert set(adata.var["kind"]) == {"none", "linear", "saturating"}
    assert not adata.varm["cell_type_effect"].any() and not adata.varm["batch_effect"].any()


def test_seed_decides_the_cohort() -> None:
    first, again, other = (simulate_cohort(5, 10, 50, n_age_genes=5, rng=r) for r in (1, np.random.default_rng(1), 2))
    assert (first.X != again.X).nnz == 0 and (first.X != other.X).nnz > 0
    pd.testing.assert_frame_equal(first.obs, again.obs)
    pd.testing.assert_frame_equal(first.var, again.var)
    generator = np.random.default_rng(1)
    twice = [simulate_cohort(5, 10, 50, n_age_genes=5, rng=generator) for _ in range(2)]
    assert (twice[0].X != twice[1].X).nnz > 0


def test_threads_do_not_change_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_counts, "BLOCK_SIZE", 700)
    monkeypatch.setattr(_simulate, "_SMALL", 0)
    one, three = (simulate_cohort(7, 33, 100, n_jobs=n) for n in (1, 3))
    assert one.X.nnz == three.X.nnz and (one.X != three.X).nnz == 0


@pytest.mark.slow
def test_cohort_survives_files(tmp_path: Path) -> None:
    adata = simulate_cohort(4, 3, 20, n_age_genes=6, n_visits=2, missing_age=0.25)
    for form in ("h5ad", "zarr"):
        back = stored(adata, form, tmp_path)
        assert (back.X != adata.X).nnz == 0
        np.testing.assert_array_equal(back.obs["age"], adata.obs["age"])
        assert back.var["kind"].astype(str).tolist() == adata.var["kind"].astype(str).tolist()
        assert back.uns["truth"].keys() == adata.uns["truth"].keys()
        for key, value in adata.uns["truth"].items():
            np.testing.assert_array_equal(np.asarray(back.uns["truth"][key]), value)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_defaults_give_a_learnable_clock(seed: int) -> None:
    adata = simulate_cohort(rng=seed)
    age = adata.obs["age"].to_numpy()[::50]
    sums = adata.X.toarray().reshape(60, 50, -1).sum(1)
    x = np.log1p(sums / sums.sum(1, keepdims=True) * 1e4)
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 15)))
    predicted = cross_val_predict(model, x, age, cv=KFold(5, shuffle=True, random_state=0))
    assert np.abs(predicted - age).mean() < 0.6 * np.abs(np.median(age) - age).mean()


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        pytest.param({"n_subjects": 1}, ValueError, "n_subjects=1 is out of range", id="one-subject"),
        pytest.param({"n_genes": "many"}, TypeError, "n_genes='many' is a str; pass a whole number", id="genes-text"),
        pytest.param({"n_cells": [5, 5]}, ValueError, "n_cells has 2 numbers for 60 subjects", id="cells-per-subject"),
        pytest.param({"n_cells": [5] * 59 + [0]}, ValueError, r"n_cells\[59\]=0 is out of range", id="empty-subject"),
        pytest.param({"n_cells": None}, TypeError, "n_cells=None is a NoneType", id="no-cells"),
        pytest.param({"n_age_genes": 501}, ValueError, "n_age_genes=501 is out of range.*0 and 500", id="age-genes"),
        pytest.param({"effect_range": (-0.1, 0.1)}, ValueError, "effect_range=.* starts below 0", id="signs"),
        pytest.param({"effect_range": 0.1}, TypeError, "effect_range=0.1 is not a pair", id="no-pair"),
        pytest.param({"age_range": (90, 20)}, ValueError, r"age_range=\(90, 20\) is not a rising pair", id="falling"),
        pytest.param({"composition_sd": -1}, ValueError, "composition_sd=-1 is out of range", id="composition-sd"),
        pytest.param(
            {"ageing_rates": [1, 1]}, ValueError, "ageing_rates has 2 numbers for 3 cell types", id="rates-of-types"
        ),
        pytest.param({"ageing_rates": 1.0}, TypeError, "ageing_rates=1.0 is not a list of numbers", id="one-rate"),
        pytest.param(
            {"ageing_rates": [1, 2, 11]}, ValueError, r"ageing_rates\[2\]=11 is out of range", id="fast-ageing"
        ),
        pytest.param({"n_batches": 61}, ValueError, "n_batches=61 is out of range.*1 and 60", id="batches"),
        pytest.param(
            {"batch_age_correlation": 1.0}, ValueError, "batch_age_correlation=1 is out of range", id="confounded"
        ),
        pytest.param({"dropout": 1.0}, ValueError, "dropout=1 is out of range.*at most 0.99", id="dropout"),
        pytest.param({"dispersion": np.nan}, ValueError, "dispersion=nan is out of range", id="nan"),
        pytest.param({"missing_age": 1.5}, ValueError, "missing_age=1.5 is out of range", id="missing-age"),
        pytest.param({"case_fraction": "half"}, TypeError, "case_fraction='half' is a str; pass a number", id="text"),
        pytest.param({"n_jobs": 0}, ValueError, "n_jobs=0 is out of range", id="n-jobs"),
        pytest.param({"rng": "x"}, TypeError, "rng='x' is a str", id="rng"),
    ],
)
def test_parameters_out_of_range(kwargs: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        simulate_cohort(**kwargs)
