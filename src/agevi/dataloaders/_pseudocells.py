"""Batches of pseudocells, which carry the age, beside single cells, which are reconstructed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import scipy.sparse as sp
import torch
from torch.utils.data import DataLoader

from agevi import _keys
from agevi._compat.scvi import REGISTRY_KEYS, AnnDataManager
from agevi.dataloaders._cells import Batch, CellDataset, processes
from agevi.dataloaders._device import DeviceRows, ahead, device_of, near, sent, sent_batch
from agevi.dataloaders._fields import AGE, CELLS, SUMMED
from agevi.dataloaders._sums import most_common

ROWS = 128
"""Pseudocells of a step, and single cells of a step."""
SAMPLES = 64
"""Samples of a step, of which each gives two pseudocells or more."""
MAX_CELLS = 128
"""Cells of a pseudocell at most: a sum of that many has little noise left, and reading more takes time."""
MIN_STEPS = 10
"""Steps of an epoch at least, so that metrics are not taken all the time."""
_VALIDATION_CELLS = 256  # decoded an epoch, in which as few as 1,280 train; no epoch is chosen by them
_SHUFFLED = 2**15  # cells that are shuffled at once in less time than a draw from each sample takes
_COVARIATES = (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.CAT_COVS_KEY, REGISTRY_KEYS.CONT_COVS_KEY)


class Rows(CellDataset):
    """Rows of every registered field as batches of tensors; pseudocells are sums of cells, means where ``averaged``."""

    def __init__(self, manager: AnnDataManager, *, averaged: bool) -> None:
        super().__init__(manager)
        self.averaged = averaged
        self.near: DeviceRows | None = None  # the cells on a GPU, where they are then summed
        self._varies = {key: bool(np.ptp(self.fields[key], axis=0).any()) for key in _COVARIATES if key in self.fields}

    def batch(self, members: np.ndarray, sizes: np.ndarray, cells: np.ndarray | None = None) -> Batch:
        """Sums of the next ``sizes`` of ``members``, with their commonest category and mean covariates; ``cells``."""
        first = np.cumsum(sizes) - sizes
        rows = members[first] if cells is None else np.concatenate([members[first], cells])
        out: Batch = {key: torch.from_numpy(self._field(key, members, sizes, rows)) for key in self.fields}
        out |= {REGISTRY_KEYS.X_KEY: self._sums(members, sizes), SUMMED: True}
        return out if cells is None else out | {CELLS: self._values(cells)}

    def _field(self, key: str, members: np.ndarray, sizes: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """A field of sums and single cells, whose first member, or which itself, is at ``rows``."""
        values = self.fields[key]
        out, n = values[rows], len(sizes)
        if n == 0 or not self._varies.get(key):
            return out
        of, found = np.repeat(np.arange(n), sizes), values[members]
        for j in range(values.shape[1]):
            if key == REGISTRY_KEYS.CONT_COVS_KEY:
                out[:n, j] = np.bincount(of, weights=found[:, j], minlength=n) / sizes
            else:
                out[:n, j] = most_common(found[:, j], of, n)
        return out

    def _values(self, rows: np.ndarray) -> torch.Tensor:
        return super()._values(rows) if self.near is None else self.near.values(rows)

    def _sums(self, members: np.ndarray, sizes: np.ndarray) -> torch.Tensor:
        """Values of the sums, (n_sums, n_genes), of which only the rows of their cells are read."""
        out = torch.from_numpy(self._summed(members, sizes)) if self.near is None else self.near.sums(members, sizes)
        if not self.averaged:
            return out
        return out / sent(torch.from_numpy(sizes.astype(np.float32)), out.device)[:, None]

    def _summed(self, members: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The same on the host, from the user's matrix."""
        last, rows = np.cumsum(sizes), self.x[members]
        if not sp.issparse(rows):
            summed: np.ndarray = np.add.reduceat(np.asarray(rows, dtype=np.float32), last - sizes, axis=0)
            return summed
        # With one pointer a sum the rows of its cells are one row, of which toarray sums the doubles.
        rows = sp.csr_matrix(rows, dtype=np.float32)
        pointers = rows.indptr[np.concatenate([[0], last])]
        return sp.csr_matrix((rows.data, rows.indices, pointers), (len(sizes), rows.shape[1])).toarray()


class Turns:
    """Positions up to ``n`` in random order, each once before any comes twice."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.n, self.rng = n, rng
        self._queue = np.empty(0, dtype=np.int64)

    def take(self, n: int) -> np.ndarray:
        """The next ``n``, at most as many as there are."""
        if len(self._queue) < n:
            self._queue = np.concatenate([self._queue, self.rng.permutation(self.n)])
        out, self._queue = self._queue[:n], self._queue[n:]
        return out

    def state(self) -> dict[str, Any]:
        """What the next positions depend on, plain values and an array."""
        return {"queue": self._queue, "rng": self.rng.bit_generator.state}

    def go_on(self, state: dict[str, Any]) -> None:
        """Go on from a state, also all else that draws from the same generator."""
        self._queue, self.rng.bit_generator.state = state["queue"], state["rng"]


def n_drawn(n_cells: Any, size: float) -> Any:
    """Cells of a pseudocell of samples with ``n_cells``: a share below 1, or a number; :data:`MAX_CELLS` at most."""
    wanted = np.ceil(size * n_cells) if size < 1 else int(size)
    return np.minimum(np.minimum(wanted, n_cells), MAX_CELLS).astype(np.int64)


def draw_cells(cells: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    """Some of ``cells`` without replacement, as many as :func:`n_drawn` says."""
    return rng.choice(cells, int(n_drawn(len(cells), size)), replace=False)


class Samples:
    """Cells of samples, of some of which cells are drawn at once."""

    def __init__(self, samples: list[np.ndarray], size: float) -> None:
        self.cells, self.n_cells = joined(samples)
        self.first, self.sizes = np.cumsum(self.n_cells) - self.n_cells, n_drawn(self.n_cells, size)

    def __len__(self) -> int:
        return len(self.n_cells)

    def draw(self, chosen: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Cells of a pseudocell of each of the samples ``chosen``, which may come twice, one after the other; sizes."""
        n, sizes = self.n_cells[chosen], self.sizes[chosen]
        widest = int(n.max(initial=0))
        if len(chosen) * widest > _SHUFFLED:
            starts = self.first[chosen]
            drawn = [a + rng.choice(m, k, replace=False) for a, m, k in zip(starts, n, sizes, strict=True)]
            return self.cells[np.concatenate(drawn)], sizes
        # The first cells of a sample in random order; what fills the rows of smaller samples is passed over.
        order = np.arange(widest)
        order = rng.permuted(np.where(order < n[:, None], order, widest), axis=1)
        taken = order < widest
        taken &= taken.cumsum(axis=1) <= sizes[:, None]
        return self.cells[(order + self.first[chosen, None])[taken]], sizes


class PseudocellLoader:
    """Steps of ``n_rows`` new pseudocells of samples with an age and ``n_cells`` cells, in parts by process (DDP)."""

    def __init__(
        self,
        rows: Rows,
        samples: list[np.ndarray],
        cells: np.ndarray | None,
        *,
        size: float,
        n_rows: int = ROWS,
        n_cells: int = ROWS,
    ) -> None:
        self.rows, self.samples, self.cells = rows, Samples(samples, size), cells
        self.n_cells = 0 if cells is None else min(n_cells, len(cells))
        self.n_samples = min(max(1, n_rows * SAMPLES // ROWS), len(samples))
        self.n_each = max(1, round(n_rows / self.n_samples))
        self.rng = np.random.default_rng(int(torch.randint(2**31, (1,))))
        self.turns = Turns(len(samples), self.rng)

    def __len__(self) -> int:
        return max(MIN_STEPS, -(-len(self.samples) // self.n_samples))

    def state(self) -> dict[str, Any]:
        """What the next pass depends on."""
        return self.turns.state()

    def go_on(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.turns.go_on(state)

    def __iter__(self) -> Iterator[Batch]:
        rank, n_processes = processes()
        for _ in range(len(self)):
            members, sizes = self.samples.draw(np.repeat(self.turns.take(self.n_samples), self.n_each), self.rng)
            cells = None
            if self.cells is not None:
                cells = self.rng.choice(self.cells, self.n_cells, replace=False)[rank::n_processes]
            own = np.arange(len(sizes)) % n_processes == rank
            yield self.rows.batch(members[np.repeat(own, sizes)], sizes[own], cells)


class PseudocellSplitter(pl.LightningDataModule):
    """Loaders of pseudocells and cells that train and validate; a pseudocell is of one of ``units``, (n_cells,)."""

    def __init__(
        self,
        adata_manager: AnnDataManager,
        roles: np.ndarray,
        *,
        units: np.ndarray,
        batch_size: int = ROWS,
        size: float,
        averaged: bool,
        with_cells: bool,
    ) -> None:
        super().__init__()
        self.adata_manager, self.rows, self.units = adata_manager, Rows(adata_manager, averaged=averaged), units
        self.size, self.batch_size, self.with_cells = size, batch_size, with_cells
        self.train_idx, self.val_idx, self.test_idx = (np.flatnonzero(roles == r) for r in _keys.SPLIT_ROLES)
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)

    def samples(self, cells: np.ndarray) -> list[np.ndarray]:
        """Cells of each unit with an age, positions."""
        labelled = cells[np.isfinite(self.rows.fields[AGE][cells, 0])]
        codes = self.units[labelled]
        order = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[order])) + 1
        return np.split(labelled[order], starts) if len(labelled) else []

    def setup(self, stage: str) -> None:
        """Keep cells on the GPU where they fit."""
        read = np.concatenate([self.train_idx, self.val_idx])
        self.rows.near = near(self.adata_manager, read, device_of(self.trainer))

    def teardown(self, stage: str) -> None:
        """Free the memory of the GPU when training ends."""
        self.rows.near = None

    def train_dataloader(self) -> Any:
        """Pseudocells and cells of the training subjects, drawn anew in every step."""
        loader = PseudocellLoader(
            self.rows, self.samples(self.train_idx), self.train_idx if self.with_cells else None, size=self.size,
            n_rows=self.batch_size, n_cells=self.batch_size,
        )  # fmt: skip
        return ahead(loader, device_of(self.trainer))

    def val_dataloader(self) -> Any:
        """Whole samples of the subjects that validate, beside some of their cells; always the same."""
        if not self.n_val:
            return []
        samples = self.samples(self.val_idx)
        cells = self.val_idx[:: -(-self.n_val // _VALIDATION_CELLS)] if self.with_cells else self.val_idx[:0]
        n_batches = max(1, -(-max(len(samples), len(cells)) // 512))
        parts = zip(_split(samples, n_batches), np.array_split(cells, n_batches), strict=True)
        batches = [
            sent_batch(self.rows.batch(*joined(sums), singles if self.with_cells else None), device_of(self.trainer))
            for sums, singles in parts
            if len(sums) or len(singles)
        ]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def _split(values: list[np.ndarray], n: int) -> list[list[np.ndarray]]:
    """A list in ``n`` parts of nearly equal length."""
    edges = np.linspace(0, len(values), n + 1).round().astype(int)
    return [values[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]


def joined(members: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All members of some sums one after the other, and the number of each."""
    return np.concatenate([np.empty(0, dtype=np.int64), *members]), np.array([len(m) for m in members], dtype=np.int64)
