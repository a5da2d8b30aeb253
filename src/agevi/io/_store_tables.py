"""The tables of several files as those of one: cells with all columns, and the genes that every file has."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype, union_categoricals

from agevi import _checks, _gene_names
from agevi.io._folder import digest
from agevi.io._matrix_file import Matrix, opened

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """What is taken of one file."""

    source: Any  # a path, or an AnnData
    name: str  # as a message writes it
    n_cells: int
    n_values: int
    dtype: np.dtype[Any]
    identity: str | None  # tells its values from others, None where that is not known
    target: np.ndarray  # (n_vars,) column of the store, -1 for genes that are left out


@dataclass(frozen=True)
class Tables:
    """The cells of all files, and how they come from these."""

    obs: pd.DataFrame  # in the order of the store
    var: pd.DataFrame
    parts: list[Part]
    row: np.ndarray  # (n_cells,) row of the store of every cell, file by file
    dtype: np.dtype[Any]

    def fingerprint(self) -> dict[str, str]:
        """All that the store depends on, by the name that a message gives it."""
        files = {f"the values of {part.name}": str(part.identity) for part in self.parts}
        genes = [digest(part.target) for part in self.parts]
        return files | {
            "the genes": digest(np.asarray([*self.var.index, *genes], dtype=object)),
            "the order of the cells": digest(self.row),
            "the names of the cells": digest(self.obs.index.to_numpy(dtype=object)),
        }


def read_tables(sources: Sequence[Any], sample_key: str, layer: str | None, genes: Any) -> Tables:
    """The tables of all files, whose values are not read."""
    names = _names_of(sources)
    tables, parts = [], []
    for source, name in zip(sources, names, strict=True):
        with opened(source, layer, "paths") as matrix, said_of(name):
            _checks.unique_names(matrix.tables)
            sample = _checks.labels(matrix.tables, sample_key, "sample_key").to_numpy(dtype=object)
            tables.append((matrix.tables.obs, matrix.tables.var, sample))
            parts.append((source, name, *_size(matrix)))
    var, targets = _genes_of([var for _, var, _ in tables], names, genes)
    obs = _joined([obs for obs, _, _ in tables], names)
    obs.index = _cells_of([found.index for found, _, _ in tables], names)
    codes = pd.factorize(np.concatenate([sample for _, _, sample in tables]), sort=True)[0]
    order = np.argsort(codes, kind="stable")
    row = np.empty(len(order), dtype=np.int64)
    row[order] = np.arange(len(order))
    found = [Part(*own, target) for own, target in zip(parts, targets, strict=True)]
    return Tables(obs.iloc[order], var, found, row, _dtype_of(found, len(var)))


@contextlib.contextmanager
def said_of(name: str) -> Iterator[None]:
    """Let errors say of which file they are."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        if name in str(error):
            raise
        raise type(error)(f"{name}: {error.args[0]}") from error


def _size(matrix: Matrix) -> tuple[int, int, np.dtype[Any], str | None]:
    """Cells, values, type and identity of a matrix."""
    identity = matrix.identity()
    return matrix.tables.n_obs, matrix.n_values, np.dtype(matrix.x.dtype), identity


def _names_of(sources: Sequence[Any]) -> list[str]:
    """How messages call the files, each by a name of its own."""
    given = [_path_of(source) for source in sources]
    short = [f"paths[{i}]" if path is None else path.name for i, path in enumerate(given)]
    return [
        str(path) if path is not None and short.count(name) > 1 else name
        for path, name in zip(given, short, strict=True)
    ]


def _path_of(source: Any) -> Path | None:
    """The file that is read, None for data in memory."""
    found = getattr(source, "filename", None) if hasattr(source, "obs") else source
    return None if found is None else Path(found)


def _genes_of(tables: list[pd.DataFrame], names: list[str], genes: Any) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """The genes that every file has, in order, and which of them each column of every file is, -1 for none."""
    first = tables[0]
    given = first.index if genes is None else getattr(genes, "genes", genes)
    wanted = pd.Index([str(gene) for gene in given]).unique()
    known = _gene_names.kept(first) if genes is None else getattr(genes, "gene_names", None)
    own = _gene_names.namings(wanted, known)
    called, there = [], np.ones(len(wanted), dtype=bool)
    for var, name in zip(tables, names, strict=True):
        label, found = _gene_names.names_of_columns(wanted, own, var)
        called.append(found)
        here = wanted.isin(found)
        if not here.all() or label != "by adata.var_names":
            logger.info("%s: %d of %d genes are found %s.", name, here.sum(), len(wanted), label)
        there &= here
    if not there.any():
        raise ValueError(
            f"paths have none of the {len(wanted):,} genes ({_checks.listed(wanted, 2)}) in common: "
            f"{names[-1]} holds {_checks.listed(tables[-1].index, 2)}. Pass files of one species whose adata.var has "
            "Ensembl ids or symbols of the same kind, or genes=... that all of them have."
        )
    if not there.all():
        logger.info("%d genes that some file lacks are left out.", (~there).sum())
    kept = wanted[there]
    targets = [kept.get_indexer(pd.Index(found, dtype=object)) for found in called]
    for target, name in zip(targets, names, strict=True):
        twice = int((target >= 0).sum()) - len(kept)
        if twice:
            logger.info("%s: %d columns have the name of another gene, and are added to it.", name, twice)
    place = np.empty(len(kept), dtype=np.int64)
    place[targets[0][targets[0] >= 0]] = np.flatnonzero(targets[0] >= 0)
    return first.iloc[place].set_axis(kept.astype(object)), targets


def _joined(tables: list[pd.DataFrame], names: list[str]) -> pd.DataFrame:
    """All columns of several tables, one below the other; missing where a table lacks a column."""
    columns = dict.fromkeys(name for table in tables for name in table if not str(name).startswith("_scvi"))
    lacking = {key: [name for table, name in zip(tables, names, strict=True) if key not in table] for key in columns}
    absent = {key: files for key, files in lacking.items() if files}
    if absent:
        key, files = next(iter(absent.items()))
        logger.info(
            "%d columns of cells are missing where a file lacks them (%s; %r, for example, in %s).",
            len(absent), _checks.listed(list(absent), 5), key, _checks.listed(files, 3),
        )  # fmt: skip
    out = {key: _column(key, [table.get(key) for table in tables], [len(t) for t in tables], names) for key in columns}
    return pd.DataFrame(out, index=pd.RangeIndex(sum(len(table) for table in tables)))


def _column(key: Any, found: list[pd.Series | None], sizes: list[int], names: list[str]) -> Any:
    """One column of all files: numbers, True and False, or names."""
    kinds = {
        name: "numbers" if is_numeric_dtype(v) and not is_bool_dtype(v) else "bools" if is_bool_dtype(v) else "names"
        for v, name in zip(found, names, strict=True)
        if v is not None and not v.isna().all()
    }
    if len(set(kinds.values())) > 1:
        (one, kind), *others = kinds.items()
        other = next(name for name, own in others if own != kind)
        raise ValueError(
            f"adata.obs[{key!r}] holds {kind} in {one} and {kinds[other]} in {other}; write it in one way in all "
            "files, or drop it there."
        )
    kind = next(iter(kinds.values()), "numbers")
    if kind == "names":
        return union_categoricals([_names(v, n) for v, n in zip(found, sizes, strict=True)])
    whole = all(v is not None and not v.isna().any() for v in found)
    if kind == "bools":
        dtype: Any = bool if whole else "boolean"
    else:
        dtype = np.result_type(*(v.to_numpy().dtype if v is not None else float for v in found)) if whole else float
    parts = [
        pd.Series(pd.NA if kind == "bools" else np.nan, index=range(n), dtype=dtype) if v is None else v.astype(dtype)
        for v, n in zip(found, sizes, strict=True)
    ]
    return pd.concat(parts, ignore_index=True).array


def _names(values: pd.Series | None, n: int) -> pd.Categorical:
    """Names as text in categories."""
    if values is None:
        return pd.Categorical.from_codes(np.full(n, -1), categories=pd.Index([], dtype=object))
    found = values.astype("category").array
    text = pd.Index(found.categories.astype(object).map(str), dtype=object)
    codes, names = pd.factorize(text)  # 1 and "1" are one
    return pd.Categorical.from_codes(np.append(codes, -1)[found.codes], categories=pd.Index(names, dtype=object))


def _cells_of(indices: list[pd.Index], names: list[str]) -> pd.Index:
    """Names of all cells, with the name of the file where those of two files are the same."""
    every = pd.Index(np.concatenate([index.to_numpy(dtype=object) for index in indices]), dtype=object)
    if every.is_unique:
        return every
    twice = every[every.duplicated()]
    logger.info(
        "%d names of cells are in several files (e.g. %s), so the name of its file is added to each.",
        len(twice.unique()), _checks.listed(twice, 2),
    )  # fmt: skip
    return pd.Index([f"{cell}-{name}" for index, name in zip(indices, names, strict=True) for cell in index])


def _dtype_of(parts: list[Part], n_genes: int) -> np.dtype[Any]:
    """The type that holds the values of all files, and sums of columns that are of one gene."""
    out = np.result_type(*(part.dtype for part in parts))
    if len({part.dtype for part in parts}) > 1:
        shown = ", ".join(f"{part.dtype} in {part.name}" for part in parts[:5])
        logger.info("Values are %s; the store holds %s.", shown, out)
    if any((part.target >= 0).sum() > n_genes for part in parts):
        out = np.zeros(0, dtype=out).sum().dtype
    return out
