"""What a clock must beat: the median age, and ridge regression on the summed counts of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from agevi.dataloaders._summed import RowSums
from agevi.dataloaders._sums import UnitSums
from agevi.tl.validate._cohort import Cohort

ALPHAS = np.logspace(0, 6, 13)
"""Ridge penalties, of which leave-one-out among the training samples chooses one."""


@dataclass(frozen=True)
class Units:
    """What is predicted and judged: the cells of a sample that one fold holds out, which are all of them."""

    sample: np.ndarray  # (n_units,) code
    fold: np.ndarray  # (n_units,) code
    trains: np.ndarray  # (n_units,) whether any cell may train
    cell: np.ndarray  # (n_cells,) unit of every cell
    named: np.ndarray  # (n_units, n_folds) whether any of its cells names the fold

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean of the cells' values in every unit, (n_units,), NaN where one is missing."""
        n_cells = np.bincount(self.cell, minlength=len(self.sample))
        return np.bincount(self.cell, weights=values.astype(np.float64), minlength=len(self.sample)) / n_cells


def make_units(cohort: Cohort) -> Units:
    """Units of a cohort in the order of samples."""
    pair = cohort.sample * len(cohort.folds) + cohort.fold
    unique, cell = np.unique(pair, return_inverse=True)
    own = cohort.fold if cohort.named is None else cohort.named
    named = np.zeros((len(unique), len(cohort.folds) + 1), dtype=bool)  # the last column is of no fold
    named[cell, own] = True
    return Units(
        sample=unique // len(cohort.folds),
        fold=unique % len(cohort.folds),
        trains=np.bincount(cell, weights=cohort.trains, minlength=len(unique)) > 0,
        cell=cell,
        named=named[:, :-1],
    )


def profiles(x: Any, units: Units, *, cells: np.ndarray, normalize: str, of_rows: RowSums | None = None) -> np.ndarray:
    """log(1 + counts per 10,000) of the summed counts (else means) of ``cells`` of every unit, (n_units, n_genes)."""
    return UnitSums(x, np.where(cells, units.cell, -1), len(units.sample), normalize, rows=of_rows).values()


def median_ages(units: Units, targets: np.ndarray) -> np.ndarray:
    """Median age of the training samples for every unit, (n_targets, n_units)."""
    out = np.full((len(targets), len(units.sample)), np.nan)
    for fold in np.unique(units.fold):
        train, test = _train_and_test(units, targets, fold)
        out[:, test] = np.median(targets[:, np.unique(units.sample[train])], axis=1)[:, None]
    return out


def ridge_ages(train_profiles: np.ndarray, test_profiles: np.ndarray, units: Units, targets: np.ndarray) -> np.ndarray:
    """Age of every unit by ridge regression that was fitted to the units of the other folds, (n_targets, n_units)."""
    out = np.full((len(targets), len(units.sample)), np.nan)
    for fold in np.unique(units.fold):
        train, test = _train_and_test(units, targets, fold)
        scaler = StandardScaler().fit(train_profiles[train])
        ridge = RidgeCV(ALPHAS, alpha_per_target=True)
        ridge.fit(scaler.transform(train_profiles[train]), targets[:, units.sample[train]].T)
        predicted = ridge.predict(scaler.transform(test_profiles[test]))
        out[:, test] = predicted.reshape(len(test), len(targets)).T
    return out


def _train_and_test(units: Units, targets: np.ndarray, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the labelled units that train when a fold is held out, and of its own."""
    known = np.isfinite(targets[0])[units.sample]
    train = (units.fold != fold) & ~units.named[:, fold] & units.trains & known
    return np.flatnonzero(train), np.flatnonzero(units.fold == fold)


def shuffled_ages(cohort: Cohort, rng: np.random.Generator) -> np.ndarray:
    """Ages of samples, (n_samples,), after labelled subjects swapped mean ages; visits keep their distance."""
    mean = cohort.subject_ages(np.arange(len(cohort.sample)))
    known = mean.dropna()
    moved = mean.copy()
    moved[known.index] = rng.permutation(known.to_numpy())
    owner = cohort.owner
    shifted = cohort.age + (moved - mean).reindex(np.arange(len(cohort.subjects))).to_numpy()[owner]
    return np.clip(shifted, np.nanmin(cohort.age), np.nanmax(cohort.age))
