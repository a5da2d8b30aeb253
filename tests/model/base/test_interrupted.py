"""A training that does not come to its end leaves the clock as it was."""

from __future__ import annotations

import signal
from unittest import mock

import numpy as np
import pytest

import agevi
from agevi._compat.scvi import Callback
from agevi.model import CaseControlClassifier, EnsembleClock, MLPClock
from agevi.model.linear._base import FittedLinearClock
from agevi.model.transfer import _training
from tests.clocks import each_clock
from tests.conftest import QUIET
from tests.test_contract import fit, make

ERRORS = [KeyboardInterrupt, ValueError]


class Stop(Callback):
    """Raises in the second epoch."""

    def __init__(self, error):
        self.error = error

    def on_train_epoch_end(self, trainer, plan):
        if trainer.current_epoch == 1:
            raise self.error("stop")


def break_off(model, error, **kwargs):
    """Train and raise in the middle."""
    with pytest.raises(error):
        if isinstance(model, FittedLinearClock):
            with mock.patch.object(type(model), "_errors", side_effect=error("stop")):
                model.train(**kwargs)
        else:
            model.train(max_epochs=4, callbacks=[Stop(error)], **QUIET, **kwargs)


def state(model, adata):
    history = {name: frame.to_numpy().tolist() for name, frame in (model.history_ or {}).items()}
    return {
        "ages": model.predict_age(adata).tolist(),
        "split": model.split_,
        "ages of training": model.age_summary_,
        "epoch": model.best_epoch_,
        "history": repr(history),
        "trained": (model.is_trained_, model.is_trained, model.module.training),
    }


@pytest.fixture(scope="module")
def _alike():
    return {}


@pytest.fixture
def trained_on(cls, _alike, _cohort):
    """Ages that a clock predicts which was trained on without a break."""
    if cls not in _alike:
        model = fit(cls, _cohort.copy())
        model.train(max_epochs=1, **QUIET)
        _alike[cls] = model.predict_age()
    return _alike[cls]


@pytest.mark.slow
@each_clock
@pytest.mark.parametrize(
    ("error", "roles"),
    [
        pytest.param(KeyboardInterrupt, ("train",), id="same roles"),
        pytest.param(ValueError, ("train", "validation"), id="other roles"),
    ],
)
def test_the_earlier_fit_stays(cls, error, roles, cohort, trained_on, capsys):
    model = fit(cls, cohort)
    before = state(model, cohort)
    break_off(model, error, train_roles=roles)
    assert state(model, cohort) == before
    model.train(max_epochs=1, **QUIET)  # and is trained on as if nothing had happened
    np.testing.assert_array_equal(model.predict_age(cohort), trained_on)


@each_clock
def test_errors_of_the_checks_change_nothing(cls, cohort):
    model = fit(cls, cohort)
    before = state(model, cohort)
    for arguments in ({"split_key": "no"}, {"train_roles": ("no",)}, {"no_such_argument": 1}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            model.train(**({"max_epochs": 1, **QUIET} | arguments))
        assert state(model, cohort) == before


@pytest.mark.slow
@each_clock
def test_a_first_training_can_be_started_again(cls, cohort, capsys):
    model = make(cls, cohort)
    break_off(model, KeyboardInterrupt)
    assert not model.is_trained_
    with pytest.raises(RuntimeError, match="needs a trained model"):
        model.predict_age()
    model.train(**{"max_epochs": 2, **QUIET})
    np.testing.assert_array_equal(model.predict_age(), fit(cls, cohort).predict_age())


@pytest.mark.slow
def test_the_key_still_interrupts(cohort, capsys):
    before = signal.getsignal(signal.SIGINT)
    break_off(make(MLPClock, cohort), KeyboardInterrupt)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_members_of_an_ensemble(cohort, capsys):
    """Members are copies, so that nothing that happens to a clock reaches them."""
    clock = fit(MLPClock, cohort)
    ensemble = EnsembleClock([clock, fit(agevi.model.PLSClock, cohort)])
    before = ensemble.predict_age(cohort)
    break_off(clock, KeyboardInterrupt)
    np.testing.assert_array_equal(ensemble.predict_age(cohort), before)


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("from_scratch", [False, True], ids=["frozen", "from scratch"])
def test_a_classifier(error, from_scratch, cohort, monkeypatch):
    cohort.obs["disease"] = np.where(cohort.obs["donor"].astype("category").cat.codes % 2 == 0, "yes", "no")
    scratch = {"from_scratch": True, "freeze": "none"} if from_scratch else {}
    model = CaseControlClassifier.from_clock(
        fit(MLPClock, cohort), cohort, condition_key="disease", control="no", **scratch
    )
    model.train(max_epochs=2)

    def found():
        return (
            model.predict_proba(cohort).tolist(),
            model.split_,
            model.best_epoch_,
            model.is_trained_,
            model.age_summary_,
        )

    before, whole = found(), _training.fit

    def broken(*args, **kwargs):
        whole(*args, **kwargs)
        raise error("stop")

    monkeypatch.setattr(_training, "fit", broken)
    with pytest.raises(error):
        model.train(max_epochs=4, train_roles=("train", "validation"))
    assert found() == before
    assert model.clock.module is model.module
    monkeypatch.undo()
    model.train(max_epochs=2)
    assert found() == before
