"""Every model on the same folds, beside what a clock must beat."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData

from agevi import _checks, _keys
from agevi._compat import version, written_to
from agevi._source import inner, read
from agevi._threads import threads
from agevi.dataloaders._register import check_setup
from agevi.dataloaders._summed import RowSums
from agevi.io._folder import as_text, plain
from agevi.model import MODELS
from agevi.model.base._clock import Clock
from agevi.tl.validate._anchored import anchor_table, at_level, has_anchor
from agevi.tl.validate._arguments import CALLS, as_called, described, with_matrix
from agevi.tl.validate._baselines import Units, make_units, median_ages, profiles, ridge_ages, shuffled_ages
from agevi.tl.validate._checkpoint import Checkpoint, seed_of
from agevi.tl.validate._cohort import Cohort, make_cohort
from agevi.tl.validate._cross_validate import gather
from agevi.tl.validate._fit_fold import FoldData, FoldJob, FoldResult
from agevi.tl.validate._jobs import FOLDS, NULL, check_data, make_job, open_checkpoint, read_data, stream
from agevi.tl.validate._leaderboard import MEDIAN, RIDGE, Entry, HeldOut, leaderboard, predictions_table
from agevi.tl.validate._measure import Watch
from agevi.tl.validate._recipe import Recipe, recipe_of
from agevi.tl.validate._run_jobs import run_jobs

logger = logging.getLogger(__name__)

_OF_MATRIX = ("layer", "obsm_key", "normalize", "features")
"""Arguments of ``setup_anndata`` that belong together."""


@described
def compare_models(  # noqa: PLR0913
    adata: AnnData,
    models: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    age_key: str,
    subject_key: str,
    sample_key: str | None = None,
    n_folds: int = 5,
    fold_key: str | None = None,
    stratify_by: str | Sequence[str] | None = None,
    train_on: str | None = None,
    cohort_key: str | None = None,
    layer: str | None = None,
    obsm_key: str | None = None,
    setup_kwargs: Mapping[str, Any] | None = None,
    n_null_linear: int = 20,
    n_null_network: int = 3,
    null_folds: int = 1,
    n_jobs: int | None = 1,
    checkpoint_dir: str | Path | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    rng: int | np.random.Generator | None = 0,
    copy: bool = False,
) -> AnnData | None:
    """Accuracy of several clocks on identical folds, over held-out samples; errors in the unit of the age column.

    Each model is cross-validated as by :func:`agevi.tl.cross_validate`, and stands beside two that a clock must beat:
    the median age of the training samples, and ridge regression on the summed counts of each sample (z-scored log(1 +
    counts per 10,000), penalty by leave-one-out). Do not trust an order whose intervals of ``difference`` include 0.

    Each model is also trained on ages that were shuffled between subjects. Nobody can predict those, so a small
    ``null_p`` says that cells of one subject are on both sides of a fold. It is the share of other orders of the
    shuffled ages among the subjects that a fold held out (one fold of each shuffle) in which these go with the
    predictions as well or better. A warning names models where it is too small for chance, at a family-wise level of
    5 % over all models (Holm). The reverse does not hold: cells of one subject under two names get different shuffled
    ages, so such a leak stays hidden here; :func:`agevi.pp.audit_leakage` looks for it.

    Parameters
    ----------
    adata
        Cells x genes, in memory, with raw counts unless ``setup_kwargs`` says ``normalize="none"``.
    models
        Classes, or names of classes of :data:`agevi.model.MODELS` (``["PLSClock", "PoissonVAE"]``); or a dictionary
        from names of rows to a class, or to a pair of a class and its arguments: those of the constructor, or a
        dictionary with any of ``setup_kwargs``, ``model_kwargs`` and ``train_kwargs``. Default: all of
        :data:`agevi.model.MODELS` that are trained on ages, take counts and need no column of types. A list of classes
        in place of a class is a row for their mean, with arguments by class name as in
        :func:`agevi.tl.cross_validate`.
    %(keys)s
    %(folds_as_in_cross_validate)s
    cohort_key
        Column with the cohort (study, laboratory, data set) of each sample: every model is also cross-validated with
        whole cohorts held out, and the order is that of these errors, which are what another cohort can expect. Clocks
        of cell types with an anchor are judged there at its level, by the samples that ``train_on`` selects.
    layer
        Layer with the values, in place of ``adata.X``, for all models; the same as in ``setup_kwargs``.
    obsm_key
        Table of ``adata.obsm`` with the values, such as ``"X_scVI"``, for all models; the same as in ``setup_kwargs``.
        For one leaderboard of counts and representations name it in the ``setup_kwargs`` of the models that read it:
        ``{"PLS on counts": PLSClock, "PLS on scVI": (PLSClock, {"setup_kwargs": {"obsm_key": "X_scVI"}})}``.
    setup_kwargs
        Further arguments of ``setup_anndata``, for all models. A model that names a layer or a table of its own takes
        neither layer, table and genes nor ``normalize`` from here.
    n_null_linear, n_null_network
        Times that ages are shuffled for each linear and each other model; 0 leaves it out.
    null_folds
        Folds on which models are tried with shuffled ages (the first ones); the ridge is tried on all.
    n_jobs
        Fits at a time, as in :func:`agevi.tl.cross_validate`; those of all models wait in one queue.
    %(checkpoint_dir)s
    %(key_added)s
    rng
        Seed or generator.
    %(copy)s

    Returns
    -------
    None, or the copy. Sets, once all models are finished:

    ``adata.uns[f"{key_added}_leaderboard"]``
        DataFrame indexed by model, the smallest ``mae`` first, or with ``cohort_key`` the smallest ``mae_cohorts``,
        with the columns

        - ``linear``: whether it is the ridge, a linear clock (``PLSClock``, ``ElasticNetClock``) or made of such clocks
          alone: their mean, or a :class:`agevi.model.CellTypeClock` of them.
        - ``n``, ``n_subjects``: samples and subjects that were judged.
        - ``mae``, ``mae_low``, ``mae_high``: mean absolute error and its 95 % interval over subjects (bootstrap).
        - ``mae_cohorts``, ``mae_cohorts_low``, ``mae_cohorts_high``, ``level_cohorts``: with ``cohort_key``, the same
          for samples whose whole cohort was held out, and the root mean square of the mean errors of cohorts, which is
          what all samples of a cohort are off by together; NaN without.
        - ``rmse``, ``mdae``, ``r2``, ``pearson``, ``spearman``, ``slope``: see :mod:`agevi.metrics`.
        - ``difference``, ``difference_low``, ``difference_high``: mean absolute error minus that of the linear model
          with the smallest one, on the same samples, with its 95 % interval. That model was chosen on these samples,
          which favours it a little.
        - ``n_null``, ``null_mae``, ``null_mae_median``: times that ages were shuffled, and the mean error on them of
          the model and of the median.
        - ``null_gain``, ``null_se``: by how much the model beats the median there, and its standard error over the
          times. A model that predicts the mean age gains a little in small cohorts, since the median varies more.
        - ``null_p``: see above.
        - ``seconds``: of all folds added up, fits and predictions, without shuffled ages.
        - ``peak_memory``: MiB by which the memory of the process rose in the most demanding fold; without a GPU's.
        - ``error``: what went wrong, empty where nothing did. Such a model has no metrics; the others are complete.

    ``adata.uns[f"{key_added}_leaderboard_predictions"]``
        One row per sample and model: ``sample``, ``model``, ``fold``, ``subject``, ``age``, ``predicted``, ``trains``,
        and with ``cohort_key`` ``cohort`` and ``predicted_cohorts``, the prediction with the whole cohort held out.
    ``adata.uns[f"{key_added}_leaderboard_params"]``
        Arguments, seed, version, age unit, and the models with theirs.

    Raises
    ------
    KeyError
        If a column, the layer or the table does not exist.
    TypeError
        If a model is not a clock class, an argument of it does not exist, or a number of times is not whole.
    ValueError
        If the data or folds cannot be used, two models have one name, or ``checkpoint_dir`` belongs to another run.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=10, n_genes=30)
    >>> small = {"model_kwargs": {"n_hidden": [8], "n_latent": 2}, "train_kwargs": {"max_epochs": 2}}
    >>> models = {"small": (agevi.model.PoissonVAE, small)}
    >>> agevi.tl.compare_models(adata, models, age_key="age", subject_key="donor", n_folds=2, n_null_network=0)
    >>> sorted(agevi.get.leaderboard_df(adata)["model"])
    ['median age', 'pseudobulk ridge', 'small']
    """
    arguments = {k: v for k, v in locals().items() if k not in ("adata", "models", "n_jobs", "copy")}
    slots, keys = _keys.Keys(key_added), {"age_key": age_key, "subject_key": subject_key, "sample_key": sample_key}
    setup_kwargs = with_matrix(setup_kwargs, layer, obsm_key)
    if not isinstance(setup_kwargs, Mapping | None):
        raise TypeError(f"setup_kwargs is a {type(setup_kwargs).__name__}; pass a dictionary of arguments.")
    recipes = named_recipes(models, keys, setup_kwargs)
    n_linear = _checks.count(n_null_linear, "n_null_linear", low=0)
    n_network = _checks.count(n_null_network, "n_null_network", low=0)
    null_folds = _checks.count(null_folds, "null_folds", low=0)
    baseline = Recipe(Clock, keys | dict(setup_kwargs or {}))
    setup = baseline.full_setup
    with as_called(baseline, CALLS[:1]):
        units = check_setup(adata, setup, counts=False, model=f"the {RIDGE}", from_disk=True)
    seed = seed_of(rng, checkpoint_dir)
    cohort = make_cohort(
        adata, setup, n_folds=n_folds, fold_key=fold_key, stratify_by=stratify_by, train_on=train_on,
        seed=stream(seed, FOLDS), units=units,
    )  # fmt: skip
    schemes = [cohort]
    if cohort_key is not None:
        schemes.append(
            make_cohort(
                adata,
                setup,
                n_folds=0,
                fold_key=cohort_key,
                stratify_by=stratify_by,
                train_on=train_on,
                seed=stream(seed, FOLDS),
                units=units,
                fold_argument="cohort_key",
            )  # fmt: skip
        )
    if checkpoint_dir is not None:
        Checkpoint(checkpoint_dir, {"tool": "compare_models", "rng": seed})
    shuffled = [
        shuffled_ages(cohort, np.random.default_rng(stream(seed, NULL, i))) for i in range(max(n_linear, n_network))
    ]
    fits = []
    for folds in schemes:
        for name, recipe in recipes.items():
            of_model = shuffled[: n_linear if recipe.linear else n_network] if folds is cohort else []
            fits.append(_fits(adata, name, recipe, folds, of_model, null_folds, seed))
            fits[-1].anchored = folds is not cohort and has_anchor(recipe)
            if checkpoint_dir is not None and not fits[-1].error:
                folder = Path(checkpoint_dir) / _folder(name, "" if folds is cohort else "-cohorts")
                fits[-1].store = open_checkpoint(folder, fits[-1].data, folds, recipe, seed=seed)
    judged, *of_cohorts = (make_units(folds) for folds in schemes)
    found, n = _run(fits, [own for own in (judged, *of_cohorts) for _ in recipes], n_jobs), len(recipes)
    entries = found[:n] + _baselines(adata, setup, cohort, judged, shuffled[:n_linear])
    held_out = [
        HeldOut(found[n:] + _baselines(adata, setup, folds, own, []), folds, own)
        for folds, own in zip(schemes[1:], of_cohorts, strict=True)
    ]
    table = leaderboard(entries, cohort, judged, *held_out, rng=seed)
    predictions = predictions_table(entries, cohort, judged, *held_out)
    record = {
        "params": plain(arguments | {"seed": seed}),
        "models": as_text({name: recipe.described() for name, recipe in recipes.items()}),
        "version": version("agevi"),
        "age_unit": setup["age_unit"],
    }
    out = written_to(adata, copy=copy)
    out.uns[slots.leaderboard] = _keys.to_uns(table)
    out.uns[slots.leaderboard_predictions] = _keys.to_uns(predictions)
    out.uns[slots.leaderboard_params] = _keys.to_uns(record)
    return out if copy else None


def named_recipes(
    models: Sequence[Any] | Mapping[str, Any] | None,
    keys: Mapping[str, str | None],
    setup_kwargs: Mapping[str, Any] | None,
) -> dict[str, Recipe]:
    """What is fitted, by the name of its row."""
    if models is None:
        unread = "continuous" if (setup_kwargs or {}).get("obsm_key") is None else "counts"
        models = [cls for cls in MODELS if cls.trainable and cls.expects != unread and not cls.of_types]
    if isinstance(models, type | str):
        models = [models]
    if not isinstance(models, Iterable):
        raise TypeError(f"models is a {type(models).__name__}; pass a list of clocks, such as ['PLSClock'].")
    if not isinstance(models, Mapping):
        names = [_row(given) for given in models]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"models holds {twice[0]!r} twice; pass a dictionary that gives each a name of its own.")
        models = dict(zip(names, models, strict=True))
    out = {}
    for name, given in models.items():
        if name in (MEDIAN, RIDGE):
            raise ValueError(f"models holds the name {name!r}, which the leaderboard has already; choose another.")
        model_cls, arguments = given if _is_pair(given) else (given, {})
        if not isinstance(arguments, Mapping):
            raise TypeError(f"models[{name!r}] holds a {type(arguments).__name__}; pass a dictionary of arguments.")
        by_call = dict(arguments) if set(arguments) <= set(CALLS) else {"model_kwargs": arguments}
        by_call["setup_kwargs"] = _joined(setup_kwargs, by_call.get("setup_kwargs"))
        out[str(name)] = recipe_of(model_cls, keys, *(by_call.get(argument) for argument in CALLS))
    return out


def _joined(shared: Mapping[str, Any] | None, own: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of the set-up of a model, which may read another matrix than the others."""
    shared, own = shared or {}, own or {}
    other = {"layer", "obsm_key"} & {name for name in own if own[name] != shared.get(name)}
    return {k: v for k, v in shared.items() if not other or k not in _OF_MATRIX} | dict(own)


def _row(given: Any) -> str:
    """Name of the row of a class, of a class with arguments, or of a list of classes."""
    if _is_pair(given):
        return _row(given[0])
    if isinstance(given, list | tuple):
        return " + ".join(map(_row, given))
    return str(given.__name__ if isinstance(given, type) else given)


def _is_pair(given: Any) -> bool:
    """Whether these are a class and its arguments, and not two classes."""
    return isinstance(given, tuple) and len(given) == 2 and not isinstance(given[1], type | str)


@dataclass
class _Fits:
    """The fits of one model: one per fold, and then those to shuffled ages."""

    name: str
    recipe: Recipe
    data: FoldData
    shuffled: list[np.ndarray]
    cohort: Cohort
    anchored: bool = False  # whether every fold is moved to the level of the anchor
    jobs: list[FoldJob] = field(default_factory=list)
    store: Checkpoint | None = None
    error: str = ""

    def entry(self, results: Sequence[FoldResult], units: Units) -> Entry:
        """What the results say of the model."""
        entry = Entry(self.name, linear=self.recipe.linear, error=self.error)
        if not self.jobs:
            return entry
        folds, n = self.cohort.folds, len(self.cohort.folds)
        own = results[:n]
        entry.predicted = _per_unit(units, self.jobs[:n], own)
        if self.anchored:
            anchor = anchor_table(self.cohort, own)
            entry.predicted = at_level(entry.predicted, units, self.cohort, self.recipe, anchor)
        entry.seconds = float(np.sum([r.seconds for r in own]))
        entry.peak_memory = float(np.max([r.peak_memory for r in own]))
        errors = (f"fold {fold!r}: {r.error}" for fold, r in zip(folds, own, strict=True) if r.error)
        entry.error = next(errors, "")
        of_null = [r.error for r in results[n:] if r.error]
        if of_null:
            logger.warning("%s could not be trained on shuffled ages (%s).", self.name, of_null[0])
            return entry
        per_time = (len(self.jobs) - n) // max(len(self.shuffled), 1)
        for i, age in enumerate(self.shuffled if per_time else []):
            part = slice(n + i * per_time, n + (i + 1) * per_time)
            entry.shuffled.append((age, _per_unit(units, self.jobs[part], results[part])))
        return entry


def _fits(
    adata: AnnData, name: str, recipe: Recipe, cohort: Cohort, shuffled: list[np.ndarray], null_folds: int, seed: int
) -> _Fits:
    """What is to be fitted of one model, or the reason why it cannot be."""
    fits = _Fits(name, recipe, read_data(adata, recipe.full_setup, cohort), shuffled, cohort)
    try:
        check_data(adata, recipe)
    except (KeyError, TypeError, ValueError) as error:
        fits.error = f"{type(error).__name__}: {error.args[0] if error.args else error}"
        return fits
    fits.jobs = [make_job(cohort, recipe, fold, seed=seed, catch=True) for fold in range(len(cohort.folds))]
    fits.jobs += [
        replace(job, name=f"null_{i:03d}_{job.name}", age=age)
        for i, age in enumerate(shuffled)
        for job in fits.jobs[:null_folds]
    ]
    return fits


def _folder(name: str, of: str) -> str:
    """A readable name of a model's fits, and another one for every model."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)[:60]}-{digest}{of}"


def _run(fits: Sequence[_Fits], units: Sequence[Units], n_jobs: int | None) -> list[Entry]:
    """All fits of all models in one queue; ``units`` are those of each."""
    queue = [(fit.data, job) for fit in fits for job in fit.jobs]
    results = iter(run_jobs(queue, n_jobs=n_jobs, checkpoints=[fit.store for fit in fits for _ in fit.jobs]))
    return [fit.entry([next(results) for _ in fit.jobs], own) for fit, own in zip(fits, units, strict=True)]


def _per_unit(units: Units, jobs: Sequence[FoldJob], results: Sequence[FoldResult]) -> np.ndarray:
    """Prediction of every unit, (n_units,): of its sum, or the mean of its cells; NaN where there is none."""
    return units.mean(gather(len(units.cell), jobs, results)[0])


def _baselines(
    adata: AnnData, setup: Mapping[str, Any], cohort: Cohort, units: Units, shuffled: list[np.ndarray]
) -> list[Entry]:
    """The median and the ridge."""
    options: dict[str, Any] = {"normalize": inner(setup["normalize"]), "of_rows": RowSums.of(adata)}
    x = _checks.matrix(read(adata, setup), setup["layer"])
    with threads(1):
        watch = Watch()
        held_out = profiles(x, units, cells=np.ones(adata.n_obs, dtype=bool), **options)
        train = held_out
        if not cohort.trains.all():
            train = profiles(x, units, cells=cohort.trains, **options)
        ridge = Entry(RIDGE, True, ridge_ages(train, held_out, units, cohort.age[None])[0])
        ridge.seconds, ridge.peak_memory = watch.seconds, watch.peak_memory
        if shuffled:
            ridge.shuffled = list(zip(shuffled, ridge_ages(train, held_out, units, np.stack(shuffled)), strict=True))
        watch = Watch()
        median = Entry(MEDIAN, False, median_ages(units, cohort.age[None])[0])
        median.seconds, median.peak_memory = watch.seconds, watch.peak_memory
    return [ridge, median]
