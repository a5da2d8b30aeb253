"""Attributions of many rows, a block at a time, added up per subject and group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from anndata import AnnData

from agevi._progress import Bar
from agevi.model.base._unit_rows import UnitRows
from agevi.nn.attribution import Attributions, Reader
from agevi.tl.genes._row_sets import RowSet, Units, evenly

_BLOCK = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Values of a block of rows: on a CPU about what stays in the cache."""

Explain = Callable[[Reader, list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]], Attributions]


class Function:
    """A clock, or an ensemble, as a function of rows, and the genes that it reads; arguments as in ``UnitRows``."""

    def __init__(self, model: Any, adata: AnnData, cells: np.ndarray, codes: np.ndarray | None) -> None:
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

    def replaced(self, **changes: Any) -> Settings:
        """The same with other values."""
        return replace(self, **changes)


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
        matrix = torch.from_numpy(mix).to(absolute.device)
        index = torch.from_numpy(slots).to(absolute.device)
        totals.absolute.view(-1, absolute.shape[1]).index_add_(0, index, matrix @ absolute)
        totals.signed.view(-1, absolute.shape[1]).index_add_(0, index, matrix @ oriented)
