"""Out-of-fold predictions: every subject is predicted by a clock that never saw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _keys, _units
from agevi._compat import written_to
from agevi.model.base import _fingerprint
from agevi.tl.predict._stale import forget
from agevi.tl.validate._anchored import anchor_table, has_anchor, write_anchored
from agevi.tl.validate._arguments import described, with_matrix
from agevi.tl.validate._checkpoint import seed_of
from agevi.tl.validate._cohort import Cohort, make_cohort
from agevi.tl.validate._fit_fold import FoldJob, FoldResult
from agevi.tl.validate._jobs import FOLDS, check_data, check_outputs, make_job, open_checkpoint, read_data, stream
from agevi.tl.validate._per_type import Groups, make_groups, pairs_to_fit, table_by_group, table_of_types
from agevi.tl.validate._recipe import Recipe, recipe_of
from agevi.tl.validate._run_jobs import run_jobs


@described
def cross_validate(  # noqa: PLR0913
    adata: AnnData,
    model_cls: Any,
    *,
    age_key: str,
    subject_key: str,
    sample_key: str | None = None,
    n_folds: int = 5,
    fold_key: str | None = None,
    stratify_by: str | Sequence[str] | None = None,
    train_on: str | None = None,
    groupby: str | None = None,
    min_cells: int = 20,
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
    """Predicted age of every cell from a clock that never saw its subject, in the unit of the age column.

    The subjects are dealt into folds that each span the range of ages. For each fold a clock is fitted to the subjects
    of the others, and predicts the cells of this one. A clock whose class selects an epoch chooses it on some of its
    training subjects (15 %, one at least) and is then refitted on all of them for that many epochs; the others, and
    those with ``early_stopping=False``, get all training subjects at once. Every subject has exactly one prediction,
    also those that may not train or have no age, which are dealt into the folds too. A clock is never shown the ages of
    those whom it predicts; still, tuning on these predictions makes them optimistic.

    Parameters
    ----------
    adata
        Cells x genes, in memory. Neither its matrix nor its columns are changed, and it need not be set up.
    model_cls
        Class of :data:`agevi.model.MODELS` that is trained on ages, its name (``"PLSClock"``), or a class derived from
        one; or a list of them, which are fitted in each fold and averaged as by :class:`agevi.model.EnsembleClock`.
    %(age_key)s
    %(subject_key)s
    %(sample_key)s
    n_folds
        Number of folds.
    fold_key
        Column with the folds, used in place of ``n_folds``: fixed folds, or the cohort, to leave one cohort out at a
        time. Subjects with cells in several are held out as a whole in the fold of most of their cells, with a warning,
        and their cells do not train while their own fold is held out; where most subjects are such, it is an error.
    stratify_by
        Column or columns that folds and validation subjects are balanced over as well.
    train_on
        Query on ``adata.obs`` as in :meth:`pandas.DataFrame.query`, such as ``"condition == 'healthy'"``: only these
        cells train or choose epochs.
    groupby
        Column with the type of each cell: one clock per type and fold, from the cells of that type alone. For one clock
        of all types, which can be kept and applied, cross-validate :class:`agevi.model.CellTypeClock` instead.
    min_cells
        Cells of a type that a sample needs to train that type's clock and to be in the table of types.
    %(layer)s
    %(obsm_key)s
    setup_kwargs, model_kwargs, train_kwargs
        Further arguments of ``model_cls.setup_anndata``, of the constructor and of ``train``. For a list of classes,
        dictionaries by class name, such as ``{"PoissonVAE": {"n_latent": 10}}``; what stands in ``setup_kwargs`` under
        no class goes to all. ``model_kwargs["EnsembleClock"]`` holds ``weights`` and ``scale``; with
        ``weights="inner"`` some training subjects (15 %) weigh the members before these are fitted to all.
    n_jobs
        Folds at a time, each in a process of its own, -1 for one per core. 1 runs them here one after the other,
        unless :func:`joblib.parallel_config` says otherwise, which also spreads them over machines. The predictions
        are the same in each case.
    checkpoint_dir
        Directory that keeps every finished fold. The same call finds them after it was interrupted or killed; a call
        with other data or arguments is refused.
    %(key_added)s
    rng
        Seed or generator. Folds, choice of validation subjects and weights are drawn from it.
    %(copy)s

    Returns
    -------
    None, or the copy. Sets, once all folds are finished:

    ``adata.obs[f"{key_added}_predicted"]``
        Predicted age, float32, of the cell, or of its sample where the clocks are trained on sums; with ``groupby``
        from the clock of the cell's type (then of the sample's cells of the type), NaN where that type has none; from a
        clock of cell types, that of the sample.
    ``adata.obs[f"{key_added}_predicted_sample"]``
        Age of the cell's sample, float32, the same for all its cells: from its summed counts, for clocks that were
        trained on sums; with ``groupby``, the mean over its types weighted by 1 / validation error. Else removed.
    ``adata.obs[f"{key_added}_role"]``
        Categorical, ``out_of_fold`` throughout.
    ``adata.obs[f"{key_added}_fold"]``
        Categorical text: the fold in which the cell's subject was held out.
    ``adata.uns[key_added]``
        As :func:`agevi.tl.predict_age` writes it, and ``folds``: a DataFrame with one row per fitted clock and the
        columns ``fold``, ``group``, ``n_subjects``, ``n_cells`` (both of those that trained it), ``best_epoch`` (-1
        where none was chosen, and for several classes), ``validation_mae`` (NaN where it was not taken), ``seconds``
        and ``peak_memory`` (MiB).
    ``adata.uns[f"{key_added}_by_group"]``
        With ``groupby`` or a clock of cell types: one row per sample and type with ``sample``, ``group``, ``subject``,
        ``age``, ``predicted`` (NaN below ``min_cells``), ``n_cells``, ``fold``, ``validation_mae`` (NaN for a clock of
        cell types), ``weight`` and ``combined``, the weighted mean.

    ``adata.uns[f"{key_added}_anchor"]``
        From clocks of cell types with an anchor (``model_kwargs={"anchor": ...}``): the age of each sample by the
        anchor. With ``fold_key`` each fold is taken as a cohort and moved to the level of its anchor besides, by the
        samples that ``train_on`` selects, as :func:`agevi.tl.recalibrate` does: these predictions and their table of
        subjects stand under ``f"{key_added}_anchored"``.

    What an earlier clock left is removed: the latent representation ``adata.obsm[f"X_{key_added}"]``, the table
    ``adata.uns[f"{key_added}_subjects"]`` and the calibration of :func:`agevi.tl.calibrate`.

    Raises
    ------
    KeyError
        If a column, the layer or the table does not exist.
    TypeError
        If ``model_cls`` is not a clock class, an argument of it does not exist, or ages are not numeric.
    ValueError
        If ages, units, values or folds cannot be used, or ``checkpoint_dir`` belongs to another run.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=10, n_genes=30)
    >>> agevi.tl.cross_validate(
    ...     adata,
    ...     agevi.model.PoissonVAE,
    ...     age_key="age",
    ...     subject_key="donor",
    ...     n_folds=3,
    ...     model_kwargs={"n_hidden": [8], "n_latent": 2},
    ...     train_kwargs={"max_epochs": 2},
    ... )
    >>> agevi.tl.aggregate_subjects(adata)
    >>> adata.uns["agevi_subjects"].groupby("fold").size().tolist()
    [4, 4, 4]
    """
    arguments = {k: v for k, v in locals().items() if k not in ("adata", "model_cls", "n_jobs", "copy")}
    keys = _keys.Keys(key_added)
    columns = {"age_key": age_key, "subject_key": subject_key, "sample_key": sample_key}
    recipe = recipe_of(model_cls, columns, with_matrix(setup_kwargs, layer, obsm_key), model_kwargs, train_kwargs)
    units = check_data(adata, recipe)
    _types_of(recipe, groupby, min_cells)
    strata = [stratify_by] if isinstance(stratify_by, str) else stratify_by or []
    anchored = has_anchor(recipe)
    outputs = [
        getattr(_keys.Keys(key), noun)
        for key in (key_added, key_added + _keys.ANCHORED)[: 2 if anchored and fold_key is not None else 1]
        for noun in ("predicted", "predicted_sample", "role", "fold")
    ]
    check_outputs([*columns.values(), groupby, *strata], outputs, key_added)
    seed = seed_of(rng, checkpoint_dir)
    cohort = make_cohort(
        adata, recipe.full_setup, n_folds=n_folds, fold_key=fold_key, stratify_by=stratify_by, train_on=train_on,
        seed=stream(seed, FOLDS), units=units,
    )  # fmt: skip
    groups = None if groupby is None else make_groups(adata, groupby, min_cells, cohort)
    pairs = [(fold, -1) for fold in range(len(cohort.folds))]
    if groups is not None:
        pairs = pairs_to_fit(cohort, groups, str(groupby), min_cells)
    jobs = [make_job(cohort, recipe, fold, seed=seed, groups=groups, group=group) for fold, group in pairs]
    data = read_data(adata, recipe.full_setup, cohort)
    parts: dict[str, Any] = {"groupby": groupby, "min_cells": min_cells if groupby else None}
    store = open_checkpoint(checkpoint_dir, data, cohort, recipe, seed=seed, groups=groups, **parts)
    results = run_jobs([(data, job) for job in jobs], n_jobs=n_jobs, checkpoints=[store] * len(jobs))
    out = written_to(adata, copy=copy)
    _write_cells(out, keys, cohort, groups, jobs, results)
    by_type = _types_of(recipe, groupby, min_cells)
    if by_type:
        out.uns[keys.by_group_params] = _keys.to_uns(by_type)
    of_data: dict[str, Any] = {"folds": _fits(cohort, groups, jobs, results)}
    of_data["clock"] = fingerprint_of(recipe, data.genes) | ({} if groupby is None else {"groupby": str(groupby)})
    # As predict_age records it of its clock.
    setup = recipe.full_setup
    of_setup = {
        "gene_coverage": 1.0,
        "subject_key": setup["subject_key"],
        "sample_key": _units.sample_column(setup),
        "age_key": setup["age_key"],
        "age_unit": setup["age_unit"],
        "age_transform": recipe.age_transform,
        "min_age": float(setup["min_age"]),
    }
    out.uns[keys.uns] = _keys.to_uns(recipe.record(arguments, seed) | of_setup | of_data)
    if anchored:
        out.uns[keys.anchor] = _keys.to_uns(anchor_table(cohort, results))
    if anchored and fold_key is not None:
        write_anchored(out, keys, train_on, [cohort.folds[job.fold] for job in jobs], results)
    return out if copy else None


def _types_of(recipe: Recipe, groupby: str | None, min_cells: int) -> dict[str, Any]:
    """Column and least cells of types, by ``groupby`` or by the clock itself; empty without either."""
    if not recipe.model_cls.of_types:
        return {} if groupby is None else {"groupby": str(groupby), "min_cells": int(min_cells)}
    if groupby is not None:
        raise ValueError(
            f"groupby={groupby!r} with {recipe.model_cls.__name__}, which has a clock per type itself; leave it out."
        )
    return {"groupby": recipe.setup.get("cell_type_key"), "min_cells": recipe.argument("min_cells")}


def _write_cells(
    adata: AnnData,
    keys: _keys.Keys,
    cohort: Cohort,
    groups: Groups | None,
    jobs: Sequence[FoldJob],
    results: Sequence[FoldResult],
) -> None:
    """Columns of the cells and the table of types, in place of what an earlier clock left."""
    predicted, summed = gather(adata.n_obs, jobs, results)
    table = None
    if jobs[0].recipe.model_cls.of_types:
        table = table_of_types(cohort, jobs, results)
    elif groups is not None:
        table = table_by_group(cohort, groups, jobs, results)
        combined = table.groupby("sample")["combined"].first().reindex(cohort.samples)
        summed = combined.to_numpy(dtype=np.float32)[cohort.sample]
    adata.obs[keys.predicted] = predicted
    forget(adata, keys)
    if summed is not None:
        adata.obs[keys.predicted_sample] = summed
    adata.obs[keys.role] = pd.Categorical(np.full(adata.n_obs, _keys.OUT_OF_FOLD, dtype=object))
    adata.obs[keys.fold] = pd.Categorical.from_codes(cohort.fold, categories=pd.Index(cohort.folds, dtype=object))
    if table is not None:
        adata.uns[keys.by_group] = _keys.to_uns(table)


def gather(
    n_cells: int, jobs: Sequence[FoldJob], results: Sequence[FoldResult]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Predictions of all cells from cells and, where the clocks give them, from sums; (n_cells,) float32."""
    predicted, summed = np.full(n_cells, np.nan, np.float32), np.full(n_cells, np.nan, np.float32)
    for job, result in zip(jobs, results, strict=True):
        predicted[job.test] = result.predicted
        if result.predicted_sample is not None:
            summed[job.test] = result.predicted_sample
    return predicted, summed if any(r.predicted_sample is not None for r in results) else None


def fingerprint_of(recipe: Recipe, genes: Any) -> dict[str, str]:
    """Which clocks the predictions are of, for comparison with one that is trained on all subjects."""
    if recipe.members:
        members = [fingerprint_of(member, genes) for member in recipe.members]
        return _fingerprint.of_members(recipe.model_cls.__name__, members, recipe.model_kwargs["scale"])
    return _fingerprint.of_recipe(recipe.model_cls, recipe.full_setup, recipe.model_kwargs, genes)


def _fits(
    cohort: Cohort, groups: Groups | None, jobs: Sequence[FoldJob], results: Sequence[FoldResult]
) -> pd.DataFrame:
    """One row per fitted clock."""
    names = ("best_epoch", "validation_mae", "seconds", "peak_memory")
    return pd.DataFrame(
        {
            "fold": [cohort.folds[job.fold] for job in jobs],
            "group": ["" if groups is None else groups.names[job.group] for job in jobs],
            "n_subjects": [int(cohort.subject_ages(job.train).notna().sum()) for job in jobs],
            "n_cells": [int(cohort.size[job.train].sum()) for job in jobs],
            **{name: [getattr(result, name) for result in results] for name in names},
        }
    )
