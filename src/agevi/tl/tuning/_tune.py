"""Settings of a clock that predict validation subjects best."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _units
from agevi._source import is_there, place, read
from agevi.dataloaders._folds import MIN_FOLDS
from agevi.dataloaders._splitter import roles_from_column
from agevi.io._folder import matrix_digest
from agevi.model.base._classes import clock_class
from agevi.model.base._seed import as_seed
from agevi.tl.validate._arguments import described, with_matrix
from agevi.tl.validate._cohort import Cohort, deal_folds, without_folds
from agevi.tl.validate._fit_fold import FoldJob
from agevi.tl.validate._jobs import FOLDS, check_data, read_data, run_fingerprint, stream
from agevi.tl.validate._recipe import Recipe, recipe_of

if TYPE_CHECKING:
    import optuna

    from agevi.tl.tuning._search import Search

RECORD = "agevi"
"""Attribute of the study that says what its trials depend on."""


@described
def tune(  # noqa: PLR0913
    adata: AnnData,
    model_cls: Any,
    space: Mapping[str, Any] | None = None,
    *,
    age_key: str,
    subject_key: str,
    sample_key: str | None = None,
    split_key: str = _keys.SPLIT,
    n_folds: int | None = None,
    n_trials: int = 50,
    timeout: float | None = None,
    storage: str | Path | Any = None,
    study_name: str | None = None,
    layer: str | None = None,
    obsm_key: str | None = None,
    setup_kwargs: Mapping[str, Any] | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    sampler: Any = None,
    pruner: Any = None,
    rng: int | np.random.Generator | None = 0,
) -> optuna.Study:
    """Optuna study of the settings of a clock, judged by the error on validation subjects in the unit of age.

    Every trial fits a clock with other settings to the training subjects, and its value is the mean absolute error over
    the samples of the validation subjects, so lower is better. Test subjects are never seen: refit with the best
    settings on training and validation subjects, and score them once. The best value is the lowest of many, so
    it is too good; with few validation subjects settings are chosen by chance, which ``n_folds`` makes less likely. The
    first trial takes the defaults of the class; a trial that fails is kept as failed and the study goes on. Needs
    Optuna: ``pip install optuna``.

    Parameters
    ----------
    adata
        Cells x genes, in memory; it is only read.
    model_cls
        Class of :data:`agevi.model.MODELS` that is trained on ages, its name (``"PoissonVAE"``), or a class derived
        from one.
    space
        What is varied: the argument of the constructor, of ``train`` or of ``setup_anndata`` (``"n_latent"``,
        ``"plan_kwargs.lr"``), and a list of choices, bounds such as ``{"low": 1e-4, "high": 1e-2, "log": True}``, or a
        distribution of Optuna. A choice that is a dictionary sets several arguments at once. Default: what Su and
        Mukundan and Urban et al. varied, less the arguments that are fixed by the three ``..._kwargs``.
    age_key
        Column of ``adata.obs`` with the age, NaN where unlabelled.
    %(subject_key)s
    %(sample_key)s
    split_key
        Column with the roles of :func:`agevi.pp.split_subjects`.
    n_folds
        None judges by the subjects with the role ``validation``. A number puts training and validation subjects
        together and cross-validates among them; a trial takes that many times as long.
    n_trials
        Finished trials that the study should have, those of earlier calls and other machines, and those that failed or
        were stopped, included.
    timeout
        Seconds after which no further trial begins.
    storage
        Where the study is kept: a URL (``"sqlite:///tuning.db"``), the path of a journal file, which may be shared over
        a network, or a storage of Optuna. None keeps it in memory. The same call resumes a study that was
        interrupted or killed, and several processes or machines that make it share the trials.
    study_name
        Name of the study in the storage. Default: the name of the class.
    %(layer)s
    %(obsm_key)s
    setup_kwargs, model_kwargs, train_kwargs
        Arguments that are the same in all trials.
    sampler, pruner
        Of Optuna. Default: TPE, and the median rule after a fifth of the training (or after each of several folds).
    rng
        Seed or generator of the weights, the folds and the draws from the space. With None a stored study keeps
        the seed that it began with.

    Returns
    -------
    ``optuna.Study``. ``study.best_trial.user_attrs`` holds ``setup_kwargs``, ``model_kwargs`` and ``train_kwargs``,
    ready to be passed on, ``seconds`` and, for clocks that choose their epoch, ``best_epoch``.

    Raises
    ------
    ImportError
        optuna is not installed.
    KeyError
        A column is absent.
    TypeError
        ``model_cls`` is not a clock class, or ``space`` not a dictionary.
    ValueError
        The space names arguments that do not exist, there are no validation subjects, or the study belongs to other
        data.
    RuntimeError
        No trial was completed; a study whose first five trials fail ends there.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=10, n_genes=30)
    >>> agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", validation_size=3)
    >>> study = agevi.tl.tune(
    ...     adata,
    ...     agevi.model.PoissonVAE,
    ...     {"n_latent": [2, 3], "plan_kwargs.lr": {"low": 1e-3, "high": 1e-2, "log": True}},
    ...     age_key="age",
    ...     subject_key="donor",
    ...     n_trials=2,
    ...     model_kwargs={"n_hidden": [8]},
    ...     train_kwargs={"max_epochs": 2},
    ... )
    >>> sorted(study.best_params)
    ['n_latent', 'plan_kwargs.lr']
    >>> study.best_trial.user_attrs["model_kwargs"]["n_hidden"]
    [8]
    """
    _need_optuna()
    _checks.in_memory(_checks.anndata(adata), "tl.tune reads", ", or tune on some cells of each sample")
    from agevi.tl.tuning._search import Search, default_space
    from agevi.tl.tuning._study import Objective, open_storage, open_study, run_trials, stored_attribute

    model_cls, setup_kwargs = clock_class(model_cls), with_matrix(setup_kwargs, layer, obsm_key)
    keys = {"age_key": age_key, "subject_key": subject_key, "sample_key": sample_key}
    given = {"setup_kwargs": setup_kwargs, "model_kwargs": model_kwargs, "train_kwargs": train_kwargs}
    recipe = recipe_of(model_cls, keys, **given)
    fixed = {call: dict(kwargs or {}) for call, kwargs in given.items()}
    search = Search(model_cls, default_space(model_cls) if space is None else space, fixed, is_default=space is None)
    n_trials, _ = _checks.count(n_trials, "n_trials"), _checks.generator(rng)
    subject, _ = check_data(adata, recipe)
    rows, held_out = _cells(adata, subject, split_key)
    name, storage = study_name or model_cls.__name__, open_storage(storage)
    known = stored_attribute(storage, name, RECORD) if rng is None else None
    seed = int(known["rng"]) if known else as_seed(rng)
    cohort = _cohort(adata[rows], recipe, held_out, n_folds, seed)
    # A trial is judged by the subjects of a fold, which choose its epoch too; nothing is refitted.
    every, nothing = np.arange(len(cohort.fold)), np.empty(0, dtype=np.int64)
    jobs = [
        FoldJob(f"fold_{i:03d}", i, recipe, every, cohort.fold == i, nothing, seed, weigh=True, refit=False)
        for i in range(1 if n_folds is None else n_folds)
    ]
    _check_jobs(cohort, jobs, age_key, split_key)
    study = open_study(storage, name, seed=seed, sampler=sampler, pruner=pruner)
    _same_run(study, _record(adata, cohort, recipe, search, rows=rows, seed=seed, n_folds=n_folds or 0))
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(search.defaults(), skip_if_exists=True)
    run_trials(study, Objective(adata, rows, cohort, jobs, search, keys), n_trials, timeout)
    return study


def _need_optuna() -> None:
    """The standard error where optuna is not installed."""
    try:
        found = importlib.util.find_spec("optuna")
    except ValueError:  # a substitute without a specification
        found = None
    if found is None:
        raise ImportError("tl.tune needs optuna, which is not installed; run: pip install optuna")


def _cells(adata: AnnData, subject: pd.Series, split_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the cells of all subjects but those of the test, and which of them are for validation."""
    if split_key not in adata.obs and split_key == _keys.SPLIT:
        raise KeyError(
            f"adata.obs has no {split_key!r}, which says who the test subjects are, whom no trial may see; run "
            "agevi.pp.split_subjects first."
        )
    role = subject.map(roles_from_column(adata, split_key, subject)).to_numpy()
    rows = np.flatnonzero(role != _keys.TEST)
    return rows, role[rows] == _keys.VALIDATION


def _cohort(adata: AnnData, recipe: Recipe, held_out: np.ndarray, n_folds: int | None, seed: int) -> Cohort:
    """Units of the cells that may be seen, with the validation subjects in fold 0 or all dealt into ``n_folds``."""
    setup = recipe.full_setup
    cohort = without_folds(adata, setup, *_units.units(adata, setup["subject_key"], setup["sample_key"]))
    if n_folds is None:
        return replace(cohort, folds=[_keys.VALIDATION, _keys.TRAIN], fold=np.where(held_out, 0, 1))
    n_labelled = int(cohort.subject_ages(np.arange(adata.n_obs)).notna().sum())
    n = _checks.count(n_folds, "n_folds", low=MIN_FOLDS, high=max(MIN_FOLDS, n_labelled))
    return deal_folds(cohort, n, stream(seed, FOLDS))


def _check_jobs(cohort: Cohort, jobs: Sequence[FoldJob], age_key: str, split_key: str) -> None:
    """Refuse folds without a validation subject that has an age, and those that a clock cannot learn from."""
    for job in jobs:
        known = cohort.subject_ages(job.train[job.validation]).dropna()
        trained = cohort.subject_ages(job.train[~job.validation]).dropna()
        if known.empty or trained.nunique() < 2:
            raise ValueError(
                f"{len(known)} validation subjects and {len(trained)} training subjects of {trained.nunique()} ages "
                f"have an age in adata.obs[{age_key!r}] (roles in {split_key!r}); tuning needs 1 and 2 at least. "
                "Make a split with validation subjects, or pass n_folds."
            )


def _record(
    adata: AnnData, cohort: Cohort, recipe: Recipe, search: Search, *, rows: np.ndarray, seed: int, n_folds: int
) -> dict[str, Any]:
    """Everything but the settings that the value of a trial depends on; nothing of test subjects is part of it."""
    data = read_data(adata, recipe.full_setup, cohort, rows=rows)
    variants = []
    for call, name, value in search.choices():
        part = "setup" if call == "setup_kwargs" else call
        variants.append(replace(recipe, **{part: getattr(recipe, part) | {name: value}}))
    setups = {place(variant.full_setup): variant.full_setup | {"normalize": "none"} for variant in variants}
    values = {
        name: matrix_digest(_checks.matrix(read(adata, setup), setup["layer"]), rows)
        for name, setup in sorted(setups.items())
        if name != place(data.setup) and is_there(adata, setup)
    }
    return run_fingerprint(data, cohort, recipe, seed=seed, variants=variants, n_folds=n_folds) | values


def _same_run(study: Any, record: dict[str, Any]) -> None:
    """Refuse a study whose trials were scored on something else; keep what these depend on in a new one."""
    stored = study.user_attrs.get(RECORD)
    if stored is None:
        study.set_user_attr(RECORD, record)
        return
    changed = [name for name in record if stored.get(name) != record[name]]
    if changed:
        raise ValueError(
            f"study {study.study_name!r} in this storage was made with other {_checks.listed(changed, 3)}, so its "
            "trials cannot be compared with new ones; pass another study_name."
        )
