"""How a trained clock reads genes: its values, its first layer, and the rest of it up to the age."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from agevi._compat import REGISTRY_KEYS
from agevi._keys import FEATURE_SET
from agevi.model.ensemble._model import EnsembleClock
from agevi.model.linear._module import LinearModule
from agevi.model.mlp._module import MLPModule
from agevi.model.nmf._module import NMFModule
from agevi.model.transfer._model import CaseControlClassifier
from agevi.model.transformer._module import TransformerModule
from agevi.model.vae._module import ClockVAEModule
from agevi.nn.attribution import Reader, Tensors
from agevi.nn.inputs import CP10K, GeneInput
from agevi.nn.nnls import nnls

Tail = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Reading:
    """One clock as a function of its values."""

    weight: torch.Tensor  # (n_units, n_genes)
    shift: torch.Tensor  # (n_units,)
    latent: Tail  # (n, n_units) to (n, n_latent)
    age: Tail  # (n, n_latent) to (n,)
    values: Callable[..., torch.Tensor]  # what is in the data to what is read, both (n, n_genes)
    logarithmic: bool  # whether values are log(1 + expression), and not expression itself
    covariates: Callable[[dict[str, torch.Tensor]], torch.Tensor] | None = None  # fields of a batch to (n, n_units)
    by_field: bool = False  # whether values depend on the fields of a batch too, which they then take second

    def tail(self, units: torch.Tensor) -> torch.Tensor:
        """Age from the units of the first layer."""
        return self.age(self.latent(units))

    def scaled(self, values: torch.Tensor, factor: float) -> torch.Tensor:
        """The values where expression is ``factor`` times what it is."""
        return torch.log1p(torch.expm1(values) * factor) if self.logarithmic else values * factor


def clocks_of(model: Any) -> list[Any]:
    """The clock itself, or those that an ensemble holds, ensembles in it taken apart too; the network of a classifier."""
    if isinstance(model, CaseControlClassifier):
        return [model.clock]
    if isinstance(model, EnsembleClock):
        return [clock for member in model.clocks for clock in clocks_of(member)]
    return [model]


def reader_of(model: Any, readings: list[Reading]) -> Reader:
    """The whole clock as a function of the values of :func:`clocks_of`."""
    ages = _joined(model, iter(readings))
    return Reader(tuple(r.weight for r in readings), ages)


def _joined(model: Any, readings: Iterator[Reading]) -> Callable[[Tensors], torch.Tensor]:
    """Age of a clock from the units of its members, in their order."""
    if not isinstance(model, EnsembleClock):
        tail = next(readings).tail
        return lambda units: tail(units[0])
    sizes = [len(clocks_of(member)) for member in model.clocks]
    members = [_joined(member, readings) for member in model.clocks]
    starts = np.cumsum([0, *sizes[:-1]])

    def average(units: Tensors) -> torch.Tensor:
        ages = torch.stack(
            [f(units[a : a + n]).double() for f, a, n in zip(members, starts, sizes, strict=True)], dim=-1
        )
        weights = torch.as_tensor(model.weights_, dtype=ages.dtype, device=ages.device)
        if model.scale == "age":
            return (ages @ weights).float()
        lowest = model.setup_args["min_age"]
        return (torch.expm1(torch.log1p((ages - lowest).clamp_min(0)) @ weights) + lowest).float()

    return average


def reading_of(clock: Any, *, present: torch.Tensor | None, summed: bool, masks: torch.Tensor | None = None) -> Reading:
    """How a trained clock reads genes.

    Parameters
    ----------
    clock
        A clock that is no ensemble.
    present
        Mask of the genes that the data have, None for all.
    summed
        Whether rows are sums of a sample's cells.
    masks
        Features that each feature set of the data measures, (n_sets, n_genes), for clocks that read these.
    """
    module = clock.module.eval()
    if isinstance(module, TransformerModule):
        return _read_transformer(module, module.measured if masks is None else masks)
    for kind, read in _READINGS:
        if isinstance(module, kind):
            return read(module, present, summed)
    raise TypeError(f"model is a {type(clock).__name__}, whose first layer agevi does not know.")


# --- networks on genes -----------------------------------------------------------------------------------------


def _scale(genes: GeneInput, summed: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What is subtracted from values, the factor after that, and what absent genes enter at; (n_genes,) each."""
    if summed and genes.sums:
        return genes.sum_mean, genes.sum_scale, genes.sum_mean
    if genes.standardize:
        return genes.mean, 1 / genes.sd, genes.mean
    return torch.zeros_like(genes.mean), torch.ones_like(genes.mean), genes.mean


def _normalized(
    x: torch.Tensor, *, genes: GeneInput, present: torch.Tensor | None, absent: torch.Tensor
) -> torch.Tensor:
    """Values on the scale on which a network reads them, before they are centred."""
    values = genes.normalized(x, genes.library_size(x, present))
    return values if present is None else torch.where(present, values, absent.to(values))


def _dense_reading(
    genes: GeneInput,
    layer: nn.Linear,
    latent: Tail,
    age: Tail,
    present: torch.Tensor | None,
    summed: bool,
    covariates: Any = None,
) -> Reading:
    """A network whose first layer is ``layer``, on normalised genes and after them the covariates."""
    mean, factor, absent = _scale(genes, summed)
    n = len(mean)
    weight = layer.weight.detach()[:, :n] * factor
    shift = layer.bias.detach() - weight @ mean
    extra = None if covariates is None else partial(_of_covariates, covariates, layer.weight.detach()[:, n:])
    values = partial(_normalized, genes=genes, present=present, absent=absent)
    return Reading(weight, shift, latent, age, values, genes.normalize != "none", extra)


def _of_covariates(columns: Any, weight: torch.Tensor, fields: dict[str, torch.Tensor]) -> torch.Tensor:
    """What batch and covariates add behind the first layer, (n, n_units)."""
    values = columns(
        fields[REGISTRY_KEYS.BATCH_KEY],
        fields.get(REGISTRY_KEYS.CAT_COVS_KEY),
        fields.get(REGISTRY_KEYS.CONT_COVS_KEY),
    )
    return values @ weight.T


def _read_vae(module: ClockVAEModule, present: torch.Tensor | None, summed: bool) -> Reading:
    blocks: Any = module.encoder.stack.blocks
    sees = module.encode_covariates and module.encoder.stack.n_covariates > 0
    covariates = module.covariates if sees else None
    if len(blocks):
        latent = nn.Sequential(*blocks[0][1:], *blocks[1:], module.encoder.mean)
        return _dense_reading(module.input, blocks[0][0], latent, module.age, present, summed, covariates)
    return _dense_reading(module.input, module.encoder.mean, nn.Identity(), module.age, present, summed, covariates)


def _read_mlp(module: MLPModule, present: torch.Tensor | None, summed: bool) -> Reading:
    blocks: Any = module.head.stack.blocks
    latent = nn.Sequential(*blocks[0][1:], *blocks[1:])
    return _dense_reading(module.input, blocks[0][0], latent, module.age, present, summed)


# --- other first layers ----------------------------------------------------------------------------------------


def _read_linear(module: LinearModule, present: torch.Tensor | None, summed: bool) -> Reading:
    genes = module.input
    weight = (module.coefficients.detach() / genes.sd.double())[None]
    offset = module.intercept + (0.0 if summed else module.cell_offset)
    shift = offset - weight @ genes.mean.double()
    values = partial(_normalized, genes=genes, present=present, absent=genes.mean)
    return Reading(
        weight.float(), shift.float(), lambda score: score[:, 0], module.age_scale.to_age, values,
        genes.normalize != "none",
    )  # fmt: skip


def _read_nmf(module: NMFModule, present: torch.Tensor | None, summed: bool) -> Reading:
    weight = module.components * (module.gene_weight if present is None else module.gene_weight * present)
    gram = weight.double() @ module.components.T.double()
    normalize = module.input.normalize

    def values(x: torch.Tensor) -> torch.Tensor:
        # A projection is proportional to what is projected, so that counts may be normalised before it.
        return x if normalize == "none" else x * (CP10K / module.input.library_size(x, present))

    def age(loadings: torch.Tensor) -> torch.Tensor:
        of_sums = torch.full((len(loadings),), summed, device=loadings.device)
        return module.age(loadings, of_sums)

    shift = torch.zeros(len(weight), device=weight.device)
    return Reading(weight, shift, lambda target: nnls(gram, target), age, values, False)


def _read_transformer(module: TransformerModule, masks: torch.Tensor) -> Reading:
    """Units of the network, then the lines of all groups; behind them, what a row is told beside its values."""
    net, n = module.net, len(module.net.weight())
    codes = torch.zeros(module.n_columns + net.n_tokens, masks.shape[1], device=masks.device)
    weight = torch.cat([net.weight().detach(), module.coef, codes])
    sizes = [n, module.n_groups, module.n_columns, net.n_tokens]

    def place(fields: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        levels = module.levels(fields)
        return levels, fields[FEATURE_SET].squeeze(-1).long()

    def values(x: torch.Tensor, fields: dict[str, torch.Tensor]) -> torch.Tensor:
        levels, sets = place(fields)
        return module.standardized(x, module.group(levels), masks[sets])

    def told(fields: dict[str, torch.Tensor]) -> torch.Tensor:
        levels, sets = place(fields)
        lines = module.intercept.expand(len(levels), -1)
        return torch.cat([lines.new_zeros(len(levels), n), lines, levels.to(lines), net.shares(masks)[sets]], dim=1)

    def latent(units: torch.Tensor) -> torch.Tensor:
        own, lines, levels, shares = units.split(sizes, dim=1)
        codes = levels.round().long()
        line = lines.gather(1, module.group(codes)[:, None])
        return torch.cat([net(own, codes, shares, line.squeeze(1)).latent, line], dim=1)

    def age(found: torch.Tensor) -> torch.Tensor:
        return module.age(found[:, :-1], found[:, -1])

    shift = torch.zeros(len(weight), device=weight.device)
    return Reading(weight, shift, latent, age, values, False, told, by_field=True)


_READINGS: tuple[tuple[type, Callable[..., Reading]], ...] = (
    (ClockVAEModule, _read_vae),
    (MLPModule, _read_mlp),
    (LinearModule, _read_linear),
    (NMFModule, _read_nmf),
)
