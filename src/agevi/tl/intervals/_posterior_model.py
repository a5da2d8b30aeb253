"""The model of a sample's predictions given its age, with random effects integrated out, in closed form and in Pyro."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# On the standardised scale of ages the prediction of sample s by the clock of type t is, with u, v, e ~ N(0, 1), a_t +
# b_t z_s + sigma_t (sqrt(f_u) u_s + sqrt(f_v) v_st + sqrt(f_e / n_st) e_st): multivariate normal (Student with tails)
# around a + b z with one factor beside a diagonal.
START = {"intercept": 0.0, "slope": 0.7, "scale": 0.5, "shares": 1 / 3, "df": 10.0}
"""Where the search for the mode starts; ``df`` is what the degrees of freedom exceed 2 by."""


@dataclass(frozen=True)
class Data:
    """Predictions of n samples by the clocks of T types."""

    predicted: torch.Tensor  # n x T, float64, on the standardised scale; 0 where missing
    known: torch.Tensor  # n x T, float64: 1 where there is a prediction
    cells: torch.Tensor  # n x T, float64: cells relative to the median of the type; 1 where missing

    @classmethod
    def of(cls, predicted: np.ndarray, cells: np.ndarray) -> Data:
        """From arrays (n, T) with NaN where a type is missing."""
        known = ~np.isnan(predicted)
        arrays = np.where(known, predicted, 0.0), known.astype(np.float64), np.where(known, cells, 1.0)
        return cls(*(torch.from_numpy(np.array(a, dtype=np.float64, order="C")) for a in arrays))

    def __getitem__(self, rows: Any) -> Data:
        """Some samples, by a slice, positions or a mask."""
        if isinstance(rows, np.ndarray):
            rows = torch.from_numpy(rows.copy())  # those of pandas may be read-only
        return Data(self.predicted[rows], self.known[rows], self.cells[rows])

    def of_type(self, t: int) -> Data:
        """One type alone."""
        return Data(self.predicted[:, [t]], self.known[:, [t]], self.cells[:, [t]])


@dataclass(frozen=True)
class Draws:
    """D draws of the shared parameters."""

    intercept: torch.Tensor  # D x T
    slope: torch.Tensor  # D x T
    scale: torch.Tensor  # D x T: total standard deviation at the median number of cells
    shares: torch.Tensor  # D x 3: of the variance that is the sample's, the type's in the sample, and that of few cells
    df: torch.Tensor  # D: degrees of freedom

    def of_type(self, t: int) -> Draws:
        """Parameters of one type."""
        return Draws(self.intercept[:, [t]], self.slope[:, [t]], self.scale[:, [t]], self.shares, self.df)


@dataclass(frozen=True)
class _Precision:
    """Inverse covariance ``W - (W l)(W l)' / q`` of each sample, by Woodbury; missing types have weight 0."""

    weight: torch.Tensor  # ... x n x T, the diagonal W
    loading: torch.Tensor  # ... x n x T, l
    q: torch.Tensor  # ... x n, 1 + l' W l
    log_det: torch.Tensor  # ... x n, of the covariance

    def product(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Product x' P y of every sample, (..., n)."""
        wx, wy = self.weight * x, self.weight * y
        return (wx * y).sum(-1) - (wx * self.loading).sum(-1) * (wy * self.loading).sum(-1) / self.q


def _precision(data: Data, scale: torch.Tensor, shares: torch.Tensor) -> _Precision:
    """For scales (..., T) and shares (..., 3)."""
    s, f = scale.unsqueeze(-2), shares[..., None, None, :]  # ... x 1 x T and ... x 1 x 1 x 3
    diagonal = s**2 * (f[..., 1] + f[..., 2] / data.cells)  # ... x n x T
    loading = s * f[..., 0].sqrt()
    weight = data.known / diagonal
    q = 1 + (weight * loading**2).sum(-1)
    return _Precision(weight, loading, q, (torch.log(diagonal) * data.known).sum(-1) + torch.log(q))


def _student(squares: torch.Tensor, df: torch.Tensor, k: torch.Tensor, log_det: torch.Tensor) -> torch.Tensor:
    """Log density of the multivariate Student distribution of k dimensions at a squared distance."""
    norm = torch.lgamma((df + k) / 2) - torch.lgamma(df / 2) - k / 2 * torch.log(df * math.pi) - log_det / 2
    return norm - (df + k) / 2 * torch.log1p(squares / df)


def log_density(data: Data, age: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Log density of the predictions of every sample given its standardised age (n,): (..., n) with draws in front."""
    precision = _precision(data, draws.scale, draws.shares)
    mean = draws.intercept.unsqueeze(-2) + draws.slope.unsqueeze(-2) * age[:, None]
    residual = (data.predicted - mean) * data.known
    squares = precision.product(residual, residual)
    return _student(squares, draws.df.unsqueeze(-1), data.known.sum(-1), precision.log_det)


def log_density_on_grid(data: Data, grid: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Log of the mean over draws of the density of every sample's predictions at each standardised age, (n, G)."""
    # The squared distance is a parabola in age, so that types are summed once and not at every point.
    precision = _precision(data, draws.scale, draws.shares)
    slope = draws.slope.unsqueeze(-2)  # D x 1 x T
    residual = (data.predicted - draws.intercept.unsqueeze(-2)) * data.known  # D x n x T
    curvature = precision.product(slope, slope).clamp_min(1e-12)  # D x n
    best = precision.product(slope, residual) / curvature  # the age that fits best
    least = (precision.product(residual, residual) - curvature * best**2).clamp_min(0)
    df, k = draws.df[:, None], data.known.sum(-1)
    # log(1 + (least + curvature (z - best)^2) / df), in place since D x n x G is the largest array there is
    squares = (grid - best[..., None]).square_().mul_((curvature / df)[..., None]).add_((least / df)[..., None])
    density = squares.log1p_().mul_(-((df + k) / 2)[..., None])
    density += _student(torch.zeros_like(least), df, k, precision.log_det)[..., None]
    return torch.logsumexp(density, 0) - math.log(len(density))


def pyro_model(data: Data, age: torch.Tensor) -> None:
    """The same in Pyro with the priors of the parameters, for labelled samples with standardised ages (n,)."""
    # Total and shares are the parameters, since a variance in three parts is not identified.
    import pyro
    import pyro.distributions as dist

    n_types = data.predicted.shape[1]
    zero, one = age.new_zeros(n_types), age.new_ones(n_types)
    intercept = pyro.sample("intercept", dist.Normal(zero, one).to_event(1))
    slope = pyro.sample("slope", dist.Normal(0.7 * one, 0.5 * one).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(one).to_event(1))
    shares = pyro.sample("shares", dist.Dirichlet(age.new_ones(3)))
    beyond_two = pyro.sample("df", dist.Gamma(age.new_tensor(2.0), age.new_tensor(0.1)))  # Juarez & Steel 2010
    draws = Draws(intercept, slope, scale, shares, beyond_two + 2)
    pyro.factor("predicted", log_density(data, age, draws).sum())
