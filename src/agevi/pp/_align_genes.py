"""Gene names of new data in the naming of a clock."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from agevi import _checks, _gene_names
from agevi._gene_names import Naming
from agevi.dataloaders._query import blocks

logger = logging.getLogger(__name__)


def align_genes(adata: AnnData, genes: Any, *, mapping: Mapping[str, str] | pd.Series | str | None = None) -> AnnData:
    """Cells with the genes that a clock knows, under the names by which it knows them.

    Finds the names that share most genes with the clock: ``var_names`` as they are, without the version of Ensembl ids,
    or columns of ``adata.var`` with Ensembl ids or symbols, against the names of the clock and the others that it keeps
    (``clock.gene_names``). Predictions find genes in the same way by themselves. Here columns that come to one name are
    summed (integers in 64 bits), which is right for counts only, where predictions leave such genes out. Genes of
    another species are not translated; a clock fits the species that it was trained on.

    Parameters
    ----------
    adata
        Cells x genes; not changed.
    genes
        A clock, or the names to look for.
    mapping
        Names of the data to names of the clock (a dict or Series), or any column of ``adata.var`` to use. Default: the
        names that fit best.

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
    own = _gene_names.namings(wanted, getattr(genes, "gene_names", None))
    given = None if mapping is None else _given(adata, mapping)
    label, names = _gene_names.names_of_columns(wanted, own, adata.var, given)
    found = np.isin(names, wanted)
    if not found.any():
        there = _gene_names.namings_of(adata.var)
        why = "" if given else _gene_names.why_not(own, there, least=0.2)[1]
        raise ValueError(
            f"none of the clock's {len(wanted):,} genes ({_checks.listed(wanted, 2)}) is found in adata {label} "
            f"({_checks.listed(given.values if given else adata.var_names, 2)}) or any other naming{why}; pass "
            "mapping=... from the data's names to the clock's, or a column of adata.var."
        )
    present = wanted[wanted.isin(names)]
    logger.info("%d of the clock's %d genes are found %s.", len(present), len(wanted), label)
    columns = np.flatnonzero(found)
    target = present.get_indexer(pd.Index(names[columns]))
    original = pd.Series(_gene_names.as_text(adata.var_names)[columns]).groupby(target).agg(";".join)
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


def _given(adata: AnnData, mapping: Mapping[str, str] | pd.Series | str) -> Naming:
    """Names of the columns by ``mapping``."""
    if not isinstance(mapping, str):
        names, where = pd.Series(_gene_names.as_text(adata.var_names)).map(mapping), "mapping"
    elif mapping in adata.var:
        names, where = adata.var[mapping], f"adata.var[{mapping!r}]"
    else:
        raise KeyError(
            f"mapping={mapping!r} is not a column of adata.var. Available: {_checks.listed(adata.var.columns)}."
        )
    return Naming(_gene_names.SYMBOLS, pd.Index(_gene_names.as_text(names), dtype=object), where)


def _sum_columns(x: Any, columns: np.ndarray, target: np.ndarray, n: int) -> Any:
    """Columns of ``x`` that come to one name summed, in the type in which numpy sums values of the type of ``x``."""
    if len(columns) == n:
        out = x[:, columns[np.argsort(target)]]
        return sp.csr_matrix(out) if sp.issparse(out) else np.asarray(out)
    wide = np.zeros(0, dtype=x.dtype).sum().dtype  # 64-bit of bool and integers, which 8 or 16 bits would not hold
    gather = sp.csr_matrix((np.ones(len(columns), dtype=wide), (columns, target)), shape=(x.shape[1], n))
    return sp.csr_matrix(x @ gather) if sp.issparse(x) else np.asarray(x @ gather)
