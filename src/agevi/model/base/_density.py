"""Weights of subjects by how common their age is."""

from __future__ import annotations

import numpy as np

BOUNDS = (0.2, 5.0)
"""Smallest and largest weight, relative to the mean: no age counts for nothing, and no single subject for all."""


def density_weights(age: np.ndarray, trains: np.ndarray) -> np.ndarray:
    """Weight of every subject, (n_subjects,), inverse to the density of training ages, mean 1 over training."""
    known = age[trains]
    # Gaussian kernel with Scott's bandwidth (1992); two training subjects at least differ in age.
    bandwidth = known.std(ddof=1) * len(known) ** -0.2
    values, counts = np.unique(known, return_counts=True)
    density = np.exp(-0.5 * np.square((age[:, None] - values) / bandwidth)) @ counts
    weight = 1 / np.maximum(density, np.finfo(np.float64).tiny)
    weight = np.clip(weight / weight[trains].mean(), *BOUNDS)
    return np.nan_to_num(weight / weight[trains].mean(), nan=1.0)
