"""Who trains and who is held out in every fold of a cross-validation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _names, _units
from agevi.dataloaders._assign import assign_roles, role_counts, subject_strata
from agevi.dataloaders._folds import MIN_FOLDS, assign_folds, folds_from_column
from agevi.dataloaders._summed import cells_of_rows

_MOST_LISTED = 9  # values of a column in a message
VALIDATION_SIZE = 0.15
"""Share of the labelled training subjects that choose the epoch."""


@dataclass(frozen=True)
class Cohort:
    """Cells by subject, sample and fold, with the ages of the samples."""

    subjects: np.ndarray  # names in order
    samples: np.ndarray  # names in order
    subject: np.ndarray  # (n_cells,) position in subjects
    sample: np.ndarray  # (n_cells,) position in samples
    age: np.ndarray  # (n_samples,) NaN where unlabelled
    trains: np.ndarray  # (n_cells,) whether the cell may train
    folds: list[str]  # names in order
    fold: np.ndarray  # (n_cells,) position in folds, of the fold in which the cell is held out
    strata: np.ndarray | None  # (n_subjects,)
    size: np.ndarray  # (n_cells,) cells in every row: 1, unless rows are sums
    named: np.ndarray | None = None  # (n_cells,) fold that the cell names, where its subject may be held out in another

    @property
    def owner(self) -> np.ndarray:
        """Subject of every sample, (n_samples,)."""
        out = np.zeros(len(self.samples), dtype=np.int64)
        out[self.sample] = self.subject
        return out

    def subject_ages(self, rows: np.ndarray) -> pd.Series:
        """Mean age of the samples in ``rows`` for each of their subjects, NaN where unlabelled."""
        samples = np.unique(self.sample[rows])
        return pd.Series(self.age[samples]).groupby(self.owner[samples]).mean()

    def training(self, fold: int, cells: np.ndarray | None = None) -> np.ndarray:
        """Positions of the cells that train when ``fold`` is held out, of those in the mask ``cells``."""
        mask = (self.fold != fold) & self.trains
        if self.named is not None:
            mask &= self.named != fold
        return np.flatnonzero(mask if cells is None else mask & cells)

    def held_out(self, fold: int, cells: np.ndarray | None = None) -> np.ndarray:
        """Positions of the cells of ``fold``, of those in the mask ``cells``."""
        mask = self.fold == fold
        return np.flatnonzero(mask if cells is None else mask & cells)

    def can_train(self, rows: np.ndarray) -> bool:
        """Whether the labelled subjects of these cells are enough for a clock."""
        known = self.subject_ages(rows).dropna()
        return len(known) >= _units.MIN_LABELLED_SUBJECTS and known.nunique() > 1

    def validation(self, rows: np.ndarray, seed: np.random.SeedSequence) -> np.ndarray:
        """Which of ``rows`` belong to the subjects that choose the epoch, (n_rows,)."""
        ages = self.subject_ages(rows).dropna()
        names = ages.index.to_numpy()
        _, n_validation = role_counts(len(ages), 0, VALIDATION_SIZE)
        strata = None if self.strata is None else self.strata[names]
        roles = assign_roles(ages.to_numpy(), strata, 0, n_validation, np.random.default_rng(seed))
        return np.isin(self.subject[rows], names[roles == "validation"])


def make_cohort(
    adata: AnnData,
    setup: dict[str, Any],
    *,
    n_folds: int,
    fold_key: str | None,
    stratify_by: str | Sequence[str] | None,
    train_on: str | None,
    seed: np.random.SeedSequence,
    units: tuple[pd.Series, pd.Series] | None = None,
    fold_argument: str = "fold_key",
) -> Cohort:
    """Units, ages and folds of ``adata``, only read; ``units`` are subject and sample of its cells if known."""
    subject, sample = units or _units.units(adata, setup["subject_key"], setup["sample_key"])
    columns = [stratify_by] if isinstance(stratify_by, str) else list(stratify_by or [])
    cohort = without_folds(adata, setup, subject, sample)
    strata = subject_strata(adata, columns, subject)
    if strata is not None:
        cohort = replace(cohort, strata=strata.loc[cohort.subjects].to_numpy())
    cohort = replace(cohort, trains=query_cells(adata, train_on))
    if fold_key is not None:
        column = folds_from_column(adata, fold_key, subject, fold_argument)
        names = _names.in_order(column)
        of_subject = pd.Index(names).get_indexer(pd.Index(column.loc[cohort.subjects]))
        named = pd.Index(names).get_indexer(pd.Index(_checks.labels(adata, fold_key, fold_argument)))
        cohort = replace(cohort, folds=names, fold=of_subject[cohort.subject], named=named)
    else:
        _checks.count(n_folds, "n_folds", low=0)
        n = cohort.subject_ages(np.flatnonzero(cohort.trains)).notna().sum()
        if not MIN_FOLDS <= n_folds <= n:
            of = f" and satisfy train_on={train_on!r}" if train_on else ""
            raise ValueError(
                f"n_folds={n_folds} is not between {MIN_FOLDS} and the {n} subjects that have an age{of}; every fold "
                "holds out one of them at least."
            )
        cohort = deal_folds(cohort, int(n_folds), seed)
    _check_folds(cohort, setup["age_key"], train_on)
    return cohort


def without_folds(adata: AnnData, setup: Mapping[str, Any], subject: pd.Series, sample: pd.Series) -> Cohort:
    """Units and ages of ``adata``, all of which may train, in no folds yet."""
    cell_age = _units.ages(adata, setup["age_key"], min_age=setup["min_age"], unit=setup["age_unit"])
    age = _units.age_per_unit(cell_age, sample, setup["age_key"], is_sample=sample is not subject)
    subjects, samples = pd.Index(np.unique(subject)), age.index
    return Cohort(
        subjects=subjects.to_numpy(dtype=object),
        samples=samples.to_numpy(dtype=object),
        subject=subjects.get_indexer(pd.Index(subject)),
        sample=samples.get_indexer(pd.Index(sample)),
        age=age.to_numpy(dtype=np.float64),
        trains=np.ones(adata.n_obs, dtype=bool),
        folds=[],
        fold=np.zeros(adata.n_obs, dtype=np.int64),
        strata=None,
        size=cells_of_rows(adata),
    )


def deal_folds(cohort: Cohort, n_folds: int, seed: np.random.SeedSequence) -> Cohort:
    """The cohort with its subjects dealt into folds that each span the range of ages."""
    age = pd.Series(np.nan, index=np.arange(len(cohort.subjects)))
    age.update(cohort.subject_ages(np.arange(len(cohort.subject))))
    may_train = np.isin(age.index, cohort.subject_ages(np.flatnonzero(cohort.trains)).dropna().index)
    of_subject = assign_folds(age.to_numpy(), may_train, cohort.strata, n_folds, np.random.default_rng(seed))
    return replace(cohort, folds=[str(i) for i in range(n_folds)], fold=of_subject[cohort.subject])


def _check_folds(cohort: Cohort, age_key: str, train_on: str | None) -> None:
    """Refuse folds of which one leaves too few subjects to train on."""
    for code, name in enumerate(cohort.folds):
        if not cohort.can_train(cohort.training(code)):
            known = cohort.subject_ages(cohort.training(code)).dropna()
            of = f" and satisfy train_on={train_on!r}" if train_on else ""
            raise ValueError(
                f"outside fold {name!r}, {len(known)} subjects with {known.nunique()} different ages have an age in "
                f"adata.obs[{age_key!r}]{of}; a clock needs {_units.MIN_LABELLED_SUBJECTS} subjects and 2 ages. Take "
                "fewer or larger folds."
            )


def query_cells(adata: AnnData, train_on: str | None, argument: str = "train_on") -> np.ndarray:
    """Cells for which the query ``argument`` holds, (n_cells,); all without one."""
    if train_on is None:
        return np.ones(adata.n_obs, dtype=bool)
    if not isinstance(train_on, str):
        raise TypeError(
            f"{argument} is a {type(train_on).__name__}; pass a pandas query on adata.obs such as "
            "\"condition == 'healthy'\"."
        )
    try:
        found = adata.obs.eval(train_on, engine="python")
    except pd.errors.UndefinedVariableError as error:
        name = str(error).split("'")[1]
        _checks.column(adata, name, argument)
        raise
    except Exception as error:
        raise ValueError(
            f"{argument}={train_on!r} is not a query that pandas can evaluate on adata.obs ({error}); write it as in "
            "adata.obs.query(\"condition == 'healthy'\")."
        ) from error
    if not isinstance(found, pd.Series) or not pd.api.types.is_bool_dtype(found):
        raise ValueError(
            f"{argument}={train_on!r} does not say yes or no for every cell; compare a column with a value, as in "
            "\"condition == 'healthy'\"."
        )
    trains = found.fillna(False).to_numpy(dtype=bool)
    if not trains.any():
        raise ValueError(f"{argument}={train_on!r} holds for no cell of adata.obs{_named(adata, train_on)}.")
    return trains


def _named(adata: AnnData, query: str) -> str:
    """What the columns that a query names hold, for a message."""
    code = re.sub(r"'[^']*'|\"[^\"]*\"", "", query)  # without the values that are compared with
    names = dict.fromkeys(quoted or plain for quoted, plain in re.findall(r"`([^`]+)`|([^\W\d]\w*)", code))
    out = []
    for name in names:
        if name in adata.obs:
            values = adata.obs[name].dropna()
            many = pd.api.types.is_numeric_dtype(values) and values.nunique() > _MOST_LISTED
            held = (
                f"{values.min():g} to {values.max():g}" if many else _checks.listed(_names.levels(values), _MOST_LISTED)
            )
            out.append(f"adata.obs[{name!r}] has {held or 'no values'}")
    return f"; {', '.join(out)}" if out else ""
