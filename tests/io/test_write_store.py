"""Several files as one, sorted by sample."""

from __future__ import annotations

import logging
import time

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import agevi
from agevi.io import _kept, _matrix_file, _store_file, _store_parts, write_store
from tests.files import FORMS, cut_short, files_of, full_disk, killed, on_disk
from tests.test_gates import check_message

FORM_PAIRS = [pytest.param(form, id=form) for form in FORMS]


@pytest.fixture
def cells():
    """60 cells of 4 visits in random order, in two halves that share two visits; some cells and a gene are empty."""
    rng = np.random.default_rng(0)
    x = rng.poisson(0.7, (60, 7)).astype(np.float32)
    x[[3, 40]] = 0
    x[:, 2] = 0
    obs = pd.DataFrame({"visit": rng.choice(["a2", "a1", "b1", "c1"], 60)}, index=[f"c{i}" for i in range(60)])
    obs["age"] = obs["visit"].map({"a1": 30.0, "a2": 33.5, "b1": 50.0, "c1": np.nan})
    obs["type"] = pd.Categorical(rng.choice(["T", "B"], 60))
    var = pd.DataFrame({"symbol": list("tuvwxyz")}, index=[f"g{i}" for i in range(7)])
    return ad.AnnData(sp.csr_matrix(x), obs=obs, var=var)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(_matrix_file, "_VALUES", 60)
    monkeypatch.setattr(_store_parts, "_VALUES", 80)
    monkeypatch.setattr(_store_file, "_CHUNK", 16)
    monkeypatch.setattr(_store_file, "_SHARD", 32)


def halves(cells, form, folder):
    return [
        on_disk(cells[part].copy(), form, folder, name)[0] for part, name in ((slice(25), "a"), (slice(25, 60), "b"))
    ]


def check(got, cells):
    """The cells in the order of their visits, those of a visit as they were."""
    order = np.argsort(cells.obs["visit"].to_numpy(dtype=str), kind="stable")
    expected = cells[order]
    assert list(got.obs_names) == list(expected.obs_names) and list(got.var_names) == list(expected.var_names)
    np.testing.assert_array_equal(got.X.toarray(), expected.X.toarray())
    assert got.X.has_canonical_format and got.X.dtype == expected.X.dtype
    for key in cells.obs:
        values, wanted = got.obs[key], expected.obs[key]
        assert list(values.astype(object).fillna("-")) == list(wanted.astype(object).fillna("-")), key
    pd.testing.assert_frame_equal(got.var, cells.var, check_dtype=False)


@pytest.mark.parametrize("form", FORM_PAIRS)
@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_cells_are_sorted_by_sample(cells, tmp_path, form, ending):
    out = write_store(halves(cells, form, tmp_path), tmp_path / f"store.{ending}", "visit")
    check(ad.read_h5ad(out) if ending == "h5ad" else ad.read_zarr(out), cells)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[1:] not in (".h5ad", ".zarr")) == [f"store.{ending}"]


def test_stores_are_read_by_the_rows_of_a_sample(cells, tmp_path):
    out = write_store([cells], tmp_path / "store.h5ad", "visit")
    backed = ad.read_h5ad(out, backed="r")
    visit = backed.obs["visit"].to_numpy()
    assert (visit[1:] != visit[:-1]).sum() == 3
    rows = np.flatnonzero(visit == "b1")
    part = backed.X[rows[0] : rows[-1] + 1]
    np.testing.assert_array_equal(part.toarray(), cells[cells.obs["visit"] == "b1"].X.toarray())
    backed.file.close()
    from_store, from_cells = (agevi.pp.sum_samples(a, "visit") for a in (out, cells))
    assert (from_store.X != from_cells.X).nnz == 0


def arrays(path):
    """The arrays of X as they are stored."""
    found = ad.io.sparse_dataset(_matrix_file.h5py.File(path)["X"]).group
    return {name: (found[name].dtype, found[name][:].tobytes()) for name in ("data", "indices", "indptr")}


@pytest.fixture
def kept_at_once(monkeypatch):
    monkeypatch.setattr(_kept, "PAUSE", 0.0)
    monkeypatch.setattr(_kept, "SHARE", 0.0)


def test_a_process_that_was_killed_goes_on(cells, tmp_path, kept_at_once, monkeypatch):
    paths, out, read = halves(cells, "h5ad csr", tmp_path), tmp_path / "store.h5ad", _matrix_file.Matrix._read
    expected = write_store(paths, tmp_path / "whole.h5ad", "visit")
    state, written, rows = tmp_path / "store.h5ad.parts" / "state.safetensors", [], _store_parts.Parts.rows

    def slow(self, part):
        time.sleep(0.03)
        return read(self, part)

    def slow_rows(self):
        for block in rows(self):
            time.sleep(0.03)
            yield block

    def at(file, start):
        found = _kept.read_state(state) if state.exists() else {"file": 0, "start": 0}
        return (found["file"], found["start"]) >= (file, start)

    monkeypatch.setattr(_matrix_file.Matrix, "_read", slow)
    monkeypatch.setattr(_store_parts.Parts, "rows", slow_rows)
    for moment in (lambda: at(0, 10), lambda: at(1, 10), lambda: (tmp_path / ".store.agevi-tmp.h5ad").exists()):
        killed(lambda: write_store(paths, out, "visit"), moment)
        assert not out.exists() and state.exists()
    monkeypatch.setattr(_matrix_file.Matrix, "_read", lambda self, part: written.append(part) or read(self, part))
    write_store(paths, out, "visit")
    assert not written  # all values were in parts
    assert arrays(out) == arrays(expected)
    check(ad.read_h5ad(out), cells)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5ad", "b.h5ad", "store.h5ad", "whole.h5ad"]


def test_genes_are_matched_and_those_that_a_file_lacks_are_left_out(cells, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="agevi")
    cells.var_names = [f"ENSG{i:011d}" for i in range(7)]
    cells.var["symbol"] = ["TP53", "ACTB", "GAPDH", "CD3E", "LEF1", "IL7R", "MS4A1"]
    one, other = cells[:25].copy(), cells[25:, [5, 0, 3, 4, 1]].copy()
    other.var_names = other.var["symbol"].to_numpy()
    got = ad.read_h5ad(write_store([one, other], tmp_path / "store.h5ad", "visit"))
    assert list(got.var_names) == [f"ENSG{i:011d}" for i in (0, 1, 3, 4, 5)]
    wanted = cells[got.obs_names, got.var_names]
    np.testing.assert_array_equal(got.X.toarray(), wanted.X.toarray())
    assert any("paths[1]: 5 of 7 genes are found through" in text for text in caplog.messages)
    assert "2 genes that some file lacks are left out." in caplog.messages
    few = ad.read_h5ad(write_store([one, other], tmp_path / "few.h5ad", "visit", genes=["IL7R", "TP53"]))
    np.testing.assert_array_equal(few.X.toarray(), cells[few.obs_names, [5, 0]].X.toarray())
    assert list(few.var_names) == ["IL7R", "TP53"]


def test_columns_of_one_gene_are_added(cells, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="agevi")
    cells.var_names = [f"ENSG{i:011d}" for i in range(7)]
    versions = cells.copy()
    versions.var_names = [*(f"ENSG{i:011d}.2" for i in range(6)), "ENSG00000000000.3"]
    versions.obs_names = [f"other {name}" for name in versions.obs_names]
    versions.X = versions.X.astype(np.uint8)
    first = cells[:, :6].copy()
    first.X = first.X.astype(np.uint8)
    got = ad.read_h5ad(write_store([first, versions], tmp_path / "store.h5ad", "visit"))
    x = got[versions.obs_names].X.toarray()
    expected = cells.X.toarray()[:, :6]
    expected[:, 0] += cells.X.toarray()[:, 6]
    np.testing.assert_array_equal(x, expected)
    assert got.X.dtype == np.uint64
    assert "paths[1]: 1 columns have the name of another gene, and are added to it." in caplog.messages


def test_columns_of_cells_are_kept(cells, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="agevi")
    one, other = cells[:25].copy(), cells[25:].copy()
    one.obs["batch"], other.obs["n"], other.obs["ok"] = "x", np.arange(35), True
    other.obs["visit"] = pd.Categorical(other.obs["visit"])
    one.obs["id"], other.obs["id"] = 1, 2
    got = ad.read_h5ad(write_store([one, other], tmp_path / "store.h5ad", "visit")).obs
    assert got["id"].dtype == np.int64 and got["n"].isna().sum() == 25 and got["ok"].sum() == 35
    assert got["batch"].notna().sum() == 25 and set(got["visit"]) == {"a1", "a2", "b1", "c1"}
    for name in ("n", "ok"):
        assert list(got.loc[other.obs_names, name]) == list(other.obs[name])
    text = next(text for text in caplog.messages if "columns of cells are missing" in text)
    assert text.startswith("3 columns of cells are missing where a file lacks them ('batch', 'n', 'ok'")


def test_names_of_cells_that_are_in_two_files_get_the_name_of_the_file(cells, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="agevi")
    (tmp_path / "two").mkdir()
    paths = [on_disk(cells, "h5ad csr", folder, "x")[0] for folder in (tmp_path, tmp_path / "two")]
    got = ad.read_h5ad(write_store(paths, tmp_path / "store.h5ad", "visit"))
    assert got.obs_names.is_unique and f"c7-{paths[1]}" in got.obs_names
    assert any(text.startswith("60 names of cells are in several files") for text in caplog.messages)


def test_values_of_several_types(cells, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="agevi")
    one, other = cells[:25].copy(), cells[25:].copy()
    other.X = other.X.astype(np.int64)
    got = ad.read_h5ad(write_store([one, other], tmp_path / "store.h5ad", "visit"))
    assert got.X.dtype == np.float64
    np.testing.assert_array_equal(got.X.toarray(), cells[got.obs_names].X.toarray())
    assert "Values are float32 in paths[0], int64 in paths[1]; the store holds float64." in caplog.messages


def test_a_layer_is_taken(cells, tmp_path):
    cells.layers["counts"], cells.X = cells.X, cells.X * 0.5
    got = ad.read_h5ad(write_store(halves(cells, "h5ad csr", tmp_path), tmp_path / "s.h5ad", "visit", layer="counts"))
    np.testing.assert_array_equal(got.X.toarray(), cells[got.obs_names].layers["counts"].toarray())


def twice(a):
    a.obs_names = [a.obs_names[1], *a.obs_names[1:]]


def text_of_ages(a):
    a.obs["age"] = a.obs["age"].astype(str)


def other_genes(a):
    a.var_names = [f"ENSMUSG{i:011d}" for i in range(a.n_vars)]
    a.var["symbol"] = [f"Gm{i}" for i in range(a.n_vars)]


def no_visit(a):
    a.obs["visit"] = a.obs["visit"].astype(object).where(np.arange(a.n_obs) != 3, None)


@pytest.mark.parametrize(
    ("change", "options", "kind", "words"),
    [
        pytest.param(twice, {}, ValueError, "b.h5ad: adata.obs_names has 1 repeated names", id="repeated cells"),
        pytest.param(text_of_ages, {}, ValueError, "holds numbers in a.h5ad and names in b.h5ad", id="ages"),
        pytest.param(other_genes, {}, ValueError, "have none of the 7 genes", id="genes"),
        pytest.param(no_visit, {}, ValueError, "b.h5ad: adata.obs['visit'] is missing in 1 cells", id="no sample"),
        pytest.param(None, {"sample_key": "donor"}, KeyError, "a.h5ad: sample_key='donor' is not a column", id="key"),
        pytest.param(None, {"layer": "counts"}, KeyError, "adata.layers['counts'] is absent", id="layer"),
        pytest.param(None, {"out": "x.csv"}, ValueError, "neither .h5ad nor .zarr", id="ending"),
        pytest.param(None, {"out": "a.h5ad"}, FileExistsError, "exists; delete it", id="exists"),
        pytest.param(None, {"paths": []}, TypeError, "names no files", id="no files"),
        pytest.param(None, {"paths": [3]}, TypeError, "paths holds a int", id="number"),
        pytest.param(None, {"paths": ["no.h5ad"]}, FileNotFoundError, "does not exist", id="no file"),
    ],
)
def test_refusals_leave_nothing_behind(cells, tmp_path, change, options, kind, words):
    one, other = cells[:25].copy(), cells[25:].copy()
    if change is not None:
        change(other)
    paths = [on_disk(a, "h5ad csr", tmp_path, name)[0] for a, name in ((one, "a"), (other, "b"))]
    given = {"paths": paths, "out": "store.h5ad", "sample_key": "visit"} | options
    with pytest.raises(kind) as raised:
        write_store(**(given | {"out": tmp_path / given["out"]}))
    check_message(raised, words)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5ad", "b.h5ad"]


@pytest.mark.parametrize("form", FORM_PAIRS)
def test_files_that_are_cut_short_are_named(cells, tmp_path, form):
    data, path = on_disk(cells, form, tmp_path)
    if form == "backed":
        data.file.close()
        data = path
    cut_short(path)
    with pytest.raises(ValueError) as raised:
        write_store(data, tmp_path / "store.h5ad", "visit")
    check_message(raised, "cannot be read")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("form", [form for form in FORMS if form != "lazy"])
def test_a_file_that_changes_meanwhile_is_refused(cells, tmp_path, monkeypatch, form):
    data, path = on_disk(cells, form, tmp_path)
    read, n = _matrix_file.Matrix._read, []

    def read_and_touch(self, part):
        n.append(part)
        if len(n) == 2:
            files_of(path)[-1].touch()
        return read(self, part)

    monkeypatch.setattr(_matrix_file.Matrix, "_read", read_and_touch)
    with pytest.raises(ValueError) as raised:
        write_store(data, tmp_path / "store.zarr", "visit")
    check_message(raised, "changed while it was read")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_disk_that_is_full_keeps_the_parts(tmp_path, monkeypatch, ending):
    rng = np.random.default_rng(0)
    x = sp.random(600, 200, 0.3, format="csr", dtype=np.float32, random_state=0)
    cells = ad.AnnData(x, obs=pd.DataFrame({"visit": rng.choice(list("abc"), 600)}, index=map(str, range(600))))
    path, out = on_disk(cells, "h5ad csr", tmp_path)[0], tmp_path / f"store.{ending}"
    for name in ("_CHUNK", "_SHARD"):
        monkeypatch.setattr(_store_file, name, 1 << 15)
    for part in (1 << 12, 1 << 16):  # the parts fit, or they do not
        monkeypatch.setattr(_store_parts, "_VALUES", part)
        with full_disk(100_000), pytest.raises(OSError) as raised:
            write_store(path, out, "visit")
        check_message(raised, "free some space, and make the same call again")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["cells.h5ad", f"store.{ending}.parts"]
    write_store(path, out, "visit")
    got = ad.read_h5ad(out) if ending == "h5ad" else ad.read_zarr(out)
    assert (got.X != cells[got.obs_names].X).nnz == 0


def test_parts_of_another_store_are_refused(cells, tmp_path, monkeypatch):
    paths, read, n = halves(cells, "h5ad csr", tmp_path), _matrix_file.Matrix._read, []

    def fails(self, part):
        n.append(part)
        if len(n) == 3:
            raise KeyboardInterrupt
        return read(self, part)

    monkeypatch.setattr(_matrix_file.Matrix, "_read", fails)
    with pytest.raises(KeyboardInterrupt):
        write_store(paths, tmp_path / "s.h5ad", "visit", checkpoint_dir=tmp_path / "kept")
    for options in ({"genes": ["g1", "g3"]}, {"sample_key": "type"}):
        with pytest.raises(ValueError) as raised:
            write_store(
                paths, tmp_path / "s.h5ad", **({"sample_key": "visit"} | options), checkpoint_dir=tmp_path / "kept"
            )
        check_message(raised, "holds parts of another store")
