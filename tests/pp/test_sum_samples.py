from __future__ import annotations

import logging

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from agevi import pp
from agevi.pp import _matrix_file, _sum_samples
from tests.test_gates import check_message, snapshot

BY = ["visit", "type"]
SQUARES, PRODUCTS = "agevi_sum_squares", "agevi_sum_library_products"


@pytest.fixture
def adata():
    """60 cells of 4 visits in random order, 2 types, one without a type; a visit has one cell; a gene has no counts."""
    rng = np.random.default_rng(0)
    visit = rng.permutation(np.repeat(["a2", "a1", "b1", "c1"], [25, 20, 14, 1]))
    obs = pd.DataFrame({"visit": pd.Categorical(visit, categories=["c1", "b1", "a1", "a2", "none"])})
    obs.index = [f"c{i}" for i in range(len(obs))]
    obs["type"] = pd.Categorical(np.where(np.arange(60) == 3, None, rng.choice(["T", "B"], 60)))
    obs["age"] = obs["visit"].astype(str).map({"a1": 30.0, "a2": 33.5, "b1": 50.0, "c1": np.nan})
    obs["sex"] = pd.Categorical(obs["visit"].astype(str).str[0].map({"a": "f", "b": "m"}), categories=["f", "m", "x"])
    obs["depth"] = rng.normal(size=60)
    x = rng.poisson(0.7, (60, 7)).astype(np.float32)
    x[:, 2] = 0
    var = pd.DataFrame({"symbol": list("tuvwxyz")}, index=[f"g{i}" for i in range(7)])
    return ad.AnnData(sp.csr_matrix(x), obs=obs, var=var)


def expected(adata, x=None):
    """Sums of x, x^2, l x and l^2 by pandas in float64, and the number of cells."""
    x = np.asarray(adata.X.toarray() if x is None else x, dtype=np.float64)
    by = [adata.obs[key].astype(object) for key in BY]
    library = x.sum(axis=1, keepdims=True)
    frames = [pd.DataFrame(v, adata.obs_names).groupby(by) for v in (x, x**2, library * x, library**2)]
    return [frame.sum().to_numpy() for frame in frames], frames[0].size()


def check(got, adata, x=None):
    (sums, squares, along, library), size = expected(adata, x)
    np.testing.assert_array_equal(got.X.toarray(), sums)
    np.testing.assert_array_equal(got.layers[SQUARES].toarray(), squares)
    np.testing.assert_array_equal(got.layers[PRODUCTS].toarray(), along)
    np.testing.assert_array_equal(got.obs["agevi_sum_library_squares"], library[:, 0])
    np.testing.assert_array_equal(got.obs["n_cells"], size)
    assert list(zip(got.obs["visit"], got.obs["type"], strict=True)) == list(size.index)


def unsorted(x):
    """The same with each value stored twice as two parts, with zeros between, in no order."""
    triplets = x.tocoo()
    half = np.floor(triplets.data / 2)
    data = np.concatenate([half, triplets.data - half, np.zeros(triplets.nnz)]).astype(np.float32)
    rows, columns = (
        np.tile(triplets.row, 3),
        np.concatenate([triplets.col, triplets.col, (triplets.col + 1) % x.shape[1]]),
    )
    order = np.argsort(rows, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=x.shape[0]))])
    return sp.csr_matrix((data[order], columns[order], indptr), shape=x.shape)


def of_dask(x, chunks):
    return pytest.importorskip("dask.array").from_array(x.toarray(), chunks=chunks)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda x: x, id="csr"),
        pytest.param(sp.csc_matrix, id="csc"),
        pytest.param(sp.csr_array, id="csr_array"),
        pytest.param(lambda x: x.toarray(), id="dense"),
        pytest.param(lambda x: x.astype(np.int64), id="integers"),
        pytest.param(unsorted, id="stored twice"),
        pytest.param(lambda x: of_dask(x, (17, 3)), id="dask"),
        pytest.param(lambda x: of_dask(x, (9, -1)).map_blocks(sp.csr_matrix), id="dask of csr"),
    ],
)
def test_sums_are_those_of_pandas(adata, monkeypatch, form):
    monkeypatch.setattr(_matrix_file, "_ROWS", 11)
    monkeypatch.setattr(_matrix_file, "_VALUES", 50)
    x, adata.X = adata.X.toarray(), form(adata.X)
    check(pp.sum_samples(adata, BY), adata, x)


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
@pytest.mark.parametrize("store", ["h5ad", "zarr", "backed"])
def test_files_give_the_sums_of_their_cells(adata, tmp_path, monkeypatch, form, store):
    monkeypatch.setattr(_matrix_file, "_ROWS", 11)
    monkeypatch.setattr(_matrix_file, "_VALUES", 100)
    kept = adata.copy()
    adata.X = {"csr": adata.X, "csc": sp.csc_matrix(adata.X), "dense": adata.X.toarray()}[form]
    adata.layers["counts"], path = adata.X, tmp_path / f"x.{'zarr' if store == 'zarr' else 'h5ad'}"
    adata.write_zarr(path) if store == "zarr" else adata.write_h5ad(path)
    if store == "backed":
        backed = ad.read_h5ad(path, backed="r")
        check(pp.sum_samples(backed, BY), kept)
        backed.file.close()
    else:
        check(pp.sum_samples(str(path), BY, layer="counts"), kept)
        check(pp.sum_samples(path, tuple(BY)), kept)


def test_rows_carry_what_their_cells_share(adata, caplog):
    caplog.set_level(logging.INFO, logger="agevi")
    before = snapshot(adata)
    got = pp.sum_samples(adata, BY)
    assert snapshot(adata) == before
    assert list(got.obs) == ["visit", "type", "n_cells", "age", "sex", "agevi_sum_library_squares"]
    assert got.obs["age"].isna().sum() == 1 and got.obs.loc["a1|T", "age"] == 30
    assert list(got.obs["sex"].cat.categories) == ["f", "m"] and got.obs["n_cells"].dtype == np.int64
    pd.testing.assert_frame_equal(got.var, adata.var)
    assert "1 of 60 cells have no value in adata.obs['type'] and are left out." in caplog.messages
    assert "1 columns that differ within rows are left out: 'depth'." in caplog.messages
    assert list(got.uns["agevi_sums"]["by"]) == BY and got.uns["agevi_sums"]["n_cells"] == 59


def test_float32_is_left_where_it_would_round(adata):
    adata.X = adata.X.astype(np.float64) * (2**24 + 1)
    got = pp.sum_samples(adata, BY)
    assert got.X.dtype == np.float64
    np.testing.assert_array_equal(got.X.toarray(), expected(adata)[0][0])


def test_what_is_written_is_what_is_returned(adata, tmp_path):
    for name, read in (("x.h5ad", ad.read_h5ad), ("x.zarr", ad.read_zarr)):
        got = pp.sum_samples(adata, "visit", out=tmp_path / name)
        found = read(tmp_path / name)
        pd.testing.assert_frame_equal(found.obs, got.obs, check_index_type=False)
        assert (found.X != got.X).nnz == 0 and found.uns["agevi_sums"]["by"] == ["visit"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.h5ad", "x.zarr"]


def with_value(value):
    def change(a):
        a.X[5, 1] = value

    return change


def missing_sample(a):
    a.obs["visit"] = a.obs["visit"].astype(object).where(np.arange(60) != 7, None)


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(
    ("change", "options", "kind", "words"),
    [
        pytest.param(with_value(-1.0), {}, ValueError, "has negative values (lowest: -1)", id="negative"),
        pytest.param(with_value(0.5), {}, ValueError, "has non-integer values (first: 0.5)", id="fraction"),
        pytest.param(with_value(np.nan), {}, ValueError, "has missing or infinite values", id="nan"),
        pytest.param(missing_sample, {}, ValueError, "adata.obs['visit'] is missing in 1 cells", id="no sample"),
        pytest.param(None, {"by": ["visit", "typ"]}, KeyError, "by='typ' is not a column", id="no column"),
        pytest.param(None, {"by": ["visit", "visit"]}, ValueError, "names 'visit' twice", id="twice"),
        pytest.param(None, {"by": []}, TypeError, "does not name columns", id="no by"),
        pytest.param(None, {"layer": "count"}, KeyError, "closest: 'counts'", id="no layer"),
        pytest.param(None, {"out": "x.csv"}, ValueError, "neither .h5ad nor .zarr", id="ending"),
    ],
)
def test_refusals_leave_nothing_behind(adata, tmp_path, on_disk, change, options, kind, words):
    adata.layers["counts"] = adata.X.copy()
    if change is not None:
        change(adata)
    data = adata
    if on_disk:
        data = tmp_path / "in.h5ad"
        adata.write_h5ad(data)
    options = {"by": BY, "out": "sums.h5ad"} | options
    with pytest.raises(kind) as raised:
        pp.sum_samples(data, **(options | {"out": tmp_path / options["out"]}))
    check_message(raised, words)
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"] * on_disk


def test_files_that_cannot_be_read_are_named(adata, tmp_path):
    path = tmp_path / "x.h5ad"
    with pytest.raises(FileNotFoundError) as raised:
        pp.sum_samples(path, BY)
    check_message(raised, "does not exist")
    adata.write_h5ad(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError) as raised:
        pp.sum_samples(path, BY)
    check_message(raised, "cannot be read (OSError")
    with h5py.File(tmp_path / "y.h5ad", "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError) as raised:
        pp.sum_samples(tmp_path / "y.h5ad", BY)
    check_message(raised, "no AnnData")


def test_a_file_that_changes_meanwhile_is_refused(adata, tmp_path, monkeypatch):
    path, add = tmp_path / "x.h5ad", _sum_samples.CellSums.add

    def add_and_touch(self, *args):
        add(self, *args)
        path.touch()

    adata.write_h5ad(path)
    monkeypatch.setattr(_sum_samples.CellSums, "add", add_and_touch)
    with pytest.raises(ValueError) as raised:
        pp.sum_samples(path, BY, out=tmp_path / "sums.h5ad")
    check_message(raised, "changed while it was read")
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5ad"]


def test_existing_files_and_sums_are_kept(adata, tmp_path):
    got = pp.sum_samples(adata, BY, out=tmp_path / "x.h5ad")
    with pytest.raises(FileExistsError) as raised:
        pp.sum_samples(adata, BY, out=tmp_path / "x.h5ad")
    check_message(raised, "exists; delete it")
    for data in (got, tmp_path / "x.h5ad"):
        with pytest.raises(ValueError) as raised:
            pp.sum_samples(data, "visit")
        check_message(raised, "are sums of agevi.pp.sum_samples")
