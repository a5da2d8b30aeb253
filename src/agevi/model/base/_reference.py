"""What the cohorts look like that trained a clock: the reference by which another cohort is judged."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import scipy.linalg
import torch

from agevi.io._numbers import check_training_cohorts

PREFIX = "training_cohorts."
"""Of the names of its tensors in a bundle."""
_N_COMPONENTS = 30
_QUANTILE = 0.95
_N_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Reference:
    """Training cohorts of one clock, by the values that it reads of samples."""

    by: str
    names: list[str]
    n_subjects: list[int]  # of each cohort
    mean_age: list[float]
    left_out: list[float]  # mean error of each cohort where it was held out, empty where that is not known
    age_mean: float  # over all subjects
    age_sd: float
    limit: float  # quantile of the distances of training samples
    means: np.ndarray  # (n_cohorts, n_genes)
    factor: np.ndarray  # (n_genes,), 1 / sd within cohorts, 0 for genes that do not vary
    components: np.ndarray  # (n_components, n_genes), of the standardised values within cohorts
    importance: np.ndarray  # (n_genes,), share of each gene in how much ages change with genes, summing to 1

    @classmethod
    def fit(
        cls, values: np.ndarray, cohort: np.ndarray, subject: np.ndarray, slopes: np.ndarray, **about: Any
    ) -> Reference:
        """From the values of samples, (n, n_genes), their codes of cohort and subject, and the mean slope of genes."""
        n, k = len(values), int(cohort.max()) + 1
        size: np.ndarray = np.bincount(cohort, minlength=k).astype(np.float64)
        means = np.stack([values[cohort == c].mean(axis=0, dtype=np.float64) for c in range(k)])
        within = values - means[cohort]
        sd = np.sqrt((within**2).sum(axis=0) / max(n - k, 1))
        varies = sd > 1e-6 * np.maximum(1, np.abs(means).max(axis=0))
        factor = np.divide(1, sd, out=np.zeros_like(sd), where=varies)
        within *= factor
        gram, n_components = within @ within.T, min(_N_COMPONENTS, values.shape[1] // 3)
        # A sample is nearer to the mean of its cohort, which it is part of, than a new one would be.
        nearer = ((size + 1) / np.maximum(size - 1, 1))[cohort]
        distance = (_distances_held_out(gram, subject, n_components, n - k) * nearer)[size[cohort] > 1]
        strength = np.abs(slopes) * np.where(varies, sd, 0)
        return cls(
            limit=float(np.quantile(distance, _QUANTILE)) if len(distance) else 0.0,
            means=means.astype(np.float32),
            factor=factor.astype(np.float32),
            components=_components(gram, within, min(n_components, (n - k) // 3)).astype(np.float16),
            importance=(strength / max(strength.sum(), 1e-300)).astype(np.float32),
            **about,
        )

    def outside(self, values: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Whether samples, (n, n_genes), lie outside of how training samples vary around their nearest cohort.

        Genes that are not ``present``, (n_genes,), do not count.
        """
        components, factor = self.components.astype(np.float32), self.factor * present
        distance = np.full(len(values), np.inf)
        for mean in self.means:
            z = (values - mean) * factor
            distance = np.minimum(distance, (z**2).sum(axis=1) - ((z @ components.T) ** 2).sum(axis=1))
        n_all, n_there = float((self.factor != 0).sum()), float((factor != 0).sum())
        return distance * n_all > self.limit * n_there

    # --- in a bundle -----------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its arrays, by name in a bundle."""
        return {PREFIX + name: torch.from_numpy(getattr(self, name)) for name in ARRAYS}

    def meta(self) -> dict[str, Any]:
        """The rest of it, as plain values."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ARRAYS}

    @classmethod
    def of_bundle(cls, meta: Any, tensors: dict[str, torch.Tensor], n_genes: int) -> Reference:
        """What a bundle holds, after every value was checked."""
        values = check_training_cohorts(meta)
        if set(tensors) != {PREFIX + name for name in ARRAYS}:
            raise ValueError("training_cohorts does not have the tensors of a reference of cohorts")
        arrays, k = {name: tensors[PREFIX + name] for name in ARRAYS}, len(values["names"])
        shapes = {"means": (k, n_genes), "factor": (n_genes,), "importance": (n_genes,)}
        shapes["components"] = (min(len(arrays["components"]), _N_COMPONENTS), n_genes)
        whole = all(tuple(arrays[name].shape) == shape for name, shape in shapes.items())
        if not whole or any(arrays[name].dtype != kind for name, kind in ARRAYS.items()):
            raise ValueError("training_cohorts has tensors of the wrong kind or size")
        values |= {name: tensor.numpy() for name, tensor in arrays.items()}
        return cls(**values)


ARRAYS = {
    "means": torch.float32,
    "factor": torch.float32,
    "components": torch.float16,
    "importance": torch.float32,
}


def _leading(gram: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``n`` largest eigenvalues of products of rows, and their vectors; those that are 0 left out."""
    if n <= 0:
        return np.zeros(0), np.zeros((len(gram), 0))
    values, vectors = scipy.linalg.eigh(gram, subset_by_index=(len(gram) - n, len(gram) - 1))
    kept = values > 1e-9 * max(float(values[-1]), 1e-300)
    return values[kept], vectors[:, kept]


def _components(gram: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Orthonormal directions in which rows vary most, (n_components, n_genes)."""
    values, vectors = _leading(gram, n)
    return (vectors / np.sqrt(values)).T @ rows


def _distances_held_out(gram: np.ndarray, subject: np.ndarray, n_components: int, freedom: int) -> np.ndarray:
    """Squared length of every row outside of the components of other subjects, (n,), from products of rows."""
    out = np.diag(gram).copy()
    fold = np.random.default_rng(0).permutation(int(subject.max()) + 1)[subject] % _N_FOLDS
    for f in range(_N_FOLDS):
        test, train = np.flatnonzero(fold == f), np.flatnonzero(fold != f)
        if len(test) and len(train):
            n = min(n_components, int(freedom * len(train) / len(gram)) // 3)
            values, vectors = _leading(gram[np.ix_(train, train)], n)
            out[test] -= (((gram[np.ix_(test, train)] @ vectors) ** 2) / values).sum(axis=1)
    return out
