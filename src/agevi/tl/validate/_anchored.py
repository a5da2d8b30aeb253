"""Held-out cohorts at the level that the anchor of a clock of cell types tells."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _ages, _checks, _keys
from agevi.model.celltype._anchor import LEAST_R
from agevi.tl.intervals import _cohort_level
from agevi.tl.intervals._recalibrate import recalibrate
from agevi.tl.predict._aggregate_subjects import aggregate_subjects
from agevi.tl.validate._baselines import Units
from agevi.tl.validate._cohort import Cohort, query_cells
from agevi.tl.validate._fit_fold import FoldResult
from agevi.tl.validate._recipe import Recipe

logger = logging.getLogger(__name__)


def has_anchor(recipe: Recipe) -> bool:
    """Whether the clocks of a recipe have an anchor."""
    return bool(recipe.model_cls.of_types and recipe.argument("anchor") is not None)


def anchor_table(cohort: Cohort, results: Sequence[FoldResult]) -> pd.DataFrame:
    """Age of every sample by the anchor of the clock that did not see it, indexed by sample."""
    ages = pd.Series(np.nan, index=pd.Index(cohort.samples, name="sample"))
    for result in results:
        if result.type_samples is not None and result.type_anchor is not None:
            ages.loc[result.type_samples] = result.type_anchor
    return ages.to_frame("anchor")


def write_anchored(
    adata: AnnData, keys: _keys.Keys, train_on: str | None, folds: Sequence[str], results: Sequence[FoldResult]
) -> None:
    """Predictions with every fold at the level of its anchor, under a key of their own."""
    key = keys.key_added
    lost = adata.obs.loc[~np.isin(adata.obs[keys.fold], _with_anchor(adata, keys, train_on)), keys.fold].unique()
    if len(lost):
        r_of_fold = dict(zip(folds, [float(result.anchor_r) for result in results], strict=True))
        weak = [r_of_fold[str(name)] for name in lost if r_of_fold[str(name)] < LEAST_R]
        why = (
            f" In {len(weak)} of them no type against the anchor tells the ages of training subjects held out (r at "
            f"most {max(weak):.2f}, and {LEAST_R} is needed): there are too few of them, or the types age alike."
            if weak
            else ""
        )
        logger.warning(
            "Nobody in %d folds (%s) has an age by the anchor%s, so that these keep the predictions of key_added=%r.%s",
            len(lost), _checks.listed([str(name) for name in lost]), " and may train" if train_on else "", key, why,
        )  # fmt: skip
    if len(lost) == adata.obs[keys.fold].nunique():
        return
    aggregate_subjects(adata, key_added=key)
    recalibrate(adata, by=keys.fold, key=key, anchor=key, shift_on=train_on, key_added=key + _keys.ANCHORED)
    logger.info(
        "Every fold at the level of the anchor stands under key_added=%r: agevi.get.metrics_df(adata, key_added=%r).",
        key + _keys.ANCHORED, key + _keys.ANCHORED,
    )  # fmt: skip


def _with_anchor(adata: AnnData, keys: _keys.Keys, train_on: str | None) -> np.ndarray:
    """Folds with samples that have an age by the anchor and may train."""
    known = adata.uns[keys.anchor]["anchor"].dropna().index
    sample = _checks.labels(adata, adata.uns[keys.uns]["sample_key"], "sample_key")
    return np.asarray(
        adata.obs.loc[sample.isin(known).to_numpy() & query_cells(adata, train_on), keys.fold].unique(), dtype=object
    )


def at_level(predicted: np.ndarray, units: Units, cohort: Cohort, recipe: Recipe, anchor: pd.DataFrame) -> np.ndarray:
    """Predictions of units, (n_units,), with the samples of every fold moved to the level of the anchor."""
    names = cohort.samples[units.sample]
    table = pd.DataFrame({"predicted": predicted, "subject": cohort.owner[units.sample]}, index=names)
    fold = pd.Series(np.asarray(cohort.folds, dtype=object)[units.fold], index=names)
    scale = _ages.AgeTransform.of({**recipe.full_setup, "age_transform": recipe.age_transform})
    found = _cohort_level.levels(table, fold, units.trains, scale, anchor["anchor"].reindex(names), None)
    moved = _cohort_level.move(table, fold, found, scale, lambda: None, level=np.nan)  # without intervals
    return moved["predicted"].to_numpy()
