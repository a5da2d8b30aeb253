from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch

from agevi._compat.scvi import REGISTRY_KEYS
from agevi.dataloaders import _buffered
from agevi.dataloaders._buffered import BufferedLoader, RunSampler
from agevi.dataloaders._cells import CellDataset, SomeDecoded, batches
from agevi.dataloaders._device import DeviceRows, n_bytes
from agevi.dataloaders._fields import DECODED
from agevi.model import PoissonVAE
from agevi.nn.rows import as_dense

X = REGISTRY_KEYS.X_KEY


@pytest.fixture(params=["csr", "dense"])
def cells(request, cohort, tmp_path):
    """Three quarters of the cells of the cohort, in memory and on disk."""
    if request.param == "dense":
        cohort.X = cohort.X.toarray()
    cohort.obs["row"] = np.arange(cohort.n_obs, dtype=float)
    cohort.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    out = []
    for adata in (cohort, backed):
        PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor", continuous_covariate_keys=["row"])
        chosen = np.flatnonzero(np.arange(adata.n_obs) % 4)
        out.append(CellDataset(PoissonVAE._get_most_recent_anndata_manager(adata), chosen))
    yield out
    backed.file.close()


def rows_of(batch) -> np.ndarray:
    return batch[REGISTRY_KEYS.CONT_COVS_KEY].numpy().ravel().astype(int)


@pytest.mark.parametrize("n_held", [1, 64, 100, 1000])
def test_each_cell_comes_once_in_even_batches(n_held):
    torch.manual_seed(0)
    sampler = RunSampler(333, 32, n_held=n_held, shuffle=True)
    first, second = list(sampler), list(sampler)
    assert len(first) == len(sampler) == 11
    assert {len(batch) for batch in first} <= {30, 31}
    for found in (first, second):
        np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.arange(333))
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))


def test_a_buffer_takes_runs_and_its_batches_are_mixed():
    torch.manual_seed(0)
    sampler = RunSampler(20_000, 100, n_held=1000, shuffle=True)
    assert sampler.run == 16
    found = list(sampler)
    held = np.sort(np.concatenate(found[: sampler.per_buffer]))
    assert np.mean(np.diff(held) == 1) > 0.9  # read in some 60 pieces
    assert np.ptp(held) > 15_000  # from everywhere
    runs = found[0] // sampler.run
    assert len(np.unique(runs)) > 40  # of the 63 in the buffer


@pytest.mark.parametrize("n_bytes", [1 << 27, 20_000], ids=["one buffer", "several"])
def test_batches_hold_the_values_of_their_cells(cells, n_bytes, monkeypatch):
    monkeypatch.setattr(_buffered, "BYTES", n_bytes)
    memory, disk = cells
    full = as_dense(memory[np.arange(len(memory))][X]).numpy()
    place = {row: i for i, row in enumerate(memory.indices)}
    loader = BufferedLoader(disk, batch_size=50, shuffle=True)
    assert (len(loader) <= loader._order.per_buffer) == (n_bytes > 1e6)
    seen = []
    for batch in loader:
        rows = rows_of(batch)
        np.testing.assert_array_equal(as_dense(batch[X]).numpy(), full[[place[row] for row in rows]])
        seen.append(rows)
    assert len(seen) == len(loader)
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), memory.indices)


def test_in_order_batches_are_those_in_memory(cells, monkeypatch):
    monkeypatch.setattr(_buffered, "BYTES", 20_000)
    memory, disk = (SomeDecoded(own, 7) for own in cells)
    pairs = zip(
        batches(memory, batch_size=64, shuffle=False), BufferedLoader(disk, batch_size=64, shuffle=False), strict=True
    )
    for one, other in pairs:
        for key in (X, DECODED):
            np.testing.assert_array_equal(as_dense(one[key]), as_dense(other[key]))
        np.testing.assert_array_equal(rows_of(one), rows_of(other))


def test_cells_on_disk_are_kept_on_a_device(cells):
    memory, disk = cells
    on_device = DeviceRows(disk, torch.device("cpu"))
    assert n_bytes(disk) == n_bytes(memory)
    rows = memory.indices[[5, 0, 77]]
    batch, expected = on_device.part(rows)[np.arange(3)], memory[np.array([5, 0, 77])]
    np.testing.assert_array_equal(as_dense(batch[X]), as_dense(expected[X]))
    np.testing.assert_array_equal(rows_of(batch), rows)


def test_processes_share_the_cells_of_every_batch(monkeypatch):
    def of(rank: int) -> list[np.ndarray]:
        monkeypatch.setattr("agevi.dataloaders._cells.processes", lambda: (rank, 2))
        torch.manual_seed(3)
        return list(RunSampler(500, 64, n_held=128, shuffle=True, shared=True))

    parts = [of(0), of(1)]
    assert all(abs(len(a) - len(b)) <= 1 for a, b in zip(*parts, strict=True))
    np.testing.assert_array_equal(np.sort(np.concatenate(sum(parts, []))), np.arange(500))


def test_an_error_of_the_thread_is_that_of_the_loop(cells, monkeypatch):
    monkeypatch.setattr(_buffered, "BYTES", 20_000)
    disk = cells[1]
    batch = iter(BufferedLoader(disk, batch_size=50, shuffle=True))
    next(batch)
    monkeypatch.setattr(type(disk.x), "_state", lambda self: "another")
    with pytest.raises(ValueError, match="changed while it was read"):
        list(batch)
