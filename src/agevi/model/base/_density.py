"""Weights of subjects by how common their age is."""

from __future__ import annotations

import numpy as np

BOUNDS = (0.2, 5.0)
"""Smallest and largest weight, relative to the mean: no age counts for nothing, and no single subject for all."""


def density_weights(age: np.ndarray, trains: np.ndarray) -> np.ndarray:
    """Weight of every subject, (n_subjects,), inverse to the density of training ages at its own; mean 1 over training.

    The density is that of a Gaussian kernel with Scott's bandwidth (1992), the standard deviation of the n training
    ages times n to the power of -1/5. Weights are bounded by :data:`BOUNDS` relative to their mean before they are
    brought to a mean of 1, and are 1 where the age is NaN. Two of the subjects that train have different ages at least.
    """
    known = age[trains]
    bandwidth = known.std(ddof=1) * len(known) ** -0.2
    values, counts = np.unique(known, return_counts=True)
    density = np.exp(-0.5 * np.square((age[:, None] - values) / bandwidth)) @ counts
    weight = 1 / np.maximum(density, np.finfo(np.float64).tiny)
    weight = np.clip(weight / weight[trains].mean(), *BOUNDS)
    return np.nan_to_num(weight / weight[trains].mean(), nan=1.0)
