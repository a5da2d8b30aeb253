"""Sums of cells that are taken once in a call of the user, however many clocks and questions read them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData

from agevi.dataloaders._query import GeneMatch
from agevi.model.base._query import ShellMixin

Sums = tuple[Any, GeneMatch]
"""Sums of units, (n_units, n_genes), and where the clock's genes are in the data."""


@dataclass(frozen=True)
class _Kept:
    """Sums that a clock took."""

    clock: ShellMixin
    adata: AnnData
    unit: np.ndarray  # (n_obs,) position of each cell's unit in the sums, -1 for cells that are not in them
    n_cells: np.ndarray  # (n_units,)
    sums: Any  # (n_units, n_genes)
    match: GeneMatch

    def of(self, cells: np.ndarray, codes: np.ndarray) -> Any:
        """Sums of units of ``cells`` by ``codes``, None where these are not all units of the sums."""
        unit, place = self.unit[cells], np.full(int(codes.max()) + 1, -1)
        place[codes] = unit
        if (unit < 0).any() or not np.array_equal(place[codes], unit):
            return None
        return self.sums[place] if np.array_equal(np.bincount(codes), self.n_cells[place]) else None


_kept: ContextVar[list[_Kept] | None] = ContextVar("sums of cells", default=None)


@contextlib.contextmanager
def summed_once() -> Iterator[None]:
    """Keep the sums that are taken inside; the data must not change before it ends."""
    if _kept.get() is not None:
        yield
        return
    before = _kept.set([])
    try:
        yield
    finally:
        _kept.reset(before)


def kept_sums(
    clock: ShellMixin,
    adata: AnnData,
    cells: np.ndarray,
    codes: np.ndarray,
    min_gene_coverage: float,
    take: Callable[[], Sums],
) -> Sums:
    """Sums of ``cells`` by ``codes``, (n_cells,), that were kept, or else those that ``take`` gives."""
    kept = _kept.get()
    if kept is None:
        return take()
    for found in kept:
        if found.adata is adata and found.match.coverage >= min_gene_coverage and _read_alike(found.clock, clock):
            sums = found.of(cells, codes)
            if sums is not None:
                return sums, found.match
    sums, match = take()
    unit = np.full(adata.n_obs, -1)
    unit[cells] = codes
    if len(cells) == np.count_nonzero(unit >= 0):  # none of them twice
        kept.append(_Kept(clock, adata, unit, np.bincount(codes), sums, match))
    return sums, match


def _read_alike(one: ShellMixin, other: ShellMixin) -> bool:
    """Whether two clocks read the same values of the same genes through the same gates."""
    if one is other:
        return True
    own_gates = any(type(clock).query is not ShellMixin.query for clock in (one, other))
    return (
        not own_gates
        and (one._of_counts, one.value_kind) == (other._of_counts, other.value_kind)
        and one.setup_args["layer"] == other.setup_args["layer"]
        and np.array_equal(one.genes, other.genes)
        and one._kept_names().equals(other._kept_names())
    )
