"""Switches between versions of other packages; what scvi-tools has is taken in ``agevi._compat.scvi`` alone."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version
from typing import Any

import numpy as np
from anndata import AnnData
from threadpoolctl import ThreadpoolController

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


def read_rows(adata: AnnData, rows: np.ndarray) -> AnnData:
    """Some rows of backed data in memory; of a view through its parent, since anndata makes no view of such a view."""
    if not adata.is_view:
        return adata[rows].to_memory()
    parent = adata._adata_ref
    of_rows, of_columns = (
        np.arange(n)[index if isinstance(index, slice) else np.asarray(index)]
        for n, index in ((parent.n_obs, adata._oidx), (parent.n_vars, adata._vidx))
    )
    part = parent[of_rows[rows]].to_memory()
    return part if np.array_equal(of_columns, np.arange(parent.n_vars)) else part[:, of_columns].copy()


def written_to(adata: AnnData, *, copy: bool = False) -> AnnData:
    """What a tool writes to: ``adata``, or a copy, in memory where the data are on disk."""
    # anndata copies a view that is written to, and cannot where its parent is on disk: that is read into memory.
    if not adata.isbacked:
        return adata.copy() if copy else adata
    if copy or adata.is_view:
        read = read_rows(adata, np.arange(adata.n_obs))
        if copy:
            return read
        adata._init_as_actual(read)
    return adata


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
