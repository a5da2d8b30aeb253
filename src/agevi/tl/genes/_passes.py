"""Ways to attribute rows, many at a time in blocks, added up per subject and group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from anndata import AnnData

from agevi import _checks
from agevi._progress import Bar
from agevi.model.base._kept_sums import summed_once
from agevi.model.base._unit_rows import UnitRows
from agevi.nn.attribution import Attributions, Reader, linear_attributions, path_attributions
from agevi.tl.genes._row_sets import RowSet, Units, evenly

_BLOCK = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Values of a block of rows: on a CPU about what stays in the cache."""
METHODS = ("auto", "expected_gradients", "integrated_gradients", "linear", "shap")
N_POINTS = {True: 8, False: 4}
"""Points on each path of expected gradients, for sums (where errors stay below 1 % of the range) and for cells."""
N_SAMPLES = {True: 400, False: 100}
"""Gradients of a row by default, for sums, of which there are few, and for cells."""
_N_PROJECTED = 100  # of clocks that solve least squares at every point
_POOL = 1000  # rows of the background where only its mean is read
_SHAP_ROWS = 200

Explain = Callable[[Reader, list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]], Attributions]


class Function:
    """A clock, or an ensemble, as a function of rows, and the genes that it reads; arguments as in ``UnitRows``."""

    def __init__(self, model: Any, adata: AnnData, cells: np.ndarray, codes: np.ndarray | None) -> None:
        with summed_once():
            self.parts = [UnitRows(clock, adata, cells, codes) for clock in model.members()]
        self.reader = model.reader([part.reading for part in self.parts])
        self.genes: np.ndarray = np.asarray(model.genes)
        position = {gene: i for i, gene in enumerate(self.genes)}
        device = self.parts[0].device
        self.columns = [
            torch.tensor([position[gene] for gene in part.genes], dtype=torch.int64, device=device)
            for part in self.parts
        ]
        self.device = device

    def values(self, rows: np.ndarray) -> list[torch.Tensor]:
        """What each clock reads of some rows."""
        return [part.values(rows) for part in self.parts]

    def shifts(self, rows: np.ndarray) -> list[torch.Tensor]:
        """What is added behind the first layers."""
        return [part.shift(rows) for part in self.parts]

    def joined(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """Sum of what the parts give each gene, (n, n_genes)."""
        if len(parts) == 1:
            return parts[0]
        out = torch.zeros(len(parts[0]), len(self.genes), device=self.device)
        for columns, values in zip(self.columns, parts, strict=True):
            out.index_add_(1, columns, values)
        return out

    def blocks(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows in blocks whose values fit into a cache."""
        size = _BLOCK.get(self.device.type, _BLOCK["cpu"])
        n = int(np.clip(size // len(self.genes), 64, 8192))
        return np.array_split(rows, max(1, -(-len(rows) // n))) if len(rows) else []


@dataclass(frozen=True)
class Settings:
    """How rows are attributed."""

    explain: Explain
    n_background: int
    averaged: bool  # whether the background is one row, its mean
    rng: np.random.Generator
    n_rows: int | None = None  # rows at most
    row_seed: int = 0  # of their drawing
    background: Function | None = None  # other data that the background is drawn from
    background_rows: RowSet | None = None


@dataclass
class Totals:
    """Sums over rows."""

    absolute: torch.Tensor  # (n_groups, n_subjects, n_genes) weighted sum of |attribution|
    signed: torch.Tensor  # the same of attributions with the sign of expression above the background
    weight: np.ndarray  # (n_groups, n_subjects) sum of the weights, 0 for a subject without rows in the group
    errors: list[np.ndarray]  # of every block, in years
    outputs: list[np.ndarray]
    references: list[np.ndarray]
    n_rows: int = 0
    bar: Bar = field(default_factory=Bar)

    @classmethod
    def empty(cls, units: Units, n_genes: int, device: torch.device) -> Totals:
        """Zeros for all groups and subjects."""
        shape = (len(units.groups), len(units.subjects), n_genes)
        zeros = torch.zeros(shape, device=device)
        return cls(zeros, torch.zeros_like(zeros), np.zeros(shape[:2]), [], [], [])

    def means(self, group: int, subjects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means of some of a group's subjects, given by position, absolute and signed, (n, n_genes) each."""
        weight = self.weight[group][subjects][:, None].astype(np.float32)
        absolute, signed = self.absolute[group].cpu().numpy(), self.signed[group].cpu().numpy()
        return absolute[subjects] / weight, signed[subjects] / weight


def add_rows(totals: Totals, units: Units, rows: RowSet, function: Function, settings: Settings) -> None:
    """Attribute all rows of a set, each kind against background rows of its kind."""
    for kind in range(int(rows.kind.max()) + 1):
        of_kind = np.flatnonzero(rows.kind == kind)
        background, middle = background_of(units, rows, function, of_kind, settings)
        chosen = of_kind
        if settings.n_rows is not None:  # the same rows for every clock of a list
            chosen = evenly(rows.subject, of_kind, settings.n_rows, np.random.default_rng(settings.row_seed))
        for block in function.blocks(chosen):
            values = function.values(block)
            found = settings.explain(function.reader, values, background, function.shifts(block))
            oriented = [a * torch.sign(v - m) for a, v, m in zip(found.values, values, middle, strict=True)]
            _add(totals, rows, block, function.joined(list(found.values)).abs(), function.joined(oriented))
            totals.errors.append(found.error.cpu().numpy())
            totals.outputs.append(found.output.cpu().numpy())
            totals.references.append(found.reference.cpu().numpy())
            totals.n_rows += len(block)
            totals.bar.step(len(block))


def background_of(
    units: Units, rows: RowSet, function: Function, of_kind: np.ndarray, settings: Settings
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Background values, and their mean, of each part."""
    if settings.background is not None and settings.background_rows is not None:
        function, rows = settings.background, settings.background_rows
        candidates = np.arange(len(rows.subject))
    else:
        trained = of_kind[units.trained[rows.subject[of_kind]]]
        candidates = trained if len(trained) else of_kind
    chosen = evenly(rows.subject, candidates, settings.n_background, settings.rng)
    values = function.values(chosen)
    middle = [v.mean(0, keepdim=True) for v in values]
    return (middle if settings.averaged else values), middle


def _add(totals: Totals, rows: RowSet, block: np.ndarray, absolute: torch.Tensor, oriented: torch.Tensor) -> None:
    """Add the rows of a block to their subjects in their groups."""
    n_subjects = totals.absolute.shape[1]
    for group, weight in rows.targets:
        used = np.flatnonzero(group[block] >= 0)
        if not len(used):
            continue
        of_group, subject = group[block][used], rows.subject[block][used]
        np.add.at(totals.weight, (of_group, subject), weight[block][used])
        flat = of_group * n_subjects + subject
        slots, inverse = np.unique(flat, return_inverse=True)
        mix = np.zeros((len(slots), len(block)), dtype=np.float32)
        mix[inverse, used] = weight[block][used]
        matrix = torch.from_numpy(mix).to(absolute.device)  # a type whose errors are subtracted has a weight below 0
        index = torch.from_numpy(slots).to(absolute.device)
        totals.absolute.view(-1, absolute.shape[1]).index_add_(0, index, matrix.abs() @ absolute)
        totals.signed.view(-1, absolute.shape[1]).index_add_(0, index, matrix @ oriented)


def is_linear(model: Any) -> bool:
    """Whether the age is a function of one weighted sum of genes."""
    return all(clock.linear for clock in model.members()) and len(model.members()) == 1


def settings_of(
    model: Any, method: str, n_samples: int | None, *, summed: bool, rng: np.random.Generator, row_seed: int = 0
) -> tuple[str, int, Settings]:
    """The method, its number of gradients for each row, and what it does; ``row_seed`` draws rows if it takes some."""
    _checks.choice(method, METHODS, "method")
    if method == "auto":
        method = "linear" if is_linear(model) else "expected_gradients"
    if method == "linear" and not is_linear(model):
        raise ValueError(
            f"method='linear' with a {type(model).__name__}, whose age is not a function of one weighted sum of genes; "
            "pass method='expected_gradients'."
        )
    projects = any(clock.solves_rows for clock in model.members())
    default = _N_PROJECTED if projects else N_SAMPLES[summed]
    n = default if n_samples is None else _checks.count(n_samples, "n_samples")
    if method == "expected_gradients":
        n_points = min(n, N_POINTS[summed and not projects])
        return method, n, Settings(partial(path_attributions, n_points=n_points), max(1, n // n_points), False, rng)
    if method == "integrated_gradients":
        return method, n, Settings(partial(path_attributions, n_points=n), _POOL, True, rng)
    if method == "linear":
        return method, n, Settings(linear_attributions, _POOL, False, rng)
    explain, n_background = _shap(model, n, int(rng.integers(2**31))), max(1, n // N_POINTS[summed])
    return method, n, Settings(explain, n_background, False, rng, _SHAP_ROWS, row_seed)


class _Net(torch.nn.Module):
    """A clock under a fixed shift, in the form that shap takes."""

    def __init__(self, reader: Reader, shifts: list[torch.Tensor]) -> None:
        super().__init__()
        self.reader, self.shifts = reader, shifts

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        """Ages, (n, 1)."""
        return self.reader(values, self.shifts)[:, None]


def _shap(model: Any, n_samples: int, seed: int) -> Explain:
    """Attributions by shap's own explainers."""
    exact = is_linear(model) and model.module.age_scale.transform == "none"

    def explain(
        reader: Reader, values: list[torch.Tensor], background: list[torch.Tensor], shifts: list[torch.Tensor]
    ) -> Attributions:
        with torch.no_grad():
            output = reader(values, shifts)
        parts, references = [], []
        for rows, own in _same_shift(values, shifts):
            chosen = [v[rows] for v in values]
            net = _Net(reader, own)
            if exact:
                parts.append(_linear_explainer(net, chosen, background, float(model.module.age_scale.sd)))
            else:
                parts.append(_gradients(net, chosen, background, n_samples, seed))
            with torch.no_grad():
                references.append(reader(background, own).mean().expand(len(chosen[0])))
        joined = tuple(torch.cat(part) for part in zip(*parts, strict=True))
        return Attributions(joined, output, torch.cat(references))

    return explain


def _same_shift(values: list[torch.Tensor], shifts: list[torch.Tensor]) -> list[tuple[slice, list[torch.Tensor]]]:
    """All rows at once, or one by one where their covariates differ."""
    if all(shift.dim() == 1 for shift in shifts):
        return [(slice(None), shifts)]
    return [(slice(i, i + 1), [s if s.dim() == 1 else s[i] for s in shifts]) for i in range(len(values[0]))]


def _gradients(
    net: _Net, values: list[torch.Tensor], background: list[torch.Tensor], n_samples: int, seed: int
) -> list[torch.Tensor]:
    """Shap's expected gradients, with points drawn at random."""
    import shap

    state = np.random.get_state()  # noqa: NPY002 - shap seeds numpy's global generator
    try:
        found = shap.GradientExplainer(net, list(background)).shap_values(
            list(values), nsamples=n_samples, rseed=seed % 2**31
        )
    finally:
        np.random.set_state(state)  # noqa: NPY002
    found = found if isinstance(found, list) else [found]
    return [
        torch.as_tensor(np.asarray(f), dtype=torch.float32, device=v.device).reshape(v.shape)
        for f, v in zip(found, values, strict=True)
    ]


def _linear_explainer(
    net: _Net, values: list[torch.Tensor], background: list[torch.Tensor], sd: float
) -> list[torch.Tensor]:
    """Shap's exact values of a linear age."""
    import shap

    with torch.no_grad():
        slope = net.reader.weights[0][0].double() * sd
    rows = background[0].cpu().numpy()
    explainer = shap.LinearExplainer((slope.cpu().numpy(), 0.0), shap.maskers.Independent(rows, max_samples=len(rows)))
    found = explainer.shap_values(values[0].cpu().numpy())
    return [torch.as_tensor(np.asarray(found), dtype=torch.float32, device=values[0].device)]
