"""The values of several files in the order of a store: put into parts of rows on disk, then read part by part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from agevi import _checks
from agevi._progress import Bar
from agevi.io._kept import KeptState
from agevi.io._matrix_file import Matrix, opened
from agevi.io._store_tables import Part, Tables, said_of

_VALUES = 1 << 22  # of a part, about, which is sorted in memory


class KeptStore(KeptState):
    """How far the values of a store are put into parts, refused where the folder holds those of another."""

    manifest, kind, call = "write_store.json", "parts of another store", "io.write_store"


class Parts:
    """Rows side by side in parts of alike size; a part is a file of values with their row and column."""

    def __init__(self, tables: Tables, kept: KeptStore) -> None:
        self.tables, self.kept = tables, kept
        n_values = sum(part.n_values for part in tables.parts)
        self.size = int(np.clip(_VALUES * len(tables.obs) // max(n_values, 1), 1, len(tables.obs)))  # rows of a part
        if kept.state is not None:
            self.size = kept.state["size"]
        self.n = -(-len(tables.obs) // self.size)
        self.record = np.dtype([("row", "<i4"), ("column", "<i4"), ("value", tables.dtype)])
        self.lengths = np.zeros(self.n, dtype=np.int64)  # bytes
        self.file, self.start = 0, 0  # where the next block begins
        self._touched: set[int] = set()
        if kept.state is not None:
            self._go_on(kept.state)

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self.kept.path.parent / f"rows_{number:06d}.bin"

    @property
    def n_values(self) -> int:
        """Values in all parts."""
        return int(self.lengths.sum()) // self.record.itemsize

    def fill(self, layer: str | None, bar: Bar) -> None:
        """Put the values of all files into parts, in one pass over each."""
        first = 0
        for number, part in enumerate(self.tables.parts):
            rows = self.tables.row[first : first + part.n_cells]
            first += part.n_cells
            if number < self.file:
                bar.step(part.n_cells)
                continue
            with opened(part.source, layer, "paths") as matrix, said_of(part.name):
                if matrix.identity() != part.identity:
                    raise ValueError(
                        f"{part.name} changed while it was read; wait until it is written, and call again."
                    )
                self._of_file(matrix, part, rows, bar)
            self.file, self.start = number + 1, 0
        self._keep()

    def _of_file(self, matrix: Matrix, part: Part, rows: np.ndarray, bar: Bar) -> None:
        """Put the values of one file into parts."""
        done = 0

        def shown(stop: int) -> int:
            return part.n_cells * stop // matrix.length

        bar.step(shown(self.start))
        done = shown(self.start)
        for own, block in matrix.blocks(self.start):
            _checks.finite(block, matrix.name)
            row, column, value = _triplets(block)
            if matrix.by_columns:
                column = column + own.start
            else:
                row = row + own.start
            self._put(rows[row], part.target[column], value)
            self.start = own.stop
            bar.step(shown(self.start) - done)
            done = shown(self.start)
            if self.kept.due:
                matrix.check_unchanged()
                self._keep()

    def _put(self, row: np.ndarray, column: np.ndarray, value: np.ndarray) -> None:
        """Append values to the parts of their rows."""
        used = np.flatnonzero((column >= 0) & (value != 0))
        number = (row[used] // self.size).astype(np.int32)
        order = np.argsort(number, kind="stable")
        used, number = used[order], number[order]
        records = np.empty(len(used), dtype=self.record)
        records["row"], records["column"] = row[used] - number.astype(np.int64) * self.size, column[used]
        records["value"] = value[used]
        here, first = np.unique(number, return_index=True)
        for own, start, stop in zip(here.tolist(), first, [*first[1:], len(used)], strict=True):
            with open(self.path(own), "ab") as file:
                file.write(records[start:stop].data)
            self.lengths[own] += (stop - start) * self.record.itemsize
            self._touched.add(own)

    def _keep(self) -> None:
        """Write how far the parts are, once they are on disk."""
        for number in self._touched:
            with open(self.path(number), "rb") as file:
                os.fsync(file.fileno())
        self._touched.clear()
        self.kept.write({"file": self.file, "start": self.start, "lengths": self.lengths, "size": self.size})

    def _go_on(self, state: dict[str, Any]) -> None:
        """Take the state of a call that was killed, and cut off what was written after it."""
        self.file, self.start, self.lengths = state["file"], state["start"], np.array(state["lengths"])
        for number, length in enumerate(self.lengths.tolist()):
            path = self.path(number)
            there = path.stat().st_size if path.exists() else 0
            if there < length:
                raise ValueError(
                    f"{path} was cut or damaged ({there:,} of {length:,} bytes). Remove {path.parent}, and call again."
                )
            if there > length:
                os.truncate(path, length)

    def rows(self) -> Iterator[sp.csr_matrix]:
        """The rows of the store in order, in blocks."""
        n_rows, n_genes = len(self.tables.obs), len(self.tables.var)
        for number in range(self.n):
            path = self.path(number)
            found = np.fromfile(path, dtype=self.record) if self.lengths[number] else np.empty(0, self.record)
            shape = (min(self.size, n_rows - number * self.size), n_genes)
            block = sp.coo_matrix((found["value"], (found["row"], found["column"])), shape=shape).tocsr()
            block.sort_indices()
            yield block


def _triplets(block: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and value of all values."""
    found = sp.coo_matrix(block)
    return found.row, found.col, found.data
