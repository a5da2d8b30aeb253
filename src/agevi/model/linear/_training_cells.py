"""The cells that a linear clock is fitted to, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import brentq

from agevi.dataloaders._summed import RowSums, n_in_units
from agevi.dataloaders._sums import UnitSums, draw_pseudocells


@dataclass(frozen=True)
class TrainingCells:
    """Cells of the labelled training samples."""

    x: Any  # (n_all, n_genes), CSR or dense
    index: np.ndarray  # (n_cells,) positions in x
    sample: np.ndarray  # (n_cells,) from 0
    subject: np.ndarray  # (n_samples,) from 0, in the order of names
    age: np.ndarray  # (n_samples,) in the user's unit
    normalize: str
    # sums for several fits, and the unit of every sample, (n_samples,)
    shared: tuple[UnitSums, np.ndarray] | None = None
    rows: RowSums | None = None  # what rows of x say of their cells, where they are sums

    @property
    def n_cells(self) -> np.ndarray:
        """Cells of every sample, (n_samples,)."""
        size = None if self.rows is None else self.rows.n_cells[self.index]
        return n_in_units(self.sample, len(self.subject), size)

    @property
    def subject_age(self) -> np.ndarray:
        """Mean age of every subject's samples, (n_subjects,)."""
        return np.bincount(self.subject, weights=self.age) / np.bincount(self.subject)

    @cached_property
    def sums(self) -> Any:
        """Sums of every sample's cells, (n_samples, n_genes); means where values are not normalised inside."""
        kept, units = self.unit_sums
        return self._scaled(kept.sums[units], self.n_cells)

    @cached_property
    def unit_sums(self) -> tuple[UnitSums, np.ndarray]:
        """Sums that were taken before or are taken for this fit alone, and the unit of every sample there."""
        if self.shared is not None:
            return self.shared
        codes, n = np.full(self.x.shape[0], -1), len(self.subject)
        codes[self.index] = self.sample
        return UnitSums(self.x, codes, n, self.normalize, rows=self.rows), np.arange(n)

    def pseudocells(self, size: float, n_draws: int, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
        """Sums (or means) of cells drawn from each sample, (n_rows, n_genes), and the sample of each."""
        codes = np.full(self.x.shape[0], -1)
        codes[self.index] = self.sample
        drawn, sample = draw_pseudocells(codes, size, n_draws, rng)
        return self._scaled((drawn @ self.x).astype(np.float32), np.asarray(drawn.sum(axis=1)).ravel()), sample

    def _scaled(self, sums: Any, n_cells: np.ndarray) -> Any:
        """Sums, or the means that they stand for."""
        if self.normalize != "none":
            return sums
        return sp.csr_matrix(sp.diags(1 / n_cells) @ sums)


def cell_offset(
    to_age: Callable[[np.ndarray], np.ndarray], cells: np.ndarray, sample: np.ndarray, sums: np.ndarray
) -> float:
    """What to add to standardised ages of cells, (n_cells,), so that they agree on average with sums, (n_samples,)."""
    weight = 1 / np.bincount(sample)[sample]
    wanted = float(to_age(sums).mean())

    def excess(offset: float) -> float:
        return float(weight @ to_age(cells + offset)) / len(sums) - wanted

    reach = 1.0
    while excess(-reach) > 0 or excess(reach) < 0:
        reach *= 2
    return float(brentq(excess, -reach, reach, xtol=1e-9))
