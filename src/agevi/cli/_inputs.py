"""Reading cells: h5ad, zarr and what 10x writes, with more columns from a CSV table. Nothing is written."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import click
import pandas as pd

from agevi import _checks, _names
from agevi.cli._errors import DataError

KINDS = "an h5ad file, a zarr store, or the h5 file or the folder with matrix.mtx of 10x"


def kind_of(path: Path) -> str:
    """``"h5ad"``, ``"zarr"``, ``"10x h5"`` or ``"10x mtx"``, told by what is in it."""
    if path.is_dir():
        names = {p.name for p in path.iterdir()}
        if names & {".zgroup", "zarr.json", ".zattrs"}:
            return "zarr"
        if names & {"matrix.mtx", "matrix.mtx.gz"}:
            return "10x mtx"
        there = _checks.listed(sorted(names), 3) or "nothing"
        raise DataError(f"{str(path)!r} is a folder with {there} in it; pass {KINDS}.")
    import h5py

    if not h5py.is_hdf5(path):
        raise DataError(f"{str(path)!r} is not HDF5 (or is cut short or empty); pass {KINDS}.")
    try:
        with h5py.File(path, "r") as file:
            names = set(file)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}); it may be cut short. Copy it again.") from error
    if "matrix" in names:
        return "10x h5"
    if {"obs", "var"} <= names:
        return "h5ad"
    raise DataError(f"{str(path)!r} is an HDF5 file with {_checks.listed(sorted(names), 4)}; pass {KINDS}.")


def read_cells(path: Path, obs: Path | None = None, *, backed: bool = False) -> Any:
    """The cells of a file; those of an h5ad file stay on disk where ``backed`` is asked for."""
    kind = kind_of(path)
    if sys.stderr.isatty():  # to somebody who waits
        click.echo(f"reading {path}", err=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            adata = _read(path, kind, backed=backed)
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise DataError(
                f"{str(path)!r} cannot be read ({type(error).__name__}: {said}); it may be cut short, damaged, or made "
                "by another version of anndata. Copy or write it again."
            ) from error
    if obs is not None:
        _join(adata, obs)
    return adata


def read_ages(adata: Any, age_key: str, strategy: Any, age_unit: Any = "years") -> None:
    """Turn ages that are text into numbers, where ``--parse-ages`` asks for it."""
    if strategy is not None:
        import agevi

        agevi.pp.parse_age(adata, age_key, strategy=strategy, age_unit=age_unit)


def _read(path: Path, kind: str, *, backed: bool) -> Any:
    import anndata

    if kind == "h5ad":
        return anndata.read_h5ad(path, backed="r" if backed else None)
    if kind == "zarr":
        return anndata.read_zarr(path)
    import scanpy

    if kind == "10x mtx":
        return scanpy.read_10x_mtx(path)
    adata = scanpy.read_10x_h5(path)
    adata.var_names_make_unique()  # as read_10x_mtx does
    return adata


def _join(adata: Any, path: Path) -> None:
    """Add the columns of a CSV table to ``adata.obs``."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(",\t;", key=header.count)
        table = pd.read_csv(path, sep=separator, dtype={0: str}, encoding="utf-8-sig")
    except Exception as error:
        raise DataError(f"--obs={str(path)!r} is not a CSV table ({' '.join(str(error).split())[:160]}).") from error
    if table.shape[1] < 2 or not len(table):
        raise DataError(
            f"--obs={str(path)!r} has {table.shape[1]} columns and {len(table)} rows; it needs two columns."
        )
    first, more = str(table.columns[0]), [str(name) for name in table.columns[1:]]
    there = [name for name in more if name in adata.obs]
    if there:
        raise DataError(f"--obs={str(path)!r} has the column {there[0]!r}, which the data have already; rename it.")
    keys = _names.names(table.iloc[:, 0].astype(object))
    if keys.duplicated().any():
        raise DataError(
            f"--obs={str(path)!r} names {keys[keys.duplicated()].iloc[0]!r} twice in {first!r}; keep one row."
        )
    by_column = first in adata.obs
    own = _names.names(adata.obs[first]) if by_column else pd.Series(adata.obs_names.astype(str), adata.obs_names)
    place = pd.Index(keys).get_indexer(pd.Index(own))
    what = f"values of {first!r}" if by_column else "names of cells"
    if (place < 0).all():
        raise DataError(
            f"--obs={str(path)!r}: none of its {len(keys):,} names in {first!r} (e.g. {_checks.listed(keys, 2)}) is "
            f"among the {what} (e.g. {_checks.listed(own.unique(), 2)})."
        )
    for name, values in zip(more, (table.iloc[:, i] for i in range(1, table.shape[1])), strict=True):
        column = values.reindex(place)
        adata.obs[name] = column.where(place >= 0).to_numpy() if (place < 0).any() else column.to_numpy()
