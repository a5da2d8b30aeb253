"""Age from the shares that the types of cells have in a sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold

NAME = "composition"
"""What the shares of types are called beside the names of types."""
_ALPHAS = np.logspace(-2, 4, 13)
_HALF_A_CELL = 0.5  # added to every count, so that a type without cells has a logarithm
_N_FOLDS = 5


@dataclass(frozen=True)
class Composition:
    """Ridge regression of age on the centred log-ratios of the types' shares (Aitchison 1982)."""

    mean: np.ndarray  # (n_types,) of the log-ratios
    sd: np.ndarray  # (n_types,)
    coefficients: np.ndarray  # (n_types,) years per standard deviation
    intercept: float

    def ages(self, counts: np.ndarray) -> np.ndarray:
        """Age of every sample, (n_samples,), from its cells of each type, (n_samples, n_types)."""
        return self.parts(counts).sum(axis=1) + self.intercept

    def parts(self, counts: np.ndarray) -> np.ndarray:
        """What the share of each type adds to the mean age, (n_samples, n_types)."""
        parts: np.ndarray = (log_ratios(counts) - self.mean) / self.sd * self.coefficients
        return parts

    def table(self) -> np.ndarray:
        """All numbers, (n_types, 4), for a bundle."""
        level = np.full(len(self.mean), self.intercept)
        return np.stack([self.mean, self.sd, self.coefficients, level], axis=1).astype(np.float64)

    @classmethod
    def of_table(cls, values: np.ndarray) -> Composition | None:
        """The same from :meth:`table`."""
        return None if not len(values) else cls(values[:, 0], values[:, 1], values[:, 2], float(values[0, 3]))


def log_ratios(counts: np.ndarray) -> np.ndarray:
    """Centred logarithms of the shares of types, (n_samples, n_types), with half a cell added to each count."""
    logs = np.log(counts + _HALF_A_CELL)
    centred: np.ndarray = logs - logs.mean(axis=1, keepdims=True)
    return centred


def fit_composition(counts: np.ndarray, age: np.ndarray, subject: np.ndarray) -> Composition:
    """Fit to samples of known age; the penalty is chosen over folds of whole subjects."""
    x = log_ratios(counts)
    mean, sd = x.mean(axis=0), x.std(axis=0)
    sd[sd < 1e-12] = 1.0
    n_subjects = len(np.unique(subject))
    folds = list(GroupKFold(min(_N_FOLDS, n_subjects)).split(x, age, subject))
    ridge = RidgeCV(_ALPHAS, cv=folds, scoring="neg_mean_squared_error").fit((x - mean) / sd, age)
    return Composition(mean, sd, np.asarray(ridge.coef_, dtype=np.float64), float(ridge.intercept_))
