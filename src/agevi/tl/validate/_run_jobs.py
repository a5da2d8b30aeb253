"""Fits side by side through joblib, with finished ones kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from joblib import Parallel, delayed
from joblib.parallel import get_active_backend

from agevi._progress import progress
from agevi.tl.validate._checkpoint import Checkpoint
from agevi.tl.validate._fit_fold import FoldData, FoldJob, FoldResult, run_fold
from agevi.tl.validate._left_out import tell

logger = logging.getLogger(__name__)


def run_jobs(
    jobs: Sequence[tuple[FoldData, FoldJob]], *, n_jobs: int | None = 1, checkpoints: Sequence[Checkpoint | None] = ()
) -> list[FoldResult]:
    """Results of all jobs in their order, of which those in ``checkpoints``, one for each job, are not run again."""
    stores = list(checkpoints) or [None] * len(jobs)
    stored = {i: store.read(jobs[i][1]) for i, store in enumerate(stores) if store is not None}
    results = {i: found for i, found in stored.items() if found is not None}
    if results:
        logger.info("%d of %d folds were finished in an earlier run.", len(results), len(jobs))

    def keep(i: int, result: FoldResult) -> None:
        job, store = jobs[i][1], stores[i]
        results[i] = result
        if store is not None:
            store.write(job, result)
        name = job.recipe.model_cls.__name__
        logger.info("%s, %s: %.0f s (%d of %d).", name, job.name, result.seconds, len(results), len(jobs))

    todo = {i: job for i, job in enumerate(jobs) if i not in results}
    n_threads = getattr(get_active_backend()[0], "inner_max_num_threads", None) or 1
    # One thread per fold, wherever it runs, so that results do not depend on where; joblib's setting overrides it.
    in_parallel(run_fold, {i: (*job, n_threads) for i, job in todo.items()}, _in_words(jobs), "fits", n_jobs, keep)
    out = [results[i] for i in range(len(jobs))]
    tell(jobs, out)
    return out


def _in_words(jobs: Sequence[tuple[FoldData, FoldJob]]) -> list[str]:
    """What each job fits, for the progress bar."""
    n_folds = max((job.fold for _, job in jobs), default=0) + 1
    out = []
    for _, job in jobs:
        name = " + ".join(part.model_cls.__name__ for part in job.recipe.parts)
        what = f", {job.what}" if job.what else ""
        out.append(f"{name}{what}, fold {job.fold + 1} of {n_folds}{', shuffled ages' if job.age is not None else ''}")
    return out


def in_parallel(
    run: Callable[..., Any],
    jobs: Mapping[int, tuple[Any, ...]],
    words: Sequence[str],
    unit: str,
    n_jobs: int | None,
    keep: Callable[[int, Any], None],
) -> None:
    """Call ``run`` with every job and ``keep`` with each result at once; 1 leaves ``n_jobs`` to joblib's config."""
    if n_jobs is not None and (isinstance(n_jobs, str | float) or n_jobs == 0):
        raise ValueError(
            f"n_jobs={n_jobs!r} is not a number of workers; pass a whole number from 1, or -1 for as many as there are "
            "processors."
        )
    if not jobs:
        return
    quickest = "generator_unordered" if get_active_backend()[0].supports_return_generator else "list"
    parallel = Parallel(n_jobs=None if n_jobs == 1 else n_jobs, return_as=quickest)
    left = list(jobs)
    with progress(len(jobs), words[left[0]], unit) as bar:
        for i, result in parallel(delayed(_numbered)(i, run, *arguments) for i, arguments in jobs.items()):
            keep(i, result)
            left.remove(i)
            bar.step(done=words[i])
            bar.doing(words[left[0] if left else i])


def _numbered(number: int, run: Callable[..., Any], *arguments: Any) -> tuple[int, Any]:
    """A result that can be told from those of other jobs."""
    return number, run(*arguments)
