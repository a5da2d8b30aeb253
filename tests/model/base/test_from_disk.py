"""Clocks that are trained on, and predict from, matrices on disk, against the same in memory."""

from __future__ import annotations

import hashlib

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from anndata.io import sparse_dataset, write_elem

import agevi
from agevi.dataloaders import _buffered, _query
from agevi.dataloaders._buffered import RunSampler
from agevi.dataloaders._cells import CellDataset, EvenBatchSampler
from agevi.model import ElasticNetClock, GaussianVAE, MLPClock, NMFClock, PLSClock, PoissonVAE
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}
CELL = {"train_unit": "cell"}
NETWORKS = {
    "PoissonVAE": (PoissonVAE, {**CELL, "n_hidden": [16], "n_latent": 4}),
    "MLPClock": (MLPClock, {**CELL, "n_hidden": [8]}),
    "NMFClock": (NMFClock, {**CELL, "n_components": 4, "n_hidden": [8]}),
}
LINEAR = {"PLSClock": (PLSClock, {}), "ElasticNetClock": (ElasticNetClock, {})}
slow = pytest.mark.slow


def params(known: dict) -> list:
    return [pytest.param(*given, id=name, marks=() if name in ("PoissonVAE", "PLSClock") else slow) for name, given in known.items()]  # fmt: skip


@pytest.fixture
def disk(cohort, tmp_path):
    """The cohort, its cells in random order, in memory and on disk."""
    order = np.random.default_rng(5).permutation(cohort.n_obs)
    memory = cohort[order].copy()
    memory.write_h5ad(tmp_path / "x.h5ad")
    before = hashlib.sha256((tmp_path / "x.h5ad").read_bytes()).digest()
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    yield memory, backed
    assert backed.isbacked
    assert backed.file.is_open  # it is the user's
    assert hashlib.sha256((tmp_path / "x.h5ad").read_bytes()).digest() == before
    backed.file.close()


@pytest.fixture(autouse=True)
def several_reads(monkeypatch):
    """Small files are read in several buffers and blocks, as large ones are."""
    monkeypatch.setattr(_buffered, "BYTES", 1 << 16)
    monkeypatch.setattr(_query, "_BACKED_BLOCK", 100)


def fit(cls, adata, init, **train):
    cls.setup_anndata(adata, **SETUP)
    model = cls(adata, **init)
    model.train(**({"max_epochs": 2} | QUIET | train))
    return model


@pytest.mark.parametrize("cls, init", params(LINEAR | NETWORKS))
def test_the_same_clock_where_cells_come_in_the_same_order(cls, init, disk, monkeypatch):
    monkeypatch.setattr(RunSampler, "order", EvenBatchSampler.order)
    memory, backed = disk
    expected, got = (fit(cls, adata, init) for adata in disk)
    for (name, one), other in zip(expected.module.state_dict().items(), got.module.state_dict().values(), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    for adata in (None, backed, memory):
        np.testing.assert_array_equal(got.predict_age(adata), expected.predict_age())
    for name, frame in expected.history_.items():
        np.testing.assert_array_equal(frame, got.history_[name], err_msg=name)


def test_runs_train_a_clock_and_cells_of_test_subjects_are_not_read(disk, monkeypatch):
    memory, backed = disk
    read = []

    def held(self, positions):
        read.append(self.indices[positions])
        return CellDataset_held(self, positions)

    CellDataset_held = CellDataset.held
    monkeypatch.setattr(CellDataset, "held", held)
    model = fit(*(PoissonVAE, backed, NETWORKS["PoissonVAE"][1]), max_epochs=8, plan_kwargs={"lr": 1e-2})
    role = memory.obs["agevi_split"].astype(str).to_numpy()
    counts = np.bincount(np.concatenate(read), minlength=len(role))
    assert (counts[role == "test"] == 0).all()
    assert (counts[role != "test"] >= 8).all()
    error = model.history_["age_mae_train"].to_numpy()
    assert error[-1] < error[0]


@slow
@pytest.mark.parametrize("cls, init", params(NETWORKS))
def test_predictions_from_disk_are_those_in_memory(cls, init, disk):
    memory, backed = disk
    model = fit(cls, memory, init)
    for options in ({}, {"batch_size": 50}, {"indices": [400, 3, 3, 77]}, {"batch_size": 7, "indices": range(90, 300)}):
        np.testing.assert_array_equal(model.predict_age(backed, **options), model.predict_age(memory, **options))
        got, expected = (model.get_latent_representation(data, **options) for data in (backed, memory))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)  # memory: in the order that is given
        if "indices" not in options:
            np.testing.assert_array_equal(got, expected)
    for data in (backed, memory):
        agevi.tl.predict_age(data, model)
        agevi.tl.aggregate_subjects(data)
    assert backed.obs.equals(memory.obs)
    assert backed.uns["agevi_subjects"].equals(memory.uns["agevi_subjects"])
    np.testing.assert_array_equal(backed.obsm["X_agevi"], memory.obsm["X_agevi"])


@slow
def test_distributions_of_latent_positions(disk):
    memory, backed = disk
    model = fit(PoissonVAE, memory, NETWORKS["PoissonVAE"][1])
    for got, expected in zip(*(model.get_latent_representation(a, return_dist=True) for a in (backed, memory)), strict=True):  # fmt: skip
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("form", ["csr", "dense"])
@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_layers_on_disk_and_stores(form, store, disk, tmp_path):
    memory, _ = disk
    x = sp.csr_matrix(memory.X) if form == "csr" else memory.X.toarray()
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    if store == "h5ad":
        import h5py

        group = h5py.File(tmp_path / "y.h5", "w")
    write_elem(group, "counts", x)
    layer = sparse_dataset(group["counts"]) if form == "csr" else group["counts"]
    lazy = ad.AnnData(obs=memory.obs.copy(), var=memory.var.copy(), layers={"counts": layer}, shape=memory.shape)
    memory.layers["counts"] = x
    models = []
    for adata in (memory, lazy):
        MLPClock.setup_anndata(adata, **SETUP, layer="counts")
        models.append(MLPClock(adata, **NETWORKS["MLPClock"][1]))
        models[-1].train(2, **QUIET)
    np.testing.assert_array_equal(models[1].predict_age(), models[1].predict_age(memory))
    np.testing.assert_array_equal(models[0].module.input.mean, models[1].module.input.mean)
    if store == "h5ad":
        group.close()


def test_a_layer_in_memory_of_data_on_disk(disk):
    memory, backed = disk
    backed.layers["counts"] = memory.X.copy()
    PLSClock.setup_anndata(backed, **SETUP, layer="counts")
    model = PLSClock(backed)
    model.train(**QUIET)
    np.testing.assert_array_equal(model.predict_age(), fit(PLSClock, memory, {}).predict_age())


def test_values_as_they_are(disk):
    memory, backed = disk
    models = []
    for adata in disk:
        GaussianVAE.setup_anndata(adata, **SETUP, normalize="none")
        models.append(GaussianVAE(adata, **CELL, n_hidden=[8], n_latent=3))
        models[-1].train(2, **QUIET)
    assert models[0].kind_ == models[1].kind_
    np.testing.assert_array_equal(models[1].predict_age(backed), models[1].predict_age(memory))


def test_a_training_from_disk_goes_on(disk, tmp_path):
    _, backed = disk
    init = NETWORKS["MLPClock"][1]
    one = fit(MLPClock, backed, init, checkpoint_dir=tmp_path / "kept")
    other = fit(MLPClock, backed, init, checkpoint_dir=tmp_path / "kept")  # is finished, and taken from there
    np.testing.assert_array_equal(one.predict_age(), other.predict_age())
    np.testing.assert_array_equal(one.predict_age(), fit(MLPClock, backed, init).predict_age())


# --- what is refused -------------------------------------------------------------------------------------------------


def message(call) -> str:
    with pytest.raises(ValueError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("cls, init", [(PoissonVAE, {}), (ElasticNetClock, {"train_unit": "cell"})])
def test_other_units_are_refused(cls, init, disk):
    said = message(lambda: fit(cls, disk[1], init))
    assert said.startswith("adata.X is on disk, and")
    assert f"Make the clock with train_unit={cls.unit_from_disk!r}" in said
    assert "agevi.pp.sum_samples" in said


def test_columns_are_refused(cohort, tmp_path):
    cohort.X = sp.csc_matrix(cohort.X)
    cohort.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    said = message(lambda: PLSClock.setup_anndata(backed, **SETUP))
    assert "adata.X is stored by columns (CSC) in" in said
    assert "write it by rows (CSR), or call adata = adata.to_memory() first" in said
    backed.file.close()


def test_features_are_refused(disk):
    said = message(lambda: MLPClock.setup_anndata(disk[1], **SETUP, features=list(disk[1].var_names[:9])))
    assert "a choice of features copies values of cells at random" in said


def test_values_that_were_replaced_on_disk(disk, tmp_path):
    memory, backed = disk
    other = memory.copy()
    other.X = other.X * 2
    other.write_h5ad(tmp_path / "other.h5ad")
    PLSClock.setup_anndata(backed, **SETUP)
    model = PLSClock(backed)
    model._adata = ad.read_h5ad(tmp_path / "other.h5ad", backed="r")
    assert "adata.X holds other values than when it was set up" in message(lambda: model.train(**QUIET))
    model._adata.file.close()
