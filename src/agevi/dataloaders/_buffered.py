"""Cells on disk in batches: rows are read in runs, some ten thousand at a time, while those before are computed on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import torch

from agevi.dataloaders._cells import Batch, CellDataset, EvenBatchSampler

BYTES = 1 << 27
"""Of the rows that are held in memory; twice as many are, while the next ones are read."""
_RUNS = 256  # in a buffer, about: cells of one batch come from so many places in the file
_SHORTEST, _LONGEST = 16, 256  # cells of a run


class RunSampler(EvenBatchSampler):
    """Even batches, shuffled in two steps: runs of neighbours come in random order, and cells within each buffer."""

    def __init__(self, n: int, batch_size: int, *, n_held: int, shuffle: bool, shared: bool = False) -> None:
        super().__init__(n, batch_size, shuffle=shuffle, shared=shared)
        self.per_buffer = max(1, n_held // batch_size)
        """Batches of a buffer."""
        self.run = int(np.clip(n_held // _RUNS, _SHORTEST, _LONGEST))

    def order(self) -> torch.Tensor:
        """All positions, (n,): each buffer takes whole runs, but for the first and the last."""
        if not self.shuffle:
            return super().order()
        runs = torch.randperm(-(-self.n // self.run), generator=self.generator)
        order = (runs[:, None] * self.run + torch.arange(self.run)).flatten()
        batches = torch.tensor_split(order[order < self.n], self.n_batches)
        buffers = [torch.cat(batches[i : i + self.per_buffer]) for i in range(0, self.n_batches, self.per_buffer)]
        return torch.cat([part[torch.randperm(len(part), generator=self.generator)] for part in buffers])


class BufferedLoader:
    """Batches of ``cells`` on disk; a thread reads the next buffer."""

    def __init__(self, cells: Any, *, batch_size: int, shuffle: bool, shared: bool = False) -> None:
        own: CellDataset = getattr(cells, "cells", cells)
        n_held = max(1, BYTES // max(1, own.x.n_row_bytes))
        self.cells = cells
        self._order = RunSampler(len(cells), batch_size, n_held=n_held, shuffle=shuffle, shared=shared)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        torch.empty((), dtype=torch.int64).random_()  # as a loader of torch does, so that the same numbers follow
        batches = iter(self._order)
        # The first is read here: the order is taken from the random state of this thread.
        coming = self._read(batches)
        with ThreadPoolExecutor(1, thread_name_prefix="agevi-rows") as thread:
            while coming is not None:
                following = thread.submit(self._read, batches)
                held, positions = coming
                for own in positions:
                    yield held[own]
                del held, coming
                coming = following.result()

    def _read(self, batches: Iterator[np.ndarray]) -> tuple[Any, list[np.ndarray]] | None:
        """The next batches of positions, and what reads them from memory."""
        own = list(islice(batches, self._order.per_buffer))
        return (self.cells.held(np.concatenate(own)), own) if own else None
