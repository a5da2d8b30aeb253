"""The tensors of a multilayer perceptron clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from agevi.model.base._module import Layers, RegressorModule
from agevi.nn.attribution import Reading, dense_reading
from agevi.nn.inputs import GeneInput


class MLPModule(RegressorModule):
    """Blocks on z-scored genes, then one linear unit."""

    def __init__(
        self,
        n_input: int,
        *,
        n_hidden: Sequence[int],
        normalize: str = "log1p_cp10k",
        sums: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_input, n_hidden=n_hidden, **kwargs)
        self.input = GeneInput(n_input, normalize=normalize, standardize=True, sums=sums)

    def latent(self, x: torch.Tensor, present: torch.Tensor | None = None, summed: bool = False) -> torch.Tensor:
        """Output of the last block, (n, n_hidden[-1]); absent genes enter at their training mean."""
        return self.head.stack(self.input(x, present=present, summed=summed))

    def standardized_age(self, latent: torch.Tensor, summed: bool = False) -> torch.Tensor:
        """Standardised age, (n,)."""
        return self.head.output(latent).squeeze(-1)

    def layers(self) -> tuple[Layers, Layers]:
        """The blocks, and the last unit."""
        return list(self.head.stack.blocks), [self.head.output]

    def reading(self, *, summed: bool, present: torch.Tensor | None = None) -> Reading:
        """The first block's linear layer on z-scored genes, and the rest."""
        blocks: Any = self.head.stack.blocks
        rest = nn.Sequential(*blocks[0][1:], *blocks[1:])
        return dense_reading(self.input, blocks[0][0], rest, self.age, summed=summed, present=present)
