from __future__ import annotations

import multiprocessing
import signal
import time

import numpy as np
import pytest
import scipy.sparse as sp

import agevi
from agevi.io._folder import matrix_digest
from tests.tl.clocks import AllClock, MeanClock

KEYS = {"age_key": "age", "subject_key": "donor"}


@pytest.fixture(autouse=True)
def no_calls():
    AllClock.calls.clear()
    MeanClock.calls.clear()


def run(adata, directory, cls=AllClock, **arguments):
    agevi.tl.cross_validate(adata, cls, **KEYS, **{"n_folds": 4, **arguments}, checkpoint_dir=directory)
    return adata.obs["agevi_predicted"].to_numpy().copy()


@pytest.mark.slow
def test_finished_folds_are_not_run_again(cohort, tmp_path):
    first = run(cohort, tmp_path / "run")
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {"cross_validation.json", *(f"fold_{i:03d}.npz" for i in range(4))}
    AllClock.calls.clear()
    np.testing.assert_array_equal(run(cohort, tmp_path / "run"), first)
    assert not AllClock.calls
    record = cohort.uns["agevi"]["folds"]
    (tmp_path / "run" / "fold_002.npz").unlink()
    np.testing.assert_array_equal(run(cohort, str(tmp_path / "run")), first)
    assert len(AllClock.calls) == 1
    again = cohort.uns["agevi"]["folds"]
    np.testing.assert_array_equal(record["seconds"].drop("2"), again["seconds"].drop("2"))


@pytest.mark.slow
def test_a_run_that_failed_goes_on(cohort, tmp_path, monkeypatch):
    expected = cohort.copy()
    agevi.tl.cross_validate(expected, MeanClock, **KEYS, n_folds=4)
    fold = expected.obs.groupby("donor", observed=True)["agevi_fold"].first()
    monkeypatch.setattr(MeanClock, "fails_on", frozenset(fold.index[fold == "2"]))
    with pytest.raises(RuntimeError, match="planted"):
        run(cohort, tmp_path, MeanClock)
    assert {p.name for p in tmp_path.glob("*.npz")} == {"fold_000.npz", "fold_001.npz"}
    assert "agevi_predicted" not in cohort.obs
    MeanClock.calls.clear()
    monkeypatch.setattr(MeanClock, "fails_on", frozenset())
    np.testing.assert_array_equal(run(cohort, tmp_path, MeanClock), expected.obs["agevi_predicted"])
    assert len(MeanClock.calls) == 4  # two folds, two steps each


def other_age(adata):
    adata.obs["age"] += 1


def other_value(adata):
    adata.X.data[0] += 1


CHANGES = {
    "another number of folds": ({"n_folds": 3}, None, "the folds differs"),
    "another seed": ({"rng": 1}, None, "rng was 0 and is 1"),
    "another class": (
        {"cls": MeanClock},
        None,
        "model_cls was tests.tl.clocks.AllClock and is tests.tl.clocks.MeanClock",
    ),
    "another argument": ({"train_kwargs": {"max_epochs": 4}}, None, 'train_kwargs was {} and is {"max_epochs": 4}'),
    "another query": ({"train_on": "sex == 'male'"}, None, "the cells that train differs"),
    "types": ({"groupby": "cell_type", "min_cells": 1}, None, "groupby"),
    "other ages": ({}, other_age, "adata.obs['age'] differs"),
    "other values": ({}, other_value, "values differs"),
    "other genes": ({}, lambda a: setattr(a, "var_names", [f"x{i}" for i in range(60)]), "genes differs"),
    "a covariate": ({"setup_kwargs": {"batch_key": "batch"}}, None, "setup_kwargs"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CHANGES)
def test_folds_of_another_run_are_refused(cohort, tmp_path, case):
    arguments, change, message = CHANGES[case]
    run(cohort, tmp_path)
    if change is not None:
        change(cohort)
    before = cohort.obs["agevi_predicted"].copy()
    with pytest.raises(ValueError, match="holds folds of another run: ") as caught:
        run(cohort, tmp_path, **arguments)
    assert message in str(caught.value)
    assert "Pass a new directory, or the data and arguments of that run." in str(caught.value)
    assert (cohort.obs["agevi_predicted"] == before).all()


@pytest.mark.slow
def test_where_it_runs_is_no_other_run(cohort, tmp_path):
    first = run(cohort, tmp_path)
    cohort.obs["unused"] = 1.0
    np.testing.assert_array_equal(run(cohort, tmp_path, key_added="mine", n_jobs=2), first)


@pytest.mark.parametrize(
    "content",
    [pytest.param(b"", id="empty"), pytest.param(b"PK\x03\x04 cut", id="cut"), pytest.param(None, id="other cells")],
)
def test_a_damaged_fold_is_run_again(cohort, tmp_path, caplog, content):
    first = run(cohort, tmp_path)
    path = tmp_path / "fold_001.npz"
    path.write_bytes((tmp_path / "fold_000.npz").read_bytes() if content is None else content)
    AllClock.calls.clear()
    np.testing.assert_array_equal(run(cohort, tmp_path), first)
    assert len(AllClock.calls) == 1
    assert "the fold is run again" in caplog.text
    run(cohort, tmp_path)
    assert len(AllClock.calls) == 1


def test_folders_of_others(cohort, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="holds other files \\('thesis.tex'\\); pass a new or empty directory"):
        run(cohort, tmp_path)
    (tmp_path / "cross_validation.json").write_text("{")
    with pytest.raises(ValueError, match="was edited or damaged .*; pass a new checkpoint_dir"):
        run(cohort, tmp_path)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        pytest.param(5, TypeError, "checkpoint_dir=5 is a int; pass the path of a directory, or None", id="number"),
        pytest.param(True, TypeError, "checkpoint_dir=True is a bool; pass the path", id="truth value"),
        pytest.param("", ValueError, "checkpoint_dir='' is empty; pass the path", id="empty"),
        pytest.param(
            "a file", ValueError, "checkpoint_dir='.*a file' is a file; pass the path of a directory", id="file"
        ),
    ],
)
@pytest.mark.parametrize("tool", ["cross_validate", "compare_models", "learning_curve", "neuron_clock_study"])
def test_what_is_no_directory_is_refused(cohort, tmp_path, tool, value, error, message):
    (tmp_path / "a file").write_text("")
    given = str(tmp_path / value) if value == "a file" else value
    models = {"compare_models": [AllClock], "neuron_clock_study": None}.get(tool, AllClock)
    with pytest.raises(error, match=f"^{message}"):
        getattr(agevi.tl, tool)(*[cohort, models][: 1 + (models is not None)], **KEYS, checkpoint_dir=given)
    assert not AllClock.calls


@pytest.mark.slow
def test_without_a_seed_a_run_goes_on_with_its_own(cohort, tmp_path):
    first = run(cohort, tmp_path / "a", rng=None)
    np.testing.assert_array_equal(run(cohort, tmp_path / "a", rng=None), first)
    assert len(AllClock.calls) == 4
    run(cohort, tmp_path / "b", rng=None)
    seeds = [call["seed"] for call in AllClock.calls]
    assert len(set(seeds)) == 8


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix], ids=["dense", "csr", "csc"])
def test_digests_see_every_value(form):
    x = sp.random(5000, 7, density=0.2, rng=0).toarray()
    changed, moved = x.copy(), x[::-1].copy()
    changed[4999, 6] += 1
    digests = [matrix_digest(form(values)) for values in (x, x.copy(), changed, moved, x.astype(np.float32))]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


class SlowClock(AllClock):
    """One that can be killed in the middle of a run."""

    def train(self, *args, **kwargs):
        time.sleep(0.2)
        super().train(*args, **kwargs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_a_killed_run_goes_on_where_it_stopped(cohort, tmp_path):
    directory = tmp_path / "run"
    process = multiprocessing.get_context("fork").Process(target=run, args=(cohort.copy(), directory, SlowClock))
    process.start()
    try:
        while process.is_alive() and not (directory / "fold_000.npz").exists():
            time.sleep(0.02)
    finally:
        process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    finished = {p.name: p.stat().st_mtime_ns for p in directory.glob("*.npz")}
    assert 1 <= len(finished) < 4
    again = run(cohort, directory, SlowClock)
    assert len(SlowClock.calls) == 4 - len(finished)
    assert {name: (directory / name).stat().st_mtime_ns for name in finished} == finished
    assert len(list(directory.glob("*.npz"))) == 4
    np.testing.assert_array_equal(again, run(cohort.copy(), tmp_path / "whole"))
