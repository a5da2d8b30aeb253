"""Pseudocells, sums of cells of one sample, as an AnnData."""

from __future__ import annotations

import logging
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from agevi import _checks, _names, _units
from agevi._source import where
from agevi.dataloaders._summed import refuse_sums
from agevi.dataloaders._sums import draw_pseudocells

logger = logging.getLogger(__name__)

STATISTICS = ("sum", "mean")
_ARGUMENTS = {"subject": "subject_key", "sample": "sample_key", "group": "groupby"}
_BLOCK = 1 << 22  # dense values that are made in one step


def pseudocells(
    adata: AnnData,
    *,
    subject_key: str,
    sample_key: str | None = None,
    groupby: str | None = None,
    size: float = 0.5,
    n: int = 10,
    layer: str | None = None,
    statistic: Literal["sum", "mean"] = "sum",
    rng: int | np.random.Generator | None = 0,
) -> AnnData:
    """Pseudocells: summed counts of cells that are drawn at random from one sample, and from one group of it.

    A sum has less noise than a cell, and several sums of one sample still show how much it varies (Buckley et al.,
    Nature Aging 2023, trained clocks on sums of 15 cells). They are for other tools: agevi's own clocks draw them while
    they train. Pseudocells of one sample share cells, so they are not independent observations: hold out whole
    subjects, and let a test count samples. For one sum of all cells of each sample take :func:`scanpy.get.aggregate`.

    Parameters
    ----------
    adata
        Annotated data, cells x genes; not changed.
    subject_key
        Column of ``adata.obs`` with the person or animal.
    sample_key
        Column with the visit or biopsy. Default: the subject.
    groupby
        Column with the group, such as the cell type, that is kept apart within a sample. Cells without a value are left
        out.
    size
        Cells of a pseudocell, drawn without replacement: a share of the cells of its sample and group (below 1, rounded
        up), or their number (1 and above; all of them where there are fewer).
    n
        Pseudocells of each sample and group. Where all cells are taken, or there is one only, they are equal.
    layer
        Layer with the values; default X.
    statistic
        ``"sum"`` for raw counts, or ``"mean"`` for values other than counts, such as logarithms. The clocks take means
        of such values too, with ``normalize="none"``.
    rng
        Seed or generator.

    Returns
    -------
    A new AnnData with n rows for each sample and group, in the order of their names. ``X`` is a float32 CSR matrix,
    ``var`` a copy, and ``obs`` has the columns

    - ``subject`` and ``sample``, text, and ``group``, text, with ``groupby``.
    - ``n_cells``, int64, the cells in the sum.
    - every column of ``adata.obs`` with one value in the cells of each sample and group, such as the age or the split.

    Raises
    ------
    KeyError
        A column or the layer is absent.
    TypeError
        ``size``, ``n`` or ``rng`` has the wrong type.
    ValueError
        Units or values cannot be used, or ``adata.obs`` has another column of one of the new names.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=4, n_cells=30, n_genes=50)
    >>> pseudo = agevi.pp.pseudocells(adata, subject_key="donor", groupby="cell_type", size=5, n=3)
    >>> pseudo.obs[["sample", "group", "n_cells", "age"]].head(2).round(1).to_numpy().tolist()
    [['d0', 'type0', 5, 21.6], ['d0', 'type0', 5, 21.6]]
    """
    _checks.anndata(adata)
    _checks.in_memory(adata, "pp.pseudocells reads", "; sums of whole samples need no memory: pp.sum_samples")
    refuse_sums(adata, "pp.pseudocells draws")
    _checks.choice(statistic, STATISTICS, "statistic")
    size, n, rng = _checks.share_or_count(size, "size"), _checks.count(n, "n"), _checks.generator(rng)
    units = _units_of(adata, subject_key, sample_key, groupby)
    x = _values(adata, layer, statistic)
    codes = units.groupby(list(units), sort=True).ngroup().fillna(-1).to_numpy(dtype=np.int64)  # -1 without group
    drawn, unit = draw_pseudocells(codes, size, n, rng)
    order = np.argsort(unit, kind="stable")
    drawn, unit = drawn[order], unit[order]
    n_cells = np.diff(drawn.indptr)
    if statistic == "mean":
        drawn = sp.diags(1 / n_cells) @ drawn
    used = np.flatnonzero(codes >= 0)
    first = used[np.unique(codes[used], return_index=True)[1]]  # a cell of each unit
    kept = [name for name in _units.constant_columns(adata.obs, codes, used, first) if name not in [*units, "n_cells"]]
    obs = pd.concat([units.iloc[first[unit]], adata.obs[kept].iloc[first[unit]]], axis=1)
    obs.insert(len(units.columns), "n_cells", n_cells.astype(np.int64))
    obs.index = pd.Index([f"pseudocell{i}" for i in range(len(obs))], dtype=object)
    return AnnData(_product(drawn, x), obs=obs, var=adata.var.copy())


def _units_of(adata: AnnData, subject_key: str, sample_key: str | None, groupby: str | None) -> pd.DataFrame:
    """Subject, sample and, with ``groupby``, group of every cell as text; the group is None where it is missing."""
    subject, sample = _units.units(adata, subject_key, sample_key)
    units = pd.DataFrame({"subject": subject, "sample": sample}, dtype=object)
    if groupby is not None:
        values = _checks.column(adata, groupby, "groupby")
        known = values.notna()
        if not known.any():
            raise ValueError(f"adata.obs[{groupby!r}] is missing in all cells; groupby needs the type of each cell.")
        if not known.all():
            logger.info("%d of %d cells have no group and are left out.", (~known).sum(), adata.n_obs)
        units["group"] = _names.names(values, f"adata.obs[{groupby!r}]").where(known, None)
    sources = {"subject": subject_key, "sample": sample_key or subject_key, "group": groupby}
    for name in [*units, "n_cells"]:
        if name in adata.obs and name != sources.get(name):
            raise ValueError(
                f"adata.obs has a column {name!r}, which is the name of a column that pseudocells get; rename it"
                + (f", or pass {_ARGUMENTS[name]}={name!r} if it is that." if name in _ARGUMENTS else ".")
            )
    return units


def _values(adata: AnnData, layer: str | None, statistic: str) -> Any:
    """The matrix, of counts where sums are taken."""
    x = _checks.matrix(adata, layer)
    if statistic == "mean":
        _checks.finite(x, where(layer))
    else:
        advice = "Pass them with layer=..., or set statistic='mean' for values that are normalised already."
        _checks.counts(x, where(layer), "pp.pseudocells sums raw counts", advice=advice)
    return x


def _product(drawn: sp.csr_matrix, x: Any) -> sp.csr_matrix:
    """``drawn`` times ``x`` as float32 CSR."""
    if sp.issparse(x):
        # Of one type with x, which scipy would copy otherwise; float32 is exact for counts below 2**24.
        out = sp.csr_matrix(drawn.astype(np.float32 if x.dtype == np.float32 else np.float64) @ x, dtype=np.float32)
        out.sort_indices()
        return out
    step = max(1, _BLOCK // x.shape[1])
    blocks = [sp.csr_matrix(drawn[i : i + step] @ x, dtype=np.float32) for i in range(0, drawn.shape[0], step)]
    return sp.vstack(blocks, format="csr")
