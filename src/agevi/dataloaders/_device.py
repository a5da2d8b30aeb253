"""Cells on a GPU: the matrix lies there where it fits, else the next batch is read and sent while one is computed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from agevi._compat.scvi import REGISTRY_KEYS, AnnDataManager
from agevi.dataloaders._cells import Batch, CellDataset
from agevi.nn.rows import csr, is_csr

logger = logging.getLogger(__name__)

SHARE = 0.5
"""Of the free memory of a GPU, what cells may take at most; the rest is for the network."""
_ROWS = 4096  # read at a time


def device_of(trainer: Any) -> torch.device:
    """Where a trainer of Lightning computes; without one, the CPU."""
    return torch.device("cpu") if trainer is None else torch.device(trainer.strategy.root_device)


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU; 0 of a CPU, where cells are in memory already."""
    if device.type != "cuda":
        return 0
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, of earlier trainings
    return torch.cuda.mem_get_info(device)[0] + cached


def near(manager: AnnDataManager, indices: np.ndarray, device: torch.device) -> DeviceRows | None:
    """The cells on the device, where they take no more of its free memory than :data:`SHARE`."""
    free = free_bytes(device)
    if not free:
        return None
    cells = CellDataset(manager, indices)
    needed = n_bytes(cells)
    fit = needed <= SHARE * free
    where = "are copied to the GPU" if fit else "are sent to the GPU batch by batch"
    logger.info("Cells %s: they take %.2f GB, and %.2f GB are free.", where, needed / 1e9, free / 1e9)
    return DeviceRows(cells, device) if fit else None


def n_values(cells: CellDataset) -> int:
    """Stored values of CSR rows, those of duplicates and zeros included."""
    lengths = cells.x.lengths(cells.indices) if cells.on_disk else np.diff(cells.x.indptr)[cells.indices]
    return int(lengths.sum(dtype=np.int64))


def n_bytes(cells: CellDataset) -> int:
    """Bytes that :class:`DeviceRows` takes."""
    n, n_genes = len(cells), cells.x.shape[1]
    of_fields = sum(values[0].nbytes for values in cells.fields.values()) * n
    return of_fields + (8 * n_values(cells) + 16 * n if cells.sparse else 4 * n * n_genes)


class DeviceRows:
    """Cells in the memory of a device, which gathers batches from them without making the host wait."""

    def __init__(self, cells: CellDataset, device: torch.device) -> None:
        n, self.n_genes, self.device = len(cells), cells.x.shape[1], device
        self.place = np.full(cells.x.shape[0], -1)  # of every cell among those on the device
        self.place[cells.indices] = np.arange(n)
        self.fields = {key: sent(torch.from_numpy(v[cells.indices]), device) for key, v in cells.fields.items()}
        self.sparse, self._rows = cells.sparse, {}
        if not self.sparse:
            self._rows["dense"] = torch.empty(n, self.n_genes, device=device)
            for rows, x in _read(cells):
                self._rows["dense"][rows] = x
            return
        columns = torch.empty(n_values(cells), dtype=torch.int32, device=device)
        values = torch.empty(len(columns), device=device)
        self.lengths = np.zeros(n, dtype=np.int64)  # known to the host, which would wait to ask
        stop = 0
        for rows, x in _read(cells):
            self.lengths[rows] = x.crow_indices().diff().numpy()
            start, stop = stop, stop + len(x.values())
            columns[start:stop], values[start:stop] = x.col_indices(), x.values()
        lengths = torch.from_numpy(self.lengths)
        self._rows |= {
            "columns": columns[:stop],
            "values": values[:stop],
            "length": sent(lengths, device),
            "start": sent(lengths.cumsum(0) - lengths, device),
        }
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # other streams may read them

    def part(self, indices: np.ndarray) -> DeviceCells:
        """Cells by their positions in the data."""
        return DeviceCells(self, self.place[indices])

    def batch(self, places: np.ndarray) -> Batch:
        """Every field of the cells at ``places``."""
        at = self._sent(places)
        out = {key: values.index_select(0, at) for key, values in self.fields.items()}
        out[REGISTRY_KEYS.X_KEY] = self._values(at, places)
        return out

    def _sent(self, values: np.ndarray) -> torch.Tensor:
        return sent(torch.from_numpy(values), self.device)

    def _values(self, at: torch.Tensor, places: np.ndarray) -> torch.Tensor:
        """Values of the rows at ``places``, which the device has as ``at``."""
        if self.sparse:
            return self._csr(at, int(self.lengths[places].sum()))
        return self._rows["dense"].index_select(0, at)

    def values(self, indices: np.ndarray) -> torch.Tensor:
        """Values of cells by their positions in the data, (n, n_genes)."""
        places = self.place[indices]
        return self._values(self._sent(places), places)

    def sums(self, members: np.ndarray, sizes: np.ndarray) -> torch.Tensor:
        """Sums over the next ``sizes`` of ``members``, positions in the data, (n_sums, n_genes)."""
        x, places = self.values(members), self.place[members]
        of_sum = torch.arange(0, len(sizes) * self.n_genes, self.n_genes, device=self.device)
        if not self.sparse:
            of_row = torch.repeat_interleave(of_sum // self.n_genes, self._sent(sizes), output_size=len(members))
            return x.new_zeros(len(sizes), self.n_genes).index_add_(0, of_row, x)
        last = np.concatenate([[0], np.cumsum(self.lengths[places])])[np.concatenate([[0], np.cumsum(sizes)])]
        position = torch.repeat_interleave(of_sum, self._sent(np.diff(last)), output_size=int(last[-1]))
        out = torch.zeros(len(sizes) * self.n_genes, device=self.device)
        out.scatter_add_(0, position.add_(x.col_indices()), x.values())
        return out.view(len(sizes), self.n_genes)

    def _csr(self, at: torch.Tensor, n: int) -> torch.Tensor:
        """Rows with ``n`` values together, (len(at), n_genes)."""
        length = self._rows["length"].index_select(0, at)
        crow = length.new_zeros(len(at) + 1)
        torch.cumsum(length, 0, out=crow[1:])
        shift = self._rows["start"].index_select(0, at) - crow[:-1]
        where = torch.repeat_interleave(shift, length, output_size=n).add_(torch.arange(n, device=self.device))
        columns, values = (self._rows[name].index_select(0, where) for name in ("columns", "values"))
        return csr(crow.int(), columns, values, self.n_genes)

    def release(self) -> None:
        """Free the memory, although a trainer keeps the loaders that read it."""
        self.fields.clear()
        self._rows.clear()


class DeviceCells(Dataset[Batch]):
    """As :class:`CellDataset`, from what lies on a device."""

    def __init__(self, rows: DeviceRows, places: np.ndarray) -> None:
        self.rows, self.places = rows, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, positions: np.ndarray) -> Batch:
        return self.rows.batch(self.places[positions])


def _read(cells: CellDataset) -> Iterator[tuple[slice, torch.Tensor]]:
    """Values of all cells, as batches have them, some rows at a time."""
    for start in range(0, len(cells), _ROWS):
        rows = slice(start, min(start + _ROWS, len(cells)))
        yield rows, cells[np.arange(rows.start, rows.stop)][REGISTRY_KEYS.X_KEY]


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on the device; to a GPU it goes from pinned memory, so that the host need not wait."""
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _parts(values: Any) -> tuple[torch.Tensor, ...]:
    """The dense tensors of which one consists; an empty tuple for other objects."""
    if not isinstance(values, torch.Tensor):
        return ()
    return (values.crow_indices(), values.col_indices(), values.values()) if is_csr(values) else (values,)


def sent_batch(batch: Batch, device: torch.device) -> Batch:
    """A batch on the device, CSR tensors part by part."""
    out = dict(batch)
    for key, values in batch.items():
        if not isinstance(values, torch.Tensor):
            continue
        first, *others = (sent(part, device) for part in _parts(values))
        out[key] = csr(first, others[0], others[1], values.shape[-1]) if others else first
    return out


def ahead(loader: Any, device: torch.device) -> Any:
    """``loader``, for a GPU as :class:`Ahead`."""
    return Ahead(loader, device) if device.type == "cuda" else loader


def state_of(loader: Any) -> dict[str, Any]:
    """What the next pass of a loader depends on, beside the random state of torch; empty for most."""
    return loader.state() if hasattr(loader, "state") else {}


class _Sent(NamedTuple):
    """A batch on its way."""

    batch: Batch
    event: Any  # of a GPU, when it has arrived


class Ahead:
    """Batches of ``loader`` on the device; a thread reads and sends the next while one is computed."""

    def __init__(self, loader: Any, device: torch.device) -> None:
        self.loader, self.device = loader, device
        # One for all passes: what a stream leaves behind can be used again by that stream alone.
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __len__(self) -> int:
        return len(self.loader)

    def state(self) -> dict[str, Any]:
        """What the next pass depends on, beside the random state of torch."""
        return state_of(self.loader)

    def go_on(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.loader.go_on(state)

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.loader)
        # The first is read here: a loader that shuffles takes its order from the random state of this thread.
        coming = self._send(batches)
        with ThreadPoolExecutor(1, thread_name_prefix="agevi-batches") as thread:
            while coming is not None:
                following = thread.submit(self._send, batches)
                yield self._arrived(coming)
                coming = following.result()

    def _send(self, batches: Iterator[Batch]) -> _Sent | None:
        """Read a batch and begin to copy it, on a stream of its own so that it does not queue behind the step."""
        with contextlib.nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
            batch = next(batches, None)
            if batch is None:
                return None
            return _Sent(sent_batch(batch, self.device), None if self.stream is None else self.stream.record_event())

    def _arrived(self, coming: _Sent) -> Batch:
        """The batch for the stream of the step, which waits for it; the host does not."""
        if coming.event is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(coming.event)
            for values in coming.batch.values():
                for part in _parts(values):
                    part.record_stream(stream)  # else its memory could be reused while the step reads it
        return coming.batch
