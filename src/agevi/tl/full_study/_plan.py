"""What a study is going to do, decided from its arguments and the columns of ``obs`` before anything long begins."""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _names, _units
from agevi._ages import YEAR
from agevi._gene_names import CUSTOMARY, SYMBOLS
from agevi.tl.full_study._condition import Comparison, compared
from agevi.tl.validate._arguments import with_matrix
from agevi.tl.validate._jobs import check_data, check_outputs
from agevi.tl.validate._recipe import recipe_of

MIN_SUBJECTS = 4
"""Subjects with an age, of whom one is held out and three train a clock."""
N_FOLDS = 5
CELLS = (20, 10, 5)
"""Cells of a type that a sample needs, from the most: those of the clock's default, and less where cells are few."""
_SHARE = 0.8
"""Share of samples that need so many cells in half of the types or more."""
ROLE = "trains"
"""Noun of the column with the role of every cell in the training of the final clock."""


@dataclass(frozen=True)
class Arguments:
    """What :func:`agevi.tl.study` was asked for."""

    age_key: str
    subject_key: str
    sample_key: str | None
    cell_type_key: str | None
    condition_key: str | None
    reference: Any
    covariates: tuple[str, ...]
    layer: str | None
    obsm_key: str | None
    quick: bool
    key_added: str
    age_unit: str = "years"

    @property
    def units(self) -> dict[str, str]:
        """Columns with age, subject and, where it is given, sample, as arguments."""
        out = {"age_key": self.age_key, "subject_key": self.subject_key}
        return out if self.sample_key is None else out | {"sample_key": self.sample_key}

    @property
    def matrix(self) -> dict[str, str]:
        """The layer or the table of ``obsm`` that is read, as an argument; empty for X."""
        given = {"layer": self.layer, "obsm_key": self.obsm_key}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def unit(self) -> dict[str, str]:
        """The unit of the ages as an argument of ``setup_anndata``, where it is not the default."""
        return {} if self.age_unit == "years" else {"age_unit": self.age_unit}

    @property
    def keys(self) -> dict[str, str]:
        """``key_added`` as an argument, where it is not the default."""
        return {} if self.key_added == _keys.DEFAULT_KEY else {"key_added": self.key_added}


@dataclass(frozen=True)
class Plan:
    """What is made, and why other things are not."""

    given: Arguments
    seed: int
    n_subjects: int  # with an age
    clock: str  # name of the class
    setup_kwargs: dict[str, Any]
    model_kwargs: dict[str, Any]
    no_types: str  # why there is no clock per type; "" where there is
    n_folds: int
    comparison: Comparison
    gene_symbols: str | None

    @property
    def typed(self) -> bool:
        """Whether each type of cells has a clock."""
        return not self.no_types

    @property
    def role_key(self) -> str:
        """Column with the role of every cell in the training of the final clock."""
        return str(_keys.Keys(self.given.key_added).study_role)

    @property
    def train_on(self) -> dict[str, str]:
        """The query that selects who trains, as an argument; empty where everybody does."""
        found = self.comparison
        if not found.trains_reference:
            return {}
        key, values = str(self.given.condition_key), found.reference_values
        plain = key.isidentifier() and not keyword.iskeyword(key) and len(values) == 1 and isinstance(values[0], str)
        return {"train_on": f"{key} == {values[0]!r}" if plain else f"{self.role_key} == {_keys.TRAIN!r}"}


def make_plan(adata: AnnData, given: Arguments, seed: int) -> Plan:
    """Check everything that the calls of a study check, in their words, and decide what is made."""
    _checks.in_memory(_checks.anndata(adata), "tl.study reads")
    _checks.choice(given.age_unit, tuple(YEAR), "age_unit")
    setup = with_matrix(given.unit, given.layer, given.obsm_key)
    columns = {"age_key": given.age_key, "subject_key": given.subject_key, "sample_key": given.sample_key}
    subject, sample = check_data(adata, recipe_of("PLSClock", columns, setup))
    if given.cell_type_key is not None:
        _checks.column(adata, given.cell_type_key, "cell_type_key")
    read = [*columns.values(), given.cell_type_key, given.condition_key, *given.covariates]
    check_outputs(read, _outputs(given), given.key_added)
    age = _units.ages(adata, given.age_key, unit=given.age_unit)
    by_sample, owner = _units.ages_of_samples(age, subject, sample, given.age_key)
    known = by_sample.dropna()
    n_subjects = owner.loc[known.index].nunique()
    if n_subjects < MIN_SUBJECTS:
        raise ValueError(
            f"only {n_subjects} subjects have an age in adata.obs[{given.age_key!r}]; tl.study holds subjects out and "
            f"needs at least {MIN_SUBJECTS}. With fewer than about twenty, take a clock that others trained: "
            "agevi.clocks.list()."
        )
    comparison = compared(adata, given, subject, sample, by_sample, owner)
    min_cells, no_types = _types(adata, given, sample)
    trainers = comparison.n_reference if comparison.trains_reference else n_subjects
    plan = Plan(
        given=given,
        seed=seed,
        n_subjects=n_subjects,
        clock="PLSClock" if no_types else "CellTypeClock",
        setup_kwargs=given.unit | ({} if no_types else {"cell_type_key": given.cell_type_key}),
        model_kwargs={} if no_types else _of_types(min_cells, quick=given.quick),
        no_types=no_types,
        n_folds=min(3 if given.quick and trainers >= 2 * N_FOLDS else N_FOLDS, trainers),
        comparison=comparison,
        gene_symbols=_symbol_column(adata),
    )
    if not no_types:
        check_data(adata, recipe_of(plan.clock, columns, dict(setup or {}) | plan.setup_kwargs, plan.model_kwargs))
    return plan


def _outputs(given: Arguments) -> list[str]:
    """Columns of ``obs`` that are written."""
    keys = _keys.Keys(given.key_added)
    return [getattr(keys, noun) for noun in ("predicted", "predicted_sample", "role", "fold", "study_role")]


def _of_types(min_cells: int, *, quick: bool) -> dict[str, Any]:
    """Arguments of the clock of cell types, where they are not its defaults."""
    out: dict[str, Any] = {} if min_cells == CELLS[0] else {"min_cells": min_cells}
    return out | ({"combine": "mean"} if quick else {})


def _types(adata: AnnData, given: Arguments, sample: pd.Series) -> tuple[int, str]:
    """Cells of a type that a sample needs, and why there is no clock per type, "" where there is."""
    if given.cell_type_key is None:
        return 0, "cell_type_key was not given"
    types = _names.names(adata.obs[given.cell_type_key], f"adata.obs[{given.cell_type_key!r}]")
    cells = pd.crosstab(sample.to_numpy(), types.to_numpy(dtype=object)).to_numpy()
    enough = [c for c in CELLS if _enough(cells, c)]
    if cells.shape[1] < 2:
        return 0, f"adata.obs[{given.cell_type_key!r}] has {cells.shape[1]} type of cells, and a clock per type needs 2"
    if not enough:
        return 0, (
            f"too few cells: fewer than {_SHARE:.0%} of the samples have {CELLS[-1]} cells in half of the "
            f"{cells.shape[1]} types of adata.obs[{given.cell_type_key!r}], so one clock takes all cells"
        )
    return enough[0], ""


def _enough(cells: np.ndarray, least: int) -> bool:
    """Whether most samples have ``least`` cells in half of the types that two samples in each fold have."""
    able = (cells >= least).sum(axis=0) >= 2 * N_FOLDS
    if able.sum() < 2:
        return False
    return bool(((cells[:, able] >= least).mean(axis=1) >= 0.5).mean() >= _SHARE)


def _symbol_column(adata: AnnData) -> str | None:
    """Column of ``var`` with the symbols of genes that are named by Ensembl ids; None where names serve as they are."""
    names: Sequence[str] = [str(name) for name in adata.var_names[:2000]]
    if not names or np.mean([name.startswith("ENS") for name in names]) < 0.5:
        return None
    lower = {str(column).lower(): str(column) for column in adata.var}
    return next((lower[name] for name in CUSTOMARY[SYMBOLS] if name in lower), None)
