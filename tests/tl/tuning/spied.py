"""A clock that keeps what it is given, and studies of it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import optuna
import pytest

from agevi.tl import tune
from tests.tl.clocks import MeanClock

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
