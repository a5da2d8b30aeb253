"""Batches of pseudocells, which carry the age, beside single cells, which are reconstructed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import scipy.sparse as sp
import torch
from torch.utils.data import DataLoader

from agevi import _keys
from agevi._compat.scvi import REGISTRY_KEYS, AnnDataManager
from agevi.dataloaders._cells import Batch, fields_of, processes
from agevi.dataloaders._fields import AGE, SUMMED
from agevi.dataloaders._sums import most_common

ROWS = 128
"""Pseudocells of a step, and single cells of a step."""
SAMPLES = 64
"""Samples of a step, of which each gives two pseudocells or more."""
MAX_CELLS = 128
"""Cells of a pseudocell at most: a sum of that many has little noise left, and reading more takes time."""
MIN_STEPS = 10
"""Steps of an epoch at least, so that metrics are not taken all the time."""
_VALIDATION_CELLS = 1024
_COVARIATES = (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.CAT_COVS_KEY, REGISTRY_KEYS.CONT_COVS_KEY)


class Rows:
    """Rows of every registered field as batches of tensors; pseudocells are sums of cells, means where ``averaged``."""

    def __init__(self, manager: AnnDataManager, *, averaged: bool) -> None:
        self.x, self.averaged = manager.get_from_registry(REGISTRY_KEYS.X_KEY), averaged
        self.fields = fields_of(manager)
        self._varies = {key: bool(np.ptp(self.fields[key], axis=0).any()) for key in _COVARIATES if key in self.fields}

    def batch(self, members: list[np.ndarray], cells: np.ndarray) -> Batch:
        """Sums of ``members``, with their most common category and mean covariates, then the single ``cells``."""
        first = np.array([m[0] for m in members], dtype=np.int64)
        rows = np.concatenate([first, cells])
        out = {key: torch.from_numpy(self._field(key, members, rows)) for key in self.fields}
        out[REGISTRY_KEYS.X_KEY] = torch.from_numpy(self._values(members, cells))
        out[SUMMED] = torch.arange(len(rows)) < len(members)
        return out

    def _field(self, key: str, members: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
        """A field of sums and single cells, whose first member, or which itself, is at ``rows``."""
        values = self.fields[key]
        out, n = values[rows], len(members)
        if n == 0 or not self._varies.get(key):
            return out
        size = np.array([len(m) for m in members])
        of, found = np.repeat(np.arange(n), size), values[np.concatenate(members)]
        for j in range(values.shape[1]):
            if key == REGISTRY_KEYS.CONT_COVS_KEY:
                out[:n, j] = np.bincount(of, weights=found[:, j], minlength=n) / size
            else:
                out[:n, j] = most_common(found[:, j], of, n)
        return out

    def _values(self, members: list[np.ndarray], cells: np.ndarray) -> np.ndarray:
        """Values of sums and cells, of which only their own rows are read."""
        groups = [*members, *cells[:, None]]
        sizes = np.array([len(g) for g in groups])
        first = np.concatenate([[0], np.cumsum(sizes)])
        rows = self.x[np.concatenate(groups)]
        if sp.issparse(rows):
            # With one pointer a group the rows of its cells are one row, of which toarray sums the doubles.
            rows = sp.csr_matrix(rows, dtype=np.float32)
            out = sp.csr_matrix((rows.data, rows.indices, rows.indptr[first]), (len(groups), rows.shape[1])).toarray()
        else:
            out = np.add.reduceat(np.asarray(rows, dtype=np.float32), first[:-1], axis=0)
        return out / sizes[:, None].astype(np.float32) if self.averaged else out


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


def draw_cells(cells: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    """Some of ``cells`` without replacement: a share below 1, or a number; never more than :data:`MAX_CELLS`."""
    wanted = int(np.ceil(size * len(cells))) if size < 1 else int(size)
    return rng.choice(cells, min(wanted, len(cells), MAX_CELLS), replace=False)


class PseudocellLoader:
    """Steps of ``n_rows`` new pseudocells of samples with an age and ``n_cells`` cells, in parts by process (DDP)."""

    def __init__(
        self,
        rows: Rows,
        samples: list[np.ndarray],
        cells: np.ndarray,
        *,
        size: float,
        n_rows: int = ROWS,
        n_cells: int = ROWS,
    ) -> None:
        self.rows, self.samples, self.cells = rows, samples, cells
        self.size, self.n_cells = size, min(n_cells, len(cells))
        self.n_samples = min(max(1, n_rows * SAMPLES // ROWS), len(samples))
        self.n_each = max(1, round(n_rows / self.n_samples))
        self.rng = np.random.default_rng(int(torch.randint(2**31, (1,))))
        self.turns = Turns(len(samples), self.rng)

    def __len__(self) -> int:
        return max(MIN_STEPS, -(-len(self.samples) // self.n_samples))

    def __iter__(self) -> Iterator[Batch]:
        rank, n_processes = processes()
        for _ in range(len(self)):
            chosen = np.repeat(self.turns.take(self.n_samples), self.n_each)
            members = [draw_cells(self.samples[i], self.size, self.rng) for i in chosen]
            cells = self.rng.choice(self.cells, self.n_cells, replace=False) if self.n_cells else self.cells[:0]
            yield self.rows.batch(members[rank::n_processes], cells[rank::n_processes])


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
        self.rows, self.units = Rows(adata_manager, averaged=averaged), units
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

    def train_dataloader(self) -> PseudocellLoader:
        """Pseudocells and cells of the training subjects, drawn anew in every step."""
        n_cells = self.batch_size if self.with_cells else 0
        return PseudocellLoader(
            self.rows, self.samples(self.train_idx), self.train_idx, size=self.size, n_rows=self.batch_size,
            n_cells=n_cells,
        )  # fmt: skip

    def val_dataloader(self) -> Any:
        """Whole samples of the subjects that validate, beside some of their cells; always the same."""
        if not self.n_val:
            return []
        samples = self.samples(self.val_idx)
        cells = self.val_idx[:: -(-self.n_val // _VALIDATION_CELLS)] if self.with_cells else self.val_idx[:0]
        n_batches = max(1, -(-max(len(samples), len(cells)) // 512))
        parts = zip(_split(samples, n_batches), np.array_split(cells, n_batches), strict=True)
        batches = [self.rows.batch(sums, singles) for sums, singles in parts if len(sums) or len(singles)]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def _split(values: list[np.ndarray], n: int) -> list[list[np.ndarray]]:
    """A list in ``n`` parts of nearly equal length."""
    edges = np.linspace(0, len(values), n + 1).round().astype(int)
    return [values[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
