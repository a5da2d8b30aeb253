"""Sums of the cells of samples, or of their types, as an AnnData that clocks of sums read in place of the cells."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.utils import make_index_unique

from agevi import _checks, _keys, _names
from agevi._progress import progress
from agevi.dataloaders._row_moments import CellSums, as_counts, products
from agevi.pp._matrix_file import Matrix, opened
from agevi.pp._pseudocells import _constant

logger = logging.getLogger(__name__)

_ADVICE = "Pass them with layer=...."
_OWN = (_keys.N_CELLS, _keys.SUM_LIBRARY_SQUARES)


def sum_samples(
    adata: AnnData | str | os.PathLike[str],
    by: str | Sequence[str],
    *,
    layer: str | None = None,
    out: str | os.PathLike[str] | None = None,
) -> AnnData:
    """Summed counts of the cells of every sample, or of every type in every sample, in one pass over the data.

    What a clock of sums learns from cells are their sums and, for the reliability of genes, three moments that add up
    over cells. They are all kept here, so that :class:`agevi.model.PLSClock`, :class:`agevi.model.ElasticNetClock` and
    :class:`agevi.model.CellTypeClock` with them are trained, validated and predict from this AnnData as from the cells,
    with the same numbers, though it is a small part of their size. Files are read in blocks of rows and never as a
    whole. Single cells and pseudocells cannot be had from sums: what needs them refuses such data.

    Parameters
    ----------
    adata
        Annotated data, cells x genes, in memory, opened with ``backed="r"`` or with arrays of dask; or the path of an
        h5ad file or of a zarr store. Not changed.
    by
        Columns of ``adata.obs``: the sample first, then what is kept apart in it, such as the type of the cells. Cells
        without a value in a further column are left out.
    layer
        Layer with raw counts; default X.
    out
        File to write the sums to as well, ``.h5ad`` or ``.zarr``, which must not exist yet.

    Returns
    -------
    A new AnnData with a row for each sample (x type), in the order of their names, and ``var`` as it was.

    - ``X``: summed counts, CSR, float32, or float64 where float32 would round.
    - ``obs``: the columns ``by``, ``n_cells`` (int64), and every column with one value in the cells of each row, such
      as the age. Other columns are left out, which is logged.
    - ``layers["agevi_sum_squares"]``, ``layers["agevi_sum_library_products"]`` and
      ``obs["agevi_sum_library_squares"]``: sums of :math:`x^2`, :math:`l x` and :math:`l^2` over the cells, :math:`l`
      being all counts of a cell (Cochran 1977).
    - ``uns["agevi_sums"]``: the columns ``by``, the number of cells, the layer, what clocks may make of the sums, and
      the version. With ``anndata.concat`` of several such data pass ``uns_merge="same"``, which keeps it.

    Raises
    ------
    FileExistsError
        ``out`` exists.
    FileNotFoundError
        The file does not exist.
    KeyError
        A column or the layer is absent.
    TypeError
        ``by`` or the values have the wrong type.
    ValueError
        A sample has no name, values are not counts, rows are sums already, or the file cannot be read or changes
        meanwhile. Nothing is left of ``out``.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=60, n_genes=50)
    >>> sums = agevi.pp.sum_samples(adata, by=["donor", "cell_type"])
    >>> sums.shape, int(sums.obs["n_cells"].sum())
    ((36, 50), 720)
    >>> agevi.model.PLSClock.setup_anndata(sums, age_key="age", subject_key="donor")
    >>> clock = agevi.model.PLSClock(sums)
    >>> clock.train()
    """
    columns = _columns(by)
    with _written(out) as write:
        made = _sums_of(adata, columns, layer)
        write(made)
    return made


def _sums_of(adata: Any, by: list[str], layer: str | None) -> AnnData:
    """The sums with all that belongs to them."""
    with opened(adata, layer) as matrix:
        _refuse_sums(adata, matrix.tables)
        _checks.unique_names(matrix.tables)
        codes, obs = _rows(matrix.tables.obs, matrix.tables, by)
        sums = _summed(matrix, codes, len(obs))
    x, squares, along = sums.totals()
    obs.insert(len(by), _keys.N_CELLS, np.bincount(codes[codes >= 0], minlength=len(obs)))
    obs[_keys.SUM_LIBRARY_SQUARES] = sums.library_squares
    made = AnnData(x, obs=obs, var=matrix.tables.var.copy())
    made.layers[_keys.SUM_SQUARES], made.layers[_keys.SUM_LIBRARY_PRODUCTS] = squares, along
    record = {"by": by, "n_cells": int((codes >= 0).sum()), "layer": layer or "", "normalize": ["log1p_cp10k", "none"]}
    made.uns[_keys.SUMS] = _keys.to_uns(record | {"version": version("agevi")})
    return made


def _columns(by: Any) -> list[str]:
    """Names of columns, each once."""
    columns = [by] if isinstance(by, str) else by
    if not isinstance(columns, Sequence) or not columns or not all(isinstance(name, str) for name in columns):
        raise TypeError(f"by={by!r} does not name columns; pass the sample and what is kept apart in it in a list.")
    twice = [name for name in columns if list(columns).count(name) > 1 or name in _OWN]
    if twice:
        raise ValueError(f"by={list(columns)} names {twice[0]!r} twice, or it is a column that sums get; leave it out.")
    return list(columns)


def _refuse_sums(adata: Any, tables: AnnData) -> None:
    """Refuse rows that are sums already."""
    if isinstance(adata, AnnData) and _keys.SUMS in adata.uns or _keys.SUM_LIBRARY_SQUARES in tables.obs:
        raise ValueError(
            "the rows of adata are sums of agevi.pp.sum_samples, whose own cells are not in it; pass the cells. Clocks "
            "add the rows of a sample themselves."
        )


def _rows(table: pd.DataFrame, tables: AnnData, by: list[str]) -> tuple[np.ndarray, pd.DataFrame]:
    """Row of every cell, (n_cells,), -1 for cells that are left out, and the columns of the rows."""
    names = pd.DataFrame({by[0]: _checks.labels(tables, by[0], "by")}, dtype=object)
    for key in by[1:]:
        values = _checks.column(tables, key, "by")
        known = values.notna()
        if not known.any():
            raise ValueError(f"adata.obs[{key!r}] is missing in all cells; leave it out of by.")
        if not known.all():
            logger.info(
                "%d of %d cells have no value in adata.obs[%r] and are left out.", (~known).sum(), len(table), key
            )
        names[key] = _names.names(values, f"adata.obs[{key!r}]").where(known, None)
    codes = names.groupby(by, sort=True).ngroup().fillna(-1).to_numpy(dtype=np.int64)
    used = np.flatnonzero(codes >= 0)
    first = used[np.unique(codes[used], return_index=True)[1]]  # a cell of each row
    others = [name for name in table if name not in by and not str(name).startswith("_scvi")]
    kept = [name for name in _constant(table[others], codes, used, first) if name not in _OWN]
    lost = [str(name) for name in others if name not in kept]
    if lost:
        logger.info("%d columns that differ within rows are left out: %s.", len(lost), _checks.listed(lost))
    obs = table.iloc[first][[*by, *kept]].copy()
    for name in obs.select_dtypes("category"):
        obs[name] = obs[name].cat.remove_unused_categories()
    index = pd.Index(["|".join(row) for row in names.iloc[first].astype(str).to_numpy()], dtype=object)
    obs.index = make_index_unique(index)
    return codes, obs


def _summed(matrix: Matrix, codes: np.ndarray, n_rows: int) -> CellSums:
    """Sums by ``codes``, (n_cells,), of raw counts."""
    sums, why = CellSums(n_rows), "pp.sum_samples sums raw counts"

    def checked(block: Any) -> Any:
        _checks.counts(block, matrix.name, why, advice=_ADVICE, empty_ok=True)
        return block

    with progress(matrix.length * (1 + matrix.by_columns), "sum_samples", _unit(matrix)) as bar:
        if not matrix.by_columns:
            for part, block in matrix.blocks():
                sums.add(checked(block), codes[part])
                bar.step(part.stop - part.start)
            return sums
        library, used, parts = np.zeros(len(codes)), codes >= 0, []
        for part, block in matrix.blocks():  # counts of cells, which the second pass needs
            library += np.asarray(checked(block).sum(axis=1, dtype=np.float64)).ravel()
            bar.step(part.stop - part.start)
        for part, block in matrix.blocks():
            parts.append(products(as_counts(block), codes, library, n_rows))
            bar.step(part.stop - part.start)
        sums.library_squares += np.bincount(codes[used], weights=library[used] ** 2, minlength=n_rows)
        sums.keep(sp.hstack(parts, format="csr"))
    return sums


def _unit(matrix: Matrix) -> str:
    """What the bar counts."""
    return "genes" if matrix.by_columns else "cells"


@contextlib.contextmanager
def _written(out: str | os.PathLike[str] | None) -> Iterator[Any]:
    """A function that writes an AnnData beside ``out``, which takes its place when all is done and well."""
    if out is None:
        yield lambda made: None
        return
    path = Path(out)
    if path.suffix not in (".h5ad", ".zarr"):
        raise ValueError(f"out={str(path)!r} is neither .h5ad nor .zarr; give it one of these endings.")
    if path.exists():
        raise FileExistsError(f"out={str(path)!r} exists; delete it, or pass another path.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"out={str(path)!r} is in a folder that does not exist; make it first.")
    half = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")

    def write(made: AnnData) -> None:
        try:
            made.write_h5ad(half) if path.suffix == ".h5ad" else made.write_zarr(half)
        except OSError as error:
            raise OSError(
                f"out={str(path)!r} cannot be written ({error}); free some space, or pass another path."
            ) from error

    try:
        yield write
        os.replace(half, path)
    finally:
        shutil.rmtree(half, ignore_errors=True)
        half.unlink(missing_ok=True)
