"""The clock of every type, and the age that each gives to training samples that it did not see."""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _names, _units
from agevi._progress import Bar
from agevi.dataloaders._folds import assign_folds
from agevi.dataloaders._summed import cells_of_rows, n_in_units
from agevi.model.base import _save
from agevi.model.base._for_ages import for_ages_alone, is_for_ages_alone

_USUAL = 0.95


@dataclass(frozen=True)
class TypedCells:
    """Registered cells with their types and units."""

    adata: AnnData
    names: list[str]  # of types
    code: np.ndarray  # (n_cells,) position in names, -1 without a type
    sample: np.ndarray  # (n_cells,) code
    owner: np.ndarray  # (n_samples,) code of the subject
    age: np.ndarray  # (n_samples,) NaN where unlabelled
    role: np.ndarray  # (n_subjects,) text
    min_cells: int

    @property
    def n_of_type(self) -> np.ndarray:
        """Cells of each type, (n_samples, n_types)."""
        return counts_of(self.sample, self.code, len(self.age), len(self.names), cells_of_rows(self.adata))

    @property
    def trains(self) -> np.ndarray:
        """Whether a sample has an age and belongs to a training subject, (n_samples,)."""
        known: np.ndarray = np.isfinite(self.age) & (self.role[self.owner] == _keys.TRAIN)
        return known

    @property
    def usual(self) -> list[str]:
        """Types that nearly all training samples have."""
        share = (self.n_of_type[self.trains] > 0).mean(axis=0)
        return [name for name, own in zip(self.names, share, strict=True) if own >= _USUAL]

    def folds(self, n_folds: int, rng: int) -> np.ndarray:
        """Fold of every subject, (n_subjects,), -1 for those that do not train."""
        subject = np.unique(self.owner[self.trains])
        age = pd.Series(self.age[self.trains]).groupby(self.owner[self.trains]).mean().to_numpy()
        out = np.full(len(self.role), -1)
        n = min(n_folds, len(subject))
        out[subject] = assign_folds(age, np.ones(len(subject), dtype=bool), None, n, np.random.default_rng(rng))
        return out


def counts_of(
    sample: np.ndarray, code: np.ndarray, n_samples: int, n_types: int, size: np.ndarray | None = None
) -> np.ndarray:
    """Cells of each type in each sample, (n_samples, n_types); rows have ``size`` cells, those of code -1 no type."""
    unit = np.where(code >= 0, sample * n_types + code, -1)
    return n_in_units(unit, n_samples * n_types, size).reshape(n_samples, n_types)


def type_seed(seed: int, name: str) -> int:
    """Seed of the clock of a type, the same whatever other types there are."""
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0] >> 1)


def types_to_fit(cells: TypedCells, key: str | None) -> list[int]:
    """Types that have the subjects to train a clock; the others are named in a warning."""
    n, trains = cells.n_of_type, cells.trains
    able = [i for i in range(len(cells.names)) if can_train(cells, trains & (n[:, i] >= cells.min_cells))]
    needs = what_types_need(cells.min_cells)
    if not able:
        raise ValueError(f"no type in {_names.in_types(key)} ({_checks.listed(cells.names)}) has {needs}; lower it.")
    rare = [name for i, name in enumerate(cells.names) if i not in able]
    if rare and not is_for_ages_alone():
        warnings.warn(
            f"{len(rare)} of the {len(cells.names)} types in {_names.in_types(key)} lack {needs} and have no clock: "
            f"{_checks.listed(rare, 5)}.",
            UserWarning,
            stacklevel=_checks.stack_depth(),
        )
    return able


def say_one_type(log: logging.Logger) -> None:
    """Say that no types are told apart."""
    log.warning("CellTypeClock.setup_anndata was given no cell_type_key: all cells count as one type.")


def what_types_need(min_cells: int) -> str:
    """What a type must have for a clock of its own, for messages."""
    return (
        f"{_units.MIN_LABELLED_SUBJECTS} training subjects of 2 ages with enough cells per sample "
        f"(min_cells={min_cells})"
    )


def can_train(cells: TypedCells, samples: np.ndarray) -> bool:
    """Whether some samples are enough for a clock, which holds out subjects to choose by."""
    enough = len(np.unique(cells.owner[samples])) >= _units.MIN_LABELLED_SUBJECTS
    return bool(enough and len(np.unique(cells.age[samples])) > 1)


def fit_type(
    cells: TypedCells,
    of_type: int,
    make: Callable[[AnnData, str], Any],
    train: Callable[[Any, str], None],
    folds: np.ndarray | None,
    bar: Bar,
) -> tuple[Any, np.ndarray]:
    """The clock of one type without its data, and the ages of samples that were held out from it, (n_samples,).

    ``folds`` are those of subjects, (n_subjects,); without them no sample is held out, and all ages are NaN.
    """
    name, enough = cells.names[of_type], cells.n_of_type[:, of_type] >= cells.min_cells
    used = np.flatnonzero((cells.code == of_type) & enough[cells.sample])
    shell, sample = cells.adata[used].copy(), cells.sample[used]
    role = cells.role[cells.owner[sample]]
    model = make(shell, name)
    model.share_sums()
    out = np.full(len(cells.age), np.nan)
    for held_out in [] if folds is None else [folds == fold for fold in range(int(folds.max()) + 1)]:
        held = enough & cells.trains & held_out[cells.owner]
        if held.any() and can_train(cells, enough & cells.trains & ~held):
            shell.obs[_keys.SPLIT] = np.where(held_out[cells.owner[sample]], _keys.TEST, role)
            with for_ages_alone():
                train(model, name)
            rows = np.flatnonzero(held[sample])
            age = model.predict_age(indices=rows, level=model.level)
            by_sample = pd.Series(age, dtype=np.float64).groupby(sample[rows]).mean()
            out[by_sample.index.to_numpy()] = by_sample.to_numpy()
        bar.step(done=f"clock of {name}")
    shell.obs[_keys.SPLIT] = role
    train(model, name)
    bar.step(done=f"clock of {name}")
    return _save.copy_of(model), out
