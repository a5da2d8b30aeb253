"""Self-attention over tokens, and tokens made of groups of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, type[nn.Module]] = {"elu": nn.ELU, "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class AttentionLayer(nn.Module):
    """Self-attention and a perceptron at every token, each added to its normalised input (Vaswani et al. 2017)."""

    def __init__(self, n_token: int, n_heads: int, *, activation: str, dropout_rate: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(n_token)
        self.qkv = nn.Linear(n_token, 3 * n_token)
        self.out = nn.Linear(n_token, n_token)
        self.feed = nn.Sequential(
            nn.LayerNorm(n_token),
            nn.Linear(n_token, 2 * n_token),
            ACTIVATIONS[activation](),
            nn.Linear(2 * n_token, n_token),
        )
        self.drop = nn.Dropout(dropout_rate)

    def forward(
        self, tokens: torch.Tensor, visible: torch.Tensor | None = None, kept: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Tokens, (n, n_tokens, n_token), after seeing ``visible``, (n, n_tokens); ``kept`` gains attention weights."""
        n, t, width = tokens.shape
        qkv = self.qkv(self.norm(tokens)).view(n, t, 3, self.n_heads, width // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each n x n_heads x n_tokens x width of a head
        mask = None if visible is None else visible[:, None, None, :]
        if kept is None:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            weights = (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)
            kept.append(weights)
            mixed = weights @ v
        tokens = tokens + self.drop(self.out(mixed.transpose(1, 2).reshape(n, t, width)))
        return tokens + self.drop(self.feed(tokens))


class Perceptron(nn.Sequential):
    """Blocks Linear - activation - dropout, one per width; none makes it the identity."""

    def __init__(self, n_input: int, widths: Sequence[int], *, activation: str, dropout_rate: float) -> None:
        sizes = [n_input, *widths]
        super().__init__(
            *(
                nn.Sequential(nn.Linear(a, b), ACTIVATIONS[activation](), nn.Dropout(dropout_rate))
                for a, b in zip(sizes[:-1], sizes[1:], strict=True)
            )
        )
        self.n_output = sizes[-1]


class Categories(nn.Module):
    """One token for each categorical column; code 0 of every column stands for values that were never seen."""

    offset: torch.Tensor

    def __init__(self, n_levels: Sequence[int], n_token: int) -> None:
        super().__init__()
        sizes = torch.tensor([0, *(n + 1 for n in n_levels)])
        self.register_buffer("offset", sizes.cumsum(0)[:-1], persistent=False)
        self.table = nn.Parameter(torch.randn(int(sizes.sum()), n_token) * n_token**-0.5)

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        """Codes, (n, n_columns), to tokens, (n, n_columns, n_token)."""
        return self.table[levels + self.offset]


def _arrange(tokens: FeatureTokens, keys: Any) -> None:
    """What follows from loaded tokens of features; not a lambda, so that clocks can be pickled to workers."""
    tokens.arrange()


class FeatureTokens(nn.Module):
    """Tokens linear in their features and in the share measured; a token without a measured feature is not visible."""

    token_of: torch.Tensor
    index: torch.Tensor
    filled: torch.Tensor

    def __init__(self, n_features: int, n_tokens: int, n_token: int) -> None:
        super().__init__()
        self.n_tokens = n_tokens
        self.register_buffer("token_of", torch.arange(n_features) * n_tokens // n_features)
        self.weight = nn.Parameter(torch.randn(n_features, n_token) * (n_tokens / n_features) ** 0.5)
        self.bias = nn.Parameter(torch.randn(n_tokens, n_token) * n_token**-0.5)
        self.of_share = nn.Parameter(torch.zeros(n_tokens, n_token))
        self.register_load_state_dict_post_hook(_arrange)  # type: ignore[no-untyped-call]
        self.arrange()

    def assign(self, token_of: torch.Tensor) -> None:
        """Set the token of every feature, (n_features,)."""
        self.token_of.copy_(token_of)
        self.arrange()

    def arrange(self) -> None:
        """Features by token, as one table padded to the largest token, so that all maps are one product."""
        order = torch.argsort(self.token_of, stable=True)
        sizes = torch.bincount(self.token_of, minlength=self.n_tokens)
        place = torch.arange(int(sizes.max()), device=order.device)
        start = sizes.cumsum(0) - sizes
        filled = place < sizes[:, None]  # n_tokens x largest
        index = order[(start[:, None] + place).clamp_max(len(order) - 1)]
        self.register_buffer("index", torch.where(filled, index, 0), persistent=False)
        self.register_buffer("filled", filled, persistent=False)

    def shares(self, measured: torch.Tensor) -> torch.Tensor:
        """Share of every token's features in masks, (n, n_features) to (n, n_tokens)."""
        size = torch.bincount(self.token_of, minlength=self.n_tokens).clamp_min(1)
        out = torch.zeros(len(measured), self.n_tokens, dtype=torch.float32, device=measured.device)
        return out.index_add_(1, self.token_of, measured.float()) / size

    def units(self, z: torch.Tensor) -> torch.Tensor:
        """The linear part of standardised values, 0 where not measured: (n, n_features) to (n, n_tokens, n_token)."""
        weight = self.weight[self.index] * self.filled[..., None]  # n_tokens x largest x n_token
        parts = z.index_select(1, self.index.reshape(-1)).view(len(z), *self.index.shape)
        return torch.bmm(parts.transpose(0, 1), weight).transpose(0, 1)

    def forward(self, units: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Tokens from :meth:`units` and :meth:`shares`."""
        return units + self.bias + shares[..., None] * self.of_share
