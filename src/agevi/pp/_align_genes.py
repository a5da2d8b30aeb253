"""Gene names of new data in the naming of a clock."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from agevi import _checks
from agevi.dataloaders._query import blocks

logger = logging.getLogger(__name__)

_VERSION = r"\.\d+$"  # ENSG00000198851.10


def align_genes(adata: AnnData, genes: Any, *, mapping: Mapping[str, str] | pd.Series | str | None = None) -> AnnData:
    """Cells with the genes that a clock knows, under the names by which it knows them.

    Finds the naming that shares most genes with the clock: ``var_names`` as they are, without the version of Ensembl
    ids, or a text column of ``adata.var``, where data usually keep the other identifiers. Columns that come to one name
    are summed (integers in 64 bits), which is right for counts only. Genes of another species are not translated; a
    clock fits the species that it was trained on.

    Parameters
    ----------
    adata
        Cells x genes; not changed.
    genes
        A clock, or the names to look for.
    mapping
        Names of the data to names of the clock (a dict or Series), or the column of ``adata.var`` to use. Default: the
        naming that fits best.

    Returns
    -------
    A new AnnData of the genes that were found, in the clock's order, with X and layers; the old names are in
    ``var["original_name"]``, joined with ";" where columns were summed.

    Raises
    ------
    KeyError
        If ``mapping`` names no column of ``adata.var``.
    TypeError
        If X or a layer is not a numeric matrix.
    ValueError
        If no gene is found under any naming.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> adata.var["symbol"] = ["S" + name for name in adata.var_names]
    >>> agevi.pp.align_genes(adata, ["Sgene003", "Sgene001"]).var_names.tolist()
    ['Sgene003', 'Sgene001']
    """
    _checks.anndata(adata)
    wanted = pd.Index([str(g) for g in getattr(genes, "genes", genes)]).unique()
    label, names = _best(_namings(adata, mapping), wanted)
    found = np.isin(names, wanted)
    if not found.any():
        raise ValueError(
            f"none of the clock's {len(wanted):,} genes ({_checks.listed(wanted, 2)}) is found in adata under {label} "
            f"({_checks.listed(names, 2)}) or any other naming; pass mapping=... from the data's names to the clock's."
        )
    present = wanted[wanted.isin(names)]
    logger.info("%d of the clock's %d genes are found by %s.", len(present), len(wanted), label)
    columns = np.flatnonzero(found)
    target = present.get_indexer(pd.Index(names[columns]))
    original = pd.Series(_text(adata.var_names.to_series())[columns]).groupby(target).agg(";".join)
    values = [_aligned(block, columns, target, len(present)) for block in blocks(adata, None)]
    joined: dict[str | None, Any] = {place: _stacked([part[place] for part in values]) for place in values[0]}
    x = joined.pop(None, None)
    return AnnData(
        X=x,
        layers=joined,
        obs=adata.obs.copy(),
        var=pd.DataFrame({"original_name": original.to_numpy(dtype=object)}, index=present),
        shape=(adata.n_obs, len(present)) if x is None else None,
    )


def _aligned(adata: AnnData, columns: np.ndarray, target: np.ndarray, n: int) -> dict[str | None, Any]:
    """X (under None) and the layers, with ``columns`` of the data in, or summed to, the ``n`` columns ``target``."""
    places = [None if adata.X is None else (None, "adata.X", adata.X)]
    places += [(k, f"adata.layers[{k!r}]", adata.layers[k]) for k in adata.layers if k is not None]
    return {key: _sum_columns(_checks.readable(x, where), columns, target, n) for key, where, x in filter(None, places)}


def _stacked(parts: list[Any]) -> Any:
    """Blocks of rows one below the other."""
    if len(parts) == 1:
        return parts[0]
    return sp.vstack(parts, format="csr") if sp.issparse(parts[0]) else np.concatenate(parts)


def _namings(adata: AnnData, mapping: Mapping[str, str] | pd.Series | str | None) -> dict[str, np.ndarray]:
    """Candidate names of the columns, by a label for messages."""
    own = pd.Index(_text(adata.var_names.to_series()))
    if isinstance(mapping, str):
        if mapping not in adata.var:
            raise KeyError(
                f"mapping={mapping!r} is not a column of adata.var. Available: {_checks.listed(adata.var.columns)}."
            )
        return {f"adata.var[{mapping!r}]": _text(adata.var[mapping])}
    if mapping is not None:
        return {"mapping": _text(pd.Series(own).map(mapping))}
    text = [c for c in adata.var if not pd.api.types.is_numeric_dtype(adata.var[c])]
    out = {"adata.var_names": own.to_numpy(dtype=object)}
    out["adata.var_names without versions"] = own.str.replace(_VERSION, "", regex=True).to_numpy(dtype=object)
    out |= {f"adata.var[{c!r}]": _text(adata.var[c]) for c in text}
    return out


def _text(values: pd.Series) -> np.ndarray:
    """Values as text, "" where missing."""
    return values.astype(object).where(values.notna(), "").astype(str).to_numpy(dtype=object)


def _best(namings: dict[str, np.ndarray], wanted: pd.Index) -> tuple[str, np.ndarray]:
    """The naming that shares most names with ``wanted``, the first of equals."""
    known = set(wanted)
    return max(namings.items(), key=lambda item: len(known & set(item[1])))


def _sum_columns(x: Any, columns: np.ndarray, target: np.ndarray, n: int) -> Any:
    """Columns of ``x`` that come to one name summed, in the type in which numpy sums values of the type of ``x``."""
    if len(columns) == n:
        out = x[:, columns[np.argsort(target)]]
        return sp.csr_matrix(out) if sp.issparse(out) else np.asarray(out)
    wide = np.zeros(0, dtype=x.dtype).sum().dtype  # 64-bit of bool and integers, which 8 or 16 bits would not hold
    gather = sp.csr_matrix((np.ones(len(columns), dtype=wide), (columns, target)), shape=(x.shape[1], n))
    return sp.csr_matrix(x @ gather) if sp.issparse(x) else np.asarray(x @ gather)
