"""Out-of-fold error against the number of subjects and of cells: whether more of either would help."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _units
from agevi.dataloaders._summed import refuse_sums
from agevi.tl._store import store_table
from agevi.tl.curves._curve_table import COVERAGE, Point, Resampler, curve_table, verdict
from agevi.tl.curves._levels import CELLS, SUBJECTS, Level, kept_cells, kept_subjects, make_levels, training_subjects
from agevi.tl.validate._arguments import described, with_matrix
from agevi.tl.validate._baselines import Units, make_units
from agevi.tl.validate._checkpoint import seed_of
from agevi.tl.validate._cohort import Cohort, make_cohort
from agevi.tl.validate._fit_fold import FoldJob, FoldResult
from agevi.tl.validate._jobs import CURVE, FOLDS, check_data, make_job, open_checkpoint, read_data, stream
from agevi.tl.validate._recipe import Recipe, recipe_of
from agevi.tl.validate._run_jobs import run_jobs

logger = logging.getLogger(__name__)

NOUN = "learning_curve"
_N_BOOT = 2000


@described
def learning_curve(  # noqa: PLR0913
    adata: AnnData,
    model_cls: Any,
    *,
    age_key: str,
    subject_key: str,
    sample_key: str | None = None,
    n_subjects: Sequence[float] | None = None,
    n_cells: Sequence[float] | None = None,
    n_repeats: int = 3,
    n_folds: int = 5,
    fold_key: str | None = None,
    stratify_by: str | Sequence[str] | None = None,
    train_on: str | None = None,
    layer: str | None = None,
    obsm_key: str | None = None,
    setup_kwargs: Mapping[str, Any] | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    n_jobs: int | None = 1,
    checkpoint_dir: str | Path | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    rng: int | np.random.Generator | None = 0,
    copy: bool = False,
) -> AnnData | None:
    r"""Out-of-fold error against numbers of subjects and of cells, and its change with twice the data, in units of age.

    The clock is cross-validated on all data as by :func:`agevi.tl.cross_validate`, then on the same folds with fewer
    training subjects, and with fewer cells of every sample. To each series a power law error = c + a n\ :sup:`-b` is
    fitted (c at least 0, b at most 2; Hestness et al. 2017, equation 1), and read off at twice the data, no further. A
    negative change is a gain. Errors do not keep to one law, so its 95 % interval rests on what is measured, the change
    from half of the data to all: twice the data brings between a quarter of the lower and all of the higher end of its
    interval (bootstrap over subjects and repeats), or twice the higher end while the clock's error is above two thirds
    of that of the median age. The interval is wide, and held the truth in 85 % or more of simulated cohorts. Where it
    holds 0, or the clock with all data is not shown to beat the median age, the sentence says that no gain can be
    shown.

    Parameters
    ----------
    adata
        Cells x genes, in memory. It is only read.
    model_cls
        Class, name of a class, or a list of them, as in :func:`agevi.tl.cross_validate`.
    %(keys)s
    n_subjects
        Training subjects with an age, of each fold: shares (0.25), or numbers (20). Smaller sets are parts of larger
        ones and span the range of ages. Held-out subjects are always all of them. Default: up to six levels, a constant
        ratio apart, from 8 subjects or a sixteenth of them. All subjects are always the last level.
    n_cells
        Cells of each sample: shares, or numbers up to those of the median sample. Smaller sets are parts of larger
        ones. Held-out samples are predicted from as few cells, as they would be in a study of fewer cells. Default: up
        to five levels from 5 cells or a sixteenth of them. All cells are always the last level.
    n_repeats
        Times that each level below all data is drawn and fitted. 1 is enough for a first look with a slow clock.
    %(folds_as_in_cross_validate)s
    %(layer)s
    %(obsm_key)s
    setup_kwargs, model_kwargs, train_kwargs
        Further arguments of ``setup_anndata``, of the constructor and of ``train``, as in
        :func:`agevi.tl.cross_validate`.
    n_jobs
        Fits at a time, as in :func:`agevi.tl.cross_validate`; those of all levels wait in one queue.
    %(checkpoint_dir)s
    %(key_added)s
    rng
        Seed or generator. With the seed of :func:`agevi.tl.cross_validate`, all data gives the same folds and
        predictions.
    %(copy)s

    Returns
    -------
    None, or the copy. Sets, once all clocks are fitted:

    ``adata.uns[f"{key_added}_learning_curve"]``
        DataFrame with one row per level: ``axis`` ("subjects" or "cells"), ``n`` (training subjects, or cells of a
        sample: the median), ``n_train`` and ``n_cells`` (both of these at this level), ``n_repeats``, ``mae`` (mean
        absolute error over held-out samples and repeats) with ``mae_low`` and ``mae_high`` (95 %, bootstrap over
        subjects and repeats), ``mae_median`` (error of the baseline, the median age of the same training samples),
        ``pearson``, ``fitted`` (the law; NaN where none was fitted), ``n_samples`` and ``n_subjects`` (those that were
        judged). The row of all data stands in both axes. :func:`agevi.get.learning_curve_df` returns it.
    ``adata.uns[f"{key_added}_learning_curve_params"]``
        Arguments, seed, version, age unit, ``sentence``, and for each axis ``n``, ``a``, ``b``, ``c``, ``change``,
        ``change_low`` and ``change_high`` with twice ``n``, and ``last_change``, ``last_low`` and ``last_high`` from
        half of ``n`` to ``n``. The sentence is logged too, as a warning where it shows no gain.

    Where no sample has two cells, as in bulk data, there is no axis of cells.

    Raises
    ------
    KeyError
        If a column, the layer or the table does not exist.
    TypeError
        If ``model_cls`` is not a clock class, or an argument of it does not exist or has another type.
    ValueError
        If the data or folds cannot be used, a level is more than there is or too little to train on, or
        ``checkpoint_dir`` belongs to another run.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=12, n_genes=60)
    >>> keys = {"age_key": "age", "subject_key": "donor"}
    >>> agevi.tl.learning_curve(adata, "PLSClock", **keys, n_subjects=[6], n_cells=[3, 6], n_folds=2, n_repeats=1)
    >>> agevi.get.learning_curve_df(adata).groupby("axis")["n"].apply(list).to_dict()
    {'cells': [3, 6, 12], 'subjects': [6, 10]}
    """
    arguments = {k: v for k, v in locals().items() if k not in ("adata", "model_cls", "n_jobs", "copy")}
    refuse_sums(_checks.anndata(adata), "tl.learning_curve draws")
    slots, n_repeats = _keys.Keys(key_added), _checks.count(n_repeats, "n_repeats")
    keys = {"age_key": age_key, "subject_key": subject_key, "sample_key": sample_key}
    recipe = recipe_of(model_cls, keys, with_matrix(setup_kwargs, layer, obsm_key), model_kwargs, train_kwargs)
    units = check_data(adata, recipe)
    seed, setup = seed_of(rng, checkpoint_dir), recipe.full_setup
    cohort = make_cohort(
        adata, setup, n_folds=n_folds, fold_key=fold_key, stratify_by=stratify_by, train_on=train_on,
        seed=stream(seed, FOLDS), units=units,
    )  # fmt: skip
    levels = _levels(cohort, n_subjects, n_cells)
    jobs = _all_jobs(cohort, recipe, levels, n_repeats, seed)
    data = read_data(adata, setup, cohort)
    parts: dict[str, Any] = {"tool": NOUN, "n_subjects": n_subjects, "n_cells": n_cells, "n_repeats": n_repeats}
    store = open_checkpoint(checkpoint_dir, data, cohort, recipe, seed=seed, **parts)
    flat = [job for fits in jobs.values() for job in fits]
    results = iter(run_jobs([(data, job) for job in flat], n_jobs=n_jobs, checkpoints=[store] * len(flat)))
    fits = {key: (of_level, [next(results) for _ in of_level]) for key, of_level in jobs.items()}
    record = recipe.record(arguments, seed) | {"age_unit": setup["age_unit"]}
    table, said = _table(_curves(cohort, levels, fits), cohort, setup["age_unit"], stream(seed, CURVE))
    return store_table(adata, slots, NOUN, table, record | said, copy=copy)


def _levels(cohort: Cohort, n_subjects: Any, n_cells: Any) -> dict[str, list[Level]]:
    """Levels of each axis, small to large; no axis of cells where a sample is one row."""
    folds = range(len(cohort.folds))
    labelled = [int(training_subjects(cohort, fold).notna().sum()) for fold in folds]
    levels = {SUBJECTS: make_levels(SUBJECTS, n_subjects, int(np.median(labelled)), min(labelled))}
    for level in levels[SUBJECTS]:
        if int(level.of(min(labelled))) < _units.MIN_LABELLED_SUBJECTS:
            raise ValueError(
                f"n_subjects holds {level.amount:g}, which leaves {int(level.of(min(labelled)))} of {min(labelled)} "
                f"training subjects in a fold; a clock needs {_units.MIN_LABELLED_SUBJECTS}. Leave it out, or take "
                "fewer folds."
            )
    of_sample = np.bincount(cohort.sample, minlength=len(cohort.samples))
    if of_sample.max() > 1:
        typical = int(np.median(of_sample))
        levels[CELLS] = make_levels(CELLS, n_cells, typical, typical)
    elif n_cells is not None:
        raise ValueError(
            f"n_cells={n_cells!r} was given, and every sample is one row of adata, as in bulk data; leave n_cells out."
        )
    return levels


def _all_jobs(
    cohort: Cohort, recipe: Recipe, levels: Mapping[str, Sequence[Level]], n_repeats: int, seed: int
) -> dict[tuple[str, int, int], list[FoldJob]]:
    """Fits of every axis, level and repeat; those of all data once, under no axis."""
    folds = range(len(cohort.folds))
    out = {("", 0, 0): [make_job(cohort, recipe, fold, seed=seed, what="all data") for fold in folds]}
    for axis, of_axis in levels.items():
        for i, level in enumerate(of_axis[:-1]):
            for repeat in range(n_repeats):
                name = f"{axis}_{i:02d}_repeat_{repeat:03d}_fold_"
                out[axis, i, repeat] = [_job(cohort, recipe, fold, level, repeat, seed, name) for fold in folds]
    return out


def _job(cohort: Cohort, recipe: Recipe, fold: int, level: Level, repeat: int, seed: int, name: str) -> FoldJob:
    """The fit of one fold with fewer subjects or cells."""
    amount = level.amount
    if level.axis == SUBJECTS:
        kept = kept_subjects(cohort, fold, level, stream(seed, CURVE, 0, repeat, fold))
        test = cohort.held_out(fold)
        what = f"{int(level.of(training_subjects(cohort, fold).notna().sum()))} subjects"
    else:
        kept = kept_cells(cohort, level, stream(seed, CURVE, 1, repeat))
        test = cohort.held_out(fold, kept)
        what = f"{amount} cells" if isinstance(amount, int) else f"{100 * amount:.0f} % of the cells"
    part = replace(cohort, trains=cohort.trains & kept)
    if not part.can_train(part.training(fold)):
        raise ValueError(
            f"n_{level.axis} holds {amount:g}, with which fold {cohort.folds[fold]!r} has too few training "
            "subjects, or one age alone; take a larger level or fewer folds."
        )
    return make_job(part, recipe, fold, seed=seed, name=f"{name}{fold:03d}", test=test, what=what)


def _curves(
    cohort: Cohort,
    levels: Mapping[str, Sequence[Level]],
    fits: Mapping[tuple[str, int, int], tuple[list[FoldJob], list[FoldResult]]],
) -> dict[str, list[Point]]:
    """Predictions of the judged samples at every level."""
    units, judged = _judged(cohort)
    out: dict[str, list[Point]] = {}
    for axis, of_axis in levels.items():
        out[axis] = []
        for i, level in enumerate(of_axis):
            keys = [("", 0, 0)] if level.is_full else [key for key in fits if key[:2] == (axis, i)]
            runs = [_of_units(cohort, units, *fits[key]) for key in keys]
            jobs = fits[keys[0]][0]
            n_train = int(np.median([cohort.subject_ages(job.train).notna().sum() for job in jobs]))
            kept = np.concatenate([job.test for job in jobs])
            n_cells = int(np.median(np.bincount(units.cell[kept], minlength=len(units.sample))[judged]))
            out[axis].append(
                Point(
                    level=level,
                    n=n_train if axis == SUBJECTS else n_cells,
                    predicted=np.stack([predicted[judged] for predicted, _ in runs]),
                    reference=np.stack([reference[judged] for _, reference in runs]),
                    n_train=n_train,
                    n_cells=n_cells,
                )
            )
    return out


def _judged(cohort: Cohort) -> tuple[Units, np.ndarray]:
    """Samples by fold, and the positions of those that may train and have an age."""
    units = make_units(cohort)
    return units, np.flatnonzero(units.trains & np.isfinite(cohort.age[units.sample]))


def _of_units(
    cohort: Cohort, units: Units, jobs: Sequence[FoldJob], results: Sequence[FoldResult]
) -> tuple[np.ndarray, np.ndarray]:
    """Prediction of every unit, and the median age of the samples that trained its clock, (n_units,)."""
    n_units = len(units.sample)
    total, n_cells, reference = np.zeros(n_units), np.zeros(n_units), np.full(n_units, np.nan)
    for job, result in zip(jobs, results, strict=True):
        unit = units.cell[job.test]
        total += np.bincount(unit, weights=result.predicted.astype(np.float64), minlength=n_units)
        n_cells += np.bincount(unit, minlength=n_units)
        reference[units.fold == job.fold] = np.nanmedian(cohort.age[np.unique(cohort.sample[job.train])])
    return total / np.maximum(n_cells, 1), reference


def _table(
    curves: dict[str, list[Point]], cohort: Cohort, unit: str, seed: np.random.SeedSequence
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table, and what it says, of which one line is logged."""
    units, judged = _judged(cohort)
    age, subject = cohort.age[units.sample[judged]], cohort.owner[units.sample[judged]]
    table, laws = curve_table(curves, age, subject, Resampler.of(subject, _N_BOOT, seed))
    sentence, gains = verdict(curves[SUBJECTS], laws, age, subject, unit)
    (logger.info if gains else logger.warning)(sentence)
    return table, laws | {"sentence": sentence, "level": COVERAGE}
