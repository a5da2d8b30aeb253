"""Methylation of genes: the mean over the probes at each."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from agevi import _checks
from agevi._source import where
from agevi.pp.bulk import _values

logger = logging.getLogger(__name__)

_JOINED = ";"  # between the genes of one probe in Illumina's manifests


def aggregate_probes(
    adata: AnnData,
    mapping: pd.DataFrame | str | os.PathLike[str],
    region: str | Sequence[str] | None = "TSS200",
    *,
    columns: tuple[str, str, str] = ("probe", "symbol", "region"),
    layer: str | None = None,
    values: str = "beta",
) -> AnnData:
    """Methylation beta (0 to 1) of genes: the mean over the probes of each gene's region.

    Probes differ between arrays and genes do not, so features of genes let 450k and EPIC samples be used together, and
    let methylation be laid beside expression. The mean of few probes is noisier than that of many: ``n_probes`` says
    which. Probes without a gene are left out. A NaN is a probe that failed in one sample, and the mean is then that of
    the probes that were measured; a gene without any stays NaN.

    Parameters
    ----------
    adata
        Annotated data, samples x probes; not changed. ``var_names`` are the names of probes.
    mapping
        Table with one row per probe and gene, or the path of such a csv file (also csv.gz). A row may hold several
        genes and regions joined by ";", the n-th region that of the n-th gene, as Illumina's manifests do.
    region
        Region or regions whose probes are taken, such as ``"TSS200"`` (up to 200 bases before the start of
        transcription) or ``["TSS200", "1stExon"]``; None takes all. A table without a column of regions is taken as it
        is.
    columns
        Names of the columns of ``mapping`` with the probe, the gene and the region.
    layer
        Layer with the values; default X.
    values
        ``"beta"``, or ``"m"`` for M values, which are turned into betas first.

    Returns
    -------
    A new AnnData, samples x genes in the order of names. X is dense float32; ``obs`` is a copy, and ``var["n_probes"]``
    the number of the gene's probes in ``adata``.

    Raises
    ------
    FileNotFoundError
        There is no file at the path.
    KeyError
        A column of the table or the layer is absent.
    TypeError
        ``mapping`` is neither table nor path.
    ValueError
        Values are not betas (or not M values), the region is unknown, or the table has no probe of the data.

    Examples
    --------
    >>> import agevi, anndata, numpy as np, pandas as pd
    >>> adata = anndata.AnnData(np.array([[0.25, 0.5, 1.0]]), var=pd.DataFrame(index=["cg1", "cg2", "cg3"]))
    >>> mapping = pd.DataFrame({"probe": ["cg1", "cg2", "cg3"], "symbol": ["ELOVL2", "ELOVL2", "FHL2"]})
    >>> agevi.pp.aggregate_probes(adata, mapping).to_df().to_dict("records")
    [{'ELOVL2': 0.375, 'FHL2': 1.0}]
    """
    _checks.anndata(adata)
    _checks.in_memory(adata, "pp.aggregate_probes reads", "")
    _checks.unique_names(adata)
    _checks.choice(values, ("beta", "m"), "values")
    x = _checks.matrix(adata, layer)
    if values == "m":
        _values.m_values(x, where(layer), advice="leave values='beta'")
    else:
        _values.betas(x, where(layer), advice="pass values='m', and they are converted")
    pairs = _pairs(_table(mapping), columns, region)
    position = adata.var_names.get_indexer(pd.Index(pairs["probe"]))
    found = position >= 0
    if not found.any():
        raise ValueError(
            f"none of the {pairs['probe'].nunique():,} probes of the mapping ({_checks.listed(pairs['probe'], 2)}) is "
            f"in adata.var_names ({_checks.listed(adata.var_names, 2)}); name the probes as the array does, such as "
            "'cg00000029', and pass samples x probes."
        )
    column, genes = pd.factorize(pairs["gene"][found], sort=True)
    shape = (adata.n_vars, len(genes))
    member = sp.csr_matrix((np.ones(len(column)), (position[found], column)), shape=shape)
    n_probes = np.bincount(column, minlength=len(genes))
    logger.info("%d genes from %d of %d probes.", len(genes), len(np.unique(position[found])), adata.n_vars)
    return AnnData(
        _means(x, member, n_probes, is_m=values == "m"),
        obs=adata.obs.copy(),
        var=pd.DataFrame({"n_probes": n_probes}, index=pd.Index(genes.astype(str), dtype=object)),
    )


def _means(x: Any, member: sp.csr_matrix, n_probes: np.ndarray, *, is_m: bool) -> np.ndarray:
    """Mean over the measured probes of every gene, (n_samples, n_genes), NaN where there is none."""
    used = np.flatnonzero(np.diff(member.indptr))  # probes with a gene
    member = member[used]
    out = np.empty((x.shape[0], member.shape[1]), dtype=np.float32)
    for rows in _values.row_blocks(*x.shape):
        block = _values.dense(x[rows][:, used], np.float64)
        block = _values.as_beta(block) if is_m else block
        missing = np.isnan(block)
        if not missing.any():
            out[rows] = (block @ member) / n_probes
            continue
        block[missing] = 0
        with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is wanted
            out[rows] = (block @ member) / ((~missing).astype(np.float64) @ member)
    return out


def _table(mapping: Any) -> pd.DataFrame:
    """The table, read where a path is given."""
    if isinstance(mapping, pd.DataFrame):
        return mapping
    if not isinstance(mapping, str | os.PathLike):
        raise TypeError(f"mapping is a {type(mapping).__name__}; pass a pandas.DataFrame or the path of a csv file.")
    path = Path(mapping).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"mapping={str(mapping)!r} is not a file; pass the path of a csv or csv.gz table.")
    return pd.read_csv(path, dtype=str, keep_default_na=False)  # a gene may be called "NA" or "NAN"


def _pairs(table: pd.DataFrame, columns: tuple[str, str, str], region: str | Sequence[str] | None) -> pd.DataFrame:
    """Each probe and gene of the region once: columns ``probe`` and ``gene``."""
    probe, gene, where_on = columns
    for name in (probe, gene):
        if name not in table:
            raise KeyError(
                f"mapping has no column {name!r}; name its columns with columns=(probe, gene, region). Available: "
                f"{_checks.listed(table.columns)}."
            )
    names = [probe, gene, where_on] if where_on in table and region is not None else [probe, gene]
    out = table[names].set_axis(["probe", "gene", "region"][: len(names)], axis=1)
    out = out.astype(object).where(out.notna(), "").astype(str)
    joined = [c for c in out.columns[1:] if out[c].str.contains(_JOINED, regex=False).any()]
    if joined:
        out = _split(out)
    if "region" in out and region is not None:
        wanted = [region] if isinstance(region, str) else list(region)
        unknown = sorted(set(wanted) - set(out["region"]))
        if unknown:
            raise ValueError(
                f"region={unknown[0]!r} is not in mapping[{where_on!r}]. Available: "
                f"{_checks.listed(sorted(set(out['region']) - {''}))}."
            )
        out = out[out["region"].isin(wanted)]
    # Manifests name a gene once for each of its transcripts, which must not weigh a probe more.
    named = (out["gene"] != "") & (out["probe"] != "")
    return out.loc[named, ["probe", "gene"]].drop_duplicates()


def _split(pairs: pd.DataFrame) -> pd.DataFrame:
    """One row for each of the genes that are joined in a row, with its own region."""
    lists = {c: pairs[c].str.split(_JOINED) for c in pairs.columns[1:]}
    if "region" in lists:
        uneven = (lists["gene"].map(len) != lists["region"].map(len)).to_numpy()
        if uneven.any():
            first = pairs.iloc[int(uneven.argmax())]
            raise ValueError(
                f"probe {first['probe']!r} of the mapping has the genes {first['gene']!r} and the regions "
                f"{first['region']!r}; give one region for each gene, or pass region=None."
            )
    return pairs.assign(**lists).explode(list(lists))
