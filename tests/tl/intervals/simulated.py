"""Predictions of samples by type, drawn from the model of a posterior."""

from __future__ import annotations

import numpy as np
import torch

from agevi.tl.intervals._posterior_model import Data, Draws

SHARES = (0.3, 0.4, 0.3)
GRID = np.linspace(-5, 5, 201)


def predictions(n, n_types, rng, *, missing=0.2, cells=(5, 300), df=None, shares=SHARES):
    """Predictions (n, T) with NaN where a type is missing, cells relative to 40, and standardised ages."""
    slope, scale = np.linspace(0.8, 0.4, n_types), np.linspace(0.4, 0.8, n_types)
    age = rng.standard_normal(n)
    relative = np.exp(rng.uniform(*np.log(cells), (n, n_types))) / 40
    tail = np.sqrt(df / rng.chisquare(df, (n, 1))) if df else 1.0
    parts = [rng.standard_normal((n, 1)), rng.standard_normal((n, n_types)), rng.standard_normal((n, n_types))]
    of_cells = np.sqrt(shares[2] / relative)
    noise = np.sqrt(shares[0]) * parts[0] + np.sqrt(shares[1]) * parts[1] + of_cells * parts[2]
    there = rng.random((n, n_types)) > missing
    there[np.arange(n), rng.integers(0, n_types, n)] = True
    values = slope * age[:, None] + tail * scale * noise
    return np.where(there, values, np.nan), relative, age


def data(n, n_types, rng, **arguments):
    """The same as the model takes it, with the ages."""
    values, relative, age = predictions(n, n_types, rng, **arguments)
    return Data.of(values, relative), age


def truth(n_types, *, shares=SHARES, df=1e9):
    """One draw: the parameters that the predictions were made with."""
    slope, scale = np.linspace(0.8, 0.4, n_types), np.linspace(0.4, 0.8, n_types)
    arrays = [np.zeros((1, n_types)), slope[None], scale[None], np.asarray(shares)[None], np.array([df])]
    return Draws(*(torch.from_numpy(a) for a in arrays))
