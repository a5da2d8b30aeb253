"""Amounts of data of a learning curve, and which subjects and cells each of them keeps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agevi import _checks
from agevi.tl.validate._cohort import Cohort

SUBJECTS, CELLS = "subjects", "cells"
_LEAST = {SUBJECTS: 8, CELLS: 5}
"""Training subjects, and cells of a sample, from which the default levels start."""
_SPAN = 16
"""Most that the default levels span, as a ratio."""
_STEP = {SUBJECTS: np.sqrt(2), CELLS: 2.0}
_MAX_STEPS = {SUBJECTS: 5, CELLS: 4}
_STRATUM = 4
"""Training subjects that are neighbours in age, one after the other of which is taken."""
_MAX_STRATA = 10


@dataclass(frozen=True)
class Level:
    """An amount of subjects or of cells: a share of what there is, or a number."""

    axis: str
    amount: float | int

    @property
    def is_full(self) -> bool:
        """Whether it leaves everything as it is."""
        return isinstance(self.amount, float) and self.amount == 1

    def of(self, n: Any) -> Any:
        """How many of ``n`` it keeps, 1 at least; of arrays elementwise."""
        wanted = np.minimum(self.amount, n)
        if isinstance(self.amount, float):
            wanted = np.ceil(np.round(self.amount * np.asarray(n, dtype=np.float64), 9))
        return np.maximum(wanted, 1).astype(np.int64)


def make_levels(axis: str, given: Any, n: int, smallest: int) -> list[Level]:
    """Levels in rising order, of which the last is everything."""
    if given is None:
        amounts: list[float | int] = _grid(axis, n)
    else:
        amounts = _amounts(axis, given, smallest)
    amounts = [amount for amount in amounts if amount != 1.0 or isinstance(amount, int)]
    by_size = {int(level.of(n)): level for level in (Level(axis, amount) for amount in amounts)}
    by_size.pop(n, None)
    return [*(by_size[size] for size in sorted(by_size)), Level(axis, 1.0)]


def _grid(axis: str, n: int) -> list[float | int]:
    """Shares in a geometric row down to a few subjects or cells."""
    low = max(min(_LEAST[axis], n), n / _SPAN)
    n_steps = round(np.log(n / low) / np.log(_STEP[axis]))
    return [float(share) for share in np.geomspace(low / n, 1.0, min(n_steps, _MAX_STEPS[axis]) + 1)[:-1]]


def _amounts(axis: str, given: Any, most: int) -> list[float | int]:
    """Shares and numbers that can be kept."""
    argument = f"n_{axis}"
    values = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if not values:
        raise ValueError(f"{argument} is empty; pass shares or numbers such as [0.25, 0.5], or leave it out.")
    out = []
    for value in values:
        is_all = isinstance(value, float) and value == 1
        amount = 1.0 if is_all else _checks.share_or_count(value, argument, axis)
        if isinstance(amount, int) and amount > most:
            what = "training subjects of the smallest fold" if axis == SUBJECTS else "cells of the median sample"
            raise ValueError(
                f"{argument} holds {amount:,}, more than the {most:,} {what}; pass numbers up to that, or shares up to "
                "1."
            )
        out.append(amount)
    return out


def training_subjects(cohort: Cohort, fold: int) -> pd.Series:
    """Ages of the subjects that train when ``fold`` is held out, by code, NaN where unlabelled."""
    return cohort.subject_ages(cohort.training(fold))


def subject_order(age: pd.Series, rng: np.random.Generator) -> np.ndarray:
    """Subjects in a random order, every start of which has about the ages of all."""
    shuffled = age.iloc[rng.permutation(len(age))]
    n_strata = int(np.clip(len(age) // _STRATUM, 1, _MAX_STRATA))
    stratum = (shuffled.rank(method="first") - 1) * n_strata // len(age)
    size = stratum.map(stratum.value_counts())
    place = (stratum.groupby(stratum).cumcount() + rng.random(len(age))) / size
    return np.asarray(place.sort_values(kind="stable").index.to_numpy())


def kept_subjects(cohort: Cohort, fold: int, level: Level, seed: np.random.SeedSequence) -> np.ndarray:
    """Which cells are of training subjects that a level keeps in a fold, (n_cells,); smaller levels lie within."""
    rng = np.random.default_rng(seed)
    age = training_subjects(cohort, fold)
    known = age.dropna()
    n_kept = int(level.of(len(known)))
    chosen = subject_order(known, rng)[:n_kept]
    rest = rng.permutation(age.index[age.isna()].to_numpy(copy=True))
    n_rest = int(np.ceil(len(rest) * n_kept / len(known)))
    return np.isin(cohort.subject, np.concatenate([chosen, rest[:n_rest]]))


def kept_cells(cohort: Cohort, level: Level, seed: np.random.SeedSequence) -> np.ndarray:
    """Which cells a level keeps of every sample, (n_cells,); smaller levels within larger."""
    n_cells = np.bincount(cohort.sample, minlength=len(cohort.samples))
    order = np.lexsort((np.random.default_rng(seed).random(len(cohort.sample)), cohort.sample))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(n_cells) - n_cells, n_cells)
    return np.asarray(rank < level.of(n_cells)[cohort.sample])
