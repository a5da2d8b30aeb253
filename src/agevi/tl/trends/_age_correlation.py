"""Correlation of the components of a representation with age, and how high the best one gets by chance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.stats import rankdata

from agevi import _checks, _keys, _units
from agevi.tl._store import store_table
from agevi.tl.trends._permute import EQUAL, permuted

LEVELS = ("cell", "sample")
BAND = (0.05, 0.5, 0.95)
"""Quantiles of the best permuted correlation that make the band."""
_VALUES = 1 << 22  # values held at once for permutations


@dataclass(frozen=True)
class Units:
    """The samples that have an age."""

    age: np.ndarray  # (n_samples,)
    subject: np.ndarray  # (n_samples,) number of its subject from 0, rising
    of_cell: np.ndarray  # (n_labelled_cells,) position of its sample
    labelled: np.ndarray  # (n_cells,) whether a cell has an age


@dataclass(frozen=True)
class Sums:
    """All that correlations with a value per sample need to know of the components."""

    values: np.ndarray  # (n_samples, n_components) sums over a sample's rows of each component minus its mean
    squares: np.ndarray  # (n_components,) sum of squares of each component minus its mean, 0 where it does not vary
    n_rows: np.ndarray  # (n_samples,) rows: cells, or 1


def age_correlation(
    adata: AnnData,
    *,
    age_key: str,
    subject_key: str,
    sample_key: str | None = None,
    use_rep: str = "X_pca",
    level: Literal["cell", "sample"] = "cell",
    n_permutations: int = 1000,
    rng: int | np.random.Generator | None = 0,
    key_added: str = _keys.DEFAULT_KEY,
    copy: bool = False,
) -> AnnData | None:
    """Correlation of each component of a representation with age, without unit, beside what chance gives the best one.

    Among many components one always correlates with age. So ages are permuted between subjects, and in each permutation
    the largest absolute correlation of all components is kept: the band is the range of these, and ``p`` is the share
    that reaches a component's own value (Westfall and Young 1993, single step). With 69 subjects the best of 100 random
    components is often near 0.3. A high correlation may also come from what differs with age in the cohort, such as
    batch or composition; permutation does not see that.

    Parameters
    ----------
    adata
        Annotated data with the representation, for example after ``sc.pp.pca(adata, zero_center=False)``.
    age_key
        Column with the age. Cells without one are left out.
    subject_key
        Column with the subject, the unit that ages are permuted between.
    sample_key
        Column with the visit or biopsy; by default each subject is one sample.
    use_rep
        Key of ``adata.obsm``.
    level
        ``"cell"`` correlates over cells, so a subject of many cells weighs more and the spread between the cells of a
        subject lowers all correlations; ``"sample"`` averages each component over the sample's cells first.
    n_permutations
        Permutations. The smallest ``p`` is ``1 / (n_permutations + 1)``.
    rng
        Seed or generator of the permutations.
    key_added
        Prefix of the slots.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets:

    ``adata.uns[f"{key_added}_correlation"]``
        DataFrame with one row per component (the column of ``adata.obsm[use_rep]``: its number from 0, or its name) and
        the float64 columns ``r`` (Pearson), ``spearman`` and ``p`` (of ``r``, two-sided, corrected for the number of
        components). All are NaN for a component that does not vary.
    ``adata.uns[f"{key_added}_correlation_params"]``
        The arguments, the numbers of ``n_cells``, ``n_samples`` and ``n_subjects`` with an age, the ``best`` component,
        ``best_permuted`` (largest absolute ``r`` of each permutation, (n_permutations,)) and its 5 %, 50 % and 95 %
        quantiles ``band_low``, ``band_median`` and ``band_high``.

    Raises
    ------
    KeyError
        A column or the representation is absent.
    TypeError
        Ages or the representation are not numbers.
    ValueError
        Fewer than 3 subjects have an age, all ages are equal, no component varies, a value of the representation is
        missing, or an argument is out of range.

    Notes
    -----
    Subjects are exchangeable, cells of a subject are not: each permutation gives all cells of a subject the age of
    another one. With several samples per subject, subjects exchange the mean of their samples' ages, and the samples of
    a subject exchange their deviations from it. So a cohort of one visit each, a cohort followed over time, and one of
    several biopsies at one age are all compared with the chance that fits them. This takes for granted that the number
    of samples of a subject does not depend on its age.

    Examples
    --------
    >>> import agevi, scanpy as sc
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=30, n_cells=10, n_genes=100, effect_range=(0.2, 0.4))
    >>> sc.pp.pca(adata, n_comps=10, zero_center=False)
    >>> agevi.tl.age_correlation(adata, age_key="age", subject_key="donor", n_permutations=200)
    >>> table = adata.uns["agevi_correlation"]
    >>> table.shape, bool(table["r"].abs().max() > adata.uns["agevi_correlation_params"]["band_high"])
    ((10, 3), True)
    """
    _checks.anndata(adata)
    keys = _keys.Keys(key_added)
    _checks.choice(level, LEVELS, "level")
    n_permutations = _checks.count(n_permutations, "n_permutations")
    generator = _checks.generator(rng)
    matrix, names = _checks.representation(adata, use_rep)
    units = labelled_units(adata, age_key, subject_key, sample_key)
    labelled = matrix if units.labelled.all() else matrix[units.labelled]
    values, ranks = component_sums(labelled, units, level)
    if not values.squares.any():
        raise ValueError(
            f"no component of adata.obsm[{use_rep!r}] varies over the {level}s with an age; compute it from more data."
        )
    of_row = units.of_cell if level == "cell" else np.arange(len(units.age))
    age_rank = np.zeros_like(units.age)
    age_rank[of_row] = rankdata(units.age[of_row])
    r = correlations(units.age[None], values)[0]
    null = permuted_best(units, values, n_permutations, generator)
    reached = (null[:, None] >= np.abs(r) * (1 - EQUAL)).sum(axis=0)
    table = pd.DataFrame(
        {
            "r": r,
            "spearman": correlations(age_rank[None], ranks)[0],
            "p": np.where(np.isnan(r), np.nan, (1 + reached) / (1 + n_permutations)),
        },
        index=pd.Index(names, dtype=object, name="component"),
    )
    low, median, high = np.quantile(null, BAND)
    params = {
        "age_key": age_key,
        "subject_key": subject_key,
        "sample_key": sample_key or subject_key,
        "use_rep": use_rep,
        "level": level,
        "n_permutations": n_permutations,
        "rng": rng,
        "n_cells": len(units.of_cell),
        "n_samples": len(units.age),
        "n_subjects": int(units.subject[-1]) + 1,
        "best": names[int(np.nanargmax(np.abs(r)))],
        "best_permuted": null,
        "band_low": low,
        "band_median": median,
        "band_high": high,
    }
    return store_table(adata, keys, "correlation", table, params, copy=copy)


def labelled_units(adata: AnnData, age_key: str, subject_key: str, sample_key: str | None) -> Units:
    """The samples with an age, ordered by subject."""
    of_cell = _units.ages(adata, age_key, min_age=-np.inf, clock=_keys.clock_of(adata.uns, age_key))
    subject, sample = _units.units(adata, subject_key, sample_key)
    age, owner = _units.ages_of_samples(of_cell, subject, sample, age_key)
    age = age.dropna()
    codes = pd.factorize(owner[age.index].to_numpy(dtype=object), sort=True)[0]
    if codes.max() + 1 < _units.MIN_LABELLED_SUBJECTS:
        raise ValueError(
            f"only {codes.max() + 1} subjects have an age in adata.obs[{age_key!r}]; a correlation with age needs at "
            f"least {_units.MIN_LABELLED_SUBJECTS}."
        )
    if age.nunique() < 2:
        raise ValueError(
            f"adata.obs[{age_key!r}] is {age.iloc[0]:g} for every subject; a correlation needs different ages."
        )
    order = np.argsort(codes, kind="stable")
    age = age.iloc[order]
    labelled = ~np.isnan(of_cell)
    rows = pd.Index(age.index).get_indexer(pd.Index(sample.to_numpy()[labelled]))
    return Units(age=age.to_numpy(), subject=codes[order], of_cell=rows, labelled=labelled)


def component_sums(matrix: Any, units: Units, level: str) -> tuple[Sums, Sums]:
    """Sums of every component and of its ranks per sample; at the level of samples each mean is one row."""
    n_units = len(units.age)
    n_cells = np.bincount(units.of_cell, minlength=n_units)
    is_cell = level == "cell"
    of_row, n_rows = (units.of_cell, n_cells) if is_cell else (np.arange(n_units), np.ones(n_units, dtype=np.int64))
    out, squares = np.zeros((2, n_units, matrix.shape[1])), np.zeros((2, matrix.shape[1]))
    for j, column in enumerate(_columns(matrix)):
        if not is_cell:
            column = np.bincount(units.of_cell, weights=column, minlength=n_units) / n_cells
        if np.ptp(column) <= EQUAL * np.abs(column).max():
            continue
        for k, row in enumerate((column, rankdata(column))):
            centred = row - row.mean()
            squares[k, j] = centred @ centred
            out[k, :, j] = np.bincount(of_row, weights=centred, minlength=n_units)
    return Sums(out[0], squares[0], n_rows), Sums(out[1], squares[1], n_rows)


def _columns(matrix: Any) -> Iterator[np.ndarray]:
    """Each component as float64."""
    if sp.issparse(matrix):
        matrix = matrix.tocsc()
    for j in range(matrix.shape[1]):
        column = matrix[:, [j]].toarray() if sp.issparse(matrix) else matrix[:, j]
        yield np.asarray(column, dtype=np.float64).ravel()


def correlations(age: np.ndarray, sums: Sums) -> np.ndarray:
    """Pearson correlation of ages (n_draws, n_samples) with components over all rows, (n_draws, n_components)."""
    centred = age - age.mean()  # keeps the squares below small, so that their difference is exact
    total = sums.n_rows.sum()
    spread = np.square(centred) @ sums.n_rows - np.square(centred @ sums.n_rows) / total  # n_draws
    spread = np.where(spread > EQUAL * total * np.square(centred).max(), spread, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        r: np.ndarray = centred @ sums.values / np.sqrt(spread[:, None] * sums.squares)
    return r.clip(-1, 1)


def permuted_best(units: Units, sums: Sums, n_permutations: int, rng: np.random.Generator) -> np.ndarray:
    """Largest absolute correlation of all components in each permutation, (n_permutations,)."""
    varying = Sums(sums.values[:, sums.squares > 0], sums.squares[sums.squares > 0], sums.n_rows)
    step = max(1, _VALUES // max(varying.values.shape))
    best = []
    for start in range(0, n_permutations, step):
        age = permuted(units.age, units.subject, min(step, n_permutations - start), rng)
        best.append(np.abs(correlations(age, varying)).max(axis=1))
    return np.nan_to_num(np.concatenate(best))  # a permutation that leaves no variance of age finds nothing
