"""The tensors of a clock of cell types: those of its members, and what combines them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from agevi.model.base._module import ClockModule
from agevi.model.celltype._composition import Composition


class CellTypeModule(ClockModule):
    """Modules of the members side by side, the covariance of their errors, and the map of the composition."""

    covariance: torch.Tensor
    composition: torch.Tensor

    def __init__(self, clocks: Sequence[nn.Module], covariance: np.ndarray, composition: Composition | None) -> None:
        super().__init__()
        self.clocks = nn.ModuleList(clocks)
        self.anchor = nn.Parameter(torch.zeros(()), requires_grad=False)  # scvi-tools asks the parameters for a device
        self.register_buffer("covariance", torch.from_numpy(np.array(covariance, dtype=np.float64)))
        values = np.zeros((0, 4)) if composition is None else composition.table()
        self.register_buffer("composition", torch.from_numpy(values))

    @property
    def encode_covariates(self) -> bool:
        """Whether the encoder of any member reads batch and covariates."""
        return any(getattr(clock, "encode_covariates", False) for clock in self.clocks)
