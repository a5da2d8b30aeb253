"""What each input adds to the output of a network whose first layer is linear: gradients along straight paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from agevi.nn.inputs import GeneInput

Tensors = Sequence[torch.Tensor]
Tail = Callable[[torch.Tensor], torch.Tensor]
Covariates = Callable[[dict[str, torch.Tensor]], torch.Tensor]
SMALL_STEP = 1e-2
"""Steps of a linear score below which the slope of the output is taken at their middle: ages are float32."""


@dataclass(frozen=True)
class Reader:
    """A function ``tail([values @ weight.T + shift, ...])`` of tables: a network's first layer and its rest."""

    # A path between two rows is a straight line behind the first layer too, which makes it cheap.
    weights: tuple[torch.Tensor, ...]  # each (n_units, n_genes)
    tail: Callable[[Tensors], torch.Tensor]  # lists of (n, n_units) to (n,)

    def units(self, values: Tensors) -> list[torch.Tensor]:
        """The first layer without its shift, each (n, n_units)."""
        return [v @ w.T for v, w in zip(values, self.weights, strict=True)]

    def __call__(self, values: Tensors, shifts: Tensors) -> torch.Tensor:
        """Output of every row, (n,)."""
        return self.tail([u + s for u, s in zip(self.units(values), shifts, strict=True)])


@dataclass(frozen=True)
class Reading:
    """A trained network as a function of its values: its linear first layer, and the rest up to the age."""

    weight: torch.Tensor  # (n_units, n_genes)
    shift: torch.Tensor  # (n_units,)
    latent: Tail  # (n, n_units) to (n, n_latent)
    age: Tail  # (n, n_latent) to (n,)
    values: Callable[..., torch.Tensor]  # what is in the data to what is read, both (n, n_genes)
    logarithmic: bool  # whether values are log(1 + expression), and not expression itself
    covariates: Covariates | None = None  # fields of a batch to what they add behind the first layer, (n, n_units)
    by_field: bool = False  # whether values depend on the fields of a batch too, which they then take second

    def tail(self, units: torch.Tensor) -> torch.Tensor:
        """Age from the units of the first layer."""
        return self.age(self.latent(units))

    def scaled(self, values: torch.Tensor, factor: float) -> torch.Tensor:
        """The values where expression is ``factor`` times what it is."""
        return torch.log1p(torch.expm1(values) * factor) if self.logarithmic else values * factor


def normalized(
    x: torch.Tensor, *, genes: GeneInput, present: torch.Tensor | None, absent: torch.Tensor
) -> torch.Tensor:
    """Values before they are centred, (n, n_genes); genes that the data lack enter at ``absent``, (n_genes,)."""
    values = genes.normalized(x, genes.library_size(x, present))
    return values if present is None else torch.where(present, values, absent.to(values))


def dense_reading(
    genes: GeneInput,
    layer: nn.Linear,
    latent: Tail,
    age: Tail,
    *,
    summed: bool,
    present: torch.Tensor | None = None,
    covariates: Covariates | None = None,
) -> Reading:
    """A network with the first layer ``layer`` on normalised genes and, behind them, covariates."""
    mean, factor, absent = genes.mean, 1 / genes.sd, genes.mean
    if summed and genes.sums:
        mean, factor, absent = genes.sum_mean, genes.sum_scale, genes.sum_mean
    elif not genes.standardize:
        mean, factor = torch.zeros_like(mean), torch.ones_like(mean)
    own = layer.weight.detach()
    weight, of_covariates = own[:, : len(mean)] * factor, own[:, len(mean) :]
    values = partial(normalized, genes=genes, present=present, absent=absent)
    extra = None if covariates is None else (lambda fields: covariates(fields) @ of_covariates.T)
    shift = layer.bias.detach() - weight @ mean
    return Reading(weight, shift, latent, age, values, genes.normalize != "none", extra)


@dataclass(frozen=True)
class Attributions:
    """What a set of rows was given."""

    values: tuple[torch.Tensor, ...]  # each (n, n_genes), in the unit of the output
    output: torch.Tensor  # (n,)
    reference: torch.Tensor  # (n,) mean output of the background under the shift of each row

    @property
    def error(self) -> torch.Tensor:
        """Sum of a row's attributions minus what they have to add up to, (n,)."""
        total = sum(v.sum(-1, dtype=torch.float64) for v in self.values)
        return total - (self.output - self.reference).double()


def points(n: int, m: int) -> np.ndarray:
    """``n`` evenly spaced points between 0 and 1 for each of ``m`` paths, (m, n)."""
    # Offsets turn by the golden ratio from path to path, so that errors cancel; one path alone has the midpoint.
    offset = (0.5 + np.arange(m) * (np.sqrt(5) - 1) / 2) % 1
    return (np.arange(n) + offset[:, None]) / n


def path_attributions(
    reader: Reader, values: Tensors, background: Tensors, shifts: Tensors, *, n_points: int
) -> Attributions:
    """Expected gradients of (n, n_genes) from background (m, n_genes); shifts are (n, n_units) or (n_units,)."""
    # Sundararajan et al. 2017, Erion et al. 2021: gene j of row x gets the mean over background rows b_k of (x_j -
    # b_kj) times the integral over a in [0, 1] of df/dx_j at b_k + a (x - b_k), by evenly spaced points. Nothing is
    # drawn, so it adds up to the output minus its mean over the background, but for the error of the integral. One
    # background row gives integrated gradients. The shift of a row, its covariates, stays along the whole path.
    ends, starts = reader.units(values), reader.units(background)
    n, m = len(values[0]), len(background[0])
    alphas = torch.as_tensor(points(n_points, m), dtype=torch.float32).to(values[0])
    slope = [torch.zeros_like(e) for e in ends]
    out = [torch.zeros_like(v) for v in values]
    with torch.no_grad():
        output = reader.tail([e + s for e, s in zip(ends, shifts, strict=True)])
        reference = _mean_output(reader, starts, shifts, n)
    for k in range(m):
        gradients = _gradients(reader, [s[k] for s in starts], ends, shifts, alphas[k])
        for i, gradient in enumerate(gradients):
            slope[i] += gradient
            out[i].addcmul_(gradient @ reader.weights[i], background[i][k], value=-1 / m)
    for i, total in enumerate(slope):
        out[i].addcmul_(total @ reader.weights[i], values[i], value=1 / m)
    return Attributions(tuple(out), output, reference)


def _gradients(
    reader: Reader, start: Tensors, ends: Tensors, shifts: Tensors, alphas: torch.Tensor
) -> list[torch.Tensor]:
    """Mean gradient behind the first layer along the paths from one background row, each (n, n_units)."""
    places = []
    for s, e, shift in zip(start, ends, shifts, strict=True):
        path = s + alphas[:, None, None] * (e - s) + shift  # n_points x n x n_units
        places.append(path.reshape(-1, path.shape[-1]).requires_grad_())
    with torch.enable_grad():
        gradients = torch.autograd.grad(reader.tail(places).sum(), places)
    return [g.view(len(alphas), -1, g.shape[-1]).mean(0) for g in gradients]


def _mean_output(reader: Reader, starts: Tensors, shifts: Tensors, n: int) -> torch.Tensor:
    """Mean output of the background under the shift of every row, (n,)."""
    if all(s.dim() == 1 for s in shifts):
        return reader.tail([b + s for b, s in zip(starts, shifts, strict=True)]).mean().expand(n)
    total = torch.zeros(n, dtype=torch.float64, device=starts[0].device)
    for k in range(len(starts[0])):
        total += reader.tail([(b[k] + s).expand(n, -1) for b, s in zip(starts, shifts, strict=True)])
    return (total / len(starts[0])).float()


def linear_attributions(reader: Reader, values: Tensors, background: Tensors, shifts: Tensors) -> Attributions:
    """The same in closed form for an output g of one linear score s = w'x: w_j (g(s(x)) - g(s(b))) / (s(x) - s(b))."""
    weight, v, b = reader.weights[0][0].double(), values[0].double(), background[0].double()
    shift = shifts[0].double()
    end, start = v @ weight, b @ weight  # n, m

    def age(score: torch.Tensor) -> torch.Tensor:
        return reader.tail([(score + shift).reshape(-1, 1)]).view(score.shape).double()

    step = end[:, None] - start  # n x m
    middle = start + step / 2
    width = torch.where(step.abs() > SMALL_STEP, step, SMALL_STEP)
    slope = (age(middle + width / 2) - age(middle - width / 2)) / width
    m = len(b)
    out = weight * (v * slope.mean(1, keepdim=True) - slope @ b / m)
    return Attributions((out.to(values[0].dtype),), age(end), age(start).mean().expand(len(end)))
