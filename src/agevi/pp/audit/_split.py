"""What a random split of cells would claim, beside what holds for new subjects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

N_SHUFFLES = 10
_N_FOLDS = 5
_PENALTIES = 10.0 ** np.arange(-4, 3)  # in units of the mean variance of a feature times the number of cells


@dataclass(frozen=True)
class RandomSplit:
    """Errors of one linear model over samples, in the unit of age."""

    mae_cells: float  # folds of random cells
    mae_subjects: float  # folds of whole subjects
    mae_median: float  # the median age of the other subjects
    shuffled_cells: float  # folds of random cells, ages shuffled between subjects, mean over shuffles
    shuffled_subjects: float  # folds of whole subjects, ages shuffled
    recognises: bool  # whether random cells did better than whole subjects in every shuffle


def compare_splits(
    z: np.ndarray, sample: np.ndarray, age: np.ndarray, subject: np.ndarray, fold: np.ndarray, rng: np.random.Generator
) -> RandomSplit:
    """Errors of a ridge regression on combinations ``z`` of genes, by cell, in folds of subjects and of cells."""
    # Model, features and choice of penalty are the same; only the split differs. With ages shuffled between subjects
    # nothing about age is left to learn, so what the random split still gains is recognition of subjects.
    z, sample = z[sample >= 0], sample[sample >= 0]
    mean = np.bincount(subject, weights=age) / np.bincount(subject)
    own = age - mean[subject]
    shuffled = [rng.permutation(mean)[subject] + own for _ in range(N_SHUFFLES)]
    ages = np.column_stack([age, *shuffled])  # n_samples x k
    of_cells = _errors(z, sample, ages, rng.permutation(np.arange(len(z)) % _N_FOLDS))
    of_subjects = _errors(z, sample, ages, fold[sample])
    baseline = np.concatenate([age[fold == k] - np.median(age[fold != k]) for k in np.unique(fold)])
    return RandomSplit(
        mae_cells=float(of_cells[0]),
        mae_subjects=float(of_subjects[0]),
        mae_median=float(np.abs(baseline).mean()),
        shuffled_cells=float(of_cells[1:].mean()),
        shuffled_subjects=float(of_subjects[1:].mean()),
        recognises=bool((of_cells[1:] < of_subjects[1:]).all()),
    )


def _errors(z: np.ndarray, sample: np.ndarray, ages: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Mean absolute error over samples of the mean prediction of their cells, best penalty, (k,)."""
    n = len(ages)
    size = np.bincount(sample, minlength=n)
    sums = np.zeros((len(_PENALTIES), *ages.shape))
    for test, slopes, intercept in _fits(z, ages[sample], fold):
        # The sum of a sample's predictions is the prediction from the sum of its cells.
        indicator = sp.csr_matrix((np.ones(len(test)), (sample[test], np.arange(len(test)))), shape=(n, len(test)))
        total = indicator @ z[test]  # n_samples x d, float64
        sums += np.einsum("sd,pdk->psk", total, slopes)
        sums += np.bincount(sample[test], minlength=n)[:, None] * intercept[:, None, :]
    error = np.abs(sums / np.maximum(size, 1)[:, None] - ages)[:, size > 0].mean(axis=1)
    return error.min(axis=0)


def _fits(z: np.ndarray, y: np.ndarray, fold: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Cells of every fold, and the fits to all others: slopes (n_penalties, d, k) and intercepts (n_penalties, k)."""
    for k in np.unique(fold):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        f = z[train]
        centre, level = f.mean(axis=0, dtype=np.float64), y[train].mean(axis=0)
        gram = (f.T @ f).astype(np.float64) - len(f) * np.outer(centre, centre)
        cross = f.T @ (y[train] - level).astype(np.float32)
        values, vectors = np.linalg.eigh(gram)
        penalty = _PENALTIES * max(values.mean(), 1e-12)
        shrunk = 1 / (np.maximum(values, 0) + penalty[:, None])  # n_penalties x d
        slopes = np.einsum("de,pe,ek->pdk", vectors, shrunk, vectors.T @ cross.astype(np.float64))
        yield test, slopes, level - np.einsum("d,pdk->pk", centre, slopes)
