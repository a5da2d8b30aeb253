"""Trials of a tuning: Optuna's side of it. Imported where optuna is installed, by tl.tune."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from anndata import AnnData
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError, OperationalError

from agevi._compat.scvi import Callback
from agevi._progress import progress
from agevi._settings import LEVELS, settings
from agevi.io._folder import plain
from agevi.tl.tuning._search import Arguments, Search
from agevi.tl.validate._cohort import Cohort
from agevi.tl.validate._fit_fold import FoldJob, run_fold
from agevi.tl.validate._jobs import read_data
from agevi.tl.validate._recipe import Recipe, recipe_of

logger = logging.getLogger(__name__)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
WARMUP = 20  # percent of a training before which no trial is stopped
STEP = 5  # percent; equal for all trials, since a pruner compares reports of the same step
HOPELESS = 5  # a study whose first so many trials fail is given up
_MONITOR = "age_mae_validation"


class SeededSampler(TPESampler):
    """Optuna's TPE, seeded anew for every trial from the seed of the study and the number of the trial."""

    # A study that resumes elsewhere, or after an interruption, does not repeat the draws of its start.
    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self.seed = seed

    def before_trial(self, study: Any, trial: Any) -> None:
        """Begin as a new sampler would that has the seed of this trial."""
        state = np.random.SeedSequence([self.seed, trial.number]).generate_state(1)
        super().__init__(seed=int(state[0]))
        super().before_trial(study, trial)


class PruneEpochs(Callback):
    """Report the lowest error on validation subjects every 5 percent of training, and stop trials that fall behind."""

    def __init__(self, trial: Any) -> None:
        self.trial, self.best, self.percent, self.behind = trial, float("inf"), 0, False

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Report, and stop where the pruner says so."""
        if self.behind or trainer.sanity_checking or _MONITOR not in trainer.callback_metrics:
            return
        self.best = min(self.best, float(trainer.callback_metrics[_MONITOR]))
        # A pruner compares equal steps, and settings differ in epochs.
        done = 100 * (trainer.current_epoch + 1) // max(trainer.max_epochs, 1)
        while not self.behind and self.percent + STEP <= done:
            self.percent += STEP
            self.trial.report(self.best, self.percent)
            self.behind = self.trial.should_prune()
        if self.behind:
            # An exception would be printed by scvi-tools; the trial is ended after the training.
            trainer.should_stop = True


class Objective:
    """Error over the samples of the validation subjects, as a function of a trial."""

    def __init__(
        self,
        adata: AnnData,
        rows: np.ndarray,
        cohort: Cohort,
        jobs: Sequence[FoldJob],
        search: Search,
        keys: dict[str, str | None],
    ) -> None:
        self.adata, self.rows, self.cohort = adata, rows, cohort
        self.jobs, self.search, self.keys = jobs, search, keys
        judged = [np.unique(cohort.sample[job.train[job.validation]]) for job in jobs]
        self.n_samples = [int(np.isfinite(cohort.age[samples]).sum()) for samples in judged]
        self.last_error: Exception | None = None

    def __call__(self, trial: Any) -> float:
        """Mean absolute error over all samples that were held out; the last failure is kept for the message."""
        try:
            drawn = self.search.draw(trial)
            for call, arguments in drawn.items():
                trial.set_user_attr(call, plain(arguments))
            known = self._same_as_before(trial)
            return self._fit(trial, drawn) if known is None else known
        except optuna.TrialPruned:
            raise
        except Exception as error:
            self.last_error = error
            raise

    def _same_as_before(self, trial: Any) -> float | None:
        """Value of an earlier trial with the same settings, which would be fitted with the same seed."""
        for earlier in trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if earlier.params == trial.params:
                for name, value in earlier.user_attrs.items():
                    trial.set_user_attr(name, value)
                trial.set_user_attr("same_as", earlier.number)
                return float(earlier.value)
        return None

    def _fit(self, trial: Any, drawn: Arguments) -> float:
        """Fit every fold with the settings of a trial."""
        recipe = recipe_of(self.search.model_cls, self.keys, **drawn)
        data = read_data(self.adata, recipe.full_setup, self.cohort, rows=self.rows)
        start, errors, epochs = time.perf_counter(), [], []
        for i, job in enumerate(self.jobs):
            prune = PruneEpochs(trial) if len(self.jobs) == 1 else None
            own = replace(job, recipe=recipe if prune is None else _watched(recipe, prune))
            result = run_fold(data, own, None)
            if prune is not None and prune.behind:
                raise optuna.TrialPruned(f"behind other trials after {prune.percent} % of the training")
            errors.append(result.validation_mae)
            epochs.append(result.best_epoch)
            value = float(np.average(errors, weights=self.n_samples[: i + 1]))
            if not np.isfinite(value):
                raise RuntimeError("the predicted ages are not finite")
            if len(self.jobs) > 1:
                trial.report(value, 100 * (i + 1) // len(self.jobs))
                if i + 1 < len(self.jobs) and trial.should_prune():
                    raise optuna.TrialPruned(f"behind other trials after {i + 1} folds")
        trial.set_user_attr("seconds", round(time.perf_counter() - start, 2))
        if recipe.selects_epochs:
            trial.set_user_attr("best_epoch", int(np.median(epochs)))
        return value


def _watched(recipe: Recipe, callback: Callback) -> Recipe:
    """The recipe with a callback of Lightning, for clocks that are trained in epochs."""
    training = recipe.train_kwargs
    if "enable_progress_bar" not in training:  # recipe_of sets it for clocks with a trainer
        return recipe
    return replace(recipe, train_kwargs=training | {"callbacks": [*training.get("callbacks", ()), callback]})


def open_storage(storage: Any) -> BaseStorage:
    """Where studies are kept."""
    if storage is not None and not isinstance(storage, BaseStorage) and "://" not in str(storage):
        storage = JournalStorage(JournalFileBackend(str(storage)))
    for pause in (0.3, 1.0, 3.0):
        try:
            return optuna.storages.get_storage(storage)
        except (OperationalError, IntegrityError):  # another process makes the tables at this moment
            time.sleep(pause)
    return optuna.storages.get_storage(storage)


def stored_attribute(storage: BaseStorage, study_name: str, name: str) -> Any:
    """Attribute of the study of this name; None where there is no such study."""
    try:
        return storage.get_study_user_attrs(storage.get_study_id_from_name(study_name)).get(name)
    except KeyError:
        return None


def open_study(storage: BaseStorage, study_name: str, *, seed: int, sampler: Any, pruner: Any) -> optuna.Study:
    """A new study, or the one of this name."""
    with _without_lines():
        return optuna.create_study(
            storage=storage,
            study_name=study_name,
            sampler=SeededSampler(seed) if sampler is None else sampler,
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=WARMUP) if pruner is None else pruner,
            direction="minimize",
            load_if_exists=True,
        )


def run_trials(study: optuna.Study, objective: Objective, n_trials: int, timeout: float | None) -> None:
    """Trials until the study has ``n_trials`` finished ones, whoever ran them."""
    done = len(study.get_trials(deepcopy=False, states=FINISHED))
    if done:
        logger.info("Study %r has %d finished trials of %d.", study.study_name, done, n_trials)
    if done < n_trials:
        enough = optuna.study.MaxTrialsCallback(n_trials, states=FINISHED)
        what = f"{objective.search.model_cls.__name__}, trial {{}} of {n_trials}"
        with progress(n_trials - done, what.format(done + 1), "trials") as bar, _without_lines():

            def count(study: optuna.Study, trial: Any) -> None:
                """Show the best value so far."""
                done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
                best = [float(t.value) for t in done if t.value is not None]
                bar.step(note=f"lowest error {min(best):.2f}" if best else "")
                bar.doing(what.format(min(trial.number + 2, n_trials)))

            study.optimize(objective, timeout=timeout, callbacks=[count, enough, stop_hopeless], catch=(Exception,))
            bar.end("ended")
    trials = study.get_trials(deepcopy=False)
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        n_failed = sum(trial.state == TrialState.FAIL for trial in trials)
        error = objective.last_error
        why = f" (the last one: {type(error).__name__}: {error})" if error else ""
        raise RuntimeError(
            f"no trial of study {study.study_name!r} was completed: {n_failed} of {len(trials)} failed{why}. Change "
            "the space or the fixed arguments, allow more time or another pruner, and pass another study_name."
        ) from error


@contextlib.contextmanager
def _without_lines() -> Iterator[None]:
    """Without the lines of Optuna for each trial, which the bar stands for, unless such lines are wanted."""
    level = optuna.logging.get_verbosity()
    if settings.verbosity < LEVELS.index("info"):
        optuna.logging.set_verbosity(max(level, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def stop_hopeless(study: optuna.Study, trial: Any) -> None:
    """End a study in which nothing but failures was found: it is the call that is wrong, and not a setting."""
    finished = study.get_trials(deepcopy=False, states=FINISHED)
    if len(finished) >= HOPELESS and all(t.state == TrialState.FAIL for t in finished):
        study.stop()
