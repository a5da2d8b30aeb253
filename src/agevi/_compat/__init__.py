"""Switches between versions of other packages; what scvi-tools has is taken in ``agevi._compat.scvi`` alone."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from threadpoolctl import ThreadpoolController

from agevi._stored import is_stored, stored

Host: Any = object
"""Base of mixins whose other half is scvi-tools' base class; a type checker lets them use its attributes."""


class Absent:
    """Takes the place of an inherited verb that a clock cannot honour, so that ``hasattr`` is False."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> Any:
        raise AttributeError(f"{owner.__name__} has no {self.name}: {self.reason}")


def on_disk(adata: AnnData) -> bool:
    """Whether X or a layer is a matrix on disk; no values of a view are taken to see it."""
    source = adata._adata_ref if adata.is_view else adata
    return bool(adata.isbacked) or is_stored(source.X) or any(map(is_stored, source.layers.values()))


def read_rows(adata: AnnData, rows: np.ndarray) -> AnnData:
    """Some rows of data on disk in memory, without pairs of cells and raw; of a view through its parent."""
    if not adata.is_view:
        return _of_rows(adata, rows)
    parent = adata._adata_ref
    of_rows, of_columns = (
        np.arange(n)[index if isinstance(index, slice) else np.asarray(index)]
        for n, index in ((parent.n_obs, adata._oidx), (parent.n_vars, adata._vidx))
    )
    part = _of_rows(parent, of_rows[rows])
    return part if np.array_equal(of_columns, np.arange(parent.n_vars)) else part[:, of_columns].copy()


def _of_rows(adata: AnnData, rows: np.ndarray) -> AnnData:
    """Some rows of data that are not a view: anndata's own way reads row by row, and closes the file."""

    def taken(x: Any) -> Any:
        if is_stored(x):
            return stored(x, "adata")[rows]
        return x.iloc[rows] if isinstance(x, pd.DataFrame) else x[rows]

    return AnnData(
        X=None if adata.X is None else taken(adata.X),
        obs=adata.obs.iloc[rows].copy(),
        var=adata.var.copy(),
        uns=dict(adata.uns),
        obsm={key: taken(values) for key, values in adata.obsm.items()},
        varm=dict(adata.varm),
        layers={key: taken(values) for key, values in adata.layers.items() if key is not None},
        shape=(len(rows), adata.n_vars) if adata.X is None else None,
    )


def written_to(adata: AnnData, *, copy: bool = False) -> AnnData:
    """What a tool writes to: ``adata``, or a copy, in memory where the data are on disk."""
    # anndata copies a view that is written to, and cannot where its parent is on disk: that is read into memory.
    if not on_disk(adata):
        return adata.copy() if copy else adata
    if copy or adata.is_view:
        read = _whole(adata)
        if copy:
            return read
        adata._init_as_actual(read)
    return adata


def _whole(adata: AnnData) -> AnnData:
    """All of data on disk, in memory; the file, which anndata closes, is open as before."""
    was_open = adata.isbacked and adata.file.is_open
    if adata.is_view:
        read = read_rows(adata, np.arange(adata.n_obs))
        read.raw = None if adata.raw is None else adata.raw.to_adata()
    else:
        read = adata.to_memory()
    if was_open and not adata.file.is_open:
        adata.file.open()
    return read


def take_control_of_pools(pools: ThreadpoolController) -> None:
    """Let this thread set the pools of linear algebra; since threadpoolctl 3.8 the first one locks others out."""
    for pool in pools.lib_controllers:
        if hasattr(pool, "clear_controlling_thread"):
            pool.clear_controlling_thread(force=True)


@cache  # reading what is installed takes a millisecond a package, and every copy of a clock asks
def version(package: str) -> str:
    """Installed version of a package, "" where it is not installed."""
    try:
        return _version(package)
    except PackageNotFoundError:
        return ""
