from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from agevi import pp
from agevi.pp import _pseudocells
from tests.test_gates import check_message, snapshot

FORMS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "csr_array": sp.csr_array, "dense": np.asarray}
KEYS = {"subject_key": "donor"}


@pytest.fixture
def adata():
    """47 cells of 4 donors, two of them with two visits, in random order, of 2 types; genes are powers of ten apart."""
    rng = np.random.default_rng(0)
    visit = rng.permutation(np.repeat(["a1", "a2", "b1", "b2", "c1", "d1"], [9, 3, 12, 8, 14, 1]))
    obs = pd.DataFrame({"visit": visit, "donor": [v[0] for v in visit]}, index=[f"c{i}" for i in range(len(visit))])
    obs["age"] = obs["visit"].map({"a1": 30.0, "a2": 33.5, "b1": 50.0, "b2": 51.0, "c1": 70.0, "d1": np.nan})
    obs["sex"] = pd.Categorical(obs["donor"].map({"a": "f", "b": "m", "c": "f", "d": None}))
    obs["type"] = pd.Categorical(rng.choice(["T", "B"], len(obs)))
    obs["depth"] = rng.normal(size=len(obs))
    obs["partly"] = np.where(np.arange(len(obs)) == int((visit == "c1").argmax()), np.nan, 1.0)
    obs["_scvi_batch"] = 0
    x = rng.poisson(1.5, (len(obs), 6)).astype(np.float32)
    return ad.AnnData(x, obs=obs, var=pd.DataFrame({"symbol": list("uvwxyz")}, index=[f"g{i}" for i in range(6)]))


def tagged(adata):
    """The same with values from which the cells of a sum can be read: gene i is cell i."""
    return ad.AnnData(sp.identity(adata.n_obs, dtype=np.float32, format="csr"), obs=adata.obs)


def test_pseudocells_of_all_cells_are_the_sums_of_pandas(adata):
    got = pp.pseudocells(adata, **KEYS, sample_key="visit", groupby="type", size=1000, n=2)
    by = adata.to_df().groupby([adata.obs["visit"], adata.obs["type"].astype(str)])
    expected, number = by.sum(), by.size()
    names = list(zip(got.obs["sample"], got.obs["group"], strict=True))
    assert names == [name for name in expected.index for _ in range(2)]
    np.testing.assert_array_equal(got.X.toarray(), expected.loc[names])
    np.testing.assert_array_equal(got.obs["n_cells"], number.loc[names])
    assert got.obs["n_cells"].dtype == np.int64


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        pytest.param(0.5, lambda n: -(-n // 2), id="half"),
        pytest.param(1, lambda n: 1, id="one cell"),
        pytest.param(5, lambda n: min(n, 5), id="five cells"),
    ],
)
@pytest.mark.parametrize("groupby", [None, "type"])
def test_cells_are_drawn_once_within_sample_and_group(adata, size, wanted, groupby):
    got = pp.pseudocells(tagged(adata), **KEYS, sample_key="visit", groupby=groupby, size=size, n=4)
    units = adata.obs[["visit"] + ([groupby] if groupby else [])].astype(str)
    number = units.value_counts()
    assert len(got) == 4 * len(number)
    assert set(got.X.data) == {1}
    for row in range(got.n_obs):
        members = units.iloc[got.X[row].indices].drop_duplicates()
        assert len(members) == 1
        assert members.iloc[0].tolist() == got.obs.iloc[row][["sample", "group"] if groupby else ["sample"]].tolist()
        assert got.X[row].nnz == got.obs["n_cells"].iloc[row] == wanted(number[tuple(members.iloc[0])])


def test_constant_columns_are_kept_with_their_types(adata):
    by_donor = pp.pseudocells(adata, **KEYS, n=1)
    assert list(by_donor.obs) == ["subject", "sample", "n_cells", "donor", "sex"]
    by_visit = pp.pseudocells(adata, **KEYS, sample_key="visit", n=2)
    assert list(by_visit.obs) == ["subject", "sample", "n_cells", "visit", "donor", "age", "sex"]
    one = adata.obs.drop_duplicates("visit").set_index("visit").loc[by_visit.obs["sample"]]
    for name in ("donor", "age", "sex"):
        pd.testing.assert_series_equal(by_visit.obs[name].reset_index(drop=True), one[name].reset_index(drop=True))
    np.testing.assert_array_equal(by_visit.obs["subject"], one["donor"])
    by_type = pp.pseudocells(adata, **KEYS, groupby="type", n=1)
    assert list(by_type.obs) == ["subject", "sample", "group", "n_cells", "donor", "sex", "type"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
def test_every_form_of_matrix_gives_the_same(adata, form, dtype, monkeypatch):
    expected = pp.pseudocells(adata, **KEYS, n=3)
    other = adata.copy()
    del other.X
    other.layers["counts"] = FORMS[form](adata.X.astype(dtype) * np.uint8(25))  # sums overflow a byte
    before = snapshot(other)
    monkeypatch.setattr(_pseudocells, "_BLOCK", 13)
    got = pp.pseudocells(other, **KEYS, n=3, layer="counts")
    assert isinstance(got.X, sp.csr_matrix)
    assert got.X.dtype == np.float32
    assert got.X.has_sorted_indices
    np.testing.assert_array_equal(got.X.toarray(), 25 * expected.X.toarray())
    pd.testing.assert_frame_equal(got.var, adata.var)
    assert got.var is not other.var
    assert got.obs_names.is_unique
    assert snapshot(other) == before


def test_means_of_values_that_are_no_counts(adata):
    values = np.random.default_rng(1).normal(size=adata.shape)
    adata.X = values
    got = pp.pseudocells(adata, **KEYS, size=100, n=1, statistic="mean")
    np.testing.assert_allclose(got.X.toarray(), adata.to_df().groupby(adata.obs["donor"]).mean(), rtol=1e-6, atol=1e-7)
    members = pp.pseudocells(tagged(adata), **KEYS, n=3, rng=5).X.toarray()
    got = pp.pseudocells(adata, **KEYS, n=3, rng=5, statistic="mean")
    np.testing.assert_allclose(got.X.toarray(), members @ values / members.sum(1, keepdims=True), rtol=1e-5, atol=1e-6)


def test_seeds(adata):
    draw = lambda rng: pp.pseudocells(adata, **KEYS, rng=rng).X.toarray()  # noqa: E731
    np.testing.assert_array_equal(draw(3), draw(np.random.default_rng(3)))
    assert (draw(3) != draw(4)).any()


def test_cells_without_group_are_left_out_and_counted(adata, caplog):
    missing = (adata.obs["donor"] == "c").to_numpy()
    adata.obs["type"] = adata.obs["type"].where(~missing)
    with caplog.at_level(logging.INFO, logger="agevi"):
        got = pp.pseudocells(adata, **KEYS, groupby="type", size=100, n=1)
    assert "14 of 47 cells have no group and are left out." in caplog.text
    assert set(got.obs["sample"]) == {"a", "b", "d"}
    np.testing.assert_array_equal(got.X.sum(0), adata.X[~missing].sum(0, keepdims=True))


def test_a_split_of_subjects_holds_for_their_pseudocells(cohort, tmp_path):
    got = pp.pseudocells(cohort, **KEYS, groupby="cell_type", n=2)
    split = cohort.obs.groupby("donor", observed=True)["agevi_split"].first().astype(str)
    np.testing.assert_array_equal(got.obs["agevi_split"].astype(str), split.loc[got.obs["subject"]])
    got.write_h5ad(tmp_path / "x.h5ad")
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "x.h5ad").X.toarray(), got.X.toarray())


def with_obs(**columns):
    def change(a):
        for name, value in columns.items():
            a.obs[name] = value

    return change


def with_x(make):
    def change(a):
        a.X = make(a.X)

    return change


BAD = {
    "subject": ({"subject_key": "donr"}, None, KeyError, "closest: 'donor'"),
    "group": ({"groupby": "typ"}, None, KeyError, "groupby='typ' is not a column of adata.obs; closest: 'type'"),
    "no group": ({"groupby": "none"}, with_obs(none=None), ValueError, "groupby needs the type of each cell"),
    "layer": ({"layer": "raw"}, None, KeyError, "layer='raw' is not in adata.layers"),
    "statistic": ({"statistic": "median"}, None, ValueError, "statistic='median' is not known; choose one of 'sum'"),
    "size": ({"size": 2.5}, None, ValueError, "size=2.5 is neither a share below 1 nor a whole number of cells"),
    "no size": ({"size": 0}, None, ValueError, "size=0 is neither a share"),
    "nan": ({"size": float("nan")}, None, ValueError, "size=nan is neither a share"),
    "size as text": ({"size": "half"}, None, TypeError, "size='half' is a str; pass a number, for example 0.5 or 15"),
    "n": ({"n": 0}, None, ValueError, "n=0 is out of range; pass a whole number, 1 or more"),
    "rng": ({"rng": "x"}, None, TypeError, "rng='x' is a str"),
    "logarithms": ({}, with_x(np.log1p), ValueError, "pp.pseudocells sums raw counts. Pass them with layer=..., or set"),
    "negative": ({}, with_x(np.negative), ValueError, "or set statistic='mean' for values that are normalised already"),
    "infinite mean": ({"statistic": "mean"}, with_x(lambda x: x / 0), ValueError, "missing or infinite values"),
    "another sample": (
        {}, with_obs(sample="s"), ValueError,
        "has a column 'sample', which is the name of a column that pseudocells get; rename it, or pass sample_key='sample'",
    ),
    "another n_cells": ({}, with_obs(n_cells=3), ValueError, "has a column 'n_cells'"),
    "two subjects": ({"sample_key": "type"}, None, ValueError, "belongs to"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value)")
def test_bad_arguments(adata, case):
    kwargs, change, error, words = BAD[case]
    if change:
        change(adata)
    before = snapshot(adata)
    with pytest.raises(error) as raised:
        pp.pseudocells(adata, **(KEYS | kwargs))
    check_message(raised, words)
    assert snapshot(adata) == before


def test_data_on_disk_are_refused(adata, tmp_path):
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.raises(ValueError) as raised:
        pp.pseudocells(backed, **KEYS)
    check_message(raised, "pp.pseudocells reads cells at random, which needs them in memory")
    backed.file.close()


def test_a_column_that_is_named_like_the_new_one(adata):
    adata.obs = adata.obs.rename(columns={"donor": "subject", "visit": "sample", "type": "group"})
    got = pp.pseudocells(adata, subject_key="subject", sample_key="sample", groupby="group", n=1)
    assert list(got.obs) == ["subject", "sample", "group", "n_cells", "age", "sex"]
