from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import agevi
from agevi.model import EnsembleClock, LinearClock, PLSClock
from tests.model.linear.test_table import caught_as
from tests.test_gates import check_message, snapshot

TRANSFORMS = {
    None: lambda s: s,
    "log": lambda s: np.exp(s) - 2,  # log(age + 2)
    "horvath": lambda s: np.where(s > 0, 21 * s + 20, 21 * np.exp(np.minimum(s, 0)) - 1),
}


@pytest.fixture
def table(cohort):
    """Scaler and coefficients for every gene."""
    rng = np.random.default_rng(0)
    n = cohort.n_vars
    return pd.DataFrame(
        {"gene": cohort.var_names, "mean": rng.uniform(0, 2, n), "scale": rng.uniform(0.5, 2, n), "coef_scaled": rng.normal(0, 0.1, n)}
    )  # fmt: skip


@pytest.fixture
def logs(cohort):
    """Log-normalised values, as published clocks of expression read them."""
    cohort.X = sp.csr_matrix(cohort.X).log1p()
    return cohort


def score(adata, table, intercept, rows=None):
    x = adata.X.toarray() if sp.issparse(adata.X) else adata.X
    x = np.asarray(x, dtype=np.float64)[slice(None) if rows is None else rows]
    return (x - table["mean"].to_numpy()) / table["scale"].to_numpy() @ table["coef_scaled"].to_numpy() + intercept


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, lambda x: x.toarray()], ids=["csr", "csc", "csr_array", "dense"])  # fmt: skip
def test_cells_and_samples(logs, table, transform, form):
    logs.X = form(sp.csr_matrix(logs.X))
    clock = LinearClock.from_coefficients(table, 0.3, transform)
    agevi.tl.predict_age(logs, clock)
    s = score(logs, table, 0.3)
    np.testing.assert_allclose(logs.obs["agevi_predicted"], TRANSFORMS[transform](s), rtol=1e-4, atol=1e-4)
    means = pd.Series(s).groupby(logs.obs["donor"].astype(str).to_numpy()).transform("mean")
    np.testing.assert_allclose(logs.obs["agevi_predicted_sample"], TRANSFORMS[transform](means), rtol=1e-4, atol=1e-4)
    assert (logs.obs["agevi_role"] == "new").all()


@pytest.mark.filterwarnings("error:adata.obs")
def test_without_columns_of_subjects_and_ages(logs, table):
    clock = LinearClock.from_coefficients(table, 0)
    expected = clock.predict_age(logs)
    logs.obs = logs.obs[["cell_type"]]
    agevi.tl.predict_age(logs, clock)
    np.testing.assert_array_equal(logs.obs["agevi_predicted"], expected)
    assert (logs.obs["agevi_role"] == "new").all()
    assert "agevi_predicted_sample" not in logs.obs


def test_genes_in_any_order_from_disk_and_from_a_layer(logs, table, tmp_path):
    clock = LinearClock.from_coefficients(table, 1)
    expected = clock.predict_age(logs)
    np.testing.assert_allclose(clock.predict_age(logs[:, ::-1].copy()), expected, rtol=1e-4, atol=1e-5)
    logs.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    np.testing.assert_allclose(clock.predict_age(backed), expected, rtol=1e-5)
    backed.file.close()
    logs.layers["logs"] = logs.X
    logs.X = logs.X * 0
    other = LinearClock.from_coefficients(table, 1, layer="logs")
    np.testing.assert_array_equal(other.predict_age(logs), expected)


def test_ages_have_no_bounds(logs, table):
    ages = LinearClock.from_coefficients(table, -500).predict_age(logs)
    np.testing.assert_allclose(ages, score(logs, table, -500), rtol=1e-5)
    assert ages.max() < -400


# --- missing features ------------------------------------------------------------------------------------------


def test_absent_features_enter_at_the_mean_of_the_scaler(logs, table):
    expected = score(logs, table.assign(coef_scaled=np.r_[0, 0, 0, table["coef_scaled"][3:]]), 2)
    part = logs[:, 3:].copy()
    agevi.tl.predict_age(part, LinearClock.from_coefficients(table, 2))
    np.testing.assert_allclose(part.obs["agevi_predicted"], expected, atol=1e-4)
    assert part.uns["agevi"]["gene_coverage"] == pytest.approx(57 / 60)


@pytest.mark.parametrize("scaled", [True, False], ids=["scaled", "as they are"])
def test_absent_features_enter_at_what_is_given(logs, table, scaled):
    if not scaled:
        table = table.assign(mean=0.0, scale=1.0)
    whole = logs.copy()
    whole.X = sp.csr_matrix(whole.X).toarray()
    whole.X[:, :3] = 0.7
    given = table if scaled else table.set_index("gene")["coef_scaled"]
    clock = LinearClock.from_coefficients(given, 2, fill=0.7)
    np.testing.assert_allclose(clock.predict_age(logs[:, 3:].copy()), score(whole, table, 2), atol=1e-4)
    np.testing.assert_allclose(clock.predict_age(logs), score(logs, table, 2), atol=1e-4)


def test_absent_features_of_unknown_value_warn(logs, table):
    plain = table.set_index("gene")["coef_scaled"]
    clock = LinearClock.from_coefficients(plain, 2)
    with pytest.warns(UserWarning, match="3 of the clock's 60 features are absent") as caught:
        agevi.tl.predict_age(logs[:, 3:].copy(), clock)
    own = [w for w in caught if "features are absent" in str(w.message)]
    check_message(caught_as(own), "so they enter at 0, which moves all ages alike. Pass fill=...")
    assert own[0].filename == __file__
    with pytest.warns(UserWarning, match="are absent"):
        ages = clock.predict_age(logs[:, 3:].copy())
    zero = logs.copy()
    zero.X = sp.csr_matrix(zero.X).multiply(np.arange(60) >= 3).tocsr()
    np.testing.assert_allclose(ages, clock.predict_age(zero), atol=1e-5)


REFUSED = {
    "too few": (lambda a: a[:, :30].copy(), "30 of the clock's 60 genes are absent from adata.var_names"),
    "Ensembl ids": (lambda a: named(a, "ENSG{:011d}"), "the data use Ensembl ids, the clock uses symbols"),
    "CpG sites": (lambda a: named(a, "cg{:08d}"), "the data use CpG sites, the clock uses symbols"),
}


def named(adata, name):
    adata.var_names = [name.format(i) for i in range(adata.n_vars)]


@pytest.mark.parametrize("case", REFUSED)
def test_features_that_do_not_fit_are_refused(logs, table, case):
    change, words = REFUSED[case]
    clock = LinearClock.from_coefficients(table, 2)
    adata = change(logs) or logs
    before = snapshot(adata)
    with pytest.raises(ValueError) as raised:
        agevi.tl.predict_age(adata, clock)
    check_message(raised, words)
    assert snapshot(adata) == before
    adata.var["symbol"] = table["gene"].to_numpy()[: adata.n_vars]
    if case == "Ensembl ids":
        agevi.tl.predict_age(agevi.pp.align_genes(adata, clock), clock)


# --- methylation -----------------------------------------------------------------------------------------------


@pytest.fixture
def betas():
    rng = np.random.default_rng(1)
    obs = pd.DataFrame({"donor": [f"d{i}" for i in range(9)], "age": np.linspace(5, 85, 9)}, index=list("abcdefghi"))
    x = rng.uniform(0, 1, (9, 6)).astype(np.float32)
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"cg{i:08d}" for i in range(6)]))


def test_betas_are_checked(betas):
    weights = pd.Series(1.0, index=betas.var_names)
    clock = LinearClock.from_coefficients(weights, 0)
    np.testing.assert_allclose(clock.predict_age(betas), betas.X.sum(1), rtol=1e-5)
    betas.layers["m"] = np.log2(betas.X / (1 - betas.X))
    m_values = LinearClock.from_coefficients(weights, 0, layer="m")
    with pytest.raises(ValueError) as raised:
        agevi.tl.predict_age(betas, m_values)
    check_message(raised, "adata.layers['m'] has values outside 0 to 1 (e.g. ")
    anything = LinearClock.from_coefficients(weights, 0, layer="m", values="any")
    np.testing.assert_allclose(anything.predict_age(betas), betas.layers["m"].sum(1), rtol=1e-4)


def test_missing_betas_are_refused(betas):
    betas.X[2, 3] = np.nan
    with pytest.raises(ValueError, match="has missing or infinite values"):
        LinearClock.from_coefficients(pd.Series(1.0, index=betas.var_names), 0).predict_age(betas)


# --- the rest of the package -----------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_attribution_is_exact(logs, table, transform):
    clock = LinearClock.from_coefficients(table, 0.3, transform)
    agevi.tl.attribute_genes(logs, clock, groupby="cell_type", n_boot=5)
    record = logs.uns["agevi_attribution"]
    assert record["params"]["method"] == "linear"
    assert record["completeness_error_max"] < 1e-4
    if transform is None:
        x = pd.DataFrame(logs.X.toarray()).groupby(logs.obs["donor"].astype(str).to_numpy()).mean()
        slope = (table["coef_scaled"] / table["scale"]).to_numpy()
        expected = np.abs((x - x.mean()).to_numpy() * slope).mean(0)
        np.testing.assert_allclose(logs.varm["agevi_attribution"][:, 0], expected, rtol=1e-3, atol=1e-6)


def test_aggregation_and_evaluation(logs, table):
    agevi.tl.predict_age(logs, LinearClock.from_coefficients(table, 40))
    agevi.tl.aggregate_subjects(logs)
    agevi.tl.evaluate_by(logs, "sex", n_boot=10)
    frame = agevi.get.metrics_by_df(logs)
    s = pd.Series(score(logs, table, 40)).groupby(logs.obs["donor"].astype(str).to_numpy()).mean()
    age = logs.obs.groupby(logs.obs["donor"].astype(str))["age"].first()
    assert frame["n"].iloc[0] == 24
    assert frame["mae"].iloc[0] == pytest.approx((s - age).abs().mean(), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_bundles(logs, table, tmp_path, transform):
    clock = LinearClock.from_coefficients(table, 0.3, transform, age_unit="months", sample_key="visit")
    clock.save(tmp_path / "clock")
    for back in (LinearClock.load(tmp_path / "clock"), agevi.io.load_clock(tmp_path / "clock", logs)):
        np.testing.assert_array_equal(back.predict_age(logs), clock.predict_age(logs))
        assert back.setup_args == clock.setup_args
        pd.testing.assert_series_equal(back.coefficients(), clock.coefficients())
        np.testing.assert_array_equal(back.predict_age(logs[:, 3:].copy()), clock.predict_age(logs[:, 3:].copy()))
    np.testing.assert_array_equal(back.predict_age(), clock.predict_age(logs))
    card = (tmp_path / "clock" / "README.md").read_text()
    assert "**Predicts** an age in months as a weighted sum of 60 features" in card
    assert agevi.io.load_clock(tmp_path / "clock").split_ == {}


def test_in_an_ensemble(logs, table, tmp_path):
    clocks = [LinearClock.from_coefficients(table, c) for c in (30, 50)]
    both = EnsembleClock(clocks, scale="age")
    np.testing.assert_allclose(both.predict_age(logs), score(logs, table, 40), rtol=1e-4)
    both.save(tmp_path / "clock")
    np.testing.assert_array_equal(agevi.io.load_clock(tmp_path / "clock").predict_age(logs), both.predict_age(logs))
    assert "elsewhere, published coefficients; 60 features" in (tmp_path / "clock" / "README.md").read_text()
    PLSClock.setup_anndata(logs, age_key="age", subject_key="donor", normalize="none")
    trained = PLSClock(logs)
    trained.train()
    mixed = EnsembleClock([trained, clocks[0]])
    assert mixed.age_summary_["max"] == trained.age_summary_["max"]
    assert mixed.split_ == trained.split_
    mixed.save(tmp_path / "mixed")


def test_coefficients_are_those_of_the_values(table):
    found = LinearClock.from_coefficients(table, 0).coefficients()
    expected = pd.Series((table["coef_scaled"] / table["scale"]).to_numpy(), index=table["gene"])
    np.testing.assert_allclose(found, expected[found.index], rtol=1e-6)
    assert found.abs().is_monotonic_decreasing


VERBS = {
    "train": (lambda c, a: c.train(), AttributeError, "LinearClock has no train: its coefficients are published"),
    "set up": (lambda c, a: LinearClock.setup_anndata(a), AttributeError, "LinearClock has no setup_anndata"),
    "history": (lambda c, a: c.history, AttributeError, "LinearClock has no history"),
    "made from data": (lambda c, a: LinearClock(a), RuntimeError, "LinearClock is not made from data"),
    "no data": (lambda c, a: c.predict_age(), RuntimeError, "this LinearClock has no data, since it was made from a table"),
    "unknown transform": (
        lambda c, a: LinearClock.from_coefficients(c.coefficients(), 0, "sqrt"), ValueError,
        "transform='sqrt' is not known; choose one of 'none', 'log', 'horvath'",
    ),
    "unknown values": (
        lambda c, a: LinearClock.from_coefficients(c.coefficients(), 0, values="m"), ValueError,
        "values='m' is not known; choose one of 'any', 'beta'",
    ),
    "unknown unit": (
        lambda c, a: LinearClock.from_coefficients(c.coefficients(), 0, "horvath", age_unit="passages"), ValueError,
        "age_unit='passages' has no known length",
    ),
    "cross-validated": (
        lambda c, a: agevi.tl.cross_validate(a, LinearClock, age_key="age", subject_key="donor"), ValueError,
        "LinearClock is not trained on ages, so there is nothing to cross-validate",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", VERBS)
def test_what_it_refuses(cohort, table, case):
    call, error, words = VERBS[case]
    clock = LinearClock.from_coefficients(table, 0)
    with pytest.raises(error) as raised:
        call(clock, cohort)
    check_message(raised, words)
