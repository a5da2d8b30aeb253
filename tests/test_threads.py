"""Numbers of threads inside and after a fit."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading

import pytest
import threadpoolctl
import torch

import agevi
from agevi import _threads
from agevi._settings import settings
from agevi._threads import n_threads, n_weights, threads
from agevi.model.base._quiet import quiet


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch):
    """Two threads before, as on most machines, two cores free, and all libraries that are loaded by now."""
    monkeypatch.setattr(_threads, "ThreadpoolController", threadpoolctl.ThreadpoolController)
    monkeypatch.setattr(_threads, "free_cores", lambda: 2.0)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)
    settings.n_threads = None


def of_blas() -> set[int]:
    """Threads of the pools of linear algebra."""
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("error", [False, True])
def test_numbers_are_put_back(error):
    before = of_blas()
    try:
        with threads(1):
            inside = torch.get_num_threads(), of_blas()
            if error:
                raise RuntimeError
    except RuntimeError:
        pass
    assert inside == (1, {1})
    assert (torch.get_num_threads(), of_blas()) == (2, before)


def test_the_outermost_block_decides():
    with threads(1), threads(2):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_blocks_of_several_threads_leave_no_trace():
    """Whichever begins and ends first, and where the one that began lives on."""
    before, inside, first_ended, second_ended = of_blas(), threading.Barrier(2), threading.Event(), threading.Event()
    seen = {}

    def first() -> None:
        with threads(1):
            inside.wait()
        seen["first"] = torch.get_num_threads()
        first_ended.set()
        second_ended.wait()

    def second() -> None:
        with threads(1):
            inside.wait()
            first_ended.wait()
            seen["second, inside"] = torch.get_num_threads()
        seen["second"] = torch.get_num_threads()
        second_ended.set()

    workers = [threading.Thread(target=f) for f in (first, second)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    later = threading.Thread(target=lambda: seen.update(later=torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == {"first": 2, "second, inside": 1, "second": 2, "later": 2}
    assert (torch.get_num_threads(), of_blas()) == (2, before)


def test_levels_of_loggers_are_put_back_by_the_last():
    """As after trainings in threads that overlap."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    one, two = quiet(), quiet()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert logger.level >= logging.ERROR
    two.__exit__(None, None, None)
    assert logger.level == before


def test_small_work_takes_one_thread_and_large_work_all():
    assert n_threads(1e5) == 1
    assert n_threads(1e12) == 2
    torch.set_num_threads(1)  # as by OMP_NUM_THREADS
    assert n_threads(1e12) == 1


@pytest.mark.parametrize(("free", "expected"), [(0.0, 1), (1.2, 1), (1.8, 2), (8.0, 2)])
def test_threads_have_cores_of_their_own(monkeypatch, caplog, free, expected):
    caplog.set_level(logging.INFO, "agevi")
    monkeypatch.setattr(_threads, "free_cores", lambda: free)
    assert n_threads(1e12) == expected
    assert ("1 of 2 threads are used" in caplog.text) is (expected < 2)


def test_only_the_outermost_block_looks_at_the_cores(monkeypatch):
    monkeypatch.setattr(_threads, "free_cores", lambda: pytest.fail("looked"))
    with threads(1):
        assert n_threads(1e12) == 1
    assert n_threads(1e5) == 1


def ticks(idle: int, every: int) -> dict[int, tuple[int, int]]:
    """Of two cores, of which the second is always idle."""
    return {0: (idle, every), 1: (every, every)}


def test_free_cores_are_those_that_were_idle(monkeypatch):
    readings = iter([ticks(5, 100), ticks(8, 110), ticks(8, 120), ticks(8, 140)])
    monkeypatch.undo()
    monkeypatch.setattr(_threads, "_seen", (-_threads._HOLDS, 0.0))
    monkeypatch.setattr(_threads, "_LOOK", 0.0)
    monkeypatch.setattr(_threads, "_ticks", lambda: next(readings))
    assert _threads.free_cores() == pytest.approx(1.3)
    assert _threads.free_cores() == pytest.approx(1.3)  # as was just seen
    monkeypatch.setattr(_threads, "_HOLDS", 0.0)
    assert _threads.free_cores() == pytest.approx(1.0)


def test_where_the_system_does_not_tell_all_cores_are_free(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(_threads, "_seen", (-_threads._HOLDS, 0.0))
    monkeypatch.setattr(_threads, "_ticks", dict)
    assert _threads.free_cores() == os.cpu_count()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/stat")
def test_ticks_are_those_of_the_cores_of_this_process():
    found = _threads._ticks()
    assert set(found) == os.sched_getaffinity(0)
    assert all(0 < idle < every for idle, every in found.values())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/stat")
def test_ticks_may_have_few_columns(monkeypatch):
    monkeypatch.setattr(_threads, "open", lambda path: io.StringIO("cpu  1 2 3 4\ncpu0 1 2 3 4\n"), raising=False)
    monkeypatch.setattr(_threads.os, "sched_getaffinity", lambda pid: {0})
    assert _threads._ticks() == {0: (4, 10)}


def test_the_user_decides(monkeypatch):
    monkeypatch.setattr(_threads, "free_cores", lambda: 0.0)
    settings.n_threads = 3
    assert n_threads(1e5) == n_threads(1e12) == 3


def test_counts_weights():
    assert n_weights(torch.nn.Linear(3, 4)) == 3 * 4 + 4


@pytest.mark.parametrize(("given", "expected"), [(None, 1), (2, 2)], ids=["chosen", "given"])
@pytest.mark.parametrize("name", ["MLPClock", "PLSClock"])
def test_fits_of_small_data_run_on_one_thread(cohort, monkeypatch, name, given, expected):
    cls, seen = getattr(agevi.model, name), []
    cls.setup_anndata(cohort, age_key="age", subject_key="donor")
    model = cls(cohort)
    if name == "MLPClock":
        model.module.register_forward_hook(lambda *args: seen.append(torch.get_num_threads()))
    else:
        fit = model._fit
        monkeypatch.setattr(model, "_fit", lambda *args: seen.append(torch.get_num_threads()) or fit(*args))
    settings.n_threads = given
    model.train(max_epochs=1, enable_progress_bar=False)
    model.predict_age()
    assert set(seen) == {expected}
    assert torch.get_num_threads() == 2
