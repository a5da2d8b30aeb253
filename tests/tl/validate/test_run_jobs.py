from __future__ import annotations

import threading

import joblib
import numpy as np
import pytest
import torch

import agevi
from agevi.tl.validate import _fit_fold
from agevi.tl.validate._cohort import make_cohort
from agevi.tl.validate._jobs import make_job, read_data, stream
from agevi.tl.validate._recipe import recipe_of
from agevi.tl.validate._run_jobs import run_jobs
from tests.conftest import QUIET
from tests.tl.clocks import AllClock, MeanClock

KEYS = {"age_key": "age", "subject_key": "donor", "sample_key": None}
SMALL = ({"n_hidden": [8], "n_latent": 2, "n_head": [4], "train_unit": "cell"}, {"max_epochs": 3, **QUIET})


def jobs_of(adata, cls, model_kwargs=None, train_kwargs=None, n_folds=3, **arguments):
    recipe = recipe_of(cls, KEYS, None, model_kwargs, train_kwargs)
    cohort = make_cohort(
        adata, recipe.full_setup, n_folds=n_folds, fold_key=None, stratify_by=None, train_on=None, seed=stream(0, 0)
    )
    data = read_data(adata, recipe.full_setup, cohort)
    return [(data, make_job(cohort, recipe, fold, seed=0, **arguments)) for fold in range(n_folds)]


@pytest.mark.slow
def test_the_order_of_jobs_does_not_matter(cohort):
    jobs = jobs_of(cohort, agevi.model.PoissonVAE, *SMALL)
    forward, backward = run_jobs(jobs), run_jobs(jobs[::-1])[::-1]
    for first, second in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(first.predicted, second.predicted)


def test_values_are_not_copied_to_look_at_them(cohort):
    assert all(data.x is cohort.X for data, _ in jobs_of(cohort, AllClock))


def test_threads_of_a_fold_are_fixed_and_put_back(cohort, monkeypatch):
    seen = []
    monkeypatch.setattr(MeanClock, "train", lambda self, **k: seen.append(torch.get_num_threads()) or 1 / 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for inner, wanted in ((None, 1), (2, 2)):
            config = joblib.parallel_config("loky", n_jobs=1, inner_max_num_threads=inner)
            with config, pytest.raises(ZeroDivisionError):
                run_jobs(jobs_of(cohort, MeanClock))
            assert seen.pop() == wanted
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_threads_of_one_process_take_turns(cohort, monkeypatch):
    """torch has one random state per process, so two fits at a time would not be reproducible."""
    running, most = [], []

    def fit(data, job):
        running.append(job.name)
        most.append(len(running))
        threading.Event().wait(0.05)
        running.pop()
        return _fit_fold.FoldResult(np.zeros(len(job.test), np.float32)), None

    monkeypatch.setattr(_fit_fold, "_single", fit)
    with joblib.parallel_config("threading", n_jobs=3):
        assert len(run_jobs(jobs_of(cohort, AllClock))) == 3
    assert most == [1, 1, 1]


def test_errors_can_be_kept(cohort, monkeypatch):
    jobs = jobs_of(cohort, AllClock, catch=True)
    held_out = cohort.obs["donor"].iloc[jobs[1][1].test]
    monkeypatch.setattr(AllClock, "fails_on", frozenset(held_out))
    results = run_jobs(jobs)
    assert [r.error for r in results] == ["", "RuntimeError: a planted failure", ""]
    assert [np.isnan(r.predicted).all() for r in results] == [False, True, False]


def test_trained_on_other_ages(cohort):
    AllClock.calls.clear()
    run_jobs(jobs_of(cohort, AllClock, age=np.arange(24.0)))
    for call in AllClock.calls:
        assert call["ages"].to_dict() == {name: float(name[1:]) for name in call["trained"]}


@pytest.fixture
def elsewhere(monkeypatch):
    """After the call, a fold that is run in this process fails."""
    return lambda: monkeypatch.setattr(_fit_fold, "_single", None)


def assert_same(here, there):
    for first, second in zip(here, there, strict=True):
        np.testing.assert_array_equal(first.predicted, second.predicted)
        assert first.validation_mae == second.validation_mae
        assert first.best_epoch == second.best_epoch


@pytest.mark.slow
def test_other_processes_give_the_same_numbers(cohort, elsewhere):
    jobs = jobs_of(cohort, agevi.model.PoissonVAE, *SMALL)
    here = run_jobs(jobs)
    elsewhere()
    assert_same(here, run_jobs(jobs, n_jobs=2))
