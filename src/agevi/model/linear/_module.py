"""The tensors of a linear clock."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from agevi._compat.scvi import REGISTRY_KEYS, auto_move_data
from agevi.dataloaders._fields import SUMMED
from agevi.model.base._module import ClockModule
from agevi.nn.attribution import Reading, normalized
from agevi.nn.heads import TargetScale
from agevi.nn.inputs import GeneInput
from agevi.nn.rows import as_dense


class LinearModule(ClockModule):
    """A linear map of standardised genes to the standardised age; every value is set by a fit, none by gradient."""

    intercept: torch.Tensor
    cell_offset: torch.Tensor

    def __init__(
        self,
        n_input: int,
        *,
        normalize: str = "log1p_cp10k",
        age_transform: str = "none",
        min_age: float = -1.0,
        year: float = 1.0,
        bounded: bool = True,
    ) -> None:
        super().__init__()
        self.input = GeneInput(n_input, normalize=normalize, standardize=True)
        self.age_scale = TargetScale(age_transform, min_age, year=year, bounded=bounded)
        # A parameter, because scvi-tools asks the parameters for their device.
        self.coefficients = nn.Parameter(torch.zeros(n_input, dtype=torch.float64), requires_grad=False)
        self.register_buffer("intercept", torch.zeros((), dtype=torch.float64))
        self.register_buffer("cell_offset", torch.zeros((), dtype=torch.float64))

    @auto_move_data
    def score(self, x: torch.Tensor, present: torch.Tensor | None = None, *, summed: bool = False) -> torch.Tensor:
        """Standardised age of every row, (n,), from values as they are in the data, (n, n_genes)."""
        # Sums of a sample's cells are taken in float64, since there are few of them.
        x = as_dense(x)
        values = self.input(x.double() if summed else x, present=present).to(self.coefficients.dtype)
        score: torch.Tensor = values @ self.coefficients + self.intercept
        return score if summed else score + self.cell_offset

    def age(self, x: torch.Tensor, present: torch.Tensor | None = None, *, summed: bool = False) -> torch.Tensor:
        """Predicted age in the user's unit, (n,)."""
        return self.age_scale.to_target(self.score(x, present, summed=summed))

    def predict(
        self, tensors: dict[str, torch.Tensor], present: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, None]:
        """Ages of a batch, all of whose rows are sums, or none; there is no latent space."""
        return self.age(tensors[REGISTRY_KEYS.X_KEY], present, summed=SUMMED in tensors), None

    def reading(self, *, summed: bool, present: torch.Tensor | None = None) -> Reading:
        """One unit: the score, in which values are centred and scaled."""
        genes = self.input
        weight = (self.coefficients.detach() / genes.sd.double())[None]
        offset = self.intercept + (0.0 if summed else self.cell_offset)
        shift = offset - weight @ genes.mean.double()
        values = partial(normalized, genes=genes, present=present, absent=genes.mean)
        logarithmic = genes.normalize != "none"
        return Reading(
            weight.float(), shift.float(), lambda score: score[:, 0], self.age_scale.to_target, values, logarithmic
        )

    def set_map(self, coefficients: torch.Tensor, intercept: float) -> None:
        """Set the change of standardised age per standard deviation of each gene, and the age at the means."""
        self.coefficients.data.copy_(coefficients)
        self.intercept.fill_(intercept)

    def age_slope(self) -> float:
        """Change of the age, in the user's unit, per unit of the standardised age, where that is 0."""
        at = torch.zeros((), dtype=torch.float64, requires_grad=True)
        slope = torch.autograd.grad(self.age_scale.to_target(at.to(self.age_scale.mean.device)), at)[0]
        return float(slope)


class PublishedModule(LinearModule):
    """A linear map from a table, on values as they are; ages are what the formula gives, without bounds."""

    known: torch.Tensor

    def __init__(self, n_input: int, **kwargs: Any) -> None:
        super().__init__(n_input, normalize="none", bounded=False, **kwargs)
        self.register_buffer("known", torch.zeros(n_input, dtype=torch.bool))  # features whose usual value is known
