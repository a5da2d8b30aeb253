from __future__ import annotations

import inspect
import sys

import numpy as np
import optuna
import pytest
import scipy.sparse as sp
from optuna.trial import TrialState

import agevi
from agevi.tl import tune
from tests.clocks import each_clock
from tests.conftest import QUIET
from tests.test_gates import check_style, set_obs, snapshot
from tests.tl.clocks import MeanClock
from tests.tl.tuning.spied import KEYS, SMALL, Spy, ages, fresh, quiet_optuna, spied, trials_of  # noqa: F401


def test_the_value_is_the_error_on_validation_subjects(cohort):
    study = spied(cohort)
    for trial in study.trials:
        error = (ages(cohort, "validation") - trial.params["n_latent"]).abs().mean()
        assert trial.value == pytest.approx(error, rel=1e-6)
        assert trial.user_attrs["best_epoch"] == MeanClock.best
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert study.best_value == min(trial.value for trial in study.trials)


@pytest.mark.slow
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


@pytest.mark.slow
def test_clocks_of_types_with_few_cells(cohort):
    """No default asks for cells that samples lack, and a trial that does fails alone."""
    cohort.obs["cell_type"] = ["type0", "type1"] * (cohort.n_obs // 2)
    typed = KEYS | {"setup_kwargs": {"cell_type_key": "cell_type"}}
    study = tune(cohort, "CellTypeClock", **typed, n_trials=4, model_kwargs={"min_cells": 3, "n_folds": 2})
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    study = tune(cohort, "CellTypeClock", {"min_cells": [99, 3]}, **typed, n_trials=4, model_kwargs={"combine": "mean"})
    assert {trial.params["min_cells"]: trial.state for trial in study.trials} == {
        99: TrialState.FAIL,
        3: TrialState.COMPLETE,
    }
    needs = (
        r"has 3 training subjects of 2 ages with enough cells per sample \(model_kwargs={'min_cells': 20}\); lower it"
    )
    with pytest.raises(RuntimeError, match=needs):
        tune(cohort, "CellTypeClock", **typed, n_trials=6)


@pytest.mark.slow
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


@pytest.mark.slow  # four studies of a network
@pytest.mark.parametrize("n_folds", [None, 3])
def test_permuted_test_subjects_give_an_identical_study(cohort, tmp_path, n_folds):
    """A real network, and every trial, report, argument and record; even the stored study goes on with them."""
    arguments = {"model_kwargs": SMALL, "train_kwargs": {"max_epochs": 2} | QUIET, "n_folds": n_folds, **KEYS}
    space = {"plan_kwargs.lr": {"low": 1e-4, "high": 1e-2, "log": True}, "n_head": [[], [4]]}
    study = tune(cohort, agevi.model.PoissonVAE, space, n_trials=2, storage=tmp_path / "study.log", **arguments)
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
    again = tune(changed, agevi.model.PoissonVAE, space, n_trials=2, **arguments)
    assert (trials_of(again), again.user_attrs) == first
    goes_on = tune(changed, agevi.model.PoissonVAE, space, n_trials=3, storage=tmp_path / "study.log", **arguments)
    assert trials_of(goes_on)[:2] == first[0]
    without = cohort[cohort.obs["agevi_split"] != "test"].copy()
    alone = tune(without, agevi.model.PoissonVAE, space, n_trials=2, **arguments)
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


@pytest.mark.slow
def test_equal_seeds_give_equal_trials(cohort):
    first, same, other = (spied(cohort, rng=rng, n_trials=6) for rng in (3, 3, 4))
    assert [t.params for t in first.trials] == [t.params for t in same.trials]
    assert [t.params for t in first.trials] != [t.params for t in other.trials]


@pytest.mark.slow
@each_clock
def test_every_clock_is_tuned_over_its_space(cohort, cls):
    """Sizes are small for speed; all of them are built in test_search.py."""
    small = {"n_hidden": [8], "n_latent": 5, "n_components": 5, "n_fit": 300}
    small = {name: value for name, value in small.items() if name in inspect.signature(cls).parameters}
    if cls.__name__ == "PLSClock":
        small = {}
    study = tune(cohort, cls, **KEYS, n_trials=3, model_kwargs=small, train_kwargs={"max_epochs": 2} | QUIET)
    assert [t.state for t in study.trials if t.state != TrialState.COMPLETE] == []
    assert np.isfinite(study.best_value)


@pytest.mark.parametrize(
    ("change", "arguments", "error", "message"),
    [
        pytest.param(lambda a: a.obs.pop("agevi_split"), {}, KeyError, "has no 'agevi_split', which says who the test subjects are", id="no split"),
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
    check_style(str(raised.value.args[0]))
    assert not Spy.seen


def test_refuses_what_is_no_class(cohort):
    with pytest.raises(TypeError, match="model_cls is int, no clock"):
        tune(cohort, 3, **KEYS)


def test_optuna_may_be_absent(cohort, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match="tl.tune needs optuna, which is not installed; run: pip install optuna$"):
        spied(cohort)
