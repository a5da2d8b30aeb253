"""Names of genes: those that people read, and why two lists of names have none in common."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks

ENSEMBL = re.compile(r"^ENS[A-Z]*G\d{6,}")
CPG = re.compile(r"^c[gh]\.?\d+")
_VERSIONED = r"^(ENS[A-Z]*G\d{6,})\..*$"
MISSING = ("", "nan", "None", "NA")
"""Text that stands for a gene without a name."""
CUT = 'adata.var_names.str.split(".").str[0]'
"""Code that cuts the version off Ensembl ids."""


def names(adata: AnnData, gene_symbols: str | None) -> pd.Series:
    """Symbol of every gene, indexed by its name in ``adata.var_names``, which stands where it has no symbol."""
    genes = pd.Index(adata.var_names.astype(str), name="gene", dtype=object)
    if gene_symbols is None:
        return pd.Series(genes, index=genes, name="symbol", dtype=object)
    given = column(adata, gene_symbols)
    text = given.astype(object).where(given.notna(), "").astype(str).str.strip()
    missing = text.isin(MISSING).to_numpy()
    return pd.Series(text.to_numpy(dtype=object), index=genes, name="symbol").mask(missing, genes.to_series())


def column(adata: AnnData, gene_symbols: str, argument: str = "gene_symbols") -> pd.Series:
    """The column of ``adata.var`` with names of genes, or the error that lists what is there."""
    if gene_symbols not in adata.var:
        columns = [str(name) for name in adata.var]
        there = f"Available: {_checks.listed(columns)}." if columns else "adata.var has no columns."
        raise KeyError(
            f"{argument}={gene_symbols!r} is not a column of adata.var{_checks.closest(gene_symbols, columns)}. {there}"
        )
    return adata.var[gene_symbols]


def largest(symbols: pd.Index, values: np.ndarray) -> np.ndarray:
    """Rising positions of the genes that stand for their symbols: of several, that with the largest of ``values``."""
    order = np.argsort(-np.where(np.isnan(values), -1.0, np.abs(values)), kind="stable")
    return np.sort(order[~symbols[order].duplicated()])


def labels(adata: AnnData, gene_symbols: str | None) -> pd.Series:
    """As :func:`names`, with the gene's own name in brackets where genes share a symbol, so that no label repeats."""
    found = names(adata, gene_symbols)
    twice = found.duplicated(keep=False).to_numpy()
    return found.mask(twice & (found != found.index), found + " (" + found.index + ")")


def kind_of_name(name: str) -> str:
    """What sort of name of a feature it is."""
    if CPG.match(name):
        return "CpG sites"
    return "Ensembl ids" if ENSEMBL.match(name) else "symbols"


def mismatch(wanted: pd.Index, names: pd.Index, wants: str, has: str, *, least: float = 0.0) -> tuple[str, str]:
    """Why ``wanted`` are not among ``names``, as a word ("" if unknown) and as the middle of a message."""
    # ``wants`` ("the clock uses") and ``has`` ("the data use") start the halves of the message.
    # One spelling must bring together the share ``least`` of the wanted, and more than twice as many as are found now.
    if not len(wanted):
        return "", ""
    wanted, names = wanted.astype(str), names.astype(str)
    theirs, ours = kind_of_name(wanted[0]), kind_of_name(names[0])
    if theirs != ours:
        return "modality" if "CpG sites" in (theirs, ours) else "kind", f"; {has} {ours}, {wants} {theirs}"
    needed = max(2 * len(wanted.intersection(names)), least * len(wanted))
    without = [index.str.replace(_VERSIONED, r"\1", regex=True) for index in (wanted, names)]
    if len(without[0].intersection(without[1])) > needed:
        return "version", "; the names differ in the version that Ensembl ids end with"
    if len(wanted.str.upper().intersection(names.str.upper())) > needed:
        return "case", "; the names differ in case, as mouse and human symbols do"
    return "", ""
