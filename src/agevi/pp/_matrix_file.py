"""A matrix of cells x genes in memory, in an h5ad file or in a zarr store, read in one pass of blocks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset

from agevi import _checks
from agevi._source import where
from agevi._values import is_number

_VALUES = 1 << 20  # in a block, about
_ROWS = 1024  # of the first block, which tells how many values a row has


@dataclass(frozen=True)
class Matrix:
    """Values with the tables of their cells and genes."""

    tables: AnnData  # obs and var, without values
    x: Any  # (n_cells, n_genes), of which blocks of rows or of columns can be read
    name: str  # as a message writes it

    @property
    def by_columns(self) -> bool:
        """Whether columns are fast to read, and rows slow."""
        return getattr(self.x, "format", "csr") == "csc"

    @property
    def length(self) -> int:
        """Cells, or genes where columns are read."""
        return int(self.x.shape[int(self.by_columns)])

    def blocks(self) -> Iterator[tuple[slice, Any]]:
        """Rows (or columns) side by side in blocks that are alike in size, and where they are."""
        start, step = 0, _ROWS
        chunks = getattr(self.x, "chunks", None) if hasattr(self.x, "compute") else None
        ends = iter(() if chunks is None else np.cumsum(chunks[0]).tolist())  # of dask, each of which is read whole
        while start < self.length:
            part = slice(start, min(next(ends, start + step), self.length))
            block = self.x[:, part] if self.by_columns else self.x[part]
            block = block.compute() if chunks is not None else block
            yield part, block if sp.issparse(block) else np.asarray(block)
            size = len(block.data) if sp.issparse(block) else block.size
            step = int(np.clip(_VALUES * (part.stop - start) // max(size, 1), 1, 1 << 16))
            start = part.stop


@contextlib.contextmanager
def opened(adata: Any, layer: str | None) -> Iterator[Matrix]:
    """The matrix of an AnnData, or of a file that is open meanwhile; what cannot be read is one error."""
    if not isinstance(adata, str | os.PathLike):
        yield _of_anndata(_checks.anndata(adata), layer)
        return
    path = Path(adata)
    if not path.exists():
        raise FileNotFoundError(f"adata={str(path)!r} does not exist; pass an AnnData, an h5ad file or a zarr store.")
    before = path.stat()
    with contextlib.ExitStack() as stack:
        try:
            store = _zarr(path) if path.is_dir() else stack.enter_context(h5py.File(path, "r"))
            tables = AnnData(obs=read_elem(store["obs"]), var=read_elem(store["var"]))
        except Exception as error:
            raise ValueError(_unreadable(path, error)) from error
        _checks.anndata(tables)
        x = _of_store(store, layer, path)
        if x.shape != tables.shape:
            raise ValueError(
                f"{where(layer)} of {str(path)!r} has the shape {tuple(x.shape)}, and its tables are of "
                f"{tables.n_obs:,} cells and {tables.n_vars:,} genes; write the file again."
            )
        try:
            yield Matrix(tables, x, f"{where(layer)} of {path.name}")
        except (OSError, RuntimeError) as error:  # of h5py, where the file ends too early
            raise ValueError(_unreadable(path, error)) from error
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ValueError(f"{str(path)!r} changed while it was read; wait until it is written, and call again.")


def _of_anndata(adata: AnnData, layer: str | None) -> Matrix:
    """The matrix of an AnnData in memory, opened with ``backed="r"``, or with arrays of dask."""
    if adata.isbacked and adata.is_view:
        raise ValueError(
            "adata is a view of backed data, which cannot be read in order; pass the whole, or a copy of the view: "
            "adata.to_memory()."
        )
    found = adata.X if layer is None else adata.layers.get(layer)
    x = found if hasattr(found, "compute") and hasattr(found, "chunks") else _checks.matrix(adata, layer)
    return Matrix(AnnData(obs=adata.obs, var=adata.var), x, where(layer))


def _of_store(store: Any, layer: str | None, path: Path) -> Any:
    """The matrix of an open file."""
    names = sorted(store["layers"]) if "layers" in store else []
    if (layer is None and "X" not in store) or (layer is not None and layer not in names):
        raise KeyError(
            f"{where(layer)} is absent from {str(path)!r}{_checks.closest(layer or '', names)}; pass layer=..., one of "
            f"{_checks.listed(names) or 'none'}" + (", or leave it out for X." if "X" in store else ".")
        )
    element = store["X"] if layer is None else store[f"layers/{layer}"]
    kind = str(element.attrs.get("encoding-type", "array"))
    x = sparse_dataset(element) if kind in ("csr_matrix", "csc_matrix") else element
    if not hasattr(x, "dtype") or len(x.shape) != 2 or not is_number(np.dtype(x.dtype)):
        raise TypeError(
            f"{where(layer)} of {str(path)!r} holds {getattr(x, 'dtype', kind)}; agevi reads dense and sparse matrices "
            "of bool, integers, float32 and float64."
        )
    return x


def _zarr(path: Path) -> Any:
    """An open zarr store."""
    import zarr  # which only zarr stores need

    return zarr.open_group(path, mode="r")


def _unreadable(path: Path, error: BaseException) -> str:
    """What to say of a file that cannot be read."""
    said = str(error).strip().splitlines()
    return (
        f"{str(path)!r} cannot be read ({type(error).__name__}: {said[0] if said else 'no details'}); it may be cut "
        "short, damaged, or no AnnData. Copy or download it again."
    )
