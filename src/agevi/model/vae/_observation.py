"""How values scatter around what a decoder expects: one part of the module, exchanged by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributions import Distribution

from agevi._compat.scvi import NegativeBinomial, Normal, Poisson, ZeroInflatedNegativeBinomial
from agevi.dataloaders._stats import GeneStats
from agevi.nn.distributions import ZeroInflatedPoisson
from agevi.nn.likelihoods import CountLikelihood, NormalLikelihood

_GAIN = 10.0
"""Parameters of genes are stored as a tenth, so that steps of the size of the learning rate reach them soon."""


class Counts(nn.Module):
    """Poisson or negative binomial counts, zero-inflated or not, with one dispersion and one dropout rate per gene."""

    def __init__(self, kind: str, n_genes: int) -> None:
        super().__init__()
        self.kind = kind
        if kind in ("nb", "zinb"):
            self.theta = nn.Parameter(torch.zeros(n_genes))
        if kind in ("zip", "zinb"):
            self.zero = nn.Parameter(torch.full((n_genes,), -2.0 / _GAIN))

    @property
    def log_theta(self) -> torch.Tensor:
        """Logarithm of the inverse dispersion, (n_genes,)."""
        return _GAIN * self.theta

    @property
    def zero_logit(self) -> torch.Tensor:
        """Logit of the probability that a count is lost, (n_genes,)."""
        return _GAIN * self.zero

    def kept(self) -> torch.Tensor | float:
        """Probability that a count is not lost, (n_genes,), or 1."""
        return (-self.zero_logit).sigmoid() if self.kind in ("zip", "zinb") else 1.0

    def log_kept(self, scale: torch.Tensor) -> torch.Tensor | float:
        """Logarithm of the share of a cell's counts that is kept, (..., 1), since the library size counts these."""
        return (scale * self.kept()).sum(-1, keepdim=True).log() if self.kind in ("zip", "zinb") else 0.0

    @torch.no_grad()
    def fit(self, stats: GeneStats) -> None:
        """Start from the moments of the training cells."""
        ratio = stats.library_square / max(stats.library, 1e-12) ** 2
        pairs = stats.mean_square - stats.mean  # E[x (x - 1)]
        excess = pairs / np.maximum(ratio * stats.mean**2, 1e-12)  # 1 for a Poisson
        lost = np.zeros_like(excess)
        if self.kind == "zip":
            lost = 1 - 1 / np.maximum(excess, 1e-6)
        elif self.kind == "zinb":
            lost = _lost_by_moments(stats.mean, excess, stats.zero_share)
        if self.kind in ("zip", "zinb"):
            lost = np.clip(lost, 0.02, 0.95)
            self.zero.copy_(torch.from_numpy(np.log(lost / (1 - lost)) / _GAIN))
        if self.kind in ("nb", "zinb"):
            self.theta.copy_(torch.from_numpy(np.log(_theta_by_moments(excess, lost)) / _GAIN))

    def distribution(self, rate: torch.Tensor, scale: torch.Tensor) -> Distribution:
        """Distribution of the counts with rate ``rate`` and share ``scale``, (..., n_genes)."""
        if self.kind == "poisson":
            return Poisson(rate=rate, scale=scale, validate_args=False)
        if self.kind == "zip":
            return ZeroInflatedPoisson(rate, self.zero_logit, scale)
        if self.kind == "nb":
            return NegativeBinomial(mu=rate, theta=self.log_theta.exp(), scale=scale)
        theta, zero = self.log_theta.exp(), self.zero_logit.expand_as(rate)
        return ZeroInflatedNegativeBinomial(mu=rate, theta=theta, zi_logits=zero, scale=scale)

    def likelihood(self, log_library: torch.Tensor, rate: str) -> CountLikelihood:
        """Likelihood of cells with library sizes of logarithm ``log_library``, (n, 1)."""
        log_theta = self.log_theta if self.kind in ("nb", "zinb") else None
        zero_logit = self.zero_logit if self.kind in ("zip", "zinb") else None
        return CountLikelihood(self.kind, rate, log_library, log_theta, zero_logit)

    def described(self, px: Any) -> dict[str, torch.Tensor]:
        """Parameters of ``px`` under the names of scvi-tools."""
        out = {"mean": px.rate if self.kind == "poisson" else px.mu}
        if self.kind in ("nb", "zinb"):
            out["dispersions"] = self.log_theta.exp().expand_as(out["mean"])
        if self.kind in ("zip", "zinb"):
            out["dropout"] = self.zero_logit.sigmoid().expand_as(out["mean"])
        return out


def _theta_by_moments(excess: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Inverse dispersion that gives the second moment, where a share ``lost`` of counts is lost."""
    return np.clip(1 / np.maximum(excess * (1 - lost) - 1, 1e-6), 0.1, 100.0)


def _lost_by_moments(mean: np.ndarray, excess: np.ndarray, zero_share: np.ndarray) -> np.ndarray:
    """Share of counts that must be lost for mean, second moment and zeros to be those of a ZINB, (n_genes,)."""
    lost = np.linspace(0.0, 0.95, 96)[:, None]
    theta = _theta_by_moments(excess, lost)
    zeros = lost + (1 - lost) * (1 + mean / (1 - lost) / theta) ** -theta  # n_lost x n_genes
    return lost[np.abs(zeros - zero_share).argmin(0), 0]


class Continuous(nn.Module):
    """Normal values with one standard deviation per gene."""

    kind = "normal"

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.log_sd = nn.Parameter(torch.zeros(n_genes))

    def fit(self, stats: GeneStats) -> None:
        """Nothing to start from: the scale is that of the standardised input."""

    @property
    def sd(self) -> torch.Tensor:
        """Standard deviation in units of the scaler's, (n_genes,)."""
        return (_GAIN * self.log_sd).exp() + 1e-3

    def distribution(self, mean: torch.Tensor, sd: torch.Tensor, expected: torch.Tensor) -> Distribution:
        """Distribution of the values; ``expected`` is what normalised expression is read from."""
        return Normal(mean, sd.expand_as(mean), validate_args=False, normal_mu=expected)

    def likelihood(self, mean: torch.Tensor | None = None, sd: torch.Tensor | None = None) -> NormalLikelihood:
        """Likelihood of values that the scaler (``mean``, ``sd``) standardises, (n_genes,) both, or none does."""
        return NormalLikelihood(self.sd if sd is None else sd * self.sd, mean, sd)

    def described(self, px: Any) -> dict[str, torch.Tensor]:
        """Parameters of ``px``."""
        return {"mean": px.loc, "sd": px.scale}
