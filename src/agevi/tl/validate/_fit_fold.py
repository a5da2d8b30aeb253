"""One fold: fit a clock on the training cells and predict the held-out ones. Runs in any process, on any machine."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _keys, _names
from agevi._progress import silent
from agevi._source import mark
from agevi._stored import Stored
from agevi._threads import threads
from agevi.dataloaders._measured import FeatureSets, write_sets
from agevi.dataloaders._summed import RowSums
from agevi.dataloaders._sums import UnitSums, sample_means
from agevi.model.base._for_ages import for_ages_alone
from agevi.model.ensemble._average import average, weights_from_errors
from agevi.tl.validate._arguments import as_called
from agevi.tl.validate._measure import Watch
from agevi.tl.validate._recipe import Recipe

_OTHERS = "(agevi: cells of no part)"
_ALONE = threading.Lock()
"""Folds that share a process take turns, since torch has one random state per process."""
_SMALL = 1 << 26
"""Bytes of values below which memory is left to Python's own collection, which costs half a second when it is
forced."""


@dataclass(frozen=True)
class FoldData:
    """What clocks read of an AnnData; shared by all folds and never changed."""

    x: Any  # (n_cells, n_genes)
    setup: Mapping[str, Any]  # says where a clock finds the values
    obs: pd.DataFrame
    genes: pd.Index
    sample: np.ndarray  # (n_cells,) code
    age: np.ndarray  # (n_samples,) NaN where unlabelled
    age_key: str
    sets: FeatureSets | None = None  # what was measured in which cells, where the data say so
    rows: np.ndarray | None = None  # (n_cells,) positions in x, where the cells are some of it
    of_rows: RowSums | None = None  # what rows of x say of their cells, where they are sums

    @property
    def n_bytes(self) -> int:
        """Size of the values."""
        return 0 if self.on_disk else int(getattr(self.x, "data", self.x).nbytes)

    @property
    def on_disk(self) -> bool:
        """Whether values are in a file, of which a fold copies nothing."""
        return isinstance(self.x, Stored)

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where some cells are in what :meth:`cells` gives for them."""
        return rows if self.on_disk else np.arange(len(rows))

    @cached_property
    def sums(self) -> UnitSums:
        """Sums of counts of all samples, of which each fit takes those of its own."""
        return UnitSums(self.x, self.sample, len(self.age), "log1p_cp10k", rows=self.of_rows)

    def lend_sums(self, model: Any, rows: np.ndarray) -> None:
        """Let a clock on ``rows`` read them, from the second fit of this process on: one alone sums fewer cells."""
        # Of counts alone, whose sums are exact: others would be rounded in another order.
        csr = getattr(self.x, "format", "csr") == "csr"
        if self.rows is not None or self.on_disk or not csr or not np.array_equal(model.genes, self.genes):
            return
        if model.normalize == "log1p_cp10k":
            self.fits.append(type(model))
            if len(self.fits) > 1:
                model.lend_sums(self.sums, self.sample[rows])

    @cached_property
    def fits(self) -> list[Any]:
        """Classes of the fits to all genes in this process."""
        return []

    def cells(self, rows: np.ndarray) -> AnnData:
        """A new AnnData of these cells without their ages; the only copy of values that a fold makes.

        From disk it has all cells, and values are read when they are needed.
        """
        if self.on_disk:
            rows = np.arange(len(self.obs))
        obs = self.obs.iloc[rows].drop(columns=[self.age_key, _keys.SPLIT], errors="ignore")
        for name in obs.select_dtypes("category"):
            obs[name] = obs[name].cat.remove_unused_categories()
        places = rows if self.rows is None else self.rows[rows]
        var = pd.DataFrame(index=self.genes)
        x = self.x.as_anndata() if self.on_disk else self.x[places]
        layer = self.setup["layer"]
        if layer is None:
            out = AnnData(X=x, obs=obs, var=var)
        else:
            out = AnnData(obs=obs, var=var, layers={layer: x}, shape=x.shape)
        if self.of_rows is not None:
            self.of_rows.take(places).write(out)
        if self.sets is not None:
            write_sets(out, replace(self.sets, codes=self.sets.codes[rows]))
        return mark(out, self.setup)


@dataclass(frozen=True)
class FoldJob:
    """One fit and what it predicts."""

    name: str  # of the checkpoint's file
    fold: int
    recipe: Recipe
    train: np.ndarray  # positions of the training cells
    validation: np.ndarray  # (n_train,) which of them belong to subjects that choose the epoch
    test: np.ndarray  # positions of the held-out cells
    seed: int
    group: int = -1  # type of the cells
    weigh: bool = False  # whether the error on validation subjects is wanted
    refit: bool = True  # whether a clock of all training subjects predicts the held-out cells
    age: np.ndarray | None = None  # (n_samples,) ages to train on in place of the true ones
    catch: bool = False  # whether an error becomes part of the result
    what: str = ""  # the cells that it is about, in words


@dataclass(frozen=True)
class FoldResult:
    """Predictions of the held-out cells, and what they cost."""

    predicted: np.ndarray  # (n_test,) float32, of cells, or of their samples where the clock predicts sums
    predicted_sample: np.ndarray | None = None  # (n_test,) float32, the same where the clock predicts sums
    validation_mae: float = np.nan
    best_epoch: int = -1
    seconds: float = np.nan
    peak_memory: float = np.nan  # MiB
    error: str = ""
    types: np.ndarray | None = None  # (n_types,) text, of clocks that have one per type
    type_samples: np.ndarray | None = None  # (n_samples,) text
    type_ages: np.ndarray | None = None  # (3, n_samples, n_types) ages, cells and weights
    type_anchor: np.ndarray | None = None  # (n_samples,) ages by the anchor, NaN without one
    anchor_r: float = np.nan  # largest correlation of a contrast with the age of training subjects held out


_OF_TYPES = ("types", "type_samples", "type_ages", "type_anchor")


@contextlib.contextmanager
def alone(n_threads: int | None = 1) -> Iterator[None]:
    """The one fit of this process, without a bar, on ``n_threads`` everywhere, for equal results (None: as it is)."""
    with _ALONE, silent(), threads(n_threads) if n_threads else contextlib.nullcontext():
        yield


def run_fold(data: FoldData, job: FoldJob, n_threads: int | None = 1) -> FoldResult:
    """Fit to the training cells of ``job``, and predict its held-out cells."""
    with alone(n_threads), for_ages_alone():
        watch = Watch()
        try:
            with as_called(job.recipe):
                result = _joined(data, job) if job.recipe.members else _single(data, job)[0]
        except Exception as error:
            if not job.catch:
                error.add_note(
                    f"This happened in {job.name} of the cross-validation of {job.recipe.model_cls.__name__}."
                )
                raise
            return FoldResult(np.full(len(job.test), np.nan, np.float32), error=f"{type(error).__name__}: {error}")
        finally:
            if data.n_bytes > _SMALL:
                gc.collect()  # the fold's AnnData is part of cycles, and the next fold needs the memory
        return replace(result, seconds=watch.seconds, peak_memory=watch.peak_memory)


def _joined(data: FoldData, job: FoldJob) -> FoldResult:
    """Fit and predict with every member, and average."""
    recipe = job.recipe
    weigh, weights = job.weigh or recipe.weighs_members, recipe.model_kwargs["weights"]
    fits = []
    for member in recipe.members:
        validation = job.validation & (weigh or member.selects_epochs)
        fits.append(_single(data, replace(job, recipe=member, validation=validation, weigh=weigh)))
    results = [result for result, _ in fits]
    if recipe.weighs_members:
        weights = weights_from_errors([result.validation_mae for result in results])

    def mean(ages: Sequence[np.ndarray]) -> np.ndarray:
        scale, min_age = recipe.model_kwargs["scale"], recipe.full_setup["min_age"]
        return average(np.stack(ages), np.asarray(weights), scale=scale, min_age=min_age)

    sums = [result.predicted_sample is not None for result in results]

    def mean_of_samples(ages: Sequence[np.ndarray], cells: np.ndarray) -> np.ndarray:
        code = data.sample[cells]
        return mean([a if own or not any(sums) else sample_means(a, code) for a, own in zip(ages, sums, strict=True)])

    held, error = [ages for _, ages in fits if ages is not None], np.nan
    if len(held) == len(fits):
        age = data.age if job.age is None else job.age
        error = _mae(data, job, mean_of_samples(held, job.train[job.validation]), age)
    predicted = mean_of_samples([result.predicted for result in results], job.test)
    typed = next((result for result in results if result.types is not None), FoldResult(predicted))
    of_types = {name: getattr(typed, name) for name in _OF_TYPES}
    return FoldResult(predicted, predicted if any(sums) else None, error, **of_types)


def _single(data: FoldData, job: FoldJob) -> tuple[FoldResult, np.ndarray | None]:
    """One class. Also ages of the validation cells, where they were taken."""
    recipe, age = job.recipe, data.age if job.age is None else job.age
    cls, train = recipe.model_cls, data.cells(job.train)
    place, ages, split = data.places(job.train), np.full(train.n_obs, np.nan), np.full(train.n_obs, _keys.TEST, object)
    ages[place] = age[data.sample[job.train]]
    split[place] = np.where(job.validation, _keys.VALIDATION, _keys.TRAIN)
    train.obs[data.age_key], train.obs[_keys.SPLIT] = ages, split
    if data.on_disk:
        _leave_out(train, place, recipe.full_setup)
    cls.setup_anndata(train, **recipe.setup)
    model = cls(train, **({"rng": job.seed} | recipe.model_kwargs))
    data.lend_sums(model, job.train)
    held = _fit(model, job, place[job.validation])
    validation_mae = np.nan if held is None else _mae(data, job, held, age)
    best_epoch = model.best_epoch_ if recipe.selects_epochs and not model.of_types else -1
    if not job.refit:
        return FoldResult(np.full(len(job.test), np.nan, np.float32), None, validation_mae, best_epoch), held
    test, own = data.cells(job.test), job.test if data.on_disk else None
    if model.of_types:
        parts = model.predict_parts(test, indices=own)
        predicted = parts.age_of_cell
        of_types = dict(zip(_OF_TYPES, parts.arrays(), strict=True))
        r = max(model.contrast_r_.values(), default=np.nan)
        return FoldResult(predicted, predicted, validation_mae, best_epoch, **of_types, anchor_r=r), held
    predicted = np.asarray(model.predict_age(test, indices=own, level=model.level), dtype=np.float32)
    summed = predicted if model.predicts_sums else None
    return FoldResult(predicted, summed, validation_mae, best_epoch), held


def _leave_out(adata: AnnData, rows: np.ndarray, setup: Mapping[str, Any]) -> None:
    """Give all other cells to one subject without an age, so that those of training subjects take no part either."""
    others = np.ones(adata.n_obs, dtype=bool)
    others[rows] = False
    for key in {setup["subject_key"], setup["sample_key"] or setup["subject_key"]}:
        names = _names.names(adata.obs[key], key).to_numpy(dtype=object, copy=True)
        names[others] = _OTHERS
        adata.obs[key] = names


def _fit(model: Any, job: FoldJob, validation: np.ndarray) -> np.ndarray | None:
    """Train in one or two steps; ages of the validation cells where these chose the epoch or their error is wanted."""
    recipe, held = job.recipe, None
    final = recipe.train_kwargs | {"train_roles": _keys.FITTED_ROLES}
    if recipe.selects_epochs or job.weigh:
        model.train(**recipe.train_kwargs)
        held = np.asarray(model.predict_age(indices=validation, level=model.level))
    if not job.refit:
        return held
    if recipe.selects_epochs:
        final["max_epochs"] = model.best_epoch_
    model.train(**final)
    return held


def _mae(data: FoldData, job: FoldJob, predicted: np.ndarray, age: np.ndarray) -> float:
    """Mean absolute error over the samples of the validation subjects."""
    sample = data.sample[job.train][job.validation]
    by_sample = pd.Series(predicted, dtype=np.float64).groupby(sample).mean()
    error = np.abs(by_sample.to_numpy() - age[by_sample.index.to_numpy()])
    return float(error[np.isfinite(age[by_sample.index.to_numpy()])].mean())
