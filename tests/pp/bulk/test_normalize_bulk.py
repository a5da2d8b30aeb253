from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import qnorm
import scanpy as sc
import scipy.sparse as sp
from scipy import stats

from agevi import pp
from agevi.io._bundle import read_bundle, write_bundle
from agevi.pp.bulk import _covariates, _values
from tests.test_gates import check_message, snapshot

QUIET_SCANPY = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture
def adata():
    """90 samples x 200 features with batch, age, sex and tissue effects, a third held out; age and batch independent."""
    rng = np.random.default_rng(0)
    n, g = 90, 200
    obs = pd.DataFrame(index=[f"s{i}" for i in range(n)])
    obs["batch"] = pd.Categorical(rng.permutation(np.repeat(["a", "b", "c"], [40, 30, 20])))
    obs["age"] = rng.uniform(20, 80, n)
    obs["sex"] = rng.choice(["female", "male"], n)
    obs["male"] = (obs["sex"] == "male").astype(float)
    obs["tissue"] = rng.choice(["x", "y", "z"], n)
    obs["agevi_split"] = rng.permutation(np.repeat(["train", "test"], [60, 30]))
    batch = obs["batch"].cat.codes.to_numpy()
    x = rng.normal(6, 2, g) + 0.03 * (obs[["age"]].to_numpy() - 50) * rng.normal(size=g)
    x += rng.normal(size=(3, g))[batch] + obs[["male"]].to_numpy() * rng.normal(size=g)
    x += rng.normal(size=(n, g)) * np.exp(0.3 * rng.normal(size=(3, g)))[batch]
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(g)]))


def scanpy_combat(adata, covariates=None):
    return sc.pp.combat(adata.copy(), "batch", covariates=covariates, inplace=False)


def normalized(adata, train=None, **arguments):
    normalizer = pp.BulkNormalizer(**arguments).fit(adata if train is None else train)
    return normalizer.apply(adata, copy=True).layers["normalized"], normalizer


@QUIET_SCANPY
@pytest.mark.parametrize("block", [1 << 22, 1000], ids=["one block", "many blocks"])
@pytest.mark.parametrize(
    ("ours", "scanpys"),
    [
        pytest.param([], None, id="batches"),
        pytest.param(["age"], ["age"], id="a number"),
        pytest.param(["sex"], ["male"], id="a category"),
        pytest.param(["sex", "age"], ["male", "age"], id="both"),
    ],
)
@pytest.mark.parametrize("form", [np.float64, np.float32])
def test_combat_equals_scanpys_on_training_samples(adata, ours, scanpys, form, block, monkeypatch):
    monkeypatch.setattr(_values, "_BLOCK", block)
    adata.X = adata.X.astype(form)
    got, _ = normalized(adata, batch_key="batch", covariates=ours, quantile=False)
    np.testing.assert_allclose(got, scanpy_combat(adata, scanpys), atol=1e-5)


@QUIET_SCANPY
def test_age_shapes_the_fit_and_stays_out_of_the_result(adata):
    got, normalizer = normalized(adata, batch_key="batch", age_key="age", quantile=False)
    # scanpy stretches the age effect of each sample with its batch; here the age is the mean one for all.
    age = (adata.obs["age"] - adata.obs["age"].mean()).to_numpy()[:, None]
    weight = normalizer.combat_.weight[adata.obs["batch"].cat.codes]
    expected = scanpy_combat(adata, ["age"]) - age * normalizer.combat_.effects * (1 - weight)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    without = adata.copy()
    del without.obs["age"]
    normalizer.apply(without)
    np.testing.assert_array_equal(without.layers["normalized"], got)


def test_age_as_a_covariate_keeps_the_change_with_age():
    rng = np.random.default_rng(1)
    age = np.r_[rng.uniform(20, 60, 100), rng.uniform(40, 80, 100)]
    batch = np.repeat(["young", "old"], 100)
    x = 0.1 * age[:, None] + rng.normal(size=(200, 50)) + 2.0 * (batch == "old")[:, None]
    adata = ad.AnnData(x, obs=pd.DataFrame({"age": age, "batch": batch}, index=[f"s{i}" for i in range(200)]))
    with pytest.warns(UserWarning, match="batches explain 4.% of the variance of adata.obs\\['age'\\]"):
        kept, _ = normalized(adata, batch_key="batch", age_key="age", quantile=False)
    lost, _ = normalized(adata, batch_key="batch", quantile=False)
    slopes = [stats.linregress(age, values.mean(1)).slope for values in (kept, lost)]
    assert slopes[0] == pytest.approx(0.1, abs=0.01)  # what was planted
    assert slopes[1] < 0.07


@QUIET_SCANPY
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_feature_that_is_constant_in_one_batch(adata):
    adata.X[(adata.obs["batch"] == "a").to_numpy(), 0] = 5
    got, _ = normalized(adata, batch_key="batch", quantile=False)
    np.testing.assert_allclose(got, scanpy_combat(adata), atol=1e-5)


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_quantiles_equal_the_librarys_on_training_samples(adata, ties, form, monkeypatch):
    monkeypatch.setattr(_values, "_BLOCK", 1000)
    values = np.maximum(np.round(adata.X - 5), 0) if ties else adata.X
    adata.X = form(values)
    got, normalizer = normalized(adata)
    np.testing.assert_allclose(got, qnorm.quantile_normalize(values, axis=0), atol=1e-5)
    np.testing.assert_allclose(normalizer.quantiles_, np.sort(values, 1).mean(0))


@QUIET_SCANPY
def test_both_in_turn(adata):
    got, _ = normalized(adata, batch_key="batch")
    np.testing.assert_allclose(got, qnorm.quantile_normalize(scanpy_combat(adata), axis=0), atol=1e-5)


@pytest.mark.parametrize("quantile", [True, False])
def test_held_out_samples_shape_neither_the_fit_nor_one_another(adata, quantile):
    arguments = {"batch_key": "batch", "covariates": ["sex"], "age_key": "age", "quantile": quantile}
    train, held_out = (adata[adata.obs["agevi_split"] == role].copy() for role in ("train", "test"))
    expected, normalizer = normalized(held_out, train, **arguments)
    alone = normalizer.apply(held_out[[7]].copy(), copy=True).layers["normalized"]
    np.testing.assert_allclose(alone[0], expected[7], rtol=1e-6)
    held_out.X[8:] *= 100
    np.testing.assert_allclose(normalizer.apply(held_out, copy=True).layers["normalized"][7], expected[7], rtol=1e-6)
    adata.X[(adata.obs["agevi_split"] == "test").to_numpy()] *= 100  # the fit sees the training role only
    again = pp.normalize_bulk(adata, **arguments)
    assert again.n_samples_ == 60
    rows = (adata.obs["agevi_split"] == "train").to_numpy()
    np.testing.assert_allclose(adata.layers["normalized"][rows], normalized(train, **arguments)[0], rtol=1e-6)
    if quantile:
        np.testing.assert_allclose(again.quantiles_, normalizer.quantiles_)


def test_a_new_batch_is_treated_as_the_reference_on_request(adata):
    held_out = adata[adata.obs["batch"] == "a"].copy()
    expected, normalizer = normalized(held_out, adata, batch_key="batch")
    held_out.obs["batch"] = "new"
    normalizer.apply(held_out, reference_batch="a")
    np.testing.assert_array_equal(held_out.layers["normalized"], expected)


def test_features_are_found_by_their_ensembl_ids_too(adata, tmp_path):
    expected, _ = normalized(adata, batch_key="batch")
    adata.var["gene_ids"] = [f"ENSG{i:011d}" for i in range(adata.n_vars)]
    normalizer = pp.BulkNormalizer(batch_key="batch").fit(adata)
    normalizer.save(tmp_path / "n")
    renamed = adata[:, ::-1].copy()
    renamed.var_names = [f"{name}.3" for name in renamed.var["gene_ids"]]
    del renamed.var["gene_ids"]
    for one in (normalizer, pp.BulkNormalizer.load(tmp_path / "n")):
        got = one.apply(renamed, copy=True).layers["normalized"]
        np.testing.assert_allclose(got, expected[:, ::-1], rtol=1e-5)
    renamed = renamed[:, 1:].copy()
    with pytest.raises(ValueError, match=r"1 of the normaliser's .* absent .*are found through its Ensembl ids"):
        normalizer.apply(renamed)


def test_features_in_another_order(adata):
    expected, normalizer = normalized(adata, batch_key="batch")
    shuffled = adata[:, ::-1].copy()
    normalizer.apply(shuffled)
    np.testing.assert_array_equal(shuffled.layers["normalized"][:, ::-1], expected)


def test_constant_features_lose_their_batch_only(adata):
    adata.X[:, 0] = 3
    adata.X[:, 1] = 3 + 2 * (adata.obs["batch"] == "a")  # 40 of 90 samples
    got, _ = normalized(adata, batch_key="batch", quantile=False)
    np.testing.assert_allclose(got[:, :2], np.tile([3, 3 + 2 * 40 / 90], (90, 1)), rtol=1e-5)
    adata = adata[:, 2:].copy()
    np.testing.assert_allclose(got[:, 2:], normalized(adata, batch_key="batch", quantile=False)[0], rtol=1e-6)


@pytest.mark.parametrize("arguments", [{"batch_key": "batch", "covariates": ["sex"], "age_key": "age"}, {}, {"batch_key": "batch", "quantile": False}])  # fmt: skip
def test_saved_and_loaded(adata, tmp_path, arguments):
    expected, normalizer = normalized(adata, **arguments)
    normalizer.save(tmp_path / "normalizer")
    loaded = pp.BulkNormalizer.load(tmp_path / "normalizer")
    np.testing.assert_array_equal(loaded.apply(adata, copy=True).layers["normalized"], expected)
    assert loaded.n_samples_ == 90
    with pytest.raises(FileExistsError):
        normalizer.save(tmp_path / "normalizer")


def test_arrays_that_do_not_fit_are_refused(adata, tmp_path):
    pp.BulkNormalizer(batch_key="batch").fit(adata).save(tmp_path / "good")
    bundle = read_bundle(tmp_path / "good")
    tensors = bundle.tensors | {"combat.shift": bundle.tensors["combat.shift"][:2].clone()}
    write_bundle(tmp_path / "bad", bundle.meta, tensors, bundle.card)
    with pytest.raises(ValueError) as raised:
        pp.BulkNormalizer.load(tmp_path / "bad")
    check_message(raised, "do not fit its features and batches")


def test_loading_something_else(trained, tmp_path):
    trained.save(tmp_path / "clock")
    with pytest.raises(ValueError) as raised:
        pp.BulkNormalizer.load(tmp_path / "clock")
    check_message(raised, "holds a PoissonVAE, not a BulkNormalizer")


@pytest.mark.parametrize("n_groups", [2, 10])
def test_share_of_variance_between_groups(n_groups):
    rng = np.random.default_rng(0)
    group, values = rng.permutation(np.arange(200) % n_groups), rng.normal(size=200)
    values[group == 0] += 1
    f = stats.f_oneway(*(values[group == k] for k in range(n_groups))).statistic
    # epsilon squared from F: (F - 1) dfb / (F dfb + dfw)
    dfb, dfw = n_groups - 1, 200 - n_groups
    assert _covariates.variance_between(group, values) == pytest.approx(max(0, (f - 1) * dfb / (f * dfb + dfw)))


def test_cramers_v_is_the_scaled_chi_squared():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 3, 300), rng.integers(0, 2, 300)
    second[first == 0] = 0
    chi2 = stats.chi2_contingency(pd.crosstab(first, second), correction=False).statistic
    assert _covariates.cramers_v(first, second) == pytest.approx(np.sqrt(chi2 / 300))
    assert _covariates.cramers_v(first, first) == pytest.approx(1)


def test_confounded_categories_are_named(adata):
    adata.obs["tissue"] = np.where(adata.obs["batch"] == "a", "x", "y")
    adata.obs.iloc[:4, adata.obs.columns.get_loc("tissue")] = "x"
    with pytest.warns(UserWarning, match="go together \\(Cramér's V 0.9"):
        pp.BulkNormalizer(batch_key="batch", covariates="tissue").fit(adata)


def test_no_warning_without_confounding(adata):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pp.BulkNormalizer(batch_key="batch", covariates=["tissue"], age_key="age").fit(adata)


def one_of(column, value, rows=slice(0, 1)):
    def change(a):
        values = a.obs[column].astype(object).to_numpy().copy()
        values[rows] = value
        a.obs[column] = pd.Series(values, index=a.obs_names).infer_objects()

    return change


def column(name, make):
    def change(a):
        a.obs[name] = make(a)

    return change


def nan(a):
    a.X[3, 5] = np.nan


FIT = {
    "NaN": (nan, {}, ValueError, "has missing or infinite values (first: nan)"),
    "one feature": (lambda a: a[:, :1].copy(), {}, ValueError, "adata has one feature"),
    "no batch column": (None, {"batch_key": "batsh"}, KeyError, "closest: 'batch'"),
    "one batch": (one_of("batch", "a", slice(None)), {"batch_key": "batch"}, ValueError, "so there is no batch effect to remove"),
    "a batch of one": (one_of("batch", "new"), {"batch_key": "batch"}, ValueError, "have one training sample ('new')"),
    "batch missing": (one_of("batch", None), {"batch_key": "batch"}, ValueError, "must name every cell's unit"),
    "tissue is the batch": (
        column("tissue", lambda a: np.where(a.obs["batch"] == "a", "x", "y")),
        {"batch_key": "batch", "covariates": ["tissue"]}, ValueError, "has 4 columns and rank 3",
    ),
    "age is the batch": (
        column("age", lambda a: 10.0 * a.obs["batch"].cat.codes), {"batch_key": "batch", "age_key": "age"}, ValueError,
        "adata.obs['age'] cannot be told from adata.obs['batch']",
    ),
    "age missing": (one_of("age", np.nan), {"batch_key": "batch", "age_key": "age"}, ValueError, "a covariate needs a number in each"),
    "age as text": (one_of("age", "60-69", slice(None)), {"batch_key": "batch", "age_key": "age"}, TypeError, "agevi.pp.parse_age"),
    "covariate missing": (one_of("sex", None), {"batch_key": "batch", "covariates": ["sex"]}, ValueError, "a covariate needs a value in each"),
    "no covariate": (None, {"batch_key": "batch", "covariates": ["sx"]}, KeyError, "covariates='sx' is not a column"),
    "nothing to do": (None, {"quantile": False}, ValueError, "there is nothing to do"),
    "covariates without batch": (None, {"age_key": "age"}, ValueError, "need a batch_key"),
    "named twice": (None, {"batch_key": "batch", "covariates": ["age"], "age_key": "age"}, ValueError, "'age' is named twice"),
}  # fmt: skip


@pytest.mark.parametrize("case", FIT)
def test_errors_of_fit(adata, case):
    change, arguments, error, words = FIT[case]
    changed = change(adata) if change else None
    adata = adata if changed is None else changed
    before = snapshot(adata)
    with pytest.raises(error) as raised:
        pp.BulkNormalizer(**arguments).fit(adata)
    check_message(raised, words)
    assert snapshot(adata) == before


APPLY = {
    "unseen batch": (one_of("batch", "new"), {}, ValueError, "which the normaliser was not fitted on ('a', 'b', 'c')"),
    "unknown reference": (one_of("batch", "new"), {"reference_batch": "z"}, ValueError, "reference_batch='z' is not known; choose one of 'a', 'b', 'c'"),
    "unseen category": (one_of("sex", "other"), {}, ValueError, "which no training sample has ('female', 'male')"),
    "a number as text": (one_of("male", "yes", slice(None)), {}, TypeError, "the training samples had numbers there"),
    "features absent": (lambda a: a[:, 1:].copy(), {}, ValueError, "1 of the normaliser's 200 features are absent"),
    "features more": (lambda a: ad.concat([a, ad.AnnData(np.ones((90, 2)), obs=a.obs, var=pd.DataFrame(index=["u", "v"]))], axis=1, merge="same"), {}, ValueError, "pass adata[:, normalizer.genes_].copy()"),
    "NaN": (nan, {}, ValueError, "has missing or infinite values (first: nan)"),
}  # fmt: skip


@pytest.mark.parametrize("case", APPLY)
def test_errors_of_apply(adata, case):
    change, arguments, error, words = APPLY[case]
    normalizer = pp.BulkNormalizer(batch_key="batch", covariates=["male" if case == "a number as text" else "sex"])
    normalizer.fit(adata)
    changed = change(adata)
    adata = adata if changed is None else changed
    before = snapshot(adata)
    with pytest.raises(error) as raised:
        normalizer.apply(adata, **arguments)
    check_message(raised, words)
    assert snapshot(adata) == before


@pytest.mark.parametrize("verb", ["apply", "save"])
def test_before_fit(adata, verb):
    with pytest.raises(RuntimeError) as raised:
        getattr(pp.BulkNormalizer(), verb)(adata)
    check_message(raised, "call fit(adata) on training samples")


def test_the_layer_that_is_read_is_kept(adata):
    adata.layers["log"] = adata.X.copy()
    with pytest.raises(ValueError) as raised:
        pp.BulkNormalizer(layer="log").fit(adata).apply(adata, key_added="log")
    check_message(raised, "is the layer that is read")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        pytest.param(lambda a: a.obs.pop("agevi_split"), KeyError, "run agevi.pp.split_subjects first", id="no split"),
        pytest.param(one_of("agevi_split", "test", slice(None)), ValueError, "has the role 'train'", id="no training"),
    ],
)
def test_errors_of_the_function(adata, change, error, words):
    change(adata)
    before = snapshot(adata)
    with pytest.raises(error) as raised:
        pp.normalize_bulk(adata)
    check_message(raised, words)
    assert snapshot(adata) == before


@QUIET_SCANPY
@pytest.mark.realdata
def test_on_methylation_of_blood(data_dir):
    adata = ad.read_h5ad(data_dir / "dnam_blood_horvath_cpgs" / "dnam_blood_horvath_cpgs.h5ad")
    adata = adata[adata.obs["group"] == "control"].copy()
    pp.beta_to_m(adata)
    adata.X = adata.layers["m"].astype(float)
    adata.obs["batch"] = adata.obs["dataset"].astype(str).astype("category")
    got, _ = normalized(adata, batch_key="batch", quantile=False)
    np.testing.assert_allclose(got, scanpy_combat(adata), atol=1e-5)
    with pytest.warns(UserWarning, match="batches explain 79% of the variance of adata.obs\\['age'\\]"):
        got, _ = normalized(adata, batch_key="batch", covariates=["age"], quantile=False)
    np.testing.assert_allclose(got, scanpy_combat(adata, ["age"]), atol=1e-5)


@pytest.mark.parametrize(
    "form", [lambda v: v.astype(str).astype(object), lambda v: pd.Categorical(v)], ids=["text", "category"]
)
def test_fractions_that_are_not_stored_as_numbers_are_refused(adata, form):
    values = np.round(np.random.default_rng(2).uniform(5, 10, 90), 1)
    adata.obs["integrity"] = form(values)
    before = snapshot(adata)
    with pytest.raises(TypeError) as raised:
        pp.normalize_bulk(adata, batch_key="batch", covariates=["integrity"])
    check_message(raised, "adata.obs['integrity'] holds numbers stored as")
    assert str(raised.value).endswith("run adata.obs['integrity'] = adata.obs['integrity'].astype(float).")
    assert snapshot(adata) == before
    expected = adata.copy()
    expected.obs["integrity"] = values
    adata.obs["integrity"] = adata.obs["integrity"].astype(float)  # the remedy
    got = [normalized(a, batch_key="batch", covariates=["integrity"])[0] for a in (adata, expected)]
    np.testing.assert_array_equal(*got)


def test_many_whole_numbers_as_categories_are_said(adata):
    adata.obs["minutes"] = pd.Categorical(np.arange(90) % 15)
    adata.obs["plate"] = pd.Categorical((np.arange(90) % 4).astype(str))
    with pytest.warns(UserWarning, match="its 15 values in 60 training samples are taken as categories") as warned:
        pp.normalize_bulk(adata, batch_key="batch", covariates=["minutes"])
    assert warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pp.normalize_bulk(adata, batch_key="batch", covariates=["plate", "sex"])
