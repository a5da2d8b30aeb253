"""Folds side by side through joblib, with finished ones kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from joblib import Parallel, delayed
from joblib.parallel import get_active_backend

from agevi._progress import progress
from agevi.tl.validate._checkpoint import Checkpoint
from agevi.tl.validate._fold_run import FoldData, FoldJob, FoldResult, run_fold

logger = logging.getLogger(__name__)


def run_jobs(
    jobs: Sequence[tuple[FoldData, FoldJob]],
    *,
    n_jobs: int | None = 1,
    checkpoints: Sequence[Checkpoint | None] = (),
) -> list[FoldResult]:
    """Results of all jobs in their order."""
    stores = list(checkpoints) or [None] * len(jobs)
    results = {i: found for i, (_, job) in enumerate(jobs) if (found := _stored(stores[i], job)) is not None}
    if results:
        logger.info("%d of %d folds were finished in an earlier run.", len(results), len(jobs))
    todo = [i for i in range(len(jobs)) if i not in results]
    # One thread per fold, wherever it runs, so that results do not depend on where; joblib's setting overrides it.
    n_threads = getattr(get_active_backend()[0], "inner_max_num_threads", None) or 1
    words = _in_words([job for _, job in jobs])
    with progress(len(todo), words[todo[0]] if todo else "", "fits") as bar:
        for i, result in _run([(i, *jobs[i]) for i in todo], n_jobs, n_threads):
            results[i] = result
            store, job = stores[i], jobs[i][1]
            if store is not None:
                store.write(job, result)
            name = job.recipe.model_cls.__name__
            logger.info("%s, %s: %.0f s (%d of %d).", name, job.name, result.seconds, len(results), len(jobs))
            bar.step(done=words[i])
            bar.doing(next((words[k] for k in todo if k not in results), words[i]))
    return [results[i] for i in range(len(jobs))]


def _in_words(jobs: Sequence[FoldJob]) -> list[str]:
    """What each job fits, for the progress bar."""
    n_folds = max((job.fold for job in jobs), default=0) + 1
    out = []
    for job in jobs:
        name = " + ".join(part.model_cls.__name__ for part in job.recipe.parts)
        what = f", {job.what}" if job.what else ""
        out.append(f"{name}{what}, fold {job.fold + 1} of {n_folds}{', shuffled ages' if job.age is not None else ''}")
    return out


def _stored(store: Checkpoint | None, job: FoldJob) -> FoldResult | None:
    """The result of an earlier run."""
    return None if store is None else store.read(job)


def _run(
    jobs: Sequence[tuple[int, FoldData, FoldJob]], n_jobs: int | None, n_threads: int
) -> Iterator[tuple[int, FoldResult]]:
    """Results with their numbers, each as soon as it is there where the backend can do that."""
    if not jobs:
        return
    yield from in_parallel(n_jobs)(delayed(_numbered)(*job, n_threads) for job in jobs)


def in_parallel(n_jobs: int | None) -> Any:
    """What runs jobs side by side and returns their results in the quickest way that the active backend knows."""
    if n_jobs is not None and (isinstance(n_jobs, str | float) or n_jobs == 0):
        raise ValueError(
            f"n_jobs={n_jobs!r} is not a number of workers; pass a whole number from 1, or -1 for as many as there are "
            "processors."
        )
    quickest = "generator_unordered" if get_active_backend()[0].supports_return_generator else "list"
    return Parallel(n_jobs=None if n_jobs == 1 else n_jobs, return_as=quickest)


def _numbered(number: int, data: FoldData, job: FoldJob, n_threads: int) -> tuple[int, FoldResult]:
    """A result that can be told from those of other jobs."""
    return number, run_fold(data, job, n_threads)
