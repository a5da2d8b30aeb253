"""The tensors of a clock of cell types: those of its members, and what combines them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from agevi.model.base._module import ClockModule
from agevi.model.celltype._combine import Errors
from agevi.model.celltype._composition import Composition


class CellTypeModule(ClockModule):
    """Modules of the members and of contrasts side by side, the errors of types, and the map of the composition."""

    correlation: torch.Tensor
    variance: torch.Tensor
    usual: torch.Tensor
    composition: torch.Tensor

    def __init__(
        self,
        clocks: Sequence[ClockModule],
        errors: Errors,
        composition: Composition | None,
        contrasts: Sequence[ClockModule] = (),
    ) -> None:
        super().__init__()
        self.clocks, self.contrasts = nn.ModuleList(clocks), nn.ModuleList(contrasts)
        self.encode_covariates = any(clock.encode_covariates for clock in clocks)
        self.anchor = nn.Parameter(torch.zeros(()), requires_grad=False)  # scvi-tools asks the parameters for a device
        values = np.zeros((0, 4)) if composition is None else composition.table()
        for name, value in {**vars(errors), "composition": values}.items():
            self.register_buffer(name, torch.from_numpy(np.array(value, dtype=np.float64)))

    @property
    def errors(self) -> Errors:
        """What is known of the errors of types."""
        return Errors(*(tensor.cpu().numpy() for tensor in (self.correlation, self.variance, self.usual)))
