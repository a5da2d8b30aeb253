from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

import agevi
from agevi.tl import tune
from agevi.tl.tuning._study import PruneEpochs, open_storage
from tests.clocks import OF_COUNTS, params
from tests.conftest import QUIET
from tests.test_gates import set_obs
from tests.tl.tuning.spied import KEYS, SMALL, Spy, ages, fresh, quiet_optuna, spied, trials_of  # noqa: F401

OF_TYPES = {"train_unit": "pseudocell"}


def urls(tmp_path):
    return {"sqlite": f"sqlite:///{tmp_path / 'study.db'}", "journal": tmp_path / "study.log"}


@pytest.mark.slow
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
        pytest.param(set_obs("age", lambda a: a.obs["age"] + 1), {}, r"adata.obs\['age'\]", id="ages"),
        pytest.param(lambda a: a.X.data.__setitem__(0, 99), {}, "values", id="values"),
        pytest.param(lambda a: None, {"model_kwargs": {"n_head": []}}, "model_kwargs", id="arguments"),
        pytest.param(lambda a: None, {"n_folds": 2}, "n_folds", id="folds"),
        pytest.param(lambda a: None, {"rng": 1}, "rng", id="seed"),
        pytest.param(
            set_obs(
                "agevi_split", lambda a: a.obs["agevi_split"].replace({"train": "validation", "validation": "train"})
            ),
            {},
            "the folds",
            id="split",
        ),
    ],
)
def test_a_study_of_other_data_is_refused(cohort, tmp_path, change, arguments, what):
    storage = tmp_path / "study.log"
    spied(cohort, storage=storage, n_trials=1)
    change(cohort)
    with pytest.raises(
        ValueError, match=f"study 'Spy' in this storage was made with other .*{what}.*another study_name"
    ):
        spied(cohort, storage=storage, **arguments)


@pytest.mark.parametrize(
    ("space", "arguments", "change", "what"),
    [
        pytest.param(
            {"n_latent": [3]}, {"model_kwargs": OF_TYPES | {"pseudocell_groupby": "cell_type"}},
            set_obs("cell_type", lambda a: a.obs["cell_type"].to_numpy()[::-1]), "cell_type", id="groups of sums",
        ),
        pytest.param(
            {"pseudocell_groupby": [None, "cell_type"]}, {"model_kwargs": OF_TYPES},
            set_obs("cell_type", lambda a: a.obs["cell_type"].to_numpy()[::-1]), "cell_type", id="groups of the space",
        ),
        pytest.param(
            {"n_latent": [3]}, {"setup_kwargs": {"layer": "counts"}},
            lambda a: a.layers["counts"].data.__setitem__(0, 99), "values", id="layer",
        ),
        pytest.param(
            {"layer": [None, "counts"]}, {}, lambda a: a.layers["counts"].data.__setitem__(0, 99), "counts", id="layer of the space",
        ),
        pytest.param(
            {"n_latent": [3]}, {"setup_kwargs": {"batch_key": "sex"}},
            set_obs("sex", lambda a: a.obs["sex"].to_numpy()[::-1]), "sex", id="batch",
        ),
        pytest.param(
            {"n_latent": [3]}, {},
            lambda a: a.varm["agevi_measured"].__setitem__((0, 0), False), "feature sets", id="mask",
        ),
    ],
)  # fmt: skip
def test_a_study_depends_on_all_that_its_trials_read(cohort, tmp_path, monkeypatch, space, arguments, change, what):
    monkeypatch.setattr(Spy, "sums", True)
    cohort.layers["counts"] = cohort.X.copy()
    cohort.varm["agevi_measured"] = np.ones((cohort.n_vars, 1), dtype=bool)
    cohort.uns["agevi_measured"], cohort.obs["feature_set"] = {"sets": ["panel"], "key": "feature_set"}, "panel"
    options = arguments | {"storage": tmp_path / "study.log", "n_trials": 1}
    spied(cohort, space, **options)
    assert len(spied(cohort, space, **options).trials) == 1
    change(cohort)
    with pytest.raises(ValueError, match=f"was made with other .*{what}.*another study_name"):
        spied(cohort, space, **options)


def test_layers_of_a_space_are_read(cohort):
    cohort.layers["double"] = cohort.X * 2
    study = tune(
        cohort, agevi.model.PLSClock, {"layer": [None, "double"]}, **KEYS, n_trials=2, sampler=optuna.samplers.GridSampler(
            {"layer": [None, "double"]})
    )  # fmt: skip
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert study.trials[0].value == pytest.approx(study.trials[1].value, rel=1e-3)  # depth is divided out


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("cls", params(c for c in OF_COUNTS if c.selects_epochs))
@pytest.mark.parametrize("unit", ["cell", "pseudocell"])
def test_the_default_rule_stops_networks_that_fall_behind(cohort, cls, unit):
    small = {"n_hidden": [8], "train_unit": unit} | ({"n_components": 5} if cls.__name__ == "NMFClock" else {})
    arguments = KEYS | {"model_kwargs": small, "train_kwargs": {"max_epochs": 5} | QUIET}
    arguments["storage"] = optuna.storages.InMemoryStorage()
    space = {"plan_kwargs.lr": {"low": 1e-3, "high": 1e-2}}
    study = tune(cohort, cls, space, n_trials=1, **arguments)
    assert list(study.trials[0].intermediate_values) == list(range(5, 101, 5))
    earlier_trials(study)
    study = tune(cohort, cls, space, n_trials=7, **arguments)
    assert study.trials[-1].state == TrialState.PRUNED
    assert max(study.trials[-1].intermediate_values) == 20


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_study_without_seed_goes_on_with_the_one_that_it_began_with(cohort, tmp_path):
    arguments = {"rng": None, "n_folds": 2, "storage": tmp_path / "study.log"}
    seed = spied(cohort, n_trials=1, **arguments).user_attrs["agevi"]["rng"]
    study = spied(cohort, n_trials=3, **arguments)
    assert len(study.trials) == 3
    same = spied(cohort, n_trials=3, rng=seed, n_folds=2)
    assert [(t.params, t.value) for t in same.trials] == [(t.params, t.value) for t in study.trials]


def test_no_further_trial_begins_after_the_timeout(cohort):
    study = tune(cohort, Slow, {"n_latent": {"low": 1, "high": 99}}, **KEYS, n_trials=1000, timeout=0.5)
    assert 1 <= len(study.trials) <= 3


def test_progress_of_an_old_study_is_logged(cohort, tmp_path, caplog):
    spied(cohort, storage=tmp_path / "study.log", n_trials=2)
    with caplog.at_level(logging.INFO, logger="agevi"):
        spied(cohort, storage=tmp_path / "study.log", n_trials=3)
    assert "Study 'Spy' has 2 finished trials of 3." in caplog.text


class Slow(Spy):
    """One that can be killed in the middle of a study."""

    def train(self, *args, **kwargs):
        time.sleep(0.2)
        super().train(*args, **kwargs)


def start(adata, storage):
    """A process that draws six trials."""
    arguments = {"space": {"n_latent": {"low": 1, "high": 12}}, "n_trials": 6, "storage": storage}
    process = multiprocessing.get_context("fork").Process(target=tune, args=(adata, Slow), kwargs=KEYS | arguments)
    process.start()
    return process


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
        return optuna.load_study(study_name="Slow", storage=storage).trials
    except Exception:  # the tables or the study are being made
        return []


def finished(trials):
    return [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_killed_study_goes_on_and_machines_share_one(cohort, tmp_path, kind):
    process = start(cohort, urls(tmp_path)[kind])
    try:
        while process.is_alive() and not finished(trials_in(kind, tmp_path)):
            time.sleep(0.05)
    finally:
        process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = finished(trials_in(kind, tmp_path))
    assert 1 <= len(before) < 6
    pair = [start(cohort, urls(tmp_path)[kind]) for _ in range(2)]  # as two machines would
    for process in pair:
        process.join(timeout=120)
    assert [process.exitcode for process in pair] == [0, 0]
    after = trials_in(kind, tmp_path)
    assert 6 <= len(finished(after)) <= 7  # one may have begun when the other ended the study
    assert [(t.number, t.params, t.value) for t in finished(after)[: len(before)]] == [
        (t.number, t.params, t.value) for t in before
    ]
    assert len({t.number for t in after}) == len(after)


@pytest.mark.slow
def test_processes_may_make_the_tables_of_a_data_base_at_once(tmp_path, monkeypatch):
    make, failures = (
        optuna.storages.get_storage,
        [OperationalError("CREATE TABLE", None, Exception("already exists"))] * 2,
    )

    def busy(storage):
        if failures:
            raise failures.pop()
        return make(storage)

    monkeypatch.setattr(optuna.storages, "get_storage", busy)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert open_storage(f"sqlite:///{tmp_path / 'study.db'}").get_all_studies() == []
    failures += [OperationalError("CREATE TABLE", None, Exception("no such server"))] * 9
    with pytest.raises(OperationalError, match="no such server"):
        open_storage("sqlite:///other.db")
