"""Stacks of fully connected blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from agevi.nn.noise import Dropout
from agevi.nn.products import factor_dtype, linear, store_by_input
from agevi.nn.rows import is_csr


class Stack(nn.Module):
    """Blocks Linear - BatchNorm - ReLU - Dropout, one per width; the first also reads ``n_covariates`` columns."""

    def __init__(self, n_input: int, widths: Sequence[int], *, dropout_rate: float, n_covariates: int = 0) -> None:
        super().__init__()
        self.n_covariates = n_covariates
        self.n_output = widths[-1] if len(widths) else n_input + n_covariates
        sizes = [n_input + n_covariates, *widths]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(inplace=True), Dropout(dropout_rate))
                for a, b in zip(sizes[:-1], sizes[1:], strict=True)
            )
        )
        if len(widths):
            first: Any = self.blocks[0]
            store_by_input(first[0])

    def forward(self, x: torch.Tensor, covariates: torch.Tensor | None = None) -> torch.Tensor:
        """Map (..., n_input), dense or CSR, to (..., n_output); BatchNorm sees all leading dimensions as one."""
        if is_csr(x):
            return self._wide(x, covariates)
        if covariates is not None and self.n_covariates:
            x = torch.cat([x, covariates.expand(*x.shape[:-1], self.n_covariates)], dim=-1)
        flat = x.reshape(-1, x.shape[-1])
        whole = factor_dtype(x) == x.dtype  # then modules are called, with their hooks
        out: torch.Tensor = self.blocks(flat) if whole else self._wide(flat)
        return out.reshape(*x.shape[:-1], out.shape[-1])

    def _wide(self, x: torch.Tensor, covariates: torch.Tensor | None = None) -> torch.Tensor:
        """All blocks with products as in :func:`~agevi.nn.products.linear`; ``x`` may lack the ``covariates``."""
        block: Any
        for block in self.blocks:
            layer, *rest = block
            n = x.shape[-1]
            weight = layer.weight if n == layer.in_features else layer.weight[:, :n]
            h = linear(x, weight, layer.bias)
            if covariates is not None and n < layer.in_features:
                h = h + covariates @ layer.weight[:, n:].t()
            for part in rest:
                h = part(h)
            x = h
        return x


class GaussianEncoder(nn.Module):
    """Mean and standard deviation of a diagonal Gaussian posterior over the latent space."""

    def __init__(self, stack: Stack, n_latent: int, *, min_variance: float = 1e-4) -> None:
        super().__init__()
        self.stack = stack
        self.mean = nn.Linear(stack.n_output, n_latent)
        self.log_variance = nn.Linear(stack.n_output, n_latent)
        self.min_variance = min_variance

    def location(self, x: torch.Tensor, covariates: torch.Tensor | None = None) -> torch.Tensor:
        """The mean alone, (n, n_latent)."""
        return linear(self.stack(x, covariates), self.mean.weight, self.mean.bias)

    def forward(self, x: torch.Tensor, covariates: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation, both (n, n_latent)."""
        h = self.stack(x, covariates)
        mean, log_variance = (linear(h, layer.weight, layer.bias) for layer in (self.mean, self.log_variance))
        return mean, (torch.exp(log_variance) + self.min_variance).sqrt()
