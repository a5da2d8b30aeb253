"""What a linear clock is fitted to: rows of normalised values, read in blocks, and the samples that they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from agevi.dataloaders._stats import log1p_cp10k
from agevi.model.base._density import density_weights

_BLOCK = 1024  # rows that are dense at a time
_SPARSE = 8192  # rows that are read at a time where they stay sparse


@dataclass(frozen=True)
class SampleTargets:
    """The labelled samples that a clock is fitted to."""

    target: np.ndarray  # (n_samples,) age on the standardised scale
    weight: np.ndarray  # (n_samples,) of all the sample's rows together
    fold: np.ndarray  # (n_samples,) of its subject

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1


def sample_weights(
    subject: np.ndarray, size: np.ndarray, n_cells: np.ndarray, subject_weight: str, *, subject_age: np.ndarray
) -> np.ndarray:
    """Weight of every sample, (n_samples,), mean 1; ``size`` is what it counts within its subject."""
    if subject_weight == "cells":
        weight = np.asarray(n_cells, dtype=np.float64)
    else:
        weight = size / np.bincount(subject, weights=size)[subject]
    if subject_weight == "density":
        weight = weight * density_weights(subject_age, np.ones(len(subject_age), dtype=bool))[subject]
    return weight / weight.mean()


@dataclass(frozen=True)
class SomeColumns:
    """Some columns of a matrix on disk, of which blocks of rows are read."""

    x: Any
    columns: np.ndarray  # positions

    def __getitem__(self, rows: Any) -> Any:
        return self.x[rows][:, self.columns]


class ScaledRows:
    """Rows ``index`` of ``x`` on the scale of a linear clock; only one block of them is ever dense."""

    def __init__(
        self, x: Any, index: np.ndarray, unit: np.ndarray, *, normalize: str, mean: np.ndarray, sd: np.ndarray
    ) -> None:
        self.x, self.index, self.unit, self.normalize = x, index, unit, normalize
        self.mean, self.sd = np.asarray(mean, dtype=np.float64), np.asarray(sd, dtype=np.float64)

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.mean)

    def normalized(self, part: np.ndarray) -> sp.csr_matrix:
        """Normalised values of the rows at ``part``, sparse."""
        block = sp.csr_matrix(self.x[self.index[part]])
        return log1p_cp10k(block) if self.normalize == "log1p_cp10k" else block.astype(np.float64)

    def standardized(self, part: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
        """Standardised values of the rows at ``part``, dense."""
        out = self.normalized(part).astype(dtype).toarray()
        out -= self.mean.astype(dtype)
        out /= self.sd.astype(dtype)
        return out

    def parts(self, chosen: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Positions of ``chosen`` rows in blocks, rows of one sample side by side."""
        chosen = np.arange(len(self.index)) if chosen is None else chosen
        chosen = chosen[np.argsort(self.unit[chosen], kind="stable")]
        for start in range(0, len(chosen), _BLOCK):
            yield chosen[start : start + _BLOCK]

    def unit_means(self, n_units: int) -> np.ndarray:
        """Mean of the standardised rows of every sample, (n_units, n_genes)."""
        out = np.zeros((n_units, self.n_genes))
        for part in self.parts():
            units, inverse = np.unique(self.unit[part], return_inverse=True)
            indicator = sp.csr_matrix((np.ones(len(part)), (inverse, np.arange(len(part)))))
            out[units] += (indicator @ self.normalized(part)).toarray()
        out /= np.bincount(self.unit, minlength=n_units)[:, None]
        out -= self.mean
        out /= self.sd
        return out

    def project(self, coefficients: np.ndarray) -> np.ndarray:
        """Standardised rows times ``coefficients``, (n_rows,), without making them dense."""
        slope, out = coefficients / self.sd, np.empty(len(self.index))
        for start in range(0, len(out), _SPARSE):  # in the order of x, which may be on disk
            part = np.arange(start, min(start + _SPARSE, len(out)))
            out[part] = self.normalized(part) @ slope
        return out - float(self.mean @ slope)
