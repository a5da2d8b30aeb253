"""Data that were written and read again."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import scipy.sparse as sp
import zarr


def stored(adata: ad.AnnData, form: str, folder: Path) -> ad.AnnData:
    """What is read from ``adata`` as a file ``"h5ad"``, or as a store ``"zarr"``, in memory since it has many files."""
    if form == "zarr":
        store = zarr.storage.MemoryStore()
        adata.write_zarr(store)
        return ad.read_zarr(store)
    adata.write_h5ad(folder / "x.h5ad")
    return ad.read_h5ad(folder / "x.h5ad")


FORMS = ["h5ad csr", "h5ad csc", "h5ad dense", "zarr csr", "zarr csc", "zarr dense", "backed", "lazy"]
"""Forms of a matrix on disk."""


def on_disk(adata: ad.AnnData, form: str, folder: Path, name: str = "cells") -> tuple[Any, Path]:
    """``adata`` in one of the ``FORMS`` as functions that read files take it, and where it is."""
    store, _, kind = {"backed": "h5ad csr", "lazy": "zarr csr"}.get(form, form).partition(" ")
    path = folder / f"{name}.{store}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata, on formats of zarr and repeated names
        adata = adata.copy()
        adata.X = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": lambda x: x.toarray()}[kind](adata.X)
        adata.write_zarr(path) if store == "zarr" else adata.write_h5ad(path)
    if form == "backed":
        return ad.read_h5ad(path, backed="r"), path
    return ad.experimental.read_lazy(path) if form == "lazy" else path, path


def files_of(path: Path) -> list[Path]:
    """A file, or the files in which a zarr store keeps a matrix, largest first."""
    if path.is_file():
        return [path]
    found = [p for p in (path / "X").rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr.json"))]
    return sorted(found, key=lambda p: -p.stat().st_size)


def cut_short(path: Path) -> None:
    """Take the last third of a file, or of the largest file of a store."""
    file = files_of(path)[0]
    with open(file, "r+b") as handle:
        handle.truncate(file.stat().st_size * 2 // 3)


@contextlib.contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """Files cannot grow beyond ``n_bytes``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def killed(run: Callable[[], Any], when: Callable[[], bool]) -> None:
    """Run in a process of its own that is killed when ``when`` is true."""
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    try:
        while process.is_alive() and not when():
            time.sleep(0.002)
        assert process.is_alive(), "it was done too soon"
    finally:
        process.kill()
        process.join()
