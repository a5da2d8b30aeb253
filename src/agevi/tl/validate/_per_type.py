"""One clock per type of cells, and one prediction per sample from those of its types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks
from agevi.dataloaders._register import cell_types
from agevi.dataloaders._summed import n_in_units
from agevi.model.celltype._fit import what_types_need
from agevi.tl.validate._cohort import Cohort
from agevi.tl.validate._fit_fold import FoldJob, FoldResult
from agevi.tl.validate._left_out import warn_of_rare


@dataclass(frozen=True)
class Groups:
    """Types of cells."""

    names: list[str]
    code: np.ndarray  # (n_cells,) position in names, -1 for cells without type
    enough: np.ndarray  # (n_cells,) whether the sample has min_cells cells of this type
    may_train: np.ndarray  # (n_cells,) whether it has min_cells training cells of this type


def make_groups(adata: AnnData, groupby: str, min_cells: int, cohort: Cohort) -> Groups:
    """Types of cells from a column of ``adata.obs``."""
    _checks.count(min_cells, "min_cells")
    code, names = cell_types(adata, groupby, "groupby")
    known = code >= 0
    unit = np.where(known, cohort.sample * len(names) + code, 0)

    def is_enough(cells: np.ndarray) -> np.ndarray:
        n_units = len(cohort.samples) * len(names)
        return known & (n_in_units(np.where(cells, unit, -1), n_units, cohort.size) >= min_cells)[unit]

    return Groups(
        names=names,
        code=code,
        enough=is_enough(known),
        may_train=is_enough(known & cohort.trains),
    )


def pairs_to_fit(cohort: Cohort, groups: Groups, groupby: str, min_cells: int) -> list[tuple[int, int]]:
    """Fold and type of every clock with subjects to train on and cells to predict; warns of those that lack them."""
    pairs, lacking = [], dict.fromkeys(groups.names, 0)
    for fold in range(len(cohort.folds)):
        for code, name in enumerate(groups.names):
            if not len(cohort.held_out(fold, groups.code == code)):
                continue
            if cohort.can_train(cohort.training(fold, (groups.code == code) & groups.may_train)):
                pairs.append((fold, code))
            else:
                lacking[name] += 1
    needs = what_types_need(min_cells)
    if not pairs:
        raise ValueError(
            f"no type in adata.obs[{groupby!r}] ({_checks.listed(groups.names)}) has {needs} in any fold; lower it."
        )
    warn_of_rare(lacking, f"{len(cohort.folds)} folds", groupby, needs, "predicted")
    return pairs


def table_by_group(
    cohort: Cohort, groups: Groups, jobs: Sequence[FoldJob], results: Sequence[FoldResult]
) -> pd.DataFrame:
    """One row per sample and type, as :func:`agevi.tl.cross_validate` documents it."""
    parts = []
    for job, result in zip(jobs, results, strict=True):
        cells = pd.DataFrame(
            {
                "sample": cohort.sample[job.test],
                "predicted": np.where(groups.enough[job.test], result.predicted, np.nan).astype(np.float64),
                "size": cohort.size[job.test],
            }
        )
        part = cells.groupby("sample").agg(mean=("predicted", "mean"), size=("size", "sum")).reset_index()
        parts.append(part.assign(group=job.group, fold=job.fold, validation_mae=result.validation_mae))
    long = pd.concat(parts, ignore_index=True).sort_values(["sample", "group"], ignore_index=True)
    code = long["sample"].to_numpy()
    weight, combined = _combine(code, long["mean"].to_numpy(), long["validation_mae"].to_numpy(), len(cohort.samples))
    return pd.DataFrame(
        {
            "sample": cohort.samples[code],
            "group": np.asarray(groups.names, dtype=object)[long["group"]],
            "subject": cohort.subjects[cohort.owner[code]],
            "age": cohort.age[code],
            "predicted": long["mean"].to_numpy(),
            "n_cells": long["size"].to_numpy(dtype=np.int64),
            "fold": np.asarray(cohort.folds, dtype=object)[long["fold"]],
            "validation_mae": long["validation_mae"].to_numpy(),
            "weight": weight,
            "combined": combined[code],
        }
    )


def table_of_types(cohort: Cohort, jobs: Sequence[FoldJob], results: Sequence[FoldResult]) -> pd.DataFrame:
    """The same columns from clocks that have one per type and combine them; no validation error is taken."""
    place = pd.Index(cohort.samples)
    parts = []
    for job, result in zip(jobs, results, strict=True):
        if result.types is None or result.type_ages is None:
            continue
        ages, n_cells, weights = result.type_ages
        sample, of_type = np.nonzero(n_cells)
        code = place.get_indexer(result.type_samples)[sample]
        combined = np.full(len(place), np.nan)
        combined[cohort.sample[job.test]] = result.predicted_sample
        parts.append(
            pd.DataFrame(
                {
                    "sample": cohort.samples[code],
                    "group": result.types[of_type].astype(object),
                    "subject": cohort.subjects[cohort.owner[code]],
                    "age": cohort.age[code],
                    "predicted": ages[sample, of_type],
                    "n_cells": n_cells[sample, of_type].astype(np.int64),
                    "fold": cohort.folds[job.fold],
                    "validation_mae": np.nan,
                    "weight": weights[sample, of_type],
                    "combined": combined[code],
                }
            )
        )
    return pd.concat(parts, ignore_index=True).sort_values(["sample", "group"], ignore_index=True)


def _combine(
    sample: np.ndarray, predicted: np.ndarray, error: np.ndarray, n_samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weight of every row, summing to 1 in a sample, and the weighted mean of every sample, NaN where there is none."""
    known = ~np.isnan(predicted)
    weight = np.where(known, 1 / np.maximum(error, 1e-6), 0.0)
    total = np.bincount(sample, weights=weight, minlength=n_samples)
    weight = np.divide(weight, total[sample], out=np.zeros_like(weight), where=total[sample] > 0)
    mean = np.bincount(sample, weights=weight * np.where(known, predicted, 0.0), minlength=n_samples)
    return weight, np.where(total > 0, mean, np.nan)
