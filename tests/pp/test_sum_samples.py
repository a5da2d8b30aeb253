from __future__ import annotations

import logging
import time

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from agevi import pp
from agevi.io import _kept, _matrix_file
from tests.files import FORMS, cut_short, files_of, full_disk, killed, on_disk
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
    monkeypatch.setattr(_matrix_file, "_VALUES", 50)
    x, adata.X = adata.X.toarray(), form(adata.X)
    check(pp.sum_samples(adata, BY), adata, x)


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(_matrix_file, "_VALUES", 60)


def test_files_give_the_sums_of_their_cells(adata, tmp_path, small_blocks, form):
    adata.layers["counts"] = adata.X
    data, path = on_disk(adata, form, tmp_path)
    check(pp.sum_samples(data, BY), adata)
    check(pp.sum_samples(str(path), tuple(BY), layer="counts"), adata)


def assert_same(one, other):
    pd.testing.assert_frame_equal(one.obs, other.obs)
    for x, y in ((one.X, other.X), *((one.layers[key], other.layers[key]) for key in (SQUARES, PRODUCTS))):
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(x, part), getattr(y, part))
            assert getattr(x, part).dtype == getattr(y, part).dtype


@pytest.fixture
def kept_at_once(monkeypatch):
    monkeypatch.setattr(_kept, "PAUSE", 0.0)
    monkeypatch.setattr(_kept, "SHARE", 0.0)


class Planted(RuntimeError):
    pass


def stops_at(n, read=_matrix_file.Matrix._read):
    """Reading that fails at the block ``n``, counted from 0."""
    left = [n]

    def reads(self, part):
        left[0] -= 1
        if left[0] < 0:
            raise Planted
        return read(self, part)

    return reads


@pytest.mark.parametrize("form", [form for form in FORMS if form != "lazy"] + ["memory"])
def test_a_pass_that_was_broken_off_goes_on(adata, tmp_path, small_blocks, kept_at_once, monkeypatch, form):
    data = adata if form == "memory" else on_disk(adata, form, tmp_path)[0]
    options = {"by": BY, "checkpoint_dir": tmp_path / "kept"}
    expected, read = pp.sum_samples(data, BY), _matrix_file.Matrix._read
    monkeypatch.setattr(_matrix_file.Matrix, "_read", stops_at(2))
    with pytest.raises(Planted):
        pp.sum_samples(data, **options)
    rest, whole = [], []
    monkeypatch.setattr(_matrix_file.Matrix, "_read", lambda self, part: rest.append(part) or read(self, part))
    assert_same(pp.sum_samples(data, **options), expected)
    n_rest = len(rest)
    assert_same(pp.sum_samples(data, **options), expected)  # which is finished
    assert len(rest) == n_rest
    monkeypatch.setattr(_matrix_file.Matrix, "_read", lambda self, part: whole.append(part) or read(self, part))
    pp.sum_samples(data, BY)
    assert whole[2:] == rest and len(rest) >= 2


def test_a_process_that_was_killed_goes_on(adata, tmp_path, small_blocks, kept_at_once, monkeypatch):
    data, kept = on_disk(adata, "h5ad csr", tmp_path)[0], tmp_path / "kept"
    expected, read = pp.sum_samples(data, BY), _matrix_file.Matrix._read
    options = {"by": BY, "checkpoint_dir": kept, "out": tmp_path / "sums.h5ad"}

    def slow(self, part):
        time.sleep(0.03)
        return read(self, part)

    monkeypatch.setattr(_matrix_file.Matrix, "_read", slow)
    for row in (5, 25):
        state = kept / "state.safetensors"
        killed(
            lambda: pp.sum_samples(data, **options),
            lambda: state.exists() and _kept.read_state(state)["start"] > row,  # noqa: B023
        )
        assert not options["out"].exists()
    assert_same(pp.sum_samples(data, **options), expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells.h5ad", "kept", "sums.h5ad"]


def other_values(path):
    with h5py.File(path, "a") as file:
        file["X/data"][0] += 1


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        pytest.param(other_values, {}, "holds the state of other sums: values was", id="file"),
        pytest.param(None, {"by": "visit"}, "holds the state of other sums", id="by"),
        pytest.param(None, {"layer": "counts"}, "layer was adata.X and is adata.layers['counts']", id="layer"),
        pytest.param(None, {"values": "any"}, "kind of values was counts and is any", id="values"),
    ],
)
def test_the_state_of_other_sums_is_refused(adata, tmp_path, change, options, words):
    adata.layers["counts"] = adata.X
    data, path = on_disk(adata, "h5ad csr", tmp_path)
    pp.sum_samples(data, BY, checkpoint_dir=tmp_path / "kept")
    if change is not None:
        change(path)
    with pytest.raises(ValueError) as raised:
        pp.sum_samples(data, **({"by": BY, "checkpoint_dir": tmp_path / "kept"} | options))
    check_message(raised, words)


def test_arrays_of_dask_are_not_told_apart(adata, tmp_path):
    adata.X = of_dask(adata.X, (20, -1))
    with pytest.raises(ValueError) as raised:
        pp.sum_samples(adata, BY, checkpoint_dir=tmp_path / "kept")
    check_message(raised, "Pass the path of the file or store")


def test_files_that_are_cut_short_are_named(adata, tmp_path, form):
    data, path = on_disk(adata, form, tmp_path)
    if form == "backed":
        data.file.close()
        data = path
    cut_short(path)
    with pytest.raises(ValueError) as raised:
        pp.sum_samples(data, BY, out=tmp_path / "sums.h5ad")
    check_message(raised, "cannot be read")
    assert path.name in str(raised.value) or form == "lazy"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("form", ["zarr csr", "zarr csc"])
def test_stores_that_lack_a_file_are_refused(adata, tmp_path, form):
    data, path = on_disk(adata, form, tmp_path)
    files_of(path)[0].unlink()  # in the place of which zarr reads zeros
    with pytest.raises(ValueError) as raised:
        pp.sum_samples(data, BY)
    check_message(raised, "parts of its sparse matrix are absent")


@pytest.mark.parametrize("form", [form for form in FORMS if form != "lazy"])
def test_a_file_that_changes_meanwhile_is_refused(adata, tmp_path, small_blocks, kept_at_once, monkeypatch, form):
    data, path = on_disk(adata, form, tmp_path)
    read, n = _matrix_file.Matrix._read, []

    def read_and_touch(self, part):
        n.append(part)
        if len(n) == 3:
            files_of(path)[-1].touch()
        return read(self, part)

    monkeypatch.setattr(_matrix_file.Matrix, "_read", read_and_touch)
    for own in ({}, {"checkpoint_dir": tmp_path / "kept"}):
        n.clear()
        with pytest.raises(ValueError) as raised:
            pp.sum_samples(data, BY, out=tmp_path / "sums.h5ad", **own)
        check_message(raised, "changed while it was read")
        assert path.name in str(raised.value)
    start = _kept.read_state(tmp_path / "kept" / "state.safetensors")["start"]
    assert start == n[1].stop  # and not what was read later
    assert not (tmp_path / "sums.h5ad").exists()


@pytest.mark.parametrize("name", ["sums.h5ad", "sums.zarr"])
def test_a_disk_that_is_full_leaves_nothing(adata, tmp_path, name):
    adata = ad.concat([adata] * 40, index_unique="-")
    rng = np.random.default_rng(0)
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(1.0, (adata.n_obs, 400)).astype(np.float32)), obs=adata.obs)
    adata.obs["visit"] = [f"v{i % 60}" for i in range(adata.n_obs)]
    with full_disk(20_000), pytest.raises(OSError) as raised:
        pp.sum_samples(adata, "visit", out=tmp_path / name)
    check_message(raised, "cannot be written")
    assert name in str(raised.value) and not list(tmp_path.iterdir())
    with full_disk(20_000), pytest.raises(OSError) as raised:
        pp.sum_samples(adata, "visit", checkpoint_dir=tmp_path / "kept")
    check_message(raised, "call pp.sum_samples again")


def test_tables_on_disk_are_read(adata, tmp_path):
    lazy = on_disk(adata, "lazy", tmp_path)[0]
    check(pp.sum_samples(lazy, BY), adata)


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


def test_existing_files_and_sums_are_kept(adata, tmp_path):
    got = pp.sum_samples(adata, BY, out=tmp_path / "x.h5ad")
    with pytest.raises(FileExistsError) as raised:
        pp.sum_samples(adata, BY, out=tmp_path / "x.h5ad")
    check_message(raised, "exists; delete it")
    for data in (got, tmp_path / "x.h5ad"):
        with pytest.raises(ValueError) as raised:
            pp.sum_samples(data, "visit")
        check_message(raised, "are sums of agevi.pp.sum_samples")
