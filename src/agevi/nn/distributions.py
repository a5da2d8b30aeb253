"""Distributions that neither torch nor scvi-tools has."""

from __future__ import annotations

import torch
from torch.distributions import Distribution, constraints
from torch.nn import functional as F


class ZeroInflatedPoisson(Distribution):
    """Zero-inflated Poisson counts like scvi-tools' distributions; ``zi_logits`` are those of an excess zero."""

    arg_constraints = {"rate": constraints.nonnegative, "zi_logits": constraints.real, "scale": constraints.nonnegative}
    support = constraints.nonnegative_integer

    def __init__(
        self,
        rate: torch.Tensor,
        zi_logits: torch.Tensor,
        scale: torch.Tensor | None = None,
        validate_args: bool | None = False,
    ) -> None:
        self.rate, self.zi_logits = rate, zi_logits.expand_as(rate)
        self.scale = scale
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mu(self) -> torch.Tensor:
        """Rate of the Poisson."""
        return self.rate

    @property
    def zi_probs(self) -> torch.Tensor:
        """Probability of an excess zero."""
        return torch.sigmoid(self.zi_logits)

    @property
    def mean(self) -> torch.Tensor:
        """Mean of the counts, excess zeros included."""
        return (1 - self.zi_probs) * self.rate

    @property
    def variance(self) -> torch.Tensor:
        """Variance of the counts, excess zeros included."""
        return self.mean * (1 + self.rate * self.zi_probs)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> torch.Tensor:
        """Counts, ``sample_shape`` before the shape of the rates."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            counts = torch.poisson(self.rate.expand(shape))
            return counts * (torch.rand(shape, device=counts.device) >= self.zi_probs)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Log-probability of every count."""
        value = value.expand_as(self.rate) if value.dim() <= self.rate.dim() else value
        kept, lost = F.logsigmoid(-self.zi_logits), F.logsigmoid(self.zi_logits)
        of_count = kept + value * self.rate.log() - self.rate - torch.lgamma(value + 1)
        return torch.where(value > 0, of_count, torch.logaddexp(lost, kept - self.rate))

    def get_normalized(self, key: str) -> torch.Tensor | None:
        """Rate (``"mu"``) or normalised rate (``"scale"``), as scvi-tools asks for them."""
        if key not in ("mu", "scale"):
            raise ValueError(f"normalized key {key} not recognized")
        return self.rate if key == "mu" else self.scale
