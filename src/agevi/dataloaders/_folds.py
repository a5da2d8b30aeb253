"""Folds of whole subjects: spread over ages and strata, or those of a column."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.optimize import linear_sum_assignment

from agevi import _checks, _units

MIN_FOLDS = 2
MOST_SHARED = 0.5
"""Share of the subjects that may have cells in several folds of a column."""


def assign_folds(
    age: np.ndarray,
    trains: np.ndarray,
    strata: np.ndarray | None,
    n_folds: int,
    rng: int | np.random.Generator | None = 0,
) -> np.ndarray:
    """Fold of every subject, (n_subjects,), from 0, in the order of names; sizes differ by one subject at most."""
    rng = np.random.default_rng(rng)
    codes = np.zeros(len(age), dtype=np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
    known = ~np.isnan(age)
    folds, size = np.full(len(age), -1), np.zeros(n_folds)
    # Each kind on its own, so that every fold holds out its share of each.
    for kind in (trains & known, ~trains & known, ~known):
        order = rng.permutation(np.flatnonzero(kind))
        order = order[np.argsort(age[order], kind="stable")]  # ties in age are in random order
        filled = np.zeros((n_folds, codes.max(initial=0) + 1))
        # A block of neighbours in age gives one to every fold: all folds span the range of all ages.
        for block in np.split(order, range(n_folds, len(order), n_folds)):
            # Equal sizes come before equal strata; the jitter is below 1 in total and only breaks ties.
            cost = filled[:, codes[block]].T + len(age) * n_folds * size
            chosen = linear_sum_assignment(cost + rng.random(cost.shape) / (2 * n_folds))[1]
            folds[block] = chosen
            size[chosen] += 1
            filled[chosen, codes[block]] += 1
    return folds


def folds_from_column(adata: AnnData, fold_key: str, subject: pd.Series, argument: str = "fold_key") -> pd.Series:
    """Fold of every subject from a column of cells, as text, indexed by subject; the commonest, if there are several.

    Data sets share some donors, as a warning says; where most subjects have several, the column holds no folds.
    """
    named = _checks.labels(adata, fold_key, argument)
    several = _units.PerUnit(named, subject).several
    if len(several) > MOST_SHARED * subject.nunique():
        advice = f"Give all its cells one fold, or leave {argument} out."
        folds = _units.label_of_subject(adata, fold_key, argument, subject, advice)
    else:
        counts = named.groupby([subject.to_numpy(), named.to_numpy()]).size().sort_index()
        folds = counts.sort_values(ascending=False, kind="stable").reset_index(level=1)["level_1"]
        folds = folds[~folds.index.duplicated()].sort_index()
    if len(several):
        own = named[(subject == several[0]).to_numpy()].unique()
        warnings.warn(
            f"{len(several)} of {len(folds)} subjects have cells in several folds of adata.obs[{fold_key!r}] (e.g. "
            f"{several[0]!r} in {_checks.listed(own, 3)}). Each is held out as a whole in the fold of most of its "
            f"cells ({folds[several[0]]!r}), and its other cells do not train while their own fold is held out.",
            UserWarning,
            stacklevel=_checks.stack_depth(),
        )
    if folds.nunique() < MIN_FOLDS:
        raise ValueError(
            f"adata.obs[{fold_key!r}] has one fold, {folds.iloc[0]!r}; cross-validation needs two or more."
        )
    _checks.warn_of_twins(_checks.labels(adata, fold_key, argument).unique(), fold_key, "folds")
    return folds
