"""Counts with the same mean expression in every cohort."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from agevi import _checks, _gene_names
from agevi._compat import written_to
from agevi._source import where
from agevi.dataloaders._summed import refuse_sums
from agevi.dataloaders._sums import sample_groups, sum_rows

logger = logging.getLogger(__name__)

_PRIOR = 10.0  # counts of a gene in a cohort below which its mean is hardly known, so that it is hardly moved
_FEW = 5  # subjects of a cohort below which their own differences go with those of the cohort
_ENOUGH = 0.8  # share of the reference that is found by name before other names are tried
_BLOCK = 4096  # rows that are scaled at a time


def centre_genes(
    adata: AnnData,
    by: str,
    *,
    subject_key: str,
    reference: AnnData | pd.Series | None = None,
    layer: str | None = None,
    key_added: str = "centred",
    rng: int | np.random.Generator | None = 0,
    copy: bool = False,
) -> AnnData | None:
    """Counts of which every gene has the same mean share in every cohort, as a new layer.

    Laboratories, chemistries and pipelines multiply genes by factors of their own, so a clock of one cohort is off by a
    constant in another. The counts of a gene are multiplied by the ratio of its reference share to its mean share in
    the cohort, and rounded up or down at random, in proportion, so that they stay counts that every clock takes. Ages
    are not read, but the cells of the cohort that is to be predicted are: there must be enough of its subjects, and
    their ages are drawn to those of the other cohorts. **Differences in mean age between cohorts are removed too.** Do
    not use it where cohorts are age groups, or to compare cases of one cohort with controls of another.

    Parameters
    ----------
    adata
        Annotated data, cells x genes, with raw counts.
    by
        Column of ``adata.obs`` with the cohort (or batch, or chemistry).
    subject_key
        Column with the person or animal; every subject has equal weight in the mean of its cohort.
    reference
        What genes are brought to: data that were centred before, such as those that a clock was trained on, or their
        ``var[f"{key_added}_share"]``. Genes that it lacks stay as they are. Default: the mean over the cohorts of
        ``adata``, each weighing the same.
    layer
        Layer with the counts; default X.
    key_added
        Layer to write, to be named in ``setup_anndata(adata, layer=...)``.
    rng
        Seed or generator of the rounding.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets

    - ``layers[key_added]``: float32 counts, (n_cells, n_genes), sparse where the counts are.
    - ``var[f"{key_added}_share"]``: the reference, mean share of all counts, float64; NaN for genes that it lacks.

    Raises
    ------
    KeyError
        A column or the layer is absent, or ``reference`` was not centred.
    TypeError
        ``reference`` is something else.
    ValueError
        Values are not counts, the column has one cohort without a ``reference``, or the reference shares no gene.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=30, n_genes=50, n_batches=2)
    >>> agevi.pp.centre_genes(adata, "batch", subject_key="donor")
    >>> agevi.model.PLSClock.setup_anndata(adata, subject_key="donor", age_key="age", layer="centred")
    """
    refuse_sums(_checks.anndata(adata), "pp.centre_genes reads", "")
    _checks.in_memory(adata, "pp.centre_genes reads")
    _checks.unique_names(adata)
    rng = _checks.generator(rng)
    cohort, subject = _checks.labels(adata, by, "by"), _checks.labels(adata, subject_key, "subject_key")
    x = _checks.matrix(adata, layer)
    _checks.counts(x, where(layer), "pp.centre_genes scales raw counts", advice="Pass them with layer=....")
    if key_added == layer:
        raise ValueError(f"key_added={key_added!r} is the layer that is read; choose another name.")
    code, names = pd.factorize(cohort, sort=True)
    if len(names) == 1 and reference is None:
        raise ValueError(
            f"adata.obs[{by!r}] holds one value, {names[0]!r}, so there is nothing to centre it on; pass "
            "reference=..., the data that the clock was trained on."
        )
    share, total = _mean_shares(x, code, subject)
    n_subjects = subject.groupby(cohort.to_numpy()).nunique()
    few = n_subjects[n_subjects < _FEW]
    if len(few):
        warnings.warn(
            f"{len(few)} values of adata.obs[{by!r}] have fewer than {_FEW} subjects "
            f"({_checks.listed([f'{name}: {n}' for name, n in few.items()])}); their own differences, age among them, "
            "are removed with those of the cohort.",
            UserWarning,
            stacklevel=2,
        )
    wanted = share.mean(0) if reference is None else _reference(reference, adata.var, f"{key_added}_share")
    factor = _factors(share, total, wanted)
    values = _scaled(x, factor, code, rng)
    out = written_to(adata, copy=copy)
    out.layers[key_added] = values
    out.var[f"{key_added}_share"] = wanted
    return out if copy else None


def _mean_shares(x: Any, code: np.ndarray, subject: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Mean share of every gene over the subjects of each cohort, (n_cohorts, n_genes), and the cohorts' counts."""
    pair = sample_groups(code, subject)
    cohort = code[np.unique(pair, return_index=True)[1]]
    dense = _checks.dense(sum_rows(x, pair, len(cohort)), np.float64)
    depth = dense.sum(1, keepdims=True)
    counted = depth[:, 0] > 0
    shares = pd.DataFrame(dense[counted] / depth[counted]).groupby(cohort[counted]).mean()
    every = np.arange(code.max() + 1)
    return shares.reindex(every, fill_value=0.0).to_numpy(), np.bincount(cohort, weights=depth[:, 0])


def _reference(reference: Any, var: pd.DataFrame, column: str) -> np.ndarray:
    """Shares of the genes of ``var`` in the reference, NaN where it lacks them."""
    names, known = var.index, None
    if isinstance(reference, AnnData):
        if column not in reference.var:
            raise KeyError(
                f"reference.var has no {column!r}; run agevi.pp.centre_genes on the reference first, with the same "
                f"key_added. Available: {_checks.listed(reference.var.columns)}."
            )
        known, reference = _gene_names.kept(reference.var), reference.var[column]
    if not isinstance(reference, pd.Series):
        raise TypeError(
            f"reference is a {type(reference).__name__}; pass an AnnData that was centred, or a Series by gene."
        )
    located = _gene_names.locate(reference.index, known, var, enough=_ENOUGH)
    out, there = np.full(len(names), np.nan), located.columns >= 0
    out[located.columns[there]] = reference.to_numpy(dtype=np.float64)[there]
    if not np.isfinite(out).any():
        raise ValueError(
            f"none of the {len(names):,} genes of adata ({_checks.listed(names, 2)}) is in the reference "
            f"({_checks.listed(reference.index, 2)}); rename them with agevi.pp.align_genes."
        )
    if located.how:
        logger.info("%s", _gene_names.message(located, reference.index, var, whose="reference"))
    return out


def _factors(share: np.ndarray, total: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """What the counts of every gene are multiplied by in each cohort, (n_cohorts, n_genes) float32."""
    known = np.isfinite(wanted)
    own, aim = share[:, known], wanted[known]
    aim = aim * (own.sum(1, keepdims=True) / max(aim.sum(), 1e-300))  # of the genes that both have
    prior = (_PRIOR / np.maximum(total, _PRIOR))[:, None]
    out = np.ones(share.shape, dtype=np.float32)
    out[:, known] = (aim + prior) / (own + prior)
    return out


def _scaled(x: Any, factor: np.ndarray, code: np.ndarray, rng: np.random.Generator) -> Any:
    """``x`` times the factors of each row's cohort, rounded at random, float32 CSR or dense."""
    out: Any = sp.csr_matrix(x, copy=True, dtype=np.float32) if sp.issparse(x) else np.array(x, dtype=np.float32)
    for start in range(0, len(code), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(code)))
        if sp.issparse(x):
            indptr = out.indptr[rows.start : rows.stop + 1]
            stored = slice(indptr[0], indptr[-1])
            values, by = out.data[stored], factor[np.repeat(code[rows], np.diff(indptr)), out.indices[stored]]
        else:
            values, by = out[rows], factor[code[rows]]
        values *= by
        values += rng.random(values.shape, dtype=np.float32)
        np.floor(values, out=values)
    if sp.issparse(x):
        out.eliminate_zeros()
    return out
