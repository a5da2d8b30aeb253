"""Matrices on disk: rows of them are read in runs, and a file that cannot be read, or changed, is one error."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any
from weakref import finalize

import h5py
import numpy as np
import scipy.sparse as sp
from anndata.abc import CSCDataset, CSRDataset
from anndata.io import sparse_dataset

_GAP = 1 << 17  # bytes between two rows that are read and left out: a read of its own takes longer
_PIECE = 1 << 24  # bytes that are read at a time, about
_VALUES = 1 << 22  # values of a block of all values


_FACTS: dict[tuple[Any, ...], dict[str, Any]] = {}  # what is known of a matrix, by file, name, size and time
_N_FACTS = 4  # matrices that are remembered after nobody reads them any more
_STORED: dict[int, Stored] = {}  # by the id of a dataset of anndata, h5py or zarr, for as long as that lives


def is_stored(x: Any) -> bool:
    """Whether ``x`` is a matrix on disk, as in an AnnData opened with ``backed="r"``, or what reads it."""
    return isinstance(x, Stored | CSRDataset | CSCDataset | h5py.Dataset) or _is_zarr(x)


def _is_zarr(x: Any) -> bool:
    """Whether ``x`` is an array of zarr, which is not imported for it."""
    return type(x).__module__.partition(".")[0] == "zarr" and hasattr(x, "chunks")


def stored(x: Any, where: str) -> Stored:
    """What reads a matrix on disk, the same for the same ``x``."""
    if isinstance(x, Stored):
        return x
    if id(x) not in _STORED:
        _STORED[id(x)] = Stored(x, where)
        finalize(x, _STORED.pop, id(x), None).atexit = False
    return _STORED[id(x)]


class Stored:
    """Some rows of a matrix on disk, (n_rows, n_columns), as CSR or dense ones in memory; never all of them at once."""

    ndim = 2

    def __init__(self, x: Any, where: str) -> None:
        self.where, self.shape, self.dtype = where, tuple(int(n) for n in x.shape), np.dtype(x.dtype)
        if isinstance(x, CSRDataset | CSCDataset):
            self.format = str(x.format)
        # A handle of its own: what lies in the table of all must not keep its key alive.
        self._node = x.group if self.is_sparse else x.file[x.name] if isinstance(x, h5py.Dataset) else copy(x)
        self._in_zarr = _is_zarr(x) or getattr(x, "backend", "hdf5") == "zarr"
        self.name, self.path = str(self._node.name), self._found()
        self._began = self._state()
        self.facts = self._known()

    @property
    def is_sparse(self) -> bool:
        """Whether rows are read as sparse ones."""
        return hasattr(self, "format")

    @property
    def by_rows(self) -> bool:
        """Whether rows are fast to read."""
        return getattr(self, "format", "csr") == "csr"

    @property
    def n_row_bytes(self) -> int:
        """Bytes of a row in memory, on average."""
        if not self.is_sparse:
            return self.shape[1] * self.dtype.itemsize
        n_values = int(self._indptr()[-1]) if self.by_rows else self.shape[1]
        return n_values * (self.dtype.itemsize + 4) // max(self.shape[0], 1) + 8

    def same(self, other: Any) -> bool:
        """Whether ``other`` is the same matrix in the same file."""
        named = isinstance(other, Stored) and self.path is not None
        return named and (self.path, self.name) == (other.path, other.name)

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Stored values of some sparse rows, (n,) int64."""
        indptr = self._indptr()
        return indptr[rows + 1] - indptr[rows]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """Rows, or ``(rows, columns)``, in memory."""
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        if not self.by_rows:
            with self._guarded():
                return self.as_anndata()[rows, columns]
        positions = np.arange(self.shape[0])[rows] if isinstance(rows, slice) else np.asarray(rows)
        if positions.dtype == bool:
            positions = np.flatnonzero(positions)
        sorted_rows, place = np.unique(positions, return_inverse=True)
        out = self._rows(sorted_rows.astype(np.int64))
        if len(positions) != len(sorted_rows) or not np.array_equal(positions, sorted_rows):
            out = out[place.ravel()]
        return out if isinstance(columns, slice) and columns == slice(None) else out[:, columns]

    def values(self) -> Iterator[np.ndarray]:
        """All stored values in their order, some at a time."""
        if self.is_sparse:
            n = self._guarded_length()
            for start in range(0, n, _VALUES):
                with self._guarded() as node:
                    block = np.asarray(node["data"][start : start + _VALUES])
                yield block
            return
        step = max(1, _VALUES // max(1, self.shape[1]))
        for start in range(0, self.shape[0], step):
            yield self._rows(np.arange(start, min(start + step, self.shape[0])))

    # --- reading -----------------------------------------------------------------------------------------------------

    def _rows(self, rows: np.ndarray) -> Any:
        """Rows at rising positions."""
        if not self.is_sparse:
            dense = np.empty((len(rows), self.shape[1]), dtype=self.dtype)
            for place, hull in self._runs(rows):
                with self._guarded() as node:
                    dense[place] = np.asarray(node[hull])[rows[place] - hull.start]
            return dense
        lengths = self.lengths(rows)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        small = max(int(indptr[-1]), self.shape[1]) < np.iinfo(np.int32).max
        values = np.empty(indptr[-1], dtype=self.dtype)
        columns = np.empty(indptr[-1], dtype=np.int32 if small else np.int64)
        ends = self._indptr()
        for place, hull in self._runs(rows):
            out, part = slice(indptr[place.start], indptr[place.stop]), slice(ends[hull.start], ends[hull.stop])
            with self._guarded() as node:
                found, at = np.asarray(node["data"][part]), np.asarray(node["indices"][part])
            if place.stop - place.start < hull.stop - hull.start:
                wanted = np.zeros(hull.stop - hull.start, dtype=bool)
                wanted[rows[place] - hull.start] = True
                wanted = np.repeat(wanted, np.diff(ends[hull.start : hull.stop + 1]))
                found, at = found[wanted], at[wanted]
            if len(found) != out.stop - out.start:
                raise ValueError(self._unreadable("it holds fewer values than it says"))
            values[out], columns[out] = found, at
        if len(columns) and (columns.min() < 0 or columns.max() >= self.shape[1]):
            raise ValueError(self._unreadable(f"it names column {columns.max()} of {self.shape[1]}"))
        return sp.csr_matrix((values, columns, indptr.astype(columns.dtype)), shape=(len(rows), self.shape[1]))

    def _runs(self, rows: np.ndarray) -> Iterator[tuple[slice, slice]]:
        """Rising ``rows`` as slices of them, each with the rows that are read for it in one piece."""
        size = max(1, self.n_row_bytes)
        far = np.diff(rows) > max(1, _GAP // size)
        far |= np.diff(rows // max(1, _PIECE // size)) > 0
        edges = [0, *(np.flatnonzero(far) + 1), len(rows)]
        for first, last in zip(edges[:-1], edges[1:], strict=True):
            if last > first:
                yield slice(first, last), slice(int(rows[first]), int(rows[last - 1]) + 1)

    def _indptr(self) -> np.ndarray:
        """Where each row begins among the values, (n_rows + 1,) int64."""
        if "indptr" not in self.facts:
            with self._guarded() as node:
                indptr = np.asarray(node["indptr"][...]).astype(np.int64)
            self._check_pieces()
            self.facts["indptr"] = indptr
        found: np.ndarray = self.facts["indptr"]
        return found

    def _check_pieces(self) -> None:
        """Refuse stores that lack files, in the place of which zarr gives zeros."""
        for name in ("data", "indices") if self._in_zarr and self.shape[1] > 1 else ():
            with self._guarded() as node:
                wanted, there = node[name].nchunks, node[name].nchunks_initialized
            if there < wanted and node[name].size:
                raise ValueError(self._unreadable(f"{wanted - there:,} of {wanted:,} pieces of {name} are missing"))

    def _guarded_length(self) -> int:
        """Number of stored values."""
        with self._guarded() as node:
            return int(node["data"].shape[0])

    def as_anndata(self) -> Any:
        """As an AnnData holds it."""
        with self._guarded() as node:
            return sparse_dataset(node) if self.is_sparse else copy(node) if self._in_zarr else node.file[node.name]

    # --- the file ----------------------------------------------------------------------------------------------------

    def _found(self) -> str | None:
        """Path of the file or store; None of one in memory."""
        if self._in_zarr:
            root = getattr(self._node.store, "root", None)
            return None if root is None else str(root)
        path = str(self._node.file.filename)
        return path if os.path.exists(path) else None

    def _known(self) -> dict[str, Any]:
        """What is known of the matrix, by all who read it."""
        if self.path is None:  # which nobody else knows by name
            return {}
        key = (self.path, self.name, self._began)
        facts = _FACTS.pop(key, {})
        _FACTS[key] = facts  # the last
        while len(_FACTS) > _N_FACTS:
            _FACTS.pop(next(iter(_FACTS)))
        return facts

    def _state(self) -> tuple[Any, ...]:
        """Size of the file and time of its last change; of a store, of what describes the matrix."""
        if self.path is None:
            return ()
        try:
            told = Path(self.path)
            if told.is_dir():
                own = told / self.name.strip("/")
                described = (own / name for name in ("zarr.json", ".zattrs", ".zarray"))
                told = next((path for path in described if path.exists()), own)
            state = told.stat()
        except OSError as error:
            raise ValueError(vanished(self.path)) from error
        return state.st_size, state.st_mtime_ns

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[Any]:
        """The open group or dataset, of a file that is still the one it was."""
        if self._state() != self._began:
            raise ValueError(changed(str(self.path)))
        try:
            if not self._in_zarr and not self._node:  # the user closed the file: agevi reads it by itself
                self._node = h5py.File(self.path, "r")[self.name]
            yield self._node
        except (OSError, RuntimeError, KeyError, EOFError) as error:  # of h5py and zarr, where a file ends too early
            raise ValueError(self._unreadable(f"{type(error).__name__}: {first_line(error)}")) from error

    def _unreadable(self, why: str) -> str:
        return unreadable(self.path or self.where, why)

    def __getstate__(self) -> dict[str, Any]:
        """All but what is open: another process opens the file itself."""
        if self.path is None:
            raise TypeError(f"{self.where} is on no disk and cannot be read by another process.")
        return {name: value for name, value in vars(self).items() if name not in ("_node", "facts")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._in_zarr:
            import zarr  # which only zarr stores need

            self._node = zarr.open_group(self.path, mode="r")[self.name.strip("/")]
        else:
            self._node = h5py.File(self.path, "r")[self.name]
        self.facts = self._known()


def first_line(error: BaseException) -> str:
    """What an error says."""
    said = str(error).strip().splitlines()
    return said[0] if said else "no details"


def unreadable(path: Any, why: str) -> str:
    """What to say of a file that cannot be read."""
    return (
        f"{str(path)!r} cannot be read ({why}); it may be cut short, damaged, or no AnnData. Copy or download it again."
    )


def changed(path: Any) -> str:
    """What to say of a file that is another than when it was opened."""
    return (
        f"{str(path)!r} changed while it was read; wait until it is written, and call again (if it was open before, "
        "open it and call setup_anndata anew)."
    )


def vanished(path: Any) -> str:
    """What to say of a file that is not there any more."""
    return f"{str(path)!r} was moved or deleted after it was opened; put it back, or open it where it is now."
