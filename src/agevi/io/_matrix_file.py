"""A matrix of cells x genes in memory, in an h5ad file or in a zarr store, read in one pass of blocks."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset

from agevi import _checks
from agevi._compat import on_disk
from agevi._source import where
from agevi._stored import Stored, changed, first_line, unreadable
from agevi._values import is_number
from agevi.io._folder import matrix_digest

_VALUES = 1 << 20  # in a block, about
_MOST = 1 << 16  # rows of a block


@dataclass(frozen=True)
class Stamp:
    """Number, bytes and last change of the files of a matrix, which tell that it was written to."""

    n: int
    size: int
    time: int  # ns

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """That of a file, or of all files in a folder."""
        if not path.is_dir():
            found = path.stat()
            return cls(1, found.st_size, found.st_mtime_ns)
        n, size, time, folders = 0, 0, 0, [path]
        while folders:
            for entry in os.scandir(folders.pop()):
                if entry.is_dir():
                    folders.append(Path(entry.path))
                else:
                    found = entry.stat()
                    n, size, time = n + 1, size + found.st_size, max(time, found.st_mtime_ns)
        return cls(n, size, time)


@dataclass(frozen=True)
class Matrix:
    """Values with the tables of their cells and genes."""

    tables: AnnData  # obs and var, without values
    x: Any  # (n_cells, n_genes), of which blocks of rows or of columns can be read
    name: str  # as a message writes it
    path: Path | None = None  # of the file or store, where there is one
    watched: Path | None = None  # the same, or the folder of the matrix in a store
    stamp: Stamp | None = None  # of what is watched, when it was opened
    genes: np.ndarray | None = None  # mask of the columns of x that blocks have, None for all

    @property
    def by_columns(self) -> bool:
        """Whether columns are fast to read, and rows slow."""
        return getattr(self.x, "format", "csr") == "csc"

    @property
    def length(self) -> int:
        """Cells, or genes where columns are read."""
        return int(self.x.shape[int(self.by_columns)])

    @property
    def n_values(self) -> int:
        """Stored values, of which zeros that a sparse matrix leaves out are none."""
        group = _parts(self.x)
        if group is not None:
            return int(group["data"].shape[0])
        return len(self.x.data) if sp.issparse(self.x) else int(np.prod(self.x.shape))

    def of_genes(self, genes: np.ndarray | None) -> Matrix:
        """The same with those genes alone where a mask, (n_genes,), is True; the others are read and left out."""
        if genes is None:
            return self
        tables = AnnData(obs=self.tables.obs, var=self.tables.var.loc[genes].copy())
        return replace(self, tables=tables, genes=genes)

    def blocks(self, start: int = 0) -> Iterator[tuple[slice, Any]]:
        """Rows (or columns) side by side from ``start`` on, the end of a block, in blocks alike in size; and where."""
        ends: Any = None
        if is_lazy(self.x):  # chunks of dask, each of which is read whole
            ends = (end for end in np.cumsum(self.x.chunks[0]).tolist() if end > start)
        step = int(np.clip(_VALUES * self.length // max(self.n_values, 1), 1, _MOST))
        while start < self.length:
            part = slice(start, min(start + step if ends is None else next(ends), self.length))
            yield part, self._read(part)
            start = part.stop

    def _read(self, part: slice) -> Any:
        """One block in memory, CSR, CSC or dense."""
        try:
            block = self.x[:, part] if self.by_columns else self.x[part]
            block = block.compute() if is_lazy(block) else block
            if self.genes is not None:
                block = block[:, self.genes[part] if self.by_columns else self.genes]
            return block if sp.issparse(block) else np.asarray(block)
        except MemoryError:
            raise
        except Exception as error:  # of h5py, zarr or dask, where the file ends too early or is damaged
            self.check_unchanged()
            if self.path is None and not is_lazy(self.x):
                raise
            raise ValueError(_unreadable(self.path or self.name, error)) from error

    def check_unchanged(self) -> None:
        """Refuse a file that was written to since it was opened."""
        if self.watched is None:
            return
        try:
            same = Stamp.of(self.watched) == self.stamp
        except OSError:
            same = False
        if not same:
            raise ValueError(changed(self.path))

    def identity(self) -> str | None:
        """What tells these values from others: their digest in memory, size and time of a file; None for dask."""
        if self.stamp is not None:
            return f"{self.stamp.size:,} bytes in {self.stamp.n} files of {pd.Timestamp(self.stamp.time)}"
        return None if is_lazy(self.x) else matrix_digest(self.x)


def is_lazy(x: Any) -> bool:
    """Whether ``x`` is an array of dask."""
    return hasattr(x, "compute") and hasattr(x, "chunks")


@contextlib.contextmanager
def opened(adata: Any, layer: str | None, argument: str = "adata") -> Iterator[Matrix]:
    """The matrix of an AnnData, or of a file that is open meanwhile; what cannot be read is one error."""
    if not isinstance(adata, str | os.PathLike):
        matrix = _of_anndata(adata, layer)
        yield matrix
        matrix.check_unchanged()
        return
    path = Path(adata)
    if not path.exists():
        raise FileNotFoundError(
            f"{argument}={str(path)!r} does not exist; pass an AnnData, an h5ad file or a zarr store."
        )
    with contextlib.ExitStack() as stack:
        before = Stamp.of(path) if path.is_file() else None
        try:
            store = _zarr(path) if path.is_dir() else stack.enter_context(h5py.File(path, "r"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of names that are repeated, which is an error later
                tables = AnnData(obs=read_elem(store["obs"]), var=read_elem(store["var"]))
        except Exception as error:
            raise ValueError(_unreadable(path, error)) from error
        _checks.anndata(tables)
        element = _element(store, layer, path)
        watched = path if before is not None else path / element.path
        stamp = before if before is not None else Stamp.of(watched)
        x = _of_element(element, layer, path)
        if x.shape != tables.shape:
            raise ValueError(
                f"{where(layer)} of {str(path)!r} has the shape {tuple(x.shape)}, and its tables are of "
                f"{tables.n_obs:,} cells and {tables.n_vars:,} genes; write the file again."
            )
        matrix = Matrix(tables, x, f"{where(layer)} of {path.name}", path, watched, stamp)
        yield matrix
        matrix.check_unchanged()


def _of_anndata(adata: Any, layer: str | None) -> Matrix:
    """The matrix of an AnnData in memory, opened with ``backed="r"``, or with arrays of dask."""
    tables = _tables(adata)
    if adata.is_view and on_disk(adata):
        raise ValueError(
            "adata is a view of backed data, which cannot be read in order; pass the whole, or a copy of the view: "
            "adata.to_memory()."
        )
    found = adata.X if layer is None else adata.layers.get(layer)
    x = found if is_lazy(found) else _checks.matrix(adata, layer)
    if not isinstance(x, Stored) or x.path is None:
        return Matrix(tables, x, where(layer))
    path = Path(x.path)
    group = _parts(x)
    if group is not None:
        _check_parts(group, path)
    watched = path if path.is_file() else path / x.name.strip("/")
    return Matrix(tables, x, where(layer), path, watched, Stamp.of(watched))


def _parts(x: Any) -> Any:
    """The group with the parts of a sparse matrix on disk; None of others."""
    if isinstance(x, Stored):
        return x.as_anndata().group if x.is_sparse else None
    return getattr(x, "group", None) if hasattr(x, "format") else None


def _tables(adata: Any) -> AnnData:
    """The tables of cells and genes in memory, where ``read_lazy`` leaves them on disk too."""
    if isinstance(adata, AnnData) and hasattr(adata.obs, "to_memory") and hasattr(adata.var, "to_memory"):
        return _checks.anndata(AnnData(obs=adata.obs.to_memory(), var=adata.var.to_memory()))
    _checks.anndata(adata)
    return AnnData(obs=adata.obs, var=adata.var)


def _element(store: Any, layer: str | None, path: Path) -> Any:
    """The part of an open file that holds the matrix."""
    names = sorted(store["layers"]) if "layers" in store else []
    if (layer is None and "X" not in store) or (layer is not None and layer not in names):
        raise KeyError(
            f"{where(layer)} is absent from {str(path)!r}{_checks.closest(layer or '', names)}; pass layer=..., one of "
            f"{_checks.listed(names) or 'none'}" + (", or leave it out for X." if "X" in store else ".")
        )
    return store["X"] if layer is None else store[f"layers/{layer}"]


def _of_element(element: Any, layer: str | None, path: Path) -> Any:
    """The matrix in a part of an open file."""
    kind = str(element.attrs.get("encoding-type", "array"))
    x = element
    if kind in ("csr_matrix", "csc_matrix"):
        _check_parts(element, path)
        x = sparse_dataset(element)
    if not hasattr(x, "dtype") or len(x.shape) != 2 or not is_number(np.dtype(x.dtype)):
        raise TypeError(
            f"{where(layer)} of {str(path)!r} holds {getattr(x, 'dtype', kind)}; agevi reads dense and sparse matrices "
            "of bool, integers, float32 and float64."
        )
    return x


def _check_parts(group: Any, path: Path) -> None:
    """Refuse a sparse matrix of which parts are absent: zarr takes zeros in the place of files that it lacks."""
    try:
        n, ends = int(group["data"].shape[0]), np.asarray(group["indptr"][...])
        whole = group["indices"].shape[0] == n and ends[0] == 0 and ends[-1] == n and (np.diff(ends) >= 0).all()
        for name in ("data", "indices") if n >= len(ends) else ("data",):  # of which all zeros may be left out
            part = group[name]
            whole = whole and getattr(part, "nchunks_initialized", 0) >= getattr(part, "nchunks", 0)
    except Exception as error:
        raise ValueError(_unreadable(path, error)) from error
    if not whole:
        raise ValueError(unreadable(path, "parts of its sparse matrix are absent"))


def _zarr(path: Path) -> Any:
    """An open zarr store."""
    import zarr  # which only zarr stores need

    return zarr.open_group(path, mode="r")


def _unreadable(path: Path | str, error: BaseException) -> str:
    """What to say of a file that cannot be read."""
    return unreadable(path, f"{type(error).__name__}: {first_line(error)}")
