"""An h5ad file or a zarr store that is written block by block of rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import write_elem

from agevi.io._h5 import new_file

_CHUNK = 1 << 16  # values, which are read at once
_SHARD = 1 << 22  # values of a file of a zarr store


def write_rows(
    path: Path, rows: Iterable[sp.csr_matrix], obs: pd.DataFrame, var: pd.DataFrame, dtype: Any, n_values: int
) -> None:
    """An AnnData of CSR rows, with int32 indices and int64 indptr; ``n_values`` are at most in all rows."""
    if path.suffix == ".h5ad":
        with new_file(path) as (file, check):

            def checked() -> Iterator[sp.csr_matrix]:
                for block in rows:
                    check()
                    yield block

            _write(file, checked(), obs, var, dtype, n_values)
        return
    import zarr  # which only zarr stores need

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*autosharding", UserWarning)  # of anndata, on tables
        _write(zarr.open_group(path, mode="w", zarr_format=3), rows, obs, var, dtype, n_values)


def _write(
    root: Any, rows: Iterable[sp.csr_matrix], obs: pd.DataFrame, var: pd.DataFrame, dtype: Any, n_values: int
) -> None:
    """All parts of an AnnData."""
    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    write_elem(root, "obs", obs)
    write_elem(root, "var", var)
    for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
        write_elem(root, name, {})
    group = root.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
    group.attrs["shape"] = np.array([len(obs), len(var)]) if isinstance(root, h5py.Group) else [len(obs), len(var)]
    data, indices = (_Appended(group, name, kind, n_values) for name, kind in (("data", dtype), ("indices", np.int32)))
    ends = [np.zeros(1, dtype=np.int64)]
    for block in rows:
        data.append(block.data)
        indices.append(block.indices)
        ends.append(ends[-1][-1] + block.indptr[1:].astype(np.int64))
    data.close()
    indices.close()
    indptr = _Appended(group, "indptr", np.int64, len(obs) + 1)
    indptr.append(np.concatenate(ends))
    indptr.close()


class _Appended:
    """An array that grows, written in whole shards."""

    def __init__(self, group: Any, name: str, dtype: Any, most: int) -> None:
        self.written, self.n_waiting = 0, 0
        self.waiting: list[np.ndarray] = []
        if isinstance(group, h5py.Group):
            options: dict[str, Any] = {"maxshape": (None,), "chunks": (_CHUNK,), "compression": "lzf"}
            self.array = group.create_dataset(name, (most,), dtype, **options)
        else:
            self.array = group.create_array(
                name, shape=(most,), dtype=np.dtype(dtype), chunks=(_CHUNK,), shards=(_SHARD,)
            )

    def append(self, values: np.ndarray) -> None:
        """Add values at the end."""
        self.waiting.append(values)
        self.n_waiting += len(values)
        if self.n_waiting >= _SHARD:
            self._flush(self.n_waiting // _SHARD * _SHARD)

    def close(self) -> None:
        """Write the rest, and cut the array to its length."""
        self._flush(self.n_waiting)
        self.array.resize((self.written,))

    def _flush(self, n: int) -> None:
        """Write ``n`` values."""
        values = np.concatenate(self.waiting) if self.waiting else np.zeros(0)
        for start in range(0, n, _SHARD):
            stop = min(start + _SHARD, n)
            self.array[self.written : self.written + stop - start] = values[start:stop]
            self.written += stop - start
        self.waiting, self.n_waiting = [values[n:]], len(values) - n
