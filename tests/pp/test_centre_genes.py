from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import agevi
from agevi import pp
from tests.test_gates import snapshot

FORMS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "csr_array": sp.csr_array, "dense": np.asarray}
KEYS = {"subject_key": "donor"}


@pytest.fixture
def adata():
    """Two cohorts of 8 donors with 150 cells each; in the second the first 10 of 40 genes are three times as high."""
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(16), 150)
    obs = pd.DataFrame({"donor": [f"d{d}" for d in donor]}, index=[f"c{i}" for i in range(len(donor))])
    obs["lab"] = pd.Categorical(np.where(donor < 8, "a", "b"))
    obs["age"] = 20.0 + 4 * (donor % 8)
    rate = rng.gamma(2.0, 1.0, 40) * np.exp(0.1 * rng.normal(size=(16, 40)))[donor]
    rate[donor >= 8, :10] *= 3
    genes = pd.DataFrame(index=[f"g{i}" for i in range(40)])
    return ad.AnnData(sp.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs, var=genes)


def shares(x, obs):
    """Mean share of every gene over the donors of each lab, by pandas."""
    x = pd.DataFrame(x.toarray() if sp.issparse(x) else np.asarray(x), index=obs.index, dtype=float)
    sums = x.groupby([obs["lab"].astype(str), obs["donor"]]).sum()
    return sums.div(sums.sum(axis=1), axis=0).groupby(level=0).mean()


@pytest.mark.parametrize("form", FORMS)
def test_genes_have_the_same_mean_in_every_cohort(adata, form):
    before = shares(adata.X, adata.obs)
    assert before.loc["b", 0] / before.loc["a", 0] > 2
    adata.X = FORMS[form](adata.X.toarray())
    kept = snapshot(adata)
    out = pp.centre_genes(adata, "lab", **KEYS, copy=True)
    assert snapshot(adata) == kept
    got = out.layers["centred"]
    values = got.toarray() if sp.issparse(got) else got
    assert got.dtype == np.float32
    np.testing.assert_array_equal(values, np.floor(values))
    assert sp.issparse(got) == (form != "dense")
    np.testing.assert_allclose(out.var["centred_share"], before.mean(), rtol=1e-6)
    after = shares(got, adata.obs)
    np.testing.assert_allclose(after.loc["a"], before.mean(), rtol=0.04, atol=3e-4)
    np.testing.assert_allclose(after.loc["b"], before.mean(), rtol=0.04, atol=3e-4)
    np.testing.assert_array_equal(
        values > 0, (values > 0) & (np.asarray(adata.X.todense() if form != "dense" else adata.X) > 0)
    )


def test_rounding_keeps_the_mean_of_every_count(adata):
    adata.X = sp.csr_matrix(np.full(adata.shape, 2.0, np.float32))
    adata.X[1200:, :10] = 6.0  # cohort b
    out = pp.centre_genes(adata, "lab", **KEYS, copy=True).layers["centred"].toarray()
    a, b = 1 / 40, np.r_[np.full(10, 3.0), np.ones(30)] / 60
    expected = 120 * (np.full(40, a) + b) / 2  # cohort b has 120 counts a cell
    np.testing.assert_allclose(out[1200:].mean(0), expected, rtol=0.01)
    assert set(np.unique(out[1200:, 0])) == set(np.floor(expected[0]) + [0, 1])


def test_other_data_are_brought_to_the_same_reference(adata):
    train, new = adata[adata.obs["lab"] == "a"].copy(), adata[adata.obs["lab"] == "b", adata.var_names[::-1]].copy()
    with pytest.raises(ValueError, match="holds one value, 'a'.*pass reference"):
        pp.centre_genes(train, "lab", **KEYS)
    wanted = shares(train.X, train.obs).loc["a"].to_numpy()
    train.var["centred_share"] = wanted
    pp.centre_genes(new, "lab", **KEYS, reference=train)
    by_series = pp.centre_genes(new, "lab", **KEYS, reference=train.var["centred_share"], copy=True)
    assert (new.layers["centred"] != by_series.layers["centred"]).nnz == 0
    np.testing.assert_allclose(shares(new.layers["centred"], new.obs).loc["b"], wanted[::-1], rtol=0.04, atol=3e-4)


def test_a_reference_under_other_names(adata):
    adata.var["gene_ids"] = [f"ENSG{i:011d}" for i in range(adata.n_vars)]
    train, new = adata[adata.obs["lab"] == "a"].copy(), adata[adata.obs["lab"] == "b"].copy()
    pp.centre_genes(train, "lab", **KEYS, reference=pd.Series(1 / 35, index=train.var_names))
    renamed = new[:, ::-1].copy()
    renamed.var_names = renamed.var["gene_ids"].to_numpy()
    for data in (new, renamed):
        pp.centre_genes(data, "lab", **KEYS, reference=train)
    np.testing.assert_array_equal(renamed.var["centred_share"], new.var["centred_share"][::-1])


def test_genes_that_the_reference_lacks_stay_as_they_are(adata):
    train, new = adata[adata.obs["lab"] == "a", adata.var_names[5:]].copy(), adata[adata.obs["lab"] == "b"].copy()
    pp.centre_genes(train, "lab", **KEYS, reference=pd.Series(1 / 35, index=train.var_names))
    pp.centre_genes(new, "lab", **KEYS, reference=train)
    assert (new.layers["centred"][:, :5] != new.X[:, :5]).nnz == 0
    assert new.var["centred_share"].isna().sum() == 5
    got = shares(new.layers["centred"], new.obs).loc["b"].to_numpy()[5:]
    np.testing.assert_allclose(got / got.sum(), 1 / 35, rtol=0.05)


def test_a_gene_with_hardly_a_count_is_hardly_moved(adata):
    x = adata.X.toarray()
    x[:, 39] = 0
    x[0, 39], x[1300, 39] = 1, 4
    adata.X = sp.csr_matrix(x)
    pp.centre_genes(adata, "lab", **KEYS)
    assert adata.layers["centred"][:, 39].sum() <= 8
    assert np.isfinite(adata.layers["centred"].data).all()


@pytest.mark.slow
def test_a_clock_of_one_lab_is_not_off_in_another():
    adata = agevi.datasets.simulate_cohort(60, 40, 200, n_batches=1, effect_range=(0.1, 0.3), rng=1)
    rng = np.random.default_rng(0)
    ages = adata.obs.groupby("donor", observed=True)["age"].first().sort_values()
    second = adata.obs["donor"].isin(ages.index[::2]).to_numpy()  # every second donor, so that ages agree
    kept = np.where(rng.random(200) < 0.3, 0.4, 1.0)
    x = adata.X.toarray().astype(int)
    x[second] = rng.binomial(x[second], kept)
    adata.X = sp.csr_matrix(x, dtype=np.float32)
    adata.obs["lab"] = np.where(second, "b", "a")
    pp.centre_genes(adata, "lab", subject_key="donor")
    error = {}
    for layer in (None, "centred"):
        agevi.tl.cross_validate(
            adata, agevi.model.PLSClock, subject_key="donor", age_key="age", fold_key="lab",
            setup_kwargs={"layer": layer},
        )  # fmt: skip
        agevi.tl.aggregate_subjects(adata)
        table = adata.uns["agevi_subjects"]
        error[layer] = (table["predicted"] - table["age"]).groupby(table["fold"]).mean().abs().max()
    assert error["centred"] < 0.5 * error[None]


def test_the_seed_decides_the_rounding(adata):
    one, again, other = (pp.centre_genes(adata, "lab", **KEYS, rng=r, copy=True).layers["centred"] for r in (1, 1, 2))
    assert (one != again).nnz == 0
    assert (one != other).nnz > 0


def test_small_cohorts_are_warned_of(adata):
    adata = adata[adata.obs["donor"].isin(["d0", "d1", "d2", "d3", "d4", "d8"])].copy()
    with pytest.warns(UserWarning, match="1 values of adata.obs\\['lab'\\] have fewer than 5 subjects \\('b: 1'\\)"):
        pp.centre_genes(adata, "lab", **KEYS)


@pytest.mark.parametrize(
    ("change", "kwargs", "error", "message"),
    [
        pytest.param(None, {"by": "site"}, KeyError, "by='site' is not a column", id="column"),
        pytest.param(None, {"layer": "raw"}, KeyError, "raw", id="layer"),
        pytest.param("values", {}, ValueError, "non-integer.*pp.centre_genes scales raw counts", id="no counts"),
        pytest.param("missing", {}, ValueError, "is missing in 1 cells", id="missing"),
        pytest.param("backed", {}, ValueError, "backed", id="backed"),
        pytest.param(
            None, {"reference": "uncentred"}, KeyError, "reference.var has no 'centred_share'", id="reference"
        ),
        pytest.param(None, {"reference": {"g1": 0.1}}, TypeError, "reference is a dict", id="type"),
        pytest.param(None, {"reference": pd.Series({"x": 1.0})}, ValueError, "none of the 40 genes", id="genes"),
    ],
)
def test_bad_input(adata, tmp_path, change, kwargs, error, message):
    if kwargs.get("reference") is not None and isinstance(kwargs["reference"], str):
        kwargs = {"reference": adata.copy()}
    if change == "values":
        adata.X = adata.X * 0.5
    if change == "missing":
        adata.obs["lab"] = adata.obs["lab"].where(np.arange(adata.n_obs) != 3)
    if change == "backed":
        adata.write_h5ad(tmp_path / "x.h5ad")
        adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.raises(error, match=message):
        pp.centre_genes(adata, **({"by": "lab"} | KEYS | kwargs))
    assert not adata.layers
    if change == "backed":
        adata.file.close()


def test_the_layer_that_is_read_is_not_replaced(adata):
    adata.layers["centred"] = adata.X.copy()
    with pytest.raises(ValueError, match="key_added='centred' is the layer that is read"):
        pp.centre_genes(adata, "lab", **KEYS, layer="centred")
