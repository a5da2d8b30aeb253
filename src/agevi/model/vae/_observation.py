"""How values scatter around what a decoder expects: one part of the module, exchanged by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributions import Distribution

from agevi._compat import NegativeBinomial, Normal, Poisson, ZeroInflatedNegativeBinomial
from agevi.dataloaders._stats import GeneStats
from agevi.nn.distributions import ZeroInflatedPoisson
from agevi.nn.likelihoods import nb_nll, normal_nll, poisson_nll, zinb_nll, zip_nll

_GAIN = 10.0
"""Parameters of genes are stored as a tenth, so that steps of the size of the learning rate reach them soon."""


class Counts(nn.Module):
    """Poisson or negative binomial counts, of which a share may be lost.

    Parameters
    ----------
    kind
        ``"poisson"``, ``"zip"``, ``"nb"`` or ``"zinb"``.
    n_genes
        Genes, each with one inverse dispersion and one probability of loss.
    """

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

    @torch.no_grad()
    def fit(self, stats: GeneStats) -> None:
        """Start from the moments of the training cells."""
        ratio = stats.library_square / max(stats.library, 1e-12) ** 2
        pairs = stats.mean_square - stats.mean  # E[x (x - 1)]
        excess = pairs / np.maximum(ratio * stats.mean**2, 1e-12)  # 1 for a Poisson
        if self.kind == "zip":
            kept = np.clip(1 / np.maximum(excess, 1e-6), 0.05, 0.95)
            self.zero.copy_(torch.from_numpy(np.log(1 / kept - 1) / _GAIN))
        elif self.kind in ("nb", "zinb"):
            theta = np.clip(1 / np.maximum(excess - 1, 1e-6), 0.1, 100.0)
            self.theta.copy_(torch.from_numpy(np.log(theta) / _GAIN))

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

    def nll(self, x: torch.Tensor, log_rate: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood of counts, (...), in nats."""
        if self.kind == "poisson":
            return poisson_nll(x, log_rate, rate)
        if self.kind == "zip":
            return zip_nll(x, log_rate, rate, self.zero_logit)
        if self.kind == "nb":
            return nb_nll(x, log_rate, rate, self.log_theta)
        return zinb_nll(x, log_rate, rate, self.log_theta, self.zero_logit)

    def described(self, px: Any) -> dict[str, torch.Tensor]:
        """Parameters of ``px`` under the names of scvi-tools."""
        out = {"mean": px.rate if self.kind == "poisson" else px.mu}
        if self.kind in ("nb", "zinb"):
            out["dispersions"] = self.log_theta.exp().expand_as(out["mean"])
        if self.kind in ("zip", "zinb"):
            out["dropout"] = self.zero_logit.sigmoid().expand_as(out["mean"])
        return out


class Continuous(nn.Module):
    """Normal values with one standard deviation per gene.

    Parameters
    ----------
    n_genes
        Genes.
    """

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

    def nll(self, x: torch.Tensor, mean: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood of values, (...), in nats."""
        return normal_nll(x, mean, sd)

    def described(self, px: Any) -> dict[str, torch.Tensor]:
        """Parameters of ``px``."""
        return {"mean": px.loc, "sd": px.scale}
