"""Posterior of the age of each sample from draws of the parameters: priors on a grid of ages, densities, summaries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from agevi import _checks
from agevi.tl.intervals._posterior_model import Data, Draws, log_density_on_grid

PRIORS = ("cohort", "flat")
GIVEN = "given"
N_GRID = 400
"""Ages of the grid: steps of .3 to .4 years over a human cohort."""
_FLAT_MARGIN = 0.25
"""Span of the labelled ages that the flat prior adds at each end; with a whole span, 150 years weigh like any age."""
_VALUES = 1 << 22  # of draws x samples x ages at once
Prior = str | ArrayLike | Callable[[np.ndarray], ArrayLike]


@dataclass(frozen=True)
class AgePrior:
    """A density of age on a grid, and the labelled samples behind it."""

    name: str
    grid: np.ndarray  # (n_grid,), rising in even steps
    log_density: np.ndarray  # (n_grid,), -inf outside the support
    kernels: np.ndarray | None = None  # (n_labelled, n_grid): log kernel of each labelled sample
    subject: np.ndarray | None = None  # (n_labelled,)

    def for_subjects(self, subject: np.ndarray) -> np.ndarray:
        """Log density of samples without what their own subject adds to it, (n, n_grid)."""
        out = np.broadcast_to(self.log_density, (len(subject), len(self.grid)))
        if self.kernels is None or self.subject is None:
            return out
        out = out.copy()
        for name in set(subject) & set(self.subject):
            others = self.subject != name
            if not others.any():
                continue
            out[subject == name] = logsumexp(self.kernels[others], axis=0) - np.log(others.sum())
        return out


def check_prior(prior: Any) -> None:
    """Refuse what is neither the name of a prior, nor a table of ages and densities, nor a function."""
    if isinstance(prior, str):
        _checks.choice(prior, PRIORS, "prior")
    elif not callable(prior):
        _table(prior)


def make_prior(prior: Prior, age: np.ndarray, subject: np.ndarray, lowest: float) -> AgePrior:
    """The density of age before a prediction is seen, from labelled ages and their subjects, (n_labelled,)."""
    # to the highest labelled age plus the span of labelled ages
    grid = np.linspace(lowest, max(2 * age.max() - age.min(), lowest + 1e-6), N_GRID)
    if isinstance(prior, str):
        if prior == "flat":
            margin = _FLAT_MARGIN * (age.max() - age.min())
            inside = (grid >= age.min() - margin) & (grid <= age.max() + margin)
            return AgePrior("flat", grid, np.where(inside, 0.0, -np.inf))
        # Silverman (1986, eq. 3.28)
        width = 1.06 * age.std(ddof=1) * len(age) ** -0.2
        kernels = -0.5 * ((grid - age[:, None]) / width) ** 2
        return AgePrior("cohort", grid, logsumexp(kernels, axis=0) - np.log(len(age)), kernels, subject)
    if callable(prior):
        density = _densities(np.asarray(prior(grid), dtype=np.float64), "prior(ages)", grid.shape)
    else:
        ages, densities = _table(prior).T
        grid = np.linspace(ages[0], ages[-1], N_GRID)
        density = np.interp(grid, ages, densities)
    with np.errstate(divide="ignore"):
        return AgePrior(GIVEN, grid, np.log(density))


def _table(prior: Any) -> np.ndarray:
    """Rows of age and density, (n, 2), with rising ages."""
    try:
        table = np.asarray(prior, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"prior is a {type(prior).__name__}; pass 'cohort', 'flat', an array (n, 2) of ages and densities, or a "
            "function of ages."
        ) from None
    if table.ndim != 2 or table.shape[1] != 2 or len(table) < 2:
        raise ValueError(
            f"prior has shape {table.shape}; pass one row for each age with the age and its density, shape (n, 2), n "
            ">= 2."
        )
    if not (np.isfinite(table[:, 0]).all() and (np.diff(table[:, 0]) > 0).all()):
        raise ValueError("the ages in prior[:, 0] do not rise, or are missing; sort the rows by age and drop repeats.")
    _densities(table[:, 1], "prior[:, 1]", (len(table),))
    return table


def _densities(values: np.ndarray, where: str, shape: tuple[int, ...]) -> np.ndarray:
    """Finite numbers from 0, not all of them 0, one for each age."""
    if values.shape != shape:
        raise ValueError(f"{where} has shape {values.shape} for {shape[0]} ages; return one density for each age.")
    if not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise ValueError(f"{where} is not a density: {_fault(values)}; pass finite numbers from 0, some of them above.")
    return values


def _fault(values: np.ndarray) -> str:
    """Why these are not densities."""
    if not np.isfinite(values).all():
        return f"{(~np.isfinite(values)).sum()} values are missing or infinite"
    return f"the lowest value is {values.min():g}" if (values < 0).any() else "all values are 0"


def age_densities(data: Data, draws: Draws, grid: np.ndarray, log_prior: np.ndarray) -> np.ndarray:
    """Posterior of each sample's age at the standardised ages of the grid, summing to 1, (n, n_grid)."""
    points, parts = torch.from_numpy(grid.copy()), []
    step = max(1, _VALUES // (len(draws.df) * len(grid)))
    for start in range(0, len(data.known), step):
        rows = slice(start, start + step)
        log_post = log_density_on_grid(data[rows], points, draws) + torch.from_numpy(log_prior[rows].copy())
        parts.append(torch.softmax(log_post, -1))
    return torch.cat(parts).numpy()


def summarise(density: np.ndarray, grid: np.ndarray, level: float) -> dict[str, np.ndarray]:
    """Mean, standard deviation and central interval, (n,) each, of densities (n, n_grid) on an even grid of ages."""
    mean = density @ grid
    variance = (density * (grid - mean[:, None]) ** 2).sum(-1)
    between = (density[:, 1:] + density[:, :-1]) / 2  # the trapezoids
    below = np.concatenate([np.zeros((len(density), 1)), np.cumsum(between, axis=1)], axis=1)
    below /= below[:, -1:]
    lower, upper = (_quantile(below, grid, q) for q in ((1 - level) / 2, (1 + level) / 2))
    return {"mean": mean, "sd": np.sqrt(variance), "lower": lower, "upper": upper}


def _quantile(below: np.ndarray, grid: np.ndarray, q: float) -> np.ndarray:
    """Ages below which the share ``q`` of each distribution is, (n,)."""
    right = np.clip((below < q).sum(1), 1, len(grid) - 1)
    rows = np.arange(len(below))
    low, high = below[rows, right - 1], below[rows, right]
    part = np.divide(q - low, high - low, out=np.zeros(len(below)), where=high > low)
    return grid[right - 1] + part * (grid[right] - grid[right - 1])
