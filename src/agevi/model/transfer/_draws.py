"""What a classifier is trained on: samples, or draws of their cells, with one class each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from agevi.dataloaders._cells import Batch
from agevi.dataloaders._pseudocells import MIN_STEPS, ROWS, SAMPLES, Rows, Turns, draw_cells, joined

CELLS = 32
"""Cells of a sample in a step, for clocks of single cells, and twice that many when it is only judged."""

MOST_DRAWS = 4
"""Sums of a sample in a step at most: of a few samples more are much alike, and reading their cells takes the time."""


@dataclass(frozen=True)
class Units:
    """Samples (or their groups of cells) with a class."""

    cells: list[np.ndarray]  # positions of the cells of each
    case: torch.Tensor  # (n_units,) 1 for cases, 0 for controls
    weight: torch.Tensor  # (n_units,) in the loss, mean 1


class Draws:
    """Steps of training: sums of ``size`` cells drawn anew, or (None) single cells whose log-odds are averaged."""

    def __init__(self, rows: Rows, units: Units, *, size: float | None, rng: np.random.Generator) -> None:
        self.rows, self.units, self.size, self.rng = rows, units, size, rng
        self.n_units = min(SAMPLES, len(units.cells))
        several = size is not None and max(map(len, units.cells)) > 1
        self.n_each = min(MOST_DRAWS, max(1, round(ROWS / self.n_units))) if several else 1
        self.turns = Turns(len(units.cells), rng)

    def __len__(self) -> int:
        return max(MIN_STEPS, -(-len(self.units.cells) // self.n_units))

    def __iter__(self) -> Iterator[tuple[Batch, torch.Tensor, torch.Tensor]]:
        for _ in range(len(self)):
            chosen, size = np.repeat(self.turns.take(self.n_units), self.n_each), self.size or CELLS
            yield self.batch(chosen, [draw_cells(self.units.cells[i], size, self.rng) for i in chosen])

    def whole(self) -> Iterator[tuple[Batch, torch.Tensor, torch.Tensor]]:
        """All units once, with all their cells (single cells: some from first to last), always the same."""
        members = self.units.cells
        if self.size is None:
            members = [c[np.linspace(0, len(c) - 1, min(len(c), 2 * CELLS)).astype(int)] for c in members]
        for part in np.array_split(np.arange(len(members)), -(-len(members) // (4 * SAMPLES))):
            yield self.batch(part, [members[i] for i in part])

    def batch(self, chosen: np.ndarray, members: Sequence[np.ndarray]) -> tuple[Batch, torch.Tensor, torch.Tensor]:
        """Rows, the position in ``chosen`` that each belongs to, and ``chosen`` as a tensor."""
        units = torch.from_numpy(chosen)
        if self.size is not None:
            return self.rows.batch(*joined(members)), torch.arange(len(chosen)), units
        cells, sizes = joined(members)
        owner = np.repeat(np.arange(len(chosen)), sizes)
        return self.rows[cells], torch.from_numpy(owner), units
