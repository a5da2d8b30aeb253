"""Settings of a clock that predict validation subjects best."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

import agevi
from agevi import _checks, _keys
from agevi.dataloaders._folds import MIN_FOLDS, assign_folds
from agevi.dataloaders._register import covariate_columns
from agevi.dataloaders._splitter import roles_from_column
from agevi.model._seed import as_seed
from agevi.tl._checkpoint import fingerprint
from agevi.tl._fold_run import FoldData, FoldJob
from agevi.tl._plan import check_data
from agevi.tl._recipe import Recipe, as_text, make_recipe
from agevi.tl._search import Search
from agevi.tl._spaces import default_space

if TYPE_CHECKING:
    import optuna

RECORD = "agevi"
"""Attribute of the study that says what its trials depend on."""


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
    ``pip install "agevi[tune]"``.

    Parameters
    ----------
    adata
        Cells x genes, in memory; it is only read.
    model_cls
        Class of :data:`agevi.model.MODELS` that is trained on ages, or a class derived from one.
    space
        What is varied: the argument of the constructor, of ``train`` or of ``setup_anndata`` (``"n_latent"``,
        ``"plan_kwargs.lr"``), and a list of choices or bounds such as ``{"low": 1e-4, "high": 1e-2, "log": True}``. A choice
        that is a dictionary sets several arguments at once. Default: what Su and Mukundan and Urban et al.
        varied, less the arguments that are fixed by the three ``..._kwargs``.
    age_key
        Column of ``adata.obs`` with the age, NaN where unlabelled.
    subject_key
        Column with the person or animal, the unit that is held out.
    sample_key
        Column with the visit or biopsy, the unit with one age. Default: the subject.
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
        Where the study is kept: a URL (``"sqlite:///tuning.db"``), the path of a journal file, which may be shared over a
        network, or a storage of Optuna. None keeps it in memory. The same call goes on with a study that was
        interrupted or killed, and several processes or machines that make it share the trials.
    study_name
        Name of the study in the storage. Default: the name of the class.
    setup_kwargs, model_kwargs, train_kwargs
        Arguments that are the same in all trials.
    sampler, pruner
        Of Optuna. Default: TPE, and the median rule after a fifth of the training (or after each of several folds).
    rng
        Seed or generator of the weights, the folds and the draws from the space. With None a stored study goes on with
        the seed that it began with.

    Returns
    -------
    ``optuna.Study``. ``study.best_trial.user_attrs`` holds ``setup_kwargs``, ``model_kwargs`` and ``train_kwargs``, ready to
    be passed on, ``seconds`` and, for clocks that choose their epoch, ``best_epoch``.

    Raises
    ------
    ImportError
        optuna is not installed.
    KeyError
        A column is absent.
    TypeError
        ``model_cls`` is no clock class, or ``space`` no dictionary.
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
    _checks.anndata(adata)
    keys = {"age_key": age_key, "subject_key": subject_key, "sample_key": sample_key}
    fixed = {
        "setup_kwargs": dict(setup_kwargs or {}),
        "model_kwargs": dict(model_kwargs or {}),
        "train_kwargs": dict(train_kwargs or {}),
    }
    recipe = make_recipe(model_cls, keys, setup_kwargs, model_kwargs, train_kwargs)
    given = default_space(model_cls) if space is None else space
    search = Search(model_cls, given, fixed, is_default=space is None)
    n_trials, _ = _checks.count(n_trials, "n_trials"), _checks.generator(rng)
    check_data(adata, recipe)
    data, roles = _read(adata, recipe, split_key)

    from agevi.tl._tune_run import Objective, open_storage, open_study, run_trials, stored_attribute

    name, storage = study_name or model_cls.__name__, open_storage(storage)
    known = stored_attribute(storage, name, RECORD) if rng is None else None
    seed = int(known["rng"]) if known else as_seed(rng)
    jobs = _jobs(data, roles, recipe, split_key, n_folds, seed)
    study = open_study(storage, name, seed=seed, sampler=sampler, pruner=pruner)
    _same_run(study, _record(data, jobs[0], recipe, n_folds))
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(search.defaults(), skip_if_exists=True)
    run_trials(study, Objective(data, jobs, search, keys), n_trials, timeout)
    return study


def _need_optuna() -> None:
    """The standard error where optuna is not installed."""
    try:
        found = importlib.util.find_spec("optuna")
    except ValueError:  # a stand-in without a specification
        found = None
    if found is None:
        raise ImportError('tl.tune needs optuna, which is not installed; run: pip install "agevi[tune]"')


def _read(adata: AnnData, recipe: Recipe, split_key: str) -> tuple[FoldData, pd.Series]:
    """Cells with their samples, and the role of every subject."""
    setup = recipe.full_setup
    subject, sample = _checks.units(adata, setup["subject_key"], setup["sample_key"])
    age = _checks.age_per_unit(
        _checks.ages(adata, setup["age_key"], min_age=setup["min_age"]), sample, setup["age_key"],
        is_sample=sample is not subject,
    )  # fmt: skip
    if split_key not in adata.obs and split_key == _keys.SPLIT:
        raise KeyError(
            f"adata.obs has no {split_key!r}, so the test subjects are unknown, which must not be seen; run "
            "agevi.pp.split_subjects first."
        )
    kept = [c for c in adata.obs if not str(c).startswith("_scvi")]
    data = FoldData(
        x=_checks.matrix(adata, setup["layer"]),
        layer=setup["layer"],
        obs=adata.obs[kept],
        genes=adata.var_names,
        sample=age.index.get_indexer(pd.Index(sample)),
        age=age.to_numpy(dtype=np.float64),
        age_key=setup["age_key"],
    )
    return data, roles_from_column(adata, split_key, subject)


def _jobs(
    data: FoldData, roles: pd.Series, recipe: Recipe, split_key: str, n_folds: int | None, seed: int
) -> list[FoldJob]:
    """Training and validation cells of every inner fold; cells of test subjects are in none."""
    subject = data.obs[recipe.full_setup["subject_key"]].astype(str)
    rows = np.flatnonzero(subject.map(roles).to_numpy() != _keys.TEST)
    of_cell = subject.iloc[rows]
    age = pd.Series(data.age[data.sample[rows]]).groupby(of_cell.to_numpy(), sort=True).mean()
    if n_folds is None:
        held_out = [roles.index[roles == _keys.VALIDATION]]
    else:
        n = _checks.count(n_folds, "n_folds", low=MIN_FOLDS, high=max(MIN_FOLDS, int(age.notna().sum())))
        fold = assign_folds(age.to_numpy(), np.ones(len(age), dtype=bool), None, n, np.random.default_rng(seed))
        held_out = [age.index[fold == k] for k in range(n)]
    jobs = []
    for k, names in enumerate(held_out):
        known, trained = age[age.index.isin(names)].dropna(), age[~age.index.isin(names)].dropna()
        if known.empty or trained.nunique() < 2:
            raise ValueError(
                f"{len(known)} validation subjects and {len(trained)} training subjects of {trained.nunique()} ages have an "
                f"age in adata.obs[{data.age_key!r}] (roles in {split_key!r}: {roles.value_counts().to_dict()}); tuning needs "
                "1 and 2 at least. Make a split with validation subjects, or pass n_folds."
            )
        jobs.append(
            FoldJob(f"fold_{k:03d}", k, recipe, rows, of_cell.isin(names).to_numpy(), np.empty(0, np.int64), seed)
        )
    return jobs


def _record(data: FoldData, job: FoldJob, recipe: Recipe, n_folds: int | None) -> dict[str, Any]:
    """Everything but the settings that the value of a trial depends on; nothing of test subjects is part of it."""
    cls, setup, rows = recipe.model_cls, recipe.full_setup, job.train
    arguments = {
        "version of agevi": agevi.__version__,
        "model_cls": f"{cls.__module__}.{cls.__qualname__}",
        "setup_kwargs": as_text(recipe.setup),
        "model_kwargs": as_text(recipe.model_kwargs),
        "train_kwargs": as_text(recipe.train_kwargs),
        "n_folds": n_folds or 0,
        "rng": job.seed,
    }
    columns = {
        "the subjects": data.obs[setup["subject_key"]].astype(str).to_numpy(dtype=object)[rows],
        "the samples": pd.factorize(data.sample[rows])[0],
        "the ages": data.age[data.sample[rows]],
        "the split": job.validation,
    }
    for _, keys in covariate_columns(setup):
        columns |= {f"adata.obs[{key!r}]": data.obs[key].to_numpy(dtype=object)[rows] for key in keys}
    return fingerprint(data, arguments, columns, rows)


def _same_run(study: Any, record: dict[str, Any]) -> None:
    """Refuse a study whose trials were scored on something else; keep what these depend on in a new one."""
    stored = study.user_attrs.get(RECORD)
    if stored is None:
        study.set_user_attr(RECORD, record)
        return
    changed = [name for name in record if stored.get(name) != record[name]]
    if changed:
        raise ValueError(
            f"study {study.study_name!r} in this storage was made with other {_checks.listed(changed, 3)}, so its trials "
            "cannot be compared with new ones; pass another study_name."
        )
