"""Sums of the cells of samples, or of their types, in one pass over a matrix, which resumes where it was killed."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.utils import make_index_unique

from agevi import _checks, _keys, _names, _units
from agevi._compat import version
from agevi._progress import Bar, progress
from agevi.dataloaders._row_moments import CellSums, as_arrays, as_counts, of_arrays, products
from agevi.dataloaders._summed import normalizations, row_totals
from agevi.io._folder import digest
from agevi.io._kept import KeptState
from agevi.io._matrix_file import Matrix, opened

logger = logging.getLogger(__name__)

ADVICE = "Pass them with layer=...."
OWN = (_keys.N_CELLS, _keys.SUM_LIBRARY_SQUARES)
"""Columns that sums get."""


class KeptSums(KeptState):
    """The sums of a pass that is not at its end, refused where the folder holds those of another."""

    manifest, kind, call = "sum_samples.json", "the state of other sums", "pp.sum_samples"


def sums_of(
    adata: AnnData | str | os.PathLike[str],
    by: list[str],
    layer: str | None,
    *,
    counts: bool = True,
    why: str = "pp.sum_samples sums raw counts",
    advice: str = ADVICE,
    directory: str | os.PathLike[str] | None = None,
    genes: np.ndarray | None = None,
) -> AnnData:
    """What :func:`agevi.pp.sum_samples` returns; ``counts``: values must be raw counts, ``why`` in a message.

    ``genes`` is a mask of those that are summed and counted.
    """
    with opened(adata, layer) as whole:
        matrix = whole.of_genes(genes)
        tables = matrix.tables
        if isinstance(adata, AnnData) and _keys.SUMS in adata.uns or _keys.SUM_LIBRARY_SQUARES in tables.obs:
            raise ValueError(
                "the rows of adata are sums of agevi.pp.sum_samples, whose own cells are not in it; pass the cells. "
                "Clocks add the rows of a sample themselves."
            )
        _checks.unique_names(tables)
        codes, obs = _rows(tables.obs, tables, by)
        kept = None if directory is None else _kept(directory, matrix, codes, obs, counts=counts)
        sums = _Pass(matrix, codes, len(obs), kept, why if counts else None, advice).sums()
    x, squares, along = sums.totals()
    obs.insert(len(by), _keys.N_CELLS, np.bincount(codes[codes >= 0], minlength=len(obs)))
    obs[_keys.SUM_LIBRARY_SQUARES] = sums.library_squares
    made = AnnData(x, obs=obs, var=tables.var.copy())
    made.layers[_keys.SUM_SQUARES], made.layers[_keys.SUM_LIBRARY_PRODUCTS] = squares, along
    record = {"by": by, "n_cells": int((codes >= 0).sum()), "layer": layer or ""}
    record["normalize"] = normalizations(counts=counts)
    made.uns[_keys.SUMS] = _keys.to_uns(record | {"version": version("agevi")})
    return made


def columns_of(by: Any) -> list[str]:
    """Names of columns, each once."""
    columns = [by] if isinstance(by, str) else by
    if not isinstance(columns, Sequence) or not columns or not all(isinstance(name, str) for name in columns):
        raise TypeError(f"by={by!r} does not name columns; pass the sample and what is kept apart in it in a list.")
    twice = [name for name in columns if list(columns).count(name) > 1 or name in OWN]
    if twice:
        raise ValueError(f"by={list(columns)} names {twice[0]!r} twice, or it is a column that sums get; leave it out.")
    return list(columns)


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
    kept = [name for name in _units.constant_columns(table[others], codes, used, first) if name not in OWN]
    lost = [str(name) for name in others if name not in kept]
    if lost:
        logger.info("%d columns that differ within rows are left out: %s.", len(lost), _checks.listed(lost))
    obs = table.iloc[first][[*by, *kept]].copy()
    for name in obs.select_dtypes("category"):
        obs[name] = obs[name].cat.remove_unused_categories()
    index = pd.Index(["|".join(row) for row in names.iloc[first].astype(str).to_numpy()], dtype=object)
    obs.index = make_index_unique(index)
    return codes, obs


def _kept(
    directory: str | os.PathLike[str], matrix: Matrix, codes: np.ndarray, obs: pd.DataFrame, *, counts: bool
) -> KeptSums:
    """The state of this pass, by all that its sums depend on."""
    values = matrix.identity()
    if values is None:
        raise ValueError(
            "checkpoint_dir with arrays of dask, whose values would have to be read to tell whether they are those of "
            "the call that was killed. Pass the path of the file or store, or leave checkpoint_dir out."
        )
    fingerprint = {
        "version of agevi": version("agevi"),
        "layer": matrix.name.split(" of ")[0],
        "values": values,
        "kind of values": "counts" if counts else "any",
        "the genes": digest(matrix.tables.var_names.to_numpy(dtype=object)),
        "the names of the sums": digest(obs.index.to_numpy(dtype=object)),
        "the cells of each sum": digest(codes),
    }
    return KeptSums(directory, fingerprint)


class _Pass:
    """One pass over the cells, or two over genes where a matrix is stored by columns."""

    def __init__(
        self, matrix: Matrix, codes: np.ndarray, n_rows: int, kept: KeptSums | None, why: str | None, advice: str
    ) -> None:
        self.matrix, self.codes, self.kept, self.why, self.advice = matrix, codes, kept, why, advice
        self.total = CellSums(n_rows)
        self.start = 0  # first row of the next block; columns count twice, once in each pass
        self.library = np.zeros(len(codes) if matrix.by_columns else 0)  # counts of cells, for the second pass
        self.columns: list[sp.csr_matrix] = []  # sums of x, of x^2 and of l x of some genes each
        if kept is not None and kept.state is not None:
            self._go_on(kept.state)

    def sums(self) -> CellSums:
        """Sums by ``codes``, (n_cells,)."""
        length, by_columns = self.matrix.length, self.matrix.by_columns
        with progress(length * (1 + by_columns), "sum_samples", "genes" if by_columns else "cells") as bar:
            bar.step(self.start)
            if by_columns:
                self._by_columns(length, bar)
            else:
                for part, block in self.matrix.blocks(self.start):
                    self.total.add(self._checked(block), self.codes[part])
                    self._stepped(part.stop, bar)
        if self.kept is not None:
            self._keep()
        if by_columns:
            used = self.codes >= 0
            squares = np.bincount(
                self.codes[used], weights=self.library[used] ** 2, minlength=len(self.total.library_squares)
            )
            self.total.library_squares += squares
            self.total.keep(sp.hstack(self.columns, format="csr"))
        return self.total

    def _by_columns(self, length: int, bar: Bar) -> None:
        """The counts of cells in one pass, and the sums of genes in another."""
        for part, block in self.matrix.blocks(self.start):
            self.library += row_totals(self._checked(block))
            self._stepped(part.stop, bar)
        for part, block in self.matrix.blocks(self.start - length):
            self.columns.append(products(as_counts(block), self.codes, self.library, self.total.n_units))
            self._stepped(length + part.stop, bar)

    def _checked(self, block: Any) -> Any:
        if self.why is None:
            _checks.finite(block, self.matrix.name)
        else:
            _checks.counts(block, self.matrix.name, self.why, advice=self.advice, empty_ok=True)
        return block

    def _stepped(self, stop: int, bar: Bar) -> None:
        """One block is done."""
        bar.step(stop - self.start)
        self.start = stop
        if self.kept is not None and self.kept.due:
            self._keep()

    def _keep(self) -> None:
        """Write the state, of values that are still those of the file."""
        self.matrix.check_unchanged()
        if self.kept is not None:
            parts = [as_arrays(part) for part in self.columns]
            own = {"start": self.start, "library": self.library, "columns": parts}
            self.kept.write(own | {"total": self.total.state()})

    def _go_on(self, state: dict[str, Any]) -> None:
        """Take the state of a pass that was killed."""
        self.start, self.library = state["start"], np.array(state["library"])
        self.columns = [of_arrays(part) for part in state["columns"]]
        self.total.go_on(state["total"])
        whole = self.matrix.length * (1 + self.matrix.by_columns)
        logger.info("%.0f %% of the sums are in checkpoint_dir, and are not taken again.", 100 * self.start / whole)
