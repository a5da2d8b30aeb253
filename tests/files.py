"""Data that were written and read again."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import zarr


def stored(adata: ad.AnnData, form: str, folder: Path) -> ad.AnnData:
    """What is read from ``adata`` as a file ``"h5ad"``, or as a store ``"zarr"``, in memory since it has many files."""
    if form == "zarr":
        store = zarr.storage.MemoryStore()
        adata.write_zarr(store)
        return ad.read_zarr(store)
    adata.write_h5ad(folder / "x.h5ad")
    return ad.read_h5ad(folder / "x.h5ad")
