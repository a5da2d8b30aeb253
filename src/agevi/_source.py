"""The matrix of a clock: X, a layer, or a table of ``obsm``, whose dimensions then stand in the place of genes.

This is the one place that knows of ``obsm``. Everything else reads the X of what :func:`read` returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from agevi import _checks

DIMENSIONS = "agevi_dimensions"
"""Slot of ``uns`` of data whose X was read from ``obsm``: from where (``obsm_key``), and what it was made into."""
READERS = (
    "PLSClock, ElasticNetClock, MLPClock, GaussianVAE, TransformerClock, and DenoisingVAE with "
    "gene_likelihood='normal' and noise='gaussian'"
)
CLR = "clr"
_ROWS = 1 << 14  # whose log-ratios are taken in one step


def place(setup: Mapping[str, Any]) -> str:
    """How a message calls the matrix of a clock."""
    if setup.get("obsm_key") is not None:
        return f"adata.obsm[{setup['obsm_key']!r}]"
    return "adata.X" if setup.get("layer") is None else f"adata.layers[{setup['layer']!r}]"


def where(layer: str | None) -> str:
    """How a message calls X or a layer."""
    return place({"layer": layer})


def features(setup: Mapping[str, Any]) -> str:
    """How a message calls the columns of the matrix."""
    return "genes" if setup.get("obsm_key") is None else "dimensions"


def resolved(setup: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``setup_anndata`` with the default of ``normalize``; refuses those that exclude each other."""
    key, normalize = setup.get("obsm_key"), setup["normalize"]
    if key is None:
        if normalize == CLR:
            raise ValueError(
                "normalize='clr' is for tables of counts in adata.obsm, such as those of proteins; pass obsm_key=..., "
                "or leave normalize out."
            )
        return {**setup, "normalize": "log1p_cp10k" if normalize is None else normalize}
    if not isinstance(key, str):
        raise TypeError(f"obsm_key is a {type(key).__name__}; pass the name of a table in adata.obsm, as text.")
    if setup.get("layer") is not None:
        raise ValueError(f"layer={setup['layer']!r} with obsm_key={key!r}; a clock reads one matrix. Pass one of them.")
    if normalize == "log1p_cp10k":
        raise ValueError(
            f"normalize='log1p_cp10k' with obsm_key={key!r}; the dimensions of a table in adata.obsm are not counts of "
            "genes, of which a share could be taken. Leave normalize out (values as they are), or pass "
            "normalize='clr' for counts of proteins."
        )
    return {**setup, "normalize": "none" if normalize is None else normalize}


def inner(normalize: str) -> str:
    """What a network does with its values: log-ratios are taken before it sees them."""
    return "none" if normalize == CLR else normalize


def read(adata: AnnData, setup: Mapping[str, Any], names: Iterable[str] | None = None) -> AnnData:
    """``adata``, or with an ``obsm_key`` the same cells with that table as X, not copied where it is an array.

    ``names`` are the dimensions that a clock knows: columns of a DataFrame are found by name, and an array has to have
    as many. What was read once is given back as it is.
    """
    key = setup.get("obsm_key")
    if key is None:
        return adata
    if not is_dimensions(adata, key):
        adata = _from_table(_checks.anndata(adata), key, None if names is None else [str(name) for name in names])
    elif names is not None and not adata.var_names.isin(wanted := [str(name) for name in names]).all():
        _refuse_absent(wanted, adata.var_names, key)
        adata = adata[:, wanted]
    if setup["normalize"] == CLR and adata.uns[DIMENSIONS]["normalize"] != CLR:
        where = place(setup)
        x, advice = _checks.matrix(adata, None), "Leave normalize out for values that are normalised already."
        _checks.not_negative(x, where, "normalize='clr' takes log-ratios of counts", advice=advice)
        adata = _made(log_ratios(x), adata.obs, adata.var_names, key, CLR)
    return adata


def is_dimensions(adata: AnnData, key: str) -> bool:
    """Whether X of ``adata`` is the table ``key``, which was read before."""
    return DIMENSIONS in adata.uns and adata.uns[DIMENSIONS]["obsm_key"] == key


def is_there(adata: AnnData, setup: Mapping[str, Any]) -> bool:
    """Whether the data hold the matrix that a clock was set up with."""
    key, layer = setup.get("obsm_key"), setup["layer"]
    if key is not None:
        return key in adata.obsm or is_dimensions(adata, key)
    return adata.X is not None if layer is None else layer in adata.layers


def mark(adata: AnnData, setup: Mapping[str, Any]) -> AnnData:
    """``adata``, whose X is what :func:`read` gives for ``setup``, as such; in place."""
    if setup.get("obsm_key") is not None:
        adata.uns[DIMENSIONS] = {"obsm_key": setup["obsm_key"], "normalize": setup["normalize"]}
    return adata


def copy_mark(adata: AnnData, out: AnnData) -> AnnData:
    """``out``, whose X is of the same kind as that of ``adata``, marked as that is; in place."""
    if DIMENSIONS in adata.uns:
        out.uns[DIMENSIONS] = dict(adata.uns[DIMENSIONS])
    return out


def log_ratios(x: Any) -> np.ndarray:
    r"""Centred log-ratios of every cell's counts, (n_cells, n_features) float32, dense.

    :math:`\log(1 + x / g)` with the geometric mean :math:`g = \exp(\mathrm{mean}(\log(1 + x)))` over the features of
    the cell (Stoeckius et al. 2017; ``margin = 2`` of Seurat, ``axis = 1`` of muon), so that zeros stay 0 and no cell
    takes part in the values of another.
    """
    out = np.empty(x.shape, dtype=np.float32)
    for start in range(0, x.shape[0], _ROWS):
        block = _checks.dense(x[start : start + _ROWS], np.float64)
        mean = np.exp(np.log1p(block).mean(axis=1, keepdims=True))
        out[start : start + _ROWS] = np.log1p(block / mean)
    return out


def _from_table(adata: AnnData, key: str, names: list[str] | None) -> AnnData:
    """The cells with a table of ``obsm`` as X."""
    try:
        values, columns = _checks.representation(adata, key, "obsm_key")
    except KeyError as error:
        needs = "" if names is None else f" The clock reads {len(names):,} dimensions there."
        raise KeyError(f"{error.args[0]}{needs}") from None
    where, named = f"adata.obsm[{key!r}]", isinstance(adata.obsm[key], pd.DataFrame)
    _checks.readable(values, where)
    found = pd.Index(columns if named else [f"{key}_{i}" for i in range(len(columns))], dtype=object)
    if not found.is_unique:
        raise ValueError(
            f"the columns of {where} repeat {found[found.duplicated()][0]!r}; give each a name of its own, or pass "
            "an array."
        )
    if names is None:
        return _made(values, adata.obs, found, key, "none")
    _refuse_absent(names, found, key, named)
    if not found.equals(pd.Index(names, dtype=object)):
        values = values[:, found.get_indexer(pd.Index(names, dtype=object))]
    return _made(values, adata.obs, pd.Index(names, dtype=object), key, "none")


def _refuse_absent(names: list[str], found: pd.Index, key: str, named: bool = True) -> None:
    """Refuse tables that lack dimensions of a clock, or are arrays of another width."""
    absent = pd.Index(names)[~pd.Index(names).isin(found)]
    if not len(absent) and (named or len(found) == len(names)):
        return
    start = (
        f"adata.obsm[{key!r}] has {len(found):,} dimensions{f' (e.g. {_checks.listed(found, 2)})' if named else ''}, "
        f"and the clock reads {len(names):,} (e.g. {_checks.listed(names, 2)})"
    )
    if named:
        raise ValueError(
            f"{start}, of which {len(absent):,} are absent (e.g. {_checks.listed(absent, 3)}). Pass the table that the "
            "clock was trained on; columns may be in any order."
        )
    if len(absent) and not any(name.startswith(f"{key}_") for name in names):
        raise ValueError(
            f"{start} by name, but the table is an array without names; pass a DataFrame: adata.obsm[{key!r}] = "
            f"pd.DataFrame(adata.obsm[{key!r}], adata.obs_names, columns)."
        )
    raise ValueError(f"{start}. Pass the representation that the clock was trained on, made by the same model.")


def _made(values: Any, obs: pd.DataFrame, names: pd.Index, key: str, normalize: str) -> AnnData:
    """An AnnData of agevi's own."""
    if isinstance(values, np.ndarray):
        values = np.asarray(values)  # without the reference of a view to all data
    elif sp.issparse(values) and not isinstance(values, sp.csr_matrix | sp.csc_matrix):  # scipy's arrays
        kind = sp.csr_matrix if values.format == "csr" else sp.csc_matrix
        values = kind((values.data, values.indices, values.indptr), shape=values.shape, copy=False)
    if obs.index.inferred_type != "string":
        obs = obs.set_axis(obs.index.astype(str))
    out = AnnData(values, obs=obs, var=pd.DataFrame(index=names))
    return mark(out, {"obsm_key": key, "normalize": normalize})
