"""Rows of every registered field as tensors; counts stay sparse, so that nothing is made dense on the host."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from copy import copy
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from agevi import _checks
from agevi._compat.scvi import REGISTRY_KEYS, AnnDataManager
from agevi._source import where
from agevi._stored import Stored
from agevi.dataloaders._fields import DECODED
from agevi.nn.rows import csr

logger = logging.getLogger(__name__)

Batch = dict[str, Any]

VALIDATION_CELLS = 1024
"""Cells that validation reconstructs, about: their mean hardly varies, and decoding takes most of the time."""


def values_of(manager: AnnDataManager) -> Any:
    """The registered matrix, (n_cells, n_genes), in memory or on disk: rows of it are in memory."""
    layer = manager.registry["setup_args"].get("layer")
    return _checks.readable(manager.get_from_registry(REGISTRY_KEYS.X_KEY), where(layer))


def fields_of(manager: AnnDataManager) -> dict[str, np.ndarray]:
    """Every registered field but the matrix, (n_cells, ...) float32, read once."""
    n = manager.adata.n_obs
    return {
        key: np.asarray(manager.get_from_registry(key), dtype=np.float32).reshape(n, -1)
        for key in manager.data_registry
        if key != REGISTRY_KEYS.X_KEY
    }


class EvenBatchSampler(Sampler[np.ndarray]):
    """Batches of nearly equal size, at most ``batch_size``, reshuffled in every pass; ``shared`` by processes (DDP)."""

    def __init__(self, n: int, batch_size: int, *, shuffle: bool, shared: bool = False) -> None:
        self.n, self.shuffle, self.shared = n, shuffle, shared
        # 1,025 cells at 1,024 make 513 and 512: BatchNorm could not take a batch of a single cell.
        self.n_batches = -(-n // batch_size)
        # Processes draw different noise while they train, but must agree on the order of cells.
        in_step = shared and processes()[1] > 1
        self.generator = torch.Generator().manual_seed(torch.initial_seed()) if in_step else None

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[np.ndarray]:
        rank, n_processes = processes() if self.shared else (0, 1)
        for batch in torch.tensor_split(self.order(), self.n_batches):
            yield batch.numpy()[rank::n_processes]

    def order(self) -> torch.Tensor:
        """All positions, (n,), as batches take them."""
        return torch.randperm(self.n, generator=self.generator) if self.shuffle else torch.arange(self.n)


def processes() -> tuple[int, int]:
    """Rank of this process among those that train together, and their number."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


class CellDataset(Dataset[Batch]):
    """Batches of cells by position from the registered AnnData: CSR tensors of CSR, dense of other matrices."""

    def __init__(self, manager: AnnDataManager, indices: np.ndarray | None = None) -> None:
        self.manager, self.x = manager, values_of(manager)
        self.fields = fields_of(manager)
        self.indices = np.arange(self.x.shape[0]) if indices is None else np.asarray(indices)
        if self.indices.dtype == bool:
            self.indices = np.flatnonzero(self.indices)
        self.sparse = _checks.is_sparse(self.x) and self.x.format == "csr"
        self.canonical: bool | None = None  # not known of rows on disk
        if self.sparse and not self.on_disk:
            self.canonical = bool(self.x.has_canonical_format)
        elif not self.sparse:
            kind = f"{self.x.format} matrix" if _checks.is_sparse(self.x) else "dense array"
            logger.info("Cells are read into dense tensors, because the matrix is a %s and not CSR.", kind)

    @property
    def on_disk(self) -> bool:
        """Whether values are read from disk."""
        return isinstance(self.x, Stored)

    def held(self, positions: np.ndarray) -> CellDataset:
        """The same for the cells at ``positions`` alone, whose values are read now and kept in memory."""
        out = copy(self)
        out.x = Held(self.x, self.indices[positions])
        out.canonical = out.sparse and bool(out.x.values.has_canonical_format)
        return out

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, positions: np.ndarray) -> Batch:
        rows = self.indices[positions]
        out = {key: torch.from_numpy(values[rows]) for key, values in self.fields.items()}
        out[REGISTRY_KEYS.X_KEY] = self._values(rows)
        return out

    def _values(self, rows: np.ndarray) -> torch.Tensor:
        """Values of some cells as float32, (n, n_genes)."""
        part = self.x[rows]
        if not self.sparse:
            return torch.from_numpy(_checks.dense(part))
        if not (part.has_canonical_format if self.canonical is None else self.canonical):
            part = part.astype(np.float32)  # before values are summed, which their own type may not hold
            part.sum_duplicates()
        values = part.data.astype(np.float32, copy=False)
        if np.count_nonzero(values) < len(values):  # a stored zero is a zero
            part.eliminate_zeros()
            values = part.data.astype(np.float32, copy=False)
        crow, columns = torch.from_numpy(part.indptr), torch.from_numpy(part.indices)
        return csr(crow, columns, torch.from_numpy(values), part.shape[1])


class Held:
    """Some rows of a matrix, in memory as float32, found by their positions in it."""

    def __init__(self, x: Any, rows: np.ndarray) -> None:
        self.rows, self.shape = np.unique(rows), x.shape
        self.values = x[self.rows].astype(np.float32, copy=False)

    def __getitem__(self, rows: np.ndarray) -> Any:
        return self.values[np.searchsorted(self.rows, rows)]


class SomeDecoded(Dataset[Batch]):
    """Batches of ``cells`` of which every ``step``-th is reconstructed; those come last."""

    def __init__(self, cells: Any, step: int) -> None:
        self.cells, self.step = cells, step

    def __len__(self) -> int:
        return len(self.cells)

    def held(self, positions: np.ndarray) -> SomeDecoded:
        """As :meth:`CellDataset.held`."""
        return SomeDecoded(self.cells.held(positions), self.step)

    def __getitem__(self, positions: np.ndarray) -> Batch:
        decoded, rest = positions[:: self.step], np.delete(positions, slice(None, None, self.step))
        values = self.cells[decoded][REGISTRY_KEYS.X_KEY]
        return {**self.cells[np.concatenate([rest, decoded])], DECODED: values}


def cell_loader(
    manager: AnnDataManager, indices: np.ndarray | None = None, *, batch_size: int, shuffle: bool = False
) -> DataLoader[Any]:
    """Batches of the cells ``indices``, nearly equal in size, none above ``batch_size``: :class:`EvenBatchSampler`."""
    return batches(CellDataset(manager, indices), batch_size=batch_size, shuffle=shuffle)


def batches(cells: Any, *, batch_size: int, shuffle: bool, shared: bool = False) -> DataLoader[Any]:
    """Batches of ``cells``, a dataset of positions, as :func:`cell_loader` makes them; ``shared`` by processes."""
    sampler = EvenBatchSampler(len(cells), batch_size, shuffle=shuffle, shared=shared)
    # torch's loader draws a seed for workers, which must not come from the global state
    generator = None if shuffle or shared else torch.Generator()
    return DataLoader(cells, sampler=sampler, batch_size=None, generator=generator)
