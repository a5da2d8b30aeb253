"""The tensors of an ensemble: those of its members."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from agevi.model.base._module import ClockModule


class EnsembleModule(ClockModule):
    """Modules of the members side by side."""

    def __init__(self, clocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.clocks = nn.ModuleList(clocks)
