"""Single-cell counts drawn from one expression profile per subject."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from agevi import _checks
from agevi.datasets import _parameters

SD_LOG_LIBRARY = 0.35  # spread of log library size over cells
_MILLION = 1e6
_MAX_TOTAL = 1.1e6  # counts per million cannot sum to more, up to rounding of the profiles


def sample_cells(
    profiles: AnnData,
    n_cells: int = 60,
    *,
    library_size: float = 4000,
    dispersion: float = 0.3,
    subject_key: str = "donor",
    rng: int | np.random.Generator | None = 0,
) -> AnnData:
    """Counts of single cells drawn from one log1p(CPM) profile per subject.

    Every cell gets a library size that is log-normal around ``library_size`` transcripts over the whole transcriptome
    (sd of the log 0.35); every entry gets a gamma factor with mean 1 and variance ``dispersion``, then a Poisson draw.
    The signal between subjects is the one of the profiles. Cells are independent draws from their subject's profile:
    there are no cell states, no composition and no programs in them, so the sum over a subject's cells is nearly
    sufficient, and methods that need variation between cells cannot be judged on them.

    Parameters
    ----------
    profiles
        Rows are subjects, ``X`` is log1p of counts per million, shape ``(n_subjects, n_genes)``. A subset of genes is
        fine: the rows need not sum to a million.
    n_cells
        Cells per subject.
    library_size
        Median number of transcripts of a cell over the whole transcriptome, those outside ``profiles`` included.
    dispersion
        Variance of the gamma factor; 0 gives Poisson counts.
    subject_key
        Column that names the subject of each cell: the column of ``profiles.obs``, or a new one made of
        ``profiles.obs_names`` where ``profiles.obs`` has none of that name.
    rng
        Seed or generator.

    Returns
    -------
    AnnData of shape ``(n_subjects * n_cells, n_genes)``, subjects in the order of ``profiles``

        - ``X``: CSR matrix of counts, float32.
        - ``obs``: the columns of ``profiles.obs``, repeated for each cell; index ``"cell0"``, ``"cell1"``, ...
        - ``var``: that of ``profiles``.

    Raises
    ------
    TypeError
        When ``profiles`` is not an AnnData, or a parameter is not numeric.
    ValueError
        When ``X`` is not log1p(CPM) (negative, missing, or more than a million in a row) or a parameter is out of
        range.

    Examples
    --------
    >>> import agevi
    >>> import anndata as ad
    >>> import numpy as np
    >>> cpm = np.array([[10_000.0, 500.0], [20_000.0, 100.0]], dtype="float32")
    >>> cells = agevi.datasets.sample_cells(ad.AnnData(np.log1p(cpm)), n_cells=3)
    >>> cells.shape
    (6, 2)
    >>> list(cells.obs["donor"])
    ['0', '0', '0', '1', '1', '1']
    """
    _checks.anndata(profiles, "profiles")
    n_cells = _checks.count(n_cells, "n_cells")
    library_size = _parameters.number(library_size, "library_size", open_low=True)
    dispersion = _parameters.number(dispersion, "dispersion")
    generator = _checks.generator(rng)

    x = profiles.to_memory().X if profiles.isbacked else profiles.X
    if x is None:
        raise ValueError("profiles.X is absent; it must hold log1p(counts per million), one row per subject.")
    _check_log_cpm(_checks.readable(x, "profiles.X"))
    blocks = [_cells_of_one(_row(x, i), n_cells, library_size, dispersion, generator) for i in range(profiles.n_obs)]
    obs = profiles.obs.iloc[np.repeat(np.arange(profiles.n_obs), n_cells)].copy()
    if subject_key not in obs:
        obs.insert(0, subject_key, np.repeat(profiles.obs_names.to_numpy(), n_cells))
    obs.index = pd.Index([f"cell{i}" for i in range(len(obs))])
    return AnnData(sp.vstack(blocks, format="csr"), obs=obs, var=profiles.var.copy())


def benchmark_folds(
    subjects: Iterable[object], n_folds: int = 5, rng: int | np.random.Generator | None = 0
) -> np.ndarray:
    """Fold number of each cell (0 to ``n_folds - 1``), whole subjects together.

    The folds of agevi's benchmarks: the sorted subject names are permuted and dealt out in turn, so fold sizes differ
    by one subject at most. Ages are not looked at; equal subjects and seed give equal folds whatever the order of the
    cells.

    Parameters
    ----------
    subjects
        Subject of each cell, shape ``(n_cells,)``; compared as text.
    n_folds
        Number of folds, at most the number of subjects.
    rng
        Seed or generator.

    Returns
    -------
    Array of int64, shape ``(n_cells,)``.

    Raises
    ------
    ValueError
        When there are fewer subjects than folds, or ``n_folds`` is below 2.

    Examples
    --------
    >>> import agevi
    >>> folds = agevi.datasets.benchmark_folds(["d1", "d1", "d2", "d3", "d3"], n_folds=3)
    >>> bool(folds[0] == folds[1])
    True
    >>> sorted(set(folds.tolist()))
    [0, 1, 2]
    """
    n_folds = _checks.count(n_folds, "n_folds", low=2)
    names, inverse = np.unique(np.asarray(list(subjects)).astype(str), return_inverse=True)
    if len(names) < n_folds:
        raise ValueError(
            f"n_folds={n_folds} but there are only {len(names)} subjects ({_checks.listed(names)}); pass "
            f"n_folds={len(names)} or lower."
        )
    return (_checks.generator(rng).permutation(len(names)) % n_folds)[inverse]


def _row(x: Any, i: int) -> np.ndarray:
    """Row ``i`` as a dense vector (n_genes,)."""
    row = x[[i]]
    return (row.toarray() if sp.issparse(row) else np.asarray(row)).ravel()


def _check_log_cpm(x: Any) -> None:
    """Refuse what cannot be log1p of counts per million."""
    _checks.finite(x, "profiles.X")
    fix = "profiles must hold log1p(counts per million), one row per subject"
    if x.min() < 0:
        raise ValueError(f"profiles.X has negative values (lowest: {x.min():g}); {fix}.")
    too_large = x.max() > np.log1p(_MAX_TOTAL)  # then expm1 may overflow
    rows = () if too_large else range(x.shape[0])
    totals = np.array([np.expm1(_row(x, i), dtype=np.float64).sum() for i in rows] or [np.inf])
    if totals.max() > _MAX_TOTAL:
        raise ValueError(
            f"profiles.X is not log1p(CPM) (largest value: {x.max():g}, largest row sum of expm1: {totals.max():.3g}, "
            f"a million at most); {fix}: sc.pp.normalize_total(target_sum=1e6), then sc.pp.log1p."
        )


def _cells_of_one(
    log_cpm: np.ndarray, n_cells: int, library_size: float, dispersion: float, rng: np.random.Generator
) -> sp.csr_matrix:
    """Counts of one subject's cells, (n_cells, n_genes)."""
    # The order of the draws (all library sizes, all gamma factors, all counts) fixes the cells of the benchmarks.
    share = np.expm1(log_cpm, dtype=np.result_type(log_cpm, np.float32)) / _MILLION  # of bytes it would be float16
    library = rng.lognormal(np.log(library_size), SD_LOG_LIBRARY, size=n_cells)
    mean = share[None, :] * library[:, None]
    if dispersion > 0:
        mean = mean * rng.gamma(1 / dispersion, dispersion, size=mean.shape)
    return sp.csr_matrix(rng.poisson(mean).astype(np.float32))
