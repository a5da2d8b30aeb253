"""Rows of matrices on disk equal those in memory; a file that cannot be read, or changed, is one clear error."""

from __future__ import annotations

import os
import pickle

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from anndata.io import sparse_dataset, write_elem

from agevi import _checks, _stored
from agevi._stored import Stored

N, GENES = 300, 40


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    return sp.csr_matrix(rng.poisson(0.3, (N, GENES)).astype(np.float32))


FORMS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": lambda x: x.toarray()}


@pytest.fixture(params=[(store, form) for store in ("h5ad", "zarr") for form in FORMS], ids="-".join)
def on_disk(request, counts, tmp_path):
    """The counts in a file, as anndata gives them."""
    store, form = request.param
    x = FORMS[form](counts)
    if store == "h5ad":
        ad.AnnData(x).write_h5ad(tmp_path / "x.h5ad")
        backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
        yield backed.X
        backed.file.close()
    else:
        group = zarr.open_group(tmp_path / "x.zarr", mode="w")
        write_elem(group, "X", x)
        yield sparse_dataset(group["X"]) if form != "dense" else group["X"]


KEYS = {
    "slice": slice(20, 90),
    "all": slice(None),
    "far apart": np.array([0, 1, 150, 151, 299]),
    "any order": np.array([7, 3, 3, 299, -1 + N, 0]),
    "mask": np.arange(N) % 3 == 0,
    "none": np.array([], dtype=int),
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("gap", [1 << 17, 1], ids=["in one piece", "row by row"])
def test_rows_equal_those_in_memory(on_disk, counts, key, gap, monkeypatch):
    monkeypatch.setattr(_stored, "_GAP", gap)
    x = _checks.readable(on_disk, "adata.X")
    assert isinstance(x, Stored)
    got = x[KEYS[key]]
    assert sp.issparse(got) == x.is_sparse
    assert got.dtype == np.float32
    np.testing.assert_array_equal(_checks.dense(got), counts.toarray()[KEYS[key]])


def test_pieces_and_values_cover_all(on_disk, counts, monkeypatch):
    monkeypatch.setattr(_stored, "_PIECE", 1000)
    monkeypatch.setattr(_stored, "_VALUES", 97)
    x = _checks.readable(on_disk, "adata.X")
    np.testing.assert_array_equal(_checks.dense(x[np.arange(0, N, 2)]), counts.toarray()[::2])
    assert sum(block.sum(dtype=np.float64) for block in x.values()) == counts.sum()
    assert x.shape == counts.shape


def test_another_process_opens_the_file_itself(on_disk, counts):
    x = pickle.loads(pickle.dumps(_checks.readable(on_disk, "adata.X")))
    np.testing.assert_array_equal(_checks.dense(x[5:20]), counts.toarray()[5:20])


def test_what_is_known_of_a_store_in_memory_is_known_of_no_other(counts):
    for x in (counts, sp.csr_matrix(np.ones((N, GENES), dtype=np.float32))):
        group = zarr.open_group(zarr.storage.MemoryStore(), mode="w")
        write_elem(group, "X", x)
        found = _checks.readable(sparse_dataset(group["X"]), "adata.X")
        np.testing.assert_array_equal(found[:9].toarray(), x[:9].toarray())
        assert found.facts
        with pytest.raises(TypeError, match=r"adata.X is on no disk and cannot be read by another process"):
            pickle.dumps(found)


def test_values_are_checked_once(on_disk, monkeypatch):
    x = _checks.readable(on_disk, "adata.X")
    _checks.counts(x, "adata.X", "they are needed", advice="")
    monkeypatch.setattr(Stored, "values", lambda self: pytest.fail("read again"))
    _checks.counts(x, "adata.X", "they are needed", advice="")


@pytest.mark.parametrize("value, message", [(0.5, "non-integer"), (-1.0, "negative"), (np.nan, "missing or infinite")])
def test_values_that_are_no_counts(value, message, counts, tmp_path):
    x = counts.copy()
    x.data[-1] = value
    ad.AnnData(x).write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            _checks.counts(_checks.matrix(backed, None), "adata.X", "they are needed", advice="")
    backed.file.close()


def test_a_store_that_lacks_a_piece(counts, tmp_path):
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    write_elem(group, "X", counts, dataset_kwargs={"chunks": (500,)})
    pieces = [path for path in (tmp_path / "x.zarr" / "X" / "indices").rglob("*") if path.name.isdigit()]
    pieces[0].unlink()
    x = _checks.readable(sparse_dataset(group["X"]), "adata.X")
    with pytest.raises(ValueError, match=r"x.zarr' cannot be read \(\d+ of \d+ pieces of indices are missing\)"):
        x[:9]


@pytest.fixture
def file(counts, tmp_path):
    path = tmp_path / "x.h5ad"
    ad.AnnData(counts, obs=pd.DataFrame(index=[f"c{i}" for i in range(N)])).write_h5ad(path)
    backed = ad.read_h5ad(path, backed="r")
    yield path, _checks.matrix(backed, None)
    backed.file.close()


def test_a_file_that_was_closed_is_opened_again(file, counts):
    _, x = file
    x._node.file.close()
    np.testing.assert_array_equal(x[:9].toarray(), counts[:9].toarray())


def test_a_file_that_vanishes(file):
    path, x = file
    os.rename(path, path.with_suffix(".old"))
    with pytest.raises(ValueError, match=r"x.h5ad' was moved or deleted after it was opened; put it back"):
        x[:9]


def test_a_file_that_changes(file):
    path, x = file
    with open(path, "ab") as out:
        out.write(b"more")
    with pytest.raises(
        ValueError, match=r"x.h5ad' changed while it was read; wait until it is written, and call again"
    ):
        x[:9]


def test_a_file_that_is_cut_short(file):
    path, x = file
    x._node.file.close()
    os.truncate(path, path.stat().st_size // 2)
    x._began = x._state()  # it was so from the start
    with pytest.raises(ValueError, match=r"x.h5ad' cannot be read \(.*it may be cut short, damaged, or no AnnData"):
        x[:9]


def test_indices_that_name_no_column(file):
    path, x = file
    x._node.file.close()
    with h5py.File(path, "r+") as own:
        own["X/indices"][0] = GENES
    x._began = x._state()
    with pytest.raises(ValueError, match=r"cannot be read \(it names column 40 of 40\)"):
        x[:9]
