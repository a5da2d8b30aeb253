"""What targets are ranked from: attributions of several clocks, and lists of the genes that drugs act on."""

from __future__ import annotations

import gzip
import io
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _symbols
from agevi.tl.sets._rankings import rankings

GENE_COLUMNS = ("gene", "gene_name", "gene_symbol", "symbol")
"""Names of the column of a table that holds genes, in any case."""
_BINARY = re.compile(rb"[\x00-\x08]")
_SEVERAL = r"[|;]"  # DrugCentral writes the genes of a complex as "PTGS1|PTGS2"


def read_attributions(tables: Any, group: str, key_added: str, gene_symbols: str | None) -> dict[str, pd.DataFrame]:
    """The genes that each clock knows, with ``attribution`` (the size) and ``signed``, indexed by gene."""
    _keys.check(key_added, "key_added")
    if not isinstance(tables, Mapping) or isinstance(tables, pd.Series | pd.DataFrame):
        raise TypeError(
            f"tables is a {type(tables).__name__}; pass attributions by the name of the disease, such as "
            '{"Parkinson": adata}.'
        )
    if not tables:
        raise ValueError("tables is empty; pass attributions by the name of the disease.")
    names = pd.Index([str(name) for name in tables])
    if names.has_duplicates:
        raise ValueError(
            f"tables has two diseases whose name is {names[names.duplicated()][0]!r} as text; give each a name of its "
            "own."
        )
    pairs = zip(names, tables.values(), strict=True)
    return {name: _one(value, name, group, key_added, gene_symbols) for name, value in pairs}


def _one(value: Any, name: str, group: str, key_added: str, gene_symbols: str | None) -> pd.DataFrame:
    """One clock's genes, in an order of chance that depends on the name alone, so that ties are not broken alike."""
    if isinstance(value, AnnData):
        out = _from_anndata(value, group, key_added, gene_symbols)
    elif isinstance(value, pd.DataFrame):
        out = _from_frame(value, name, group)
    elif isinstance(value, pd.Series):
        signed = _numbers(value, f"tables[{name!r}]")
        out = pd.DataFrame({"attribution": signed.abs(), "signed": signed}, index=value.index)
    else:
        raise TypeError(
            f"tables[{name!r}] is a {type(value).__name__}; pass an AnnData after agevi.tl.attribute_genes, a table of "
            "agevi.get.attribution_df, or a Series of values by gene."
        )
    unnamed = np.asarray(out.index.isna())
    if unnamed.any():
        raise ValueError(
            f"tables[{name!r}] has {unnamed.sum():,} rows without a gene (first: row {unnamed.argmax() + 1:,}); drop "
            "them, for example with table.dropna(subset='gene') or series[series.index.notna()]."
        )
    out = out.set_axis(out.index.astype(str))
    out = out[np.isfinite(out["attribution"])]
    if out.index.has_duplicates:
        twice = out.index[out.index.duplicated()]
        raise ValueError(
            f"tables[{name!r}] has {len(twice):,} genes twice (e.g. {_checks.listed(twice, 3)}); a gene has one "
            "attribution."
        )
    if not (out["attribution"] > 0).any():
        raise ValueError(f"tables[{name!r}] has no gene with an attribution other than zero, so none can be ranked.")
    return out.sort_index().sample(frac=1, random_state=zlib.crc32(name.encode()))


def _from_anndata(adata: AnnData, group: str, key_added: str, gene_symbols: str | None) -> pd.DataFrame:
    """The slots of :func:`agevi.tl.attribute_genes`."""
    _checks.anndata(adata)
    _checks.unique_names(adata)
    keys = _keys.Keys(key_added)
    (ranking,) = rankings(adata, keys, "model", [group], signed=False)
    out = pd.DataFrame({"attribution": ranking.values}, index=ranking.genes)
    out["signed"] = np.nan
    if keys.attribution("signed") in adata.varm:
        (signed,) = rankings(adata, keys, "model", [group], signed=True)
        out["signed"] = pd.Series(signed.values, index=signed.genes)
    if gene_symbols is None:
        return out
    out = out.set_axis(pd.Index(_symbols.names(adata, gene_symbols)[out.index]))
    return out.iloc[_symbols.largest(out.index, out["attribution"].to_numpy())]


def _from_frame(table: pd.DataFrame, name: str, group: str) -> pd.DataFrame:
    """A table of :func:`agevi.get.attribution_df`."""
    missing = [column for column in ("gene", "attribution") if column not in table]
    if missing:
        raise KeyError(
            f"tables[{name!r}] has no column {missing[0]!r}; pass what agevi.get.attribution_df returns, or a Series "
            f"of values by gene. Available: {_checks.listed(table.columns)}."
        )
    if "group" in table and (table["group"].nunique() > 1 or group != "all"):
        known = list(dict.fromkeys(table["group"].astype(str)))
        table = table[table["group"].astype(str) == _checks.group(group, known, f"tables[{name!r}]['group']")]
    out = pd.DataFrame({"attribution": _numbers(table["attribution"], f"tables[{name!r}]['attribution']").abs()})
    out["signed"] = _numbers(table["signed"], f"tables[{name!r}]['signed']") if "signed" in table else np.nan
    return out.set_axis(pd.Index(table["gene"]))


def _numbers(values: pd.Series, where: str) -> pd.Series:
    """Values as float64, NaN where missing."""
    found = values.infer_objects()
    if not pd.api.types.is_numeric_dtype(found) and found.notna().any():
        raise TypeError(
            f"{where} holds {values.dtype} values (e.g. {_checks.listed(found.dropna(), 2)}), not numbers; convert "
            "them with pd.to_numeric."
        )
    return found.astype(np.float64)


def read_druggable(druggable: Any) -> pd.Index | None:
    """Names of genes that drugs act on, without missing ones; None for no filter."""
    if druggable is None:
        return None
    if isinstance(druggable, str | os.PathLike):
        path = Path(druggable)
        if not path.is_file():
            raise FileNotFoundError(
                f"druggable={str(path)!r} is not a file; pass the path of a list or table of genes, or their names in "
                "a list."
            )
        druggable = _read(path)
    if isinstance(druggable, pd.DataFrame):
        druggable = druggable[_gene_column(druggable)]
    if not isinstance(druggable, Iterable):
        raise TypeError(
            f"druggable is a {type(druggable).__name__}; pass the path of a list or table of genes, or their names in "
            "a list."
        )
    names = pd.Series(list(druggable), dtype=object).dropna().astype(str).str.split(_SEVERAL).explode().str.strip()
    genes = pd.Index(names[names != ""].unique())
    if not len(genes):
        raise ValueError("druggable holds no genes; pass names as in adata.var_names, or None for no filter.")
    return genes


def _read(path: Path) -> pd.DataFrame | list[str]:
    """A table where the file is called so or a column of its first line is called as genes are, or its lines."""
    text = _text(path).lstrip("\r\n")
    if not text.strip():
        return []
    lines, suffixes = text.splitlines(), {suffix.lower() for suffix in path.suffixes}
    # The first line decides, since a list of genes in a .txt file may hold commas further down.
    separators = list(dict.fromkeys(["\t" if ".tsv" in suffixes else ",", "\t", ";", ","]))
    with_genes = [s for s in separators if {c.strip(" \"'").lower() for c in lines[0].split(s)} & set(GENE_COLUMNS)]
    if with_genes or suffixes & {".csv", ".tsv"}:
        separator = with_genes[0] if with_genes else max(separators, key=lines[0].count)
        try:
            return pd.read_csv(io.StringIO(text), sep=separator, dtype=str)
        except pd.errors.ParserError as error:
            raise ValueError(
                f"druggable={str(path)!r} is not a table of columns between {separator!r} "
                f"({' '.join(str(error).split())}); mend the file, or pass the names in a list."
            ) from None
    tabs = next((line for line in lines if "\t" in line.strip()), None)
    if tabs is not None:
        raise ValueError(
            f"druggable={str(path)!r} has a line with tabs ({tabs[:60]!r}), and a list has a gene in each line; if it "
            f"is a table, call its column of genes {GENE_COLUMNS[0]!r}."
        )
    return lines


def _text(path: Path) -> str:
    """What is written in a file, plain or compressed by gzip."""
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (OSError, EOFError, zlib.error):
        pass  # cut off, and refused as it is
    if _BINARY.search(data):
        raise ValueError(
            f"druggable={str(path)!r} is not text, or damaged; lists with a gene in each line and tables (.csv, .tsv) "
            "are read, plain or compressed by gzip. Export a spreadsheet as CSV first."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _gene_column(table: pd.DataFrame) -> Any:
    """The column with the genes."""
    lower = {str(column).strip().lower(): column for column in table.columns}
    found = next((lower[name] for name in GENE_COLUMNS if name in lower), None)
    if found is None:
        raise KeyError(
            f"druggable has no column of genes ({', '.join(map(repr, GENE_COLUMNS))}, in any case); rename it, or pass "
            f"the names in a list. Available: {_checks.listed(table.columns)}."
        )
    return found


def keep_druggable(table: pd.DataFrame, druggable: pd.Index, name: str) -> pd.DataFrame:
    """The genes of a table that drugs act on, or a message on what may be wrong with the names."""
    kept = table[table.index.isin(druggable)]
    if (kept["attribution"] > 0).any():
        return kept
    given = (
        f"none of the {len(druggable):,} genes of druggable (e.g. {_checks.listed(druggable, 2)}) is among the "
        f"{len(table):,} genes of tables[{name!r}] (e.g. {_checks.listed(table.index, 2)})"
    )
    if len(kept):
        raise ValueError(
            f"all {len(kept):,} genes of druggable that tables[{name!r}] has (e.g. {_checks.listed(kept.index, 2)}) "
            "have an attribution of zero, so none can be ranked; a sparse clock uses few genes. Attribute a clock "
            "that uses more."
        )
    why, said = _symbols.mismatch(druggable, table.index, "the list uses", "the attributions use")
    advice = {
        "modality": "Train the clock on genes, as agevi.pp.aggregate_probes makes them.",
        "kind": "Rename one of them, for example adata.var_names = adata.var['symbol'].",
        "version": f"Cut it off both: adata.var_names = {_symbols.CUT} (the attributions stay), and "
        'druggable=pd.Index(names).str.split(".").str[0].',
        "case": "Pass targets of the species of the data.",
        "": "Pass the gene names that the clock was trained with.",
    }
    raise ValueError(f"{given}{said}. {advice[why]}")
