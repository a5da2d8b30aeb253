"""Code for GPUs on the CPU: the same batches as from the host, in the same order."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import weakref

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from agevi._compat.scvi import REGISTRY_KEYS
from agevi.dataloaders import _device, _pseudocells, _splitter
from agevi.dataloaders._cells import CellDataset, batches
from agevi.dataloaders._device import Ahead, DeviceRows, n_bytes, sent_batch
from agevi.model import MLPClock, PoissonVAE
from agevi.nn.rows import as_dense, is_csr
from tests.conftest import QUIET
from tests.dataloaders.test_cells import dataset, with_duplicates, with_stored_zeros

X = REGISTRY_KEYS.X_KEY
CPU = torch.device("cpu")


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for key, values in one.items():
        assert values.shape == other[key].shape
        for a, b in zip(_device._parts(values), _device._parts(other[key]), strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda x: x, id="CSR"),
        pytest.param(lambda x: x.astype(np.uint16), id="CSR of small integers"),
        pytest.param(lambda x: x.astype(np.float64), id="CSR of doubles"),
        pytest.param(with_stored_zeros, id="stored zeros"),
        pytest.param(with_duplicates, id="duplicates"),
        pytest.param(lambda x: sp.diags((np.arange(x.shape[0]) % 5 > 0).astype(float)) @ x, id="empty rows"),
        pytest.param(lambda x: x.toarray(), id="dense"),
    ],
)
def test_batches_are_those_of_the_host_bit_for_bit(cohort, make, monkeypatch):
    monkeypatch.setattr(_device, "_ROWS", 100)
    cohort.X = make(sp.csr_matrix(cohort.X))
    host = dataset(cohort, indices=np.random.default_rng(0).permutation(cohort.n_obs)[:250])
    rows = DeviceRows(host, CPU)
    device = rows.part(host.indices)
    assert len(device) == len(host)
    for positions in (np.array([5, 2, 2, 249]), np.arange(250), np.array([7]), np.array([], dtype=np.int64)):
        assert_equal(device[positions], host[positions])
    some = host.indices[[3, 8, 200]]
    assert_equal(rows.part(some)[np.arange(3)], CellDataset(host.manager, some)[np.arange(3)])


@pytest.mark.parametrize("make", [lambda x: x, with_stored_zeros, lambda x: x.toarray()], ids=["CSR", "zeros", "dense"])
def test_sums_of_cells_are_exact(cohort, make):
    cohort.X = make(sp.csr_matrix(cohort.X, dtype=np.float32))
    rng, cells = np.random.default_rng(1), np.arange(0, cohort.n_obs, 2)
    rows = DeviceRows(dataset(cohort, indices=cells), CPU)
    sizes = np.array([3, 1, 40, 7])
    members = rng.choice(cells, sizes.sum())  # some come twice
    full = np.asarray(sp.csr_matrix(cohort.X).todense())
    expected = [full[part].sum(0) for part in np.split(members, np.cumsum(sizes)[:-1])]
    found = rows.sums(members, sizes)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)  # whole numbers, in whatever order
    np.testing.assert_array_equal(as_dense(rows.values(members)).numpy(), full[members])
    none = np.array([], dtype=np.int64)
    assert rows.sums(none, none).shape == (0, cohort.n_vars)


def test_bytes_are_counted_before_they_are_taken(cohort):
    cells = dataset(cohort, indices=np.arange(99))
    rows = DeviceRows(cells, CPU)
    tensors = [*rows.fields.values(), *rows._rows.values()]
    assert n_bytes(cells) == sum(t.nbytes for t in tensors)
    rows.release()
    assert not rows.fields
    assert not rows._rows


def test_cells_lie_on_a_device_that_has_room_alone(cohort, monkeypatch, caplog):
    cells = dataset(cohort)
    assert _device.near(cells.manager, cells.indices, CPU) is None  # a CPU has them at hand
    for free, fit in ((n_bytes(cells) / _device.SHARE, True), (n_bytes(cells) / _device.SHARE - 1, False)):
        monkeypatch.setattr(_device, "free_bytes", lambda device, free=free: free)
        with caplog.at_level(logging.INFO, logger="agevi"):
            assert (_device.near(cells.manager, cells.indices, CPU) is not None) == fit
        assert ("copied to the GPU" if fit else "batch by batch") in caplog.records[-1].message


def history(adata, unit: str, **setup) -> np.ndarray:
    cls = MLPClock if setup else PoissonVAE
    cls.setup_anndata(adata, age_key="age", subject_key="donor", batch_key="batch", **setup)
    model = cls(adata, n_hidden=[8], train_unit=unit)
    model.train(max_epochs=2, batch_size=50, **QUIET)
    return np.array([model.history[name].to_numpy() for name in ("train_loss", "age_mae_validation")])


@pytest.mark.parametrize(
    ("unit", "setup"),
    [("cell", {}), ("pseudocell", {}), ("pseudocell", {"normalize": "none"})],
    ids=["cells", "sums", "means"],
)
def test_training_is_the_same_from_the_device_and_read_ahead(cohort, monkeypatch, unit, setup):
    host, made = history(cohort.copy(), unit, **setup), []
    with monkeypatch.context() as patch:
        patch.setattr(_splitter, "ahead", Ahead)
        patch.setattr(_pseudocells, "ahead", Ahead)
        np.testing.assert_array_equal(history(cohort.copy(), unit, **setup), host)
    monkeypatch.setattr(_device, "free_bytes", lambda device: 2**40)
    init = DeviceRows.__init__
    monkeypatch.setattr(
        DeviceRows, "__init__", lambda rows, *args: (made.append(weakref.ref(rows)), init(rows, *args))[1]
    )
    np.testing.assert_array_equal(history(cohort.copy(), unit, **setup), host)
    gc.collect()
    assert len(made) == 1
    assert made[0]() is None or not made[0]()._rows  # what it took is free


def of_batches() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("agevi-batches")]


def test_reading_ahead_keeps_the_order_of_a_shuffled_loader(cohort):
    cells = dataset(cohort)
    loader = batches(cells, batch_size=70, shuffle=True, shared=True)
    read_ahead = Ahead(loader, CPU)
    assert len(read_ahead) == len(loader)
    for _ in range(2):
        torch.manual_seed(3)
        expected = list(loader)
        after = torch.rand(3)
        torch.manual_seed(3)
        found = list(read_ahead)
        assert torch.equal(torch.rand(3), after)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert is_csr(one[X])
            assert_equal(one, other)
    assert not of_batches()


def test_the_next_batch_is_read_while_one_is_used():
    read = [threading.Event() for _ in range(3)]

    def source():
        for i, event in enumerate(read):
            event.set()
            yield {"i": torch.tensor(i)}

    class Loader:
        def __iter__(self):
            return source()

    found = iter(Ahead(Loader(), CPU))
    assert next(found)["i"] == 0
    assert read[1].wait(10)
    assert not read[2].is_set()  # one ahead, not all
    assert [int(b["i"]) for b in found] == [1, 2]


@pytest.mark.parametrize("at", [0, 2])
def test_what_a_loader_raises_reaches_the_loop(at):
    def source():
        for i in range(5):
            if i == at:
                raise OSError("the disk is gone")
            yield {"i": torch.tensor(i)}

    class Loader:
        def __iter__(self):
            return source()

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        for batch in Ahead(Loader(), CPU):
            found.append(int(batch["i"]))
    assert found == list(range(at))
    assert not of_batches()


@pytest.mark.parametrize("how", ["break", "error"])
def test_a_loop_that_is_left_leaves_no_thread(cohort, how):
    read_ahead = Ahead(batches(dataset(cohort), batch_size=30, shuffle=False), CPU)
    with pytest.raises(KeyError) if how == "error" else contextlib.nullcontext():
        for batch in read_ahead:
            if how == "error":
                batch["nothing"]
            break
    assert not of_batches()


def test_a_batch_is_sent_as_it_is(cohort):
    batch = dataset(cohort)[np.arange(40)]
    assert_equal(sent_batch(batch, CPU), batch)
    assert sent_batch({"sums": True}, CPU) == {"sums": True}
