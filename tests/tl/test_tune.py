from __future__ import annotations

import inspect
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import optuna
import pytest
import scipy.sparse as sp
import torch
from optuna.trial import TrialState

import agevi
from agevi.tl import tune
from agevi.tl._tune_run import PruneEpochs
from tests.conftest import QUIET
from tests.test_gates import patterns, set_obs, snapshot
from tests.tl.clocks import MeanClock

ROOT = Path(__file__).parents[2]
KEYS = {"age_key": "age", "subject_key": "donor"}
SMALL = {"n_hidden": [8], "n_latent": 2, "train_unit": "cell"}


@pytest.fixture(autouse=True)
def quiet_optuna():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


class Spy(MeanClock):
    """Predicts its number of latent dimensions, and keeps all data that it is given."""

    calls: ClassVar[list[dict]] = []
    seen: ClassVar[list] = []

    def train(self, *args, **kwargs):
        self.seen.append(self.adata.obs.copy())
        super().train(*args, **kwargs)
        n_latent = self.init_params_["non_kwargs"]["n_latent"]
        if n_latent == 13:
            raise RuntimeError("a loss that is no number")
        if n_latent == 15:
            raise ValueError("a setting that does not go with others")
        self.value = np.nan if n_latent == 14 else n_latent


@pytest.fixture(autouse=True)
def fresh():
    Spy.seen.clear()
    Spy.calls.clear()


def spied(adata, space=None, **arguments):
    return tune(adata, Spy, space or {"n_latent": {"low": 1, "high": 12}}, **(KEYS | {"n_trials": 4} | arguments))


def trials_of(study):
    """All that a study knows of its trials, less what the clock on the wall says."""
    return [
        (t.number, t.state, t.value, t.params, t.intermediate_values)
        + ({k: v for k, v in t.user_attrs.items() if k != "seconds"},)
        for t in study.trials
    ]


def ages(cohort, *roles):
    of_subject = cohort.obs.drop_duplicates("donor").set_index("donor")
    return of_subject.loc[of_subject["agevi_split"].isin(roles), "age"]


def test_the_value_is_the_error_on_validation_subjects(cohort):
    study = spied(cohort)
    for trial in study.trials:
        error = (ages(cohort, "validation") - trial.params["n_latent"]).abs().mean()
        assert trial.value == pytest.approx(error, rel=1e-6)
        assert trial.user_attrs["best_epoch"] == MeanClock.best
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert study.best_value == min(trial.value for trial in study.trials)


def test_a_trial_is_the_clock_that_its_arguments_make(cohort):
    """The value is that of the same clock, trained and judged by hand."""
    space = {"n_head": [[], [4]], "plan_kwargs.lr": {"low": 1e-3, "high": 1e-2, "log": True}}
    training = {"max_epochs": 4, "accelerator": "cpu"}
    study = tune(
        cohort, agevi.model.PoissonVAE, space, **KEYS, n_trials=2, model_kwargs=SMALL, train_kwargs=training, rng=5
    )
    best = study.best_trial.user_attrs
    assert best["train_kwargs"] == {**training, "plan_kwargs": {"lr": study.best_params["plan_kwargs.lr"]}}
    data = cohort[cohort.obs["agevi_split"] != "test"].copy()
    agevi.model.PoissonVAE.setup_anndata(data, **KEYS, **best["setup_kwargs"])
    model = agevi.model.PoissonVAE(data, **best["model_kwargs"], rng=5)
    model.train(**best["train_kwargs"], enable_progress_bar=False)
    cells = data.obs.assign(predicted=model.predict_age())
    of_sample = cells[cells["agevi_split"] == "validation"].groupby("donor", observed=True)[["age", "predicted"]].mean()
    assert study.best_value == pytest.approx((of_sample["age"] - of_sample["predicted"]).abs().mean(), rel=1e-5)
    assert best["best_epoch"] == model.best_epoch_


def test_sums_are_judged_where_a_clock_predicts_them(cohort):
    class OfSums(Spy):
        sums = True

    study = tune(cohort, OfSums, {"n_latent": [3, 4]}, **KEYS, n_trials=2)
    errors = [(ages(cohort, "validation") - trial.params["n_latent"] - 1000).abs().mean() for trial in study.trials]
    assert [trial.value for trial in study.trials] == pytest.approx(errors, rel=1e-6)


@pytest.mark.parametrize("n_folds", [None, 3])
def test_test_subjects_are_never_seen(cohort, n_folds):
    test = set(ages(cohort, "test").index)
    study = spied(cohort, n_folds=n_folds)
    assert len(Spy.seen) == len({t.params["n_latent"] for t in study.trials}) * (n_folds or 1)
    for obs in Spy.seen:
        assert not test & set(obs["donor"].astype(str))
    assert all(not test & call["all"] for call in Spy.calls)
    changed = cohort.copy()  # neither their counts nor their ages matter
    rows = (changed.obs["agevi_split"] == "test").to_numpy()
    counts = changed.X.toarray()
    counts[rows] = 1000
    changed.X = sp.csr_matrix(counts)
    changed.obs.loc[rows, "age"] = 90.0
    assert trials_of(spied(changed, n_folds=n_folds)) == trials_of(study)


@pytest.mark.parametrize("n_folds", [None, 3])
def test_permuted_test_subjects_give_an_identical_study(cohort, tmp_path, n_folds):
    """A real network, and every trial, report, argument and record; even the stored study goes on with them."""
    arguments = {"model_kwargs": SMALL, "train_kwargs": {"max_epochs": 4} | QUIET, "n_folds": n_folds, **KEYS}
    space = {"plan_kwargs.lr": {"low": 1e-4, "high": 1e-2, "log": True}, "n_head": [[], [4]]}
    study = tune(cohort, agevi.model.PoissonVAE, space, n_trials=3, storage=tmp_path / "study.log", **arguments)
    first = trials_of(study), study.user_attrs
    rng, changed = np.random.default_rng(0), cohort.copy()
    rows = np.flatnonzero(cohort.obs["agevi_split"] == "test")
    counts = cohort.X.toarray()
    counts[rows] = counts[rng.permutation(rows)][:, rng.permutation(cohort.n_vars)]
    changed.X = sp.csr_matrix(counts)
    of_test = ages(cohort, "test")
    permuted = dict(zip(of_test.index, np.roll(of_test, 1), strict=True))
    changed.obs["age"] = cohort.obs["donor"].astype(str).map(permuted).fillna(cohort.obs["age"]).astype(float)
    assert (changed.obs["age"] != cohort.obs["age"]).sum() == len(rows)
    again = tune(changed, agevi.model.PoissonVAE, space, n_trials=3, **arguments)
    assert (trials_of(again), again.user_attrs) == first
    goes_on = tune(changed, agevi.model.PoissonVAE, space, n_trials=4, storage=tmp_path / "study.log", **arguments)
    assert trials_of(goes_on)[:3] == first[0]
    without = cohort[cohort.obs["agevi_split"] != "test"].copy()
    alone = tune(without, agevi.model.PoissonVAE, space, n_trials=3, **arguments)
    assert (trials_of(alone), alone.user_attrs) == first


def test_inner_folds_judge_every_subject_but_those_of_the_test_once(cohort):
    study = spied(cohort, {"n_latent": [4]}, n_folds=4, n_trials=1)
    known = ages(cohort, "train", "validation")
    held_out = [set(obs.loc[obs["agevi_split"] == "validation", "donor"].astype(str)) for obs in Spy.seen]
    assert len(held_out) == 4
    assert sorted(name for names in held_out for name in names) == sorted(known.index)
    assert study.best_value == pytest.approx((known - 4).abs().mean())
    assert len(study.trials[0].intermediate_values) == 4


def test_samples_are_judged_and_subjects_held_out():
    adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=5, n_genes=30, n_visits=2)
    agevi.pp.split_subjects(adata, **KEYS, sample_key="sample")
    study = spied(adata, sample_key="sample", n_trials=1)
    visits = adata.obs[adata.obs["agevi_split"] == "validation"].drop_duplicates("sample")["age"]
    assert study.best_value == pytest.approx((visits - study.best_params["n_latent"]).abs().mean(), rel=1e-6)


def test_subjects_without_age_train_and_are_not_judged(cohort):
    unknown = ages(cohort, "validation").index[0]
    cohort.obs.loc[cohort.obs["donor"] == unknown, "age"] = np.nan
    study = spied(cohort, {"n_latent": [4]}, n_trials=1)
    assert study.best_value == pytest.approx((ages(cohort, "validation").dropna() - 4).abs().mean())


def test_the_data_are_only_read(cohort):
    before = snapshot(cohort)
    tune(
        cohort,
        agevi.model.PoissonVAE,
        {"n_head": [[]]},
        **KEYS,
        n_trials=1,
        model_kwargs=SMALL,
        train_kwargs={"max_epochs": 1} | QUIET,
    )
    assert snapshot(cohort) == before


def test_the_first_trial_has_the_defaults_of_the_class(cohort):
    study = spied(cohort, {"n_latent": {"low": 1, "high": 99}, "dropout_rate": {"low": 0.0, "high": 0.9}}, n_trials=3)
    assert study.trials[0].params == {"n_latent": 32, "dropout_rate": 0.2}


def test_equal_seeds_give_equal_trials(cohort):
    first, same, other = (spied(cohort, rng=rng, n_trials=6) for rng in (3, 3, 4))
    assert [t.params for t in first.trials] == [t.params for t in same.trials]
    assert [t.params for t in first.trials] != [t.params for t in other.trials]


def urls(tmp_path):
    return {"sqlite": f"sqlite:///{tmp_path / 'study.db'}", "journal": tmp_path / "study.log"}


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_study_goes_on(cohort, tmp_path, kind):
    """Trials of earlier calls count, and the draws are those of one call that was not interrupted."""
    storage = urls(tmp_path)[kind]
    space = {"dropout_rate": {"low": 0.0, "high": 0.9}}
    study = spied(cohort, space, storage=storage, n_trials=3)
    first = study.trials
    assert study.study_name == "Spy"
    assert len(spied(cohort, space, storage=storage, n_trials=3).trials) == 3
    both = spied(cohort, space, storage=storage, n_trials=8)
    assert len(both.trials) == 8
    assert [t.params for t in both.trials[:3]] == [t.params for t in first]
    whole = spied(cohort, space, n_trials=8)
    assert [t.params for t in both.trials] == [t.params for t in whole.trials]
    assert len({t.params["dropout_rate"] for t in both.trials}) == 8
    assert len(spied(cohort, space, storage=storage, study_name="other", n_trials=2).trials) == 2


def test_a_storage_of_optuna_is_taken(cohort):
    storage = optuna.storages.InMemoryStorage()
    spied(cohort, storage=storage, n_trials=2)
    assert len(spied(cohort, storage=storage, n_trials=3).trials) == 3


@pytest.mark.parametrize(
    ("change", "arguments", "what"),
    [
        pytest.param(set_obs("age", lambda a: a.obs["age"] + 1), {}, "the ages", id="ages"),
        pytest.param(lambda a: a.X.data.__setitem__(0, 99), {}, "values", id="values"),
        pytest.param(lambda a: None, {"model_kwargs": {"n_head": []}}, "model_kwargs", id="arguments"),
        pytest.param(lambda a: None, {"n_folds": 2}, "n_folds", id="folds"),
        pytest.param(lambda a: None, {"rng": 1}, "rng", id="seed"),
        pytest.param(
            set_obs(
                "agevi_split", lambda a: a.obs["agevi_split"].replace({"train": "validation", "validation": "train"})
            ),
            {},
            "the split",
            id="split",
        ),
    ],
)
def test_a_study_of_other_data_is_refused(cohort, tmp_path, change, arguments, what):
    storage = tmp_path / "study.log"
    spied(cohort, storage=storage, n_trials=1)
    change(cohort)
    with pytest.raises(
        ValueError, match=f"study 'Spy' in this storage was made with other '{what}'.*another study_name"
    ):
        spied(cohort, storage=storage, **arguments)


def test_trials_that_fall_behind_are_stopped(cohort, capsys):
    space, training = {"n_head": [[], [4]]}, {"max_epochs": 10} | QUIET
    arguments = KEYS | {"model_kwargs": SMALL, "train_kwargs": training}
    bound = optuna.pruners.ThresholdPruner(upper=0.0, n_warmup_steps=30)
    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(RuntimeError, match="no trial of study 'PoissonVAE' was completed: 0 of 2 failed"):
        tune(cohort, agevi.model.PoissonVAE, space, **arguments, n_trials=2, pruner=bound, storage=storage)
    study = optuna.load_study(study_name="PoissonVAE", storage=storage)
    for trial in study.trials:
        assert trial.state == TrialState.PRUNED
        assert list(trial.intermediate_values) == [5, 10, 15, 20, 25, 30]
        assert trial.user_attrs["model_kwargs"]["n_latent"] == 2
    assert "Exception" not in capsys.readouterr().out


def test_the_lowest_error_is_reported_at_every_twentieth():
    class Reports(list):
        def report(self, value, step):
            self.append((step, value))

        def should_prune(self):
            return len(self) == 12

    reports, trainer = Reports(), SimpleNamespace(sanity_checking=False, max_epochs=400, should_stop=False)
    callback = PruneEpochs(reports)
    errors = np.random.default_rng(0).uniform(5, 9, 400)
    for epoch, error in enumerate(errors):
        trainer.current_epoch, trainer.callback_metrics = epoch, {"age_mae_validation": torch.tensor(error)}
        callback.on_validation_end(trainer, None)
    steps, values = zip(*reports, strict=True)
    assert steps == tuple(range(5, 61, 5))
    np.testing.assert_allclose(values, np.minimum.accumulate(errors)[19:240:20])
    assert trainer.should_stop
    assert callback.behind


def test_folds_are_pruned_between(cohort):
    study = None
    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(RuntimeError, match="0 of 1 failed"):
        spied(cohort, n_folds=3, n_trials=1, storage=storage, pruner=optuna.pruners.ThresholdPruner(upper=0.0))
    study = optuna.load_study(study_name="Spy", storage=storage)
    assert list(study.trials[0].intermediate_values) == [33]


def earlier_trials(study, n=5, value=0.0):
    """Finished trials that no clock can keep up with."""
    steps = dict.fromkeys(range(1, 101), value)
    for _ in range(n):
        study.add_trial(optuna.trial.create_trial(value=value, intermediate_values=steps))


@pytest.mark.parametrize(
    "cls", [c for c in agevi.model.MODELS if c.trainable and c.selects_epochs], ids=lambda c: c.__name__
)
@pytest.mark.parametrize("unit", ["cell", "pseudocell"])
def test_the_default_rule_stops_networks_that_fall_behind(cohort, cls, unit):
    small = {"n_hidden": [8], "train_unit": unit} | ({"n_components": 5} if cls.__name__ == "NMFClock" else {})
    arguments = KEYS | {"model_kwargs": small, "train_kwargs": {"max_epochs": 10} | QUIET}
    arguments["storage"] = optuna.storages.InMemoryStorage()
    space = {"plan_kwargs.lr": {"low": 1e-3, "high": 1e-2}}
    study = tune(cohort, cls, space, n_trials=1, **arguments)
    assert list(study.trials[0].intermediate_values) == list(range(5, 101, 5))
    earlier_trials(study)
    study = tune(cohort, cls, space, n_trials=7, **arguments)
    assert study.trials[-1].state == TrialState.PRUNED
    assert max(study.trials[-1].intermediate_values) == 20


def test_the_default_rule_stops_between_folds(cohort):
    arguments = {"storage": optuna.storages.InMemoryStorage(), "n_folds": 10}
    arguments["space"] = {"n_latent": {"low": 20, "high": 1000}}
    earlier_trials(spied(cohort, n_trials=1, **arguments))
    study = spied(cohort, n_trials=7, **arguments)
    assert study.trials[-1].state == TrialState.PRUNED
    assert list(study.trials[-1].intermediate_values) == [10, 20]


@pytest.mark.parametrize("bad", [13, 14, 15, "x"], ids=["training", "predictions", "ValueError", "TypeError"])
def test_a_trial_that_fails_ends_no_study(cohort, bad):
    study = spied(cohort, {"n_latent": [32, bad, 5]}, n_trials=8, rng=1)
    states = {trial.params["n_latent"]: trial.state for trial in study.trials}
    assert states == {32: TrialState.COMPLETE, bad: TrialState.FAIL, 5: TrialState.COMPLETE}
    assert len(study.trials) == 8


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        pytest.param(13, "RuntimeError: a loss that is no number", id="training"),
        pytest.param(14, "RuntimeError: the predicted ages are not finite", id="predictions"),
        pytest.param(15, "ValueError: a setting that does not go with others", id="argument"),
    ],
)
def test_a_study_of_failures_is_an_error(cohort, bad, why):
    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(RuntimeError, match=rf"2 of 2 failed \(the last one: {why}.*\). Change the space") as raised:
        spied(cohort, {"n_latent": [bad]}, n_trials=2)
    assert type(raised.value.__cause__).__name__ == why.split(":")[0]
    with pytest.raises(RuntimeError, match="5 of 5 failed"):
        spied(cohort, {"n_latent": [bad]}, n_trials=500, storage=storage)
    with pytest.raises(RuntimeError, match="6 of 6 failed"):
        spied(cohort, {"n_latent": [bad]}, n_trials=500, storage=storage)


def test_equal_settings_are_fitted_once(cohort):
    study = spied(cohort, {"n_latent": [3, 4]}, n_trials=6)
    assert len(Spy.seen) == 2
    for trial in study.trials:
        first = next(t for t in study.trials if t.params == trial.params)
        assert trial.value == first.value
        assert trial.user_attrs["model_kwargs"] == {"n_latent": trial.params["n_latent"]}
        assert trial.user_attrs.get("same_as", trial.number) == first.number


def test_a_study_without_seed_goes_on_with_the_one_that_it_began_with(cohort, tmp_path):
    arguments = {"rng": None, "n_folds": 2, "storage": tmp_path / "study.log"}
    seed = spied(cohort, n_trials=1, **arguments).user_attrs["agevi"]["rng"]
    study = spied(cohort, n_trials=3, **arguments)
    assert len(study.trials) == 3
    same = spied(cohort, n_trials=3, rng=seed, n_folds=2)
    assert [(t.params, t.value) for t in same.trials] == [(t.params, t.value) for t in study.trials]


def test_no_further_trial_begins_after_the_timeout(cohort):
    class Slow(Spy):
        def train(self, *args, **kwargs):
            time.sleep(0.3)
            super().train(*args, **kwargs)

    study = tune(cohort, Slow, {"n_latent": {"low": 1, "high": 99}}, **KEYS, n_trials=1000, timeout=0.5)
    assert 1 <= len(study.trials) <= 3


def test_progress_of_an_old_study_is_logged(cohort, tmp_path, caplog):
    spied(cohort, storage=tmp_path / "study.log", n_trials=2)
    with caplog.at_level(logging.INFO, logger="agevi"):
        spied(cohort, storage=tmp_path / "study.log", n_trials=3)
    assert "Study 'Spy' has 2 finished trials of 3." in caplog.text


@pytest.mark.parametrize("cls", [c for c in agevi.model.MODELS if c.trainable], ids=lambda c: c.__name__)
def test_every_clock_is_tuned_over_its_space(cohort, cls):
    """Sizes are small for speed; all of them are built in test_search.py."""
    small = {"n_hidden": [8], "n_latent": 5, "n_components": 5, "n_fit": 300}
    small = {name: value for name, value in small.items() if name in inspect.signature(cls).parameters}
    if cls.__name__ == "PLSClock":
        small = {}
    study = tune(cohort, cls, **KEYS, n_trials=4, model_kwargs=small, train_kwargs={"max_epochs": 2} | QUIET)
    assert [t.state for t in study.trials if t.state != TrialState.COMPLETE] == []
    assert np.isfinite(study.best_value)


@pytest.mark.parametrize(
    ("change", "arguments", "error", "message"),
    [
        pytest.param(lambda a: a.obs.pop("agevi_split"), {}, KeyError, "has no 'agevi_split', so the test subjects are unknown", id="no split"),
        pytest.param(None, {"split_key": "splt"}, KeyError, "splt", id="split column"),
        pytest.param(
            set_obs("agevi_split", lambda a: a.obs["agevi_split"].astype(str).str.replace("validation", "train")), {},
            ValueError, "0 validation subjects and .* training subjects", id="no validation",
        ),
        pytest.param(None, {"n_folds": 1}, ValueError, "n_folds=1 is out of range", id="one fold"),
        pytest.param(None, {"n_folds": 100}, ValueError, "n_folds=100 is out of range", id="many folds"),
        pytest.param(None, {"n_trials": 0}, ValueError, "n_trials=0 is out of range", id="no trial"),
        pytest.param(None, {"rng": -1}, TypeError, "rng=-1 is a int; pass a non-negative integer", id="rng"),
        pytest.param(None, {"subject_key": "donr"}, KeyError, "closest: 'donor'", id="subject"),
        pytest.param(None, {"model_kwargs": {"n_ltent": 2}}, TypeError, "'n_ltent', which Spy does not take", id="model_kwargs"),
        pytest.param(None, {"space": {"n_ltent": [2]}}, ValueError, "'n_ltent', which Spy does not take", id="space"),
    ],
)  # fmt: skip
def test_refuses(cohort, change, arguments, error, message):
    if change:
        change(cohort)
    with pytest.raises(error, match=message) as raised:
        spied(cohort, **arguments)
    assert any(p.match(str(raised.value.args[0])) for p in patterns())
    assert not Spy.seen


def test_refuses_what_is_no_class(cohort):
    with pytest.raises(TypeError, match="model_cls is str, no clock"):
        tune(cohort, "PoissonVAE", **KEYS)


def test_optuna_may_be_absent(cohort, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(
        ImportError, match=r'tl.tune needs optuna, which is not installed; run: pip install "agevi\[tune\]"'
    ):
        spied(cohort)


SCRIPT = """
import sys, agevi
adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=10, n_genes=30, rng=2)
agevi.pp.split_subjects(adata, age_key="age", subject_key="donor")
agevi.tl.tune(
    adata, agevi.model.PoissonVAE, {"n_latent": {"low": 2, "high": 40}}, age_key="age", subject_key="donor", n_trials=6,
    model_kwargs={"n_hidden": [8], "train_unit": "cell"}, train_kwargs={"max_epochs": 5, "accelerator": "cpu"},
    storage=sys.argv[1],
)
"""


def start(storage):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(storage)], cwd=ROOT, stderr=subprocess.DEVNULL)


def trials_in(kind, tmp_path):
    """Trials that the storage holds now, none where it is not made yet."""
    storage = urls(tmp_path)[kind]
    if kind == "journal":
        if not storage.exists():
            return []
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(storage)))
    elif not (tmp_path / "study.db").exists():
        return []
    try:
        return optuna.load_study(study_name="PoissonVAE", storage=storage).trials
    except Exception:  # the tables or the study are being made
        return []


def finished(trials):
    return [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_killed_study_goes_on_and_machines_share_one(tmp_path, kind):
    process = start(urls(tmp_path)[kind])
    try:
        while process.poll() is None and not finished(trials_in(kind, tmp_path)):
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    before = finished(trials_in(kind, tmp_path))
    assert 1 <= len(before) < 6
    pair = [start(urls(tmp_path)[kind]) for _ in range(2)]  # as two machines would
    assert [process.wait(timeout=120) for process in pair] == [0, 0]
    after = trials_in(kind, tmp_path)
    assert 6 <= len(finished(after)) <= 7  # one may have begun when the other ended the study
    assert [(t.number, t.params, t.value) for t in finished(after)[: len(before)]] == [
        (t.number, t.params, t.value) for t in before
    ]
    assert len({t.number for t in after}) == len(after)
