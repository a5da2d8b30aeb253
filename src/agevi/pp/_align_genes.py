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

logger = logging.getLogger(__name__)

_VERSION = r"\.\d+$"  # ENSG00000198851.10


def align_genes(adata: AnnData, genes: Any, *, mapping: Mapping[str, str] | pd.Series | str | None = None) -> AnnData:
    """Cells with the genes that a clock knows, under the names by which it knows them.

    Finds the naming that shares most genes with the clock: ``var_names`` as they are, without the version of
    Ensembl ids, or a text column of ``adata.var``, where data usually keep the other identifiers. Columns that
    come to one name are summed, which is right for counts only. Genes of another species are not translated; a
    clock fits the species that it was trained on.

    Parameters
    ----------
    adata
        Cells x genes; not changed.
    genes
        A clock, or the names to look for.
    mapping
        Names of the data to names of the clock (a dict or Series), or the column of ``adata.var`` to use. Default:
        the naming that fits best.

    Returns
    -------
    A new AnnData of the genes that were found, in the clock's order, with X and layers; the old names are in
    ``var["original_name"]``, joined with ";" where columns were summed.

    Raises
    ------
    KeyError
        If ``mapping`` names no column of ``adata.var``.
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
    wanted = pd.Index([str(g) for g in getattr(genes, "genes", genes)])
    label, names = _best(_namings(adata, mapping), wanted)
    found = np.isin(names, wanted)
    if not found.any():
        raise ValueError(
            f"none of the clock's {len(wanted):,} genes ({_checks.listed(wanted, 2)}) is found in adata under "
            f"{label} ({_checks.listed(names, 2)}) or any other naming; pass mapping=... from the data's names to the "
            "clock's."
        )
    present = wanted[wanted.isin(names)]
    logger.info("%d of the clock's %d genes are found by %s.", len(present), len(wanted), label)
    columns = np.flatnonzero(found)
    target = present.get_indexer(pd.Index(names[columns]))
    gather = sp.csr_matrix((np.ones(len(columns)), (columns, target)), shape=(adata.n_vars, len(present)))
    original = pd.Series(adata.var_names[columns].astype(str)).groupby(target).agg(";".join)
    return AnnData(
        X=None if adata.X is None else _sum_columns(adata.X, gather),
        layers={k: _sum_columns(adata.layers[k], gather) for k in adata.layers if k is not None},
        obs=adata.obs.copy(),
        var=pd.DataFrame({"original_name": original.to_numpy(dtype=object)}, index=present),
        shape=(adata.n_obs, len(present)) if adata.X is None else None,
    )


def _namings(adata: AnnData, mapping: Mapping[str, str] | pd.Series | str | None) -> dict[str, np.ndarray]:
    """Candidate names of the columns, by a label for messages."""
    own = adata.var_names.astype(str)
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


def _sum_columns(x: Any, gather: sp.csr_matrix) -> Any:
    """``x`` times a 0/1 matrix, in the type of ``x``."""
    out = x @ gather.astype(x.dtype)
    return sp.csr_matrix(out) if sp.issparse(x) else np.asarray(out)
