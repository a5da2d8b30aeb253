"""Noise on the input of an encoder while it is trained (denoising)."""

from __future__ import annotations

import torch
from torch import nn

from agevi.nn.rows import as_dense, is_csr, with_values

NOISES = ("gaussian", "binomial", "poisson")
NOISE_SCALES = ("input_sd", "max")


def thin(x: torch.Tensor, level: float) -> torch.Tensor:
    """Counts each unit of which is dropped with probability ``level`` (binomial thinning)."""
    return torch.binomial(x, torch.full_like(x, 1.0 - level))


def resample(x: torch.Tensor, level: float) -> torch.Tensor:
    """Counts with Poisson noise of mean 0 and variance ``level`` times the count, never negative."""
    return level * torch.poisson(x / level)


class InputNoise(nn.Module):
    """Noise in training: gaussian on the encoder's values by ``scale``, binomial or poisson on raw counts."""

    scale: torch.Tensor

    def __init__(self, n_genes: int, *, kind: str, level: float) -> None:
        super().__init__()
        self.kind, self.level = kind, float(level)
        self.register_buffer("scale", torch.ones(n_genes))

    def on_counts(self, x: torch.Tensor) -> torch.Tensor:
        """Noisy counts, (n, n_genes)."""
        if not self.training or self.level == 0 or self.kind == "gaussian":
            return x
        noisy = thin if self.kind == "binomial" else resample  # both leave zeros as they are
        return with_values(x, noisy(x.values(), self.level)) if is_csr(x) else noisy(x, self.level)

    def on_input(self, values: torch.Tensor) -> torch.Tensor:
        """Noisy values of the encoder's input, (n, n_genes)."""
        if not self.training or self.level == 0 or self.kind != "gaussian":
            return values
        values = as_dense(values)
        return values + self.level * self.scale * torch.randn_like(values)


class Dropout(nn.Dropout):
    """As that of torch, with four draws at a time on a CPU; ``p`` is rounded to whole 1 / 65,536."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Values of which some are 0 and the others scaled up, of the shape of ``x``."""
        dropped = round(self.p * 2**16)
        if not self.training or x.device.type != "cpu" or not 0 < dropped < 2**16:
            return super().forward(x)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = bits.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 2**15
        return x * kept.to(x.dtype).mul_(2**16 / (2**16 - dropped))
