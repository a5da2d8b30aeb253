"""Ages of the types of each sample, and what they are combined to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _names
from agevi.dataloaders._query import GeneMatch
from agevi.dataloaders._register import type_names
from agevi.dataloaders._summed import cells_of_rows, cells_of_units
from agevi.dataloaders._sums import sample_means
from agevi.model.base._for_ages import is_for_ages_alone
from agevi.model.celltype._anchor import anchor_ages
from agevi.model.celltype._fit import counts_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TypeAges:
    """What the members say of each sample."""

    samples: np.ndarray  # names, (n_samples,)
    sample_of_cell: np.ndarray  # (n_cells,) position in samples
    columns: list[str]  # types with a clock, and the composition where the clock has it
    ages: np.ndarray  # (n_samples, n_columns) NaN where a sample has no cells, or has other types with enough cells
    enough: np.ndarray  # (n_samples, n_columns) whether the sample has min_cells cells
    n_cells: np.ndarray  # (n_samples, n_columns) those of the type; of all types for the composition
    weights: np.ndarray  # (n_samples, n_columns) rows sum to 1, or to 0 where nothing is known
    anchor: np.ndarray  # (n_samples,) age by the contrasts with the anchor, NaN without any

    @property
    def combined(self) -> np.ndarray:
        """Age of every sample, (n_samples,), NaN where it has no type of the clock."""
        total = np.nansum(self.weights * self.ages, axis=1)
        return np.where(np.isfinite(self.ages).any(axis=1), total, np.nan)

    @property
    def age_of_cell(self) -> np.ndarray:
        """The same for every cell, (n_cells,) float32."""
        return self.combined.astype(np.float32)[self.sample_of_cell]

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Types and samples as text, ages, cells and weights, (3, n_samples, n_types), and ages by the anchor."""
        numbers = np.stack([self.table().to_numpy(), self.n_cells, self.weights])
        return np.asarray(self.columns, dtype=str), self.samples.astype(str), numbers, self.anchor

    @property
    def anchor_ages(self) -> pd.Series:
        """Age of every sample by the anchor."""
        return pd.Series(self.anchor, index=pd.Index(self.samples, name="sample"), name="anchor")

    def table(self) -> pd.DataFrame:
        """Samples x types with enough cells."""
        ages = np.where(self.enough, self.ages, np.nan)
        return pd.DataFrame(ages, index=pd.Index(self.samples, name="sample"), columns=self.columns)


def ages_of_types(
    model: Any,
    adata: AnnData,
    rows: np.ndarray,
    *,
    batch_size: int | None,
    min_gene_coverage: float,
    sample_key: str | None,
) -> TypeAges:
    """Ages that the members give to the samples of the cells at ``rows``."""
    names, of_cell = model.sample_names(adata, rows, sample_key)
    code = _known_types(model, adata)[rows]
    n = counts_of(of_cell, code, len(names), len(model.types_), cells_of_rows(adata)[rows])
    ages, anchor = np.full((len(names), len(model._columns)), np.nan), np.full(len(names), np.nan)
    n_cells = np.zeros(ages.shape, dtype=np.int64)
    place = [model.types_.index(name) for name in model.type_clocks]
    n_cells[:, : len(place)] = n[:, place]
    min_cells = model.init_args["min_cells"]
    enough = n_cells >= min_cells
    lean = ~enough.any(axis=1)  # samples that are read from what they have
    used = (n >= min_cells) | lean[:, None]
    read = np.flatnonzero((code >= 0) & used[of_cell, np.maximum(code, 0)] & np.isin(code, place))
    if len(read):
        unit, of_unit = np.unique(of_cell[read] * len(model.types_) + code[read], return_inverse=True)
        sample, of_type = np.divmod(unit, len(model.types_))
        of_unit, sums = of_unit.ravel(), None
        if model.contrast_clocks or _all_sum(model):
            sums = model.sums(adata, rows[read], of_unit, min_gene_coverage)
        found = _unit_ages(model, adata, rows[read], of_unit, of_type, sums, batch_size, min_gene_coverage)
        ages[sample, np.searchsorted(np.asarray(place), of_type)] = found
        if model.contrast_clocks and sums is not None:
            own = n[sample, of_type] >= min_cells
            anchor = anchor_ages(model, sums[0][own], sums[1], sample[own], of_type[own], len(names))
    else:
        model.gene_coverage(adata, min_gene_coverage)
    if model._composition is not None:
        total = n.sum(axis=1)
        n_cells[:, -1], enough[:, -1] = total, (total >= min_cells) & _comparable(model, n, names)
        ages[:, -1] = np.where(enough[:, -1], model._composition.ages(n), np.nan)
    there = np.isfinite(ages)
    none = ~there.any(axis=1)
    if not is_for_ages_alone():
        say_samples(logger, len(names), names[lean & ~none], names[none], f"min_cells={min_cells}")
    return TypeAges(
        names, of_cell, list(model._columns), ages, enough, n_cells, model.type_weights(np.where(there, n_cells, 0)),
        anchor,
    )  # fmt: skip


def say_samples(log: logging.Logger, n: int, few: Sequence[str], none: Sequence[str], least: str) -> None:
    """Name those of ``n`` samples that are predicted from few cells, and those that are not predicted."""
    from_few = f"have too few cells of each type of the clock ({least}) and are predicted from what they have"
    for names, said in ((few, from_few), (none, "have no cells of a type of the clock and are not predicted")):
        if len(names):
            log.warning("%d of %d samples %s: %s.", len(names), n, said, _checks.listed(names, 3))


def _all_sum(model: Any) -> bool:
    """Whether the clocks of all types read the same sums."""
    return all(clock.predicts_sums and clock.pseudocell_groupby is None for clock in model.type_clocks.values())


def _unit_ages(
    model: Any,
    adata: AnnData,
    cells: np.ndarray,
    unit: np.ndarray,
    of_type: np.ndarray,
    sums: tuple[AnnData, GeneMatch] | None,
    batch_size: int | None,
    min_gene_coverage: float,
) -> np.ndarray:
    """Age of every unit, the cells of one type in one sample, by the clock of its type, (n_units,)."""
    out = np.full(len(of_type), np.nan)
    clocks = {model.types_.index(name): clock for name, clock in model.type_clocks.items()}
    options = {"batch_size": batch_size, "min_gene_coverage": min_gene_coverage}
    if sums is not None and _all_sum(model):
        units, match = sums
        for i, clock in clocks.items():
            own = np.flatnonzero(of_type == i)
            if len(own):
                out[own] = clock._predict_shell(units[own].copy(), match, batch_size=batch_size, summed=True)[0]
        return out
    for i, clock in clocks.items():
        own = np.flatnonzero(of_type[unit] == i)
        if not len(own):
            continue
        if clock.predicts_sums:
            age = clock.predict_samples(adata, indices=cells[own], **options)
        else:
            age = clock.predict_rows(adata, indices=cells[own], **options).value
        place, of_own = np.unique(unit[own], return_inverse=True)
        out[place] = pd.Series(sample_means(age, of_own.ravel())).groupby(of_own.ravel()).first()
    return out


def types_of_cells(model: Any, adata: AnnData) -> tuple[np.ndarray, list[str]]:
    """Position of each cell's type among those of training, (n_cells,), -1 for others; and the types in the data.

    Data without any type that has a clock are refused.
    """
    key = model.setup_args["cell_type_key"]
    values = type_names(adata, key, "cell_type_key")
    code = pd.Index(model.types_).get_indexer(pd.Index(values.to_numpy(dtype=object)))
    found = [str(name) for name in pd.unique(values.dropna())]
    if not set(found) & model.type_clocks.keys():
        raise ValueError(
            f"{_names.in_types(key)} holds {_checks.listed(found, 3) or 'missing values alone'}, and the clock reads "
            f"{_checks.listed(list(model.type_clocks), 5)}{_names.difference(found, list(model.type_clocks))}; name "
            "types as in training."
        )
    return np.asarray(code), found


def cells_of_clocks(model: Any, adata: AnnData, cells: np.ndarray) -> list[np.ndarray]:
    """Those of ``cells``, by position, that the clock of each type reads, in samples with ``min_cells`` of the type."""
    code, sample, out = types_of_cells(model, adata)[0][cells], model.sample_codes(adata, cells, None), []
    for name in model.type_clocks:
        own = code == model.types_.index(name)
        n_cells = cells_of_units(adata, sample[own], int(sample.max(initial=0)) + 1, cells[own])
        enough = n_cells >= model.init_args["min_cells"]
        out.append(cells[own & enough[sample]])
    return out


def _known_types(model: Any, adata: AnnData) -> np.ndarray:
    """Positions of the cells' types, as above; says what is left out."""
    code, found = types_of_cells(model, adata)
    if is_for_ages_alone():
        return code
    key = model.setup_args["cell_type_key"]
    unknown = [name for name in found if name not in model.types_]
    if unknown:
        _checks.warn_of_spelling(pd.Series(found, dtype=object), model.types_, key, "are not read")
        logger.warning(
            "%d cells are of types that the clock never saw and are not read (%s).",
            int((code < 0).sum()), _checks.listed(unknown, 3),
        )  # fmt: skip
    missing = [name for name in model.type_clocks if name not in found]
    if missing:
        logger.warning(
            "The data have no cells of %d of the clock's %d types (%s); ages are those of the others.",
            len(missing), len(model.type_clocks), _checks.listed(missing, 3),
        )  # fmt: skip
    return code


def _comparable(model: Any, n: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Samples with the types that nearly all training samples have, whose shares can be compared with training."""
    usual = [i for i, name in enumerate(model.types_) if name in model._usual]
    lacking = n[:, usual] == 0  # each sample by itself, so that no prediction depends on the other samples
    if lacking.any() and not is_for_ages_alone():
        lost = [model.types_[i] for i, absent in zip(usual, lacking.any(axis=0), strict=True) if absent]
        out = lacking.any(axis=1)
        logger.warning(
            "%d of %d samples (%s) have no cells of types that nearly all training samples have (%s), so their "
            "composition is not read.", out.sum(), len(names), _checks.listed(names[out], 3), _checks.listed(lost, 3),
        )  # fmt: skip
    return ~lacking.any(axis=1)
