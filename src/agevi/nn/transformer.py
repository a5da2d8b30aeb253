"""Two transformers on a sample's features and categories. Both begin with a linear map of the features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from agevi.nn.attention import ACTIVATIONS, AttentionLayer, Categories, FeatureTokens, Perceptron


class Encoded(NamedTuple):
    """What comes out of a transformer."""

    latent: torch.Tensor  # (n, n_latent)
    tokens: torch.Tensor  # (n, n_tokens, n_token) contextual embeddings
    weights: torch.Tensor | None  # (n, n_layers, n_heads, n_tokens, n_tokens)


class Attention(nn.Sequential):
    """Layers of self-attention."""

    def __init__(self, n_token: int, n_heads: int, n_layers: int, *, activation: str, dropout_rate: float) -> None:
        kinds: dict[str, Any] = {"activation": activation, "dropout_rate": dropout_rate}
        super().__init__(*(AttentionLayer(n_token, n_heads, **kinds) for _ in range(n_layers)))

    def forward(
        self, tokens: torch.Tensor, visible: torch.Tensor | None = None, *, weights: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Contextual embeddings, and with ``weights`` the attention of every layer."""
        kept: list[torch.Tensor] | None = [] if weights else None
        for layer in self:
            tokens = layer(tokens, visible, kept)
        return tokens, torch.stack(kept, dim=1) if kept else None


class TabTransformer(nn.Module):
    """Categories through self-attention; features join behind it, in a perceptron (Huang et al. 2020)."""

    n_tokens = 0

    def __init__(
        self,
        n_features: int,
        n_levels: Sequence[int],
        *,
        n_token: int,
        n_heads: int,
        n_layers: int,
        n_hidden: Sequence[int],
        activation: str,
        dropout_rate: float,
    ) -> None:
        super().__init__()
        kinds: dict[str, Any] = {"activation": activation, "dropout_rate": dropout_rate}
        self.n_columns = len(n_levels)
        n_levels = n_levels or [0]  # without categories there is one token, of nothing
        self.categories = Categories(n_levels, n_token)
        self.attention = Attention(n_token, n_heads, n_layers, **kinds)
        self.of_features = nn.Linear(n_features, n_hidden[0], bias=False)
        self.of_context = nn.Linear(len(n_levels) * n_token, n_hidden[0])
        self.first = nn.Sequential(ACTIVATIONS[activation](), nn.Dropout(dropout_rate))
        self.stack = Perceptron(n_hidden[0], n_hidden[1:], **kinds)
        self.n_latent = self.stack.n_output

    def layers(self) -> list[nn.Module]:
        """Layers in the order in which values pass them."""
        start = [self.categories, self.attention, self.of_features, self.of_context, self.first]
        return [nn.ModuleList(start), *self.stack]

    def weight(self) -> torch.Tensor:
        """The linear map, (n_units, n_features)."""
        return self.of_features.weight

    def units(self, z: torch.Tensor) -> torch.Tensor:
        """What the map makes of standardised values, (n, n_units)."""
        return self.of_features(z)

    def shares(self, measured: torch.Tensor) -> torch.Tensor:
        """No token is made of features, (n, 0)."""
        return torch.zeros(len(measured), 0, dtype=torch.float32, device=measured.device)

    def forward(
        self,
        units: torch.Tensor,
        levels: torch.Tensor,
        shares: torch.Tensor,
        line: torch.Tensor,
        *,
        weights: bool = False,
    ) -> Encoded:
        """The last layer of the perceptron, and the contextual embeddings of the categories."""
        if not self.n_columns:
            levels = levels.new_zeros(len(levels), 1)
        tokens, kept = self.attention(self.categories(levels), weights=weights)
        latent = self.stack(self.first(units + self.of_context(tokens.flatten(1))))
        return Encoded(latent, tokens, kept)


class FeatureTransformer(nn.Module):
    """``n_tokens`` groups of features, and categories, as tokens of one self-attention, read by a token of its own."""

    block_of: torch.Tensor

    def __init__(
        self,
        n_features: int,
        n_levels: Sequence[int],
        *,
        n_tokens: int,
        n_token: int,
        n_heads: int,
        n_layers: int,
        n_hidden: Sequence[int],
        activation: str,
        dropout_rate: float,
    ) -> None:
        super().__init__()
        kinds: dict[str, Any] = {"activation": activation, "dropout_rate": dropout_rate}
        self.n_tokens, self.n_token = n_tokens, n_token
        self.categories = Categories(n_levels, n_token)
        self.features = FeatureTokens(n_features, n_tokens, n_token)
        self.register_buffer("block_of", torch.zeros(n_tokens, dtype=torch.int64))
        self.readout = nn.Parameter(torch.randn(n_token) * n_token**-0.5)
        self.of_line = nn.Parameter(torch.randn(n_token) * n_token**-0.5)
        self.attention = Attention(n_token, n_heads, n_layers, **kinds)
        self.stack = nn.Sequential(nn.LayerNorm(n_token), Perceptron(n_token, n_hidden, **kinds))
        self.n_latent = n_hidden[-1] if n_hidden else n_token

    def layers(self) -> list[nn.Module]:
        """Layers in the order in which values pass them."""
        start = nn.ModuleList([self.categories, self.features, nn.ParameterList([self.readout, self.of_line])])
        (norm, perceptron), (*attention, final) = list(self.stack), list(self.attention)
        return [start, *attention, nn.ModuleList([final, norm]), *perceptron]  # type: ignore[misc]

    def weight(self) -> torch.Tensor:
        """The linear map, (n_units, n_features): the maps of the tokens, one after the other."""
        token, weight = self.features.token_of, self.features.weight
        out = weight.new_zeros(self.n_tokens, self.n_token, len(token))
        out[token, :, torch.arange(len(token), device=token.device)] = weight
        return out.flatten(0, 1)

    def units(self, z: torch.Tensor) -> torch.Tensor:
        """What the maps make of standardised values, (n, n_units)."""
        return self.features.units(z).flatten(1)

    def shares(self, measured: torch.Tensor) -> torch.Tensor:
        """Share of every token's features in masks, (n, n_features) to (n, n_tokens)."""
        return self.features.shares(measured)

    def hidden_tokens(self, shares: torch.Tensor, rate: float) -> torch.Tensor:
        """Tokens of one block, in a share of those rows that measure several blocks, as a mask (n, n_tokens)."""
        n_blocks = int(self.block_of.max()) + 1
        blocks = torch.nn.functional.one_hot(self.block_of, n_blocks).to(shares)
        there = (shares > 0).to(shares) @ blocks > 0  # n x n_blocks
        place = torch.where(there, torch.rand_like(there, dtype=shares.dtype), -1.0).argmax(1)
        drawn = (torch.rand(len(shares), device=shares.device) < rate) & (there.sum(1) > 1)
        return (self.block_of == place[:, None]) & drawn[:, None]

    def forward(
        self,
        units: torch.Tensor,
        levels: torch.Tensor,
        shares: torch.Tensor,
        line: torch.Tensor,
        *,
        weights: bool = False,
    ) -> Encoded:
        """What the reading token, which starts from the linear path, (n,), holds in the end, and all tokens."""
        n = len(units)
        features = self.features(units.view(n, self.n_tokens, self.n_token), shares)
        readout = (self.readout + line[:, None] * self.of_line)[:, None]
        always = torch.cat([readout, self.categories(levels)], dim=1)
        visible = torch.cat([shares.new_ones(n, always.shape[1], dtype=torch.bool), shares > 0], dim=1)
        tokens, kept = self.attention(torch.cat([always, features], dim=1), visible, weights=weights)
        return Encoded(self.stack(tokens[:, 0]), tokens, kept)
