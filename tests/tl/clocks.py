"""Clocks whose predictions are known in closed form, to test what is done with a clock."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

import agevi


class MeanClock(agevi.model.PoissonVAE):
    """Predicts the mean age of the subjects that it was last trained on, and keeps what it was called with."""

    calls: ClassVar[list[dict]] = []
    fails_on: ClassVar[frozenset[str]] = frozenset()  # subjects whose absence from training is an error
    best = 7
    expects = "any"
    selects_epochs = True
    sums = False
    predicts_sums = property(lambda self: self.sums, lambda self, value: None)

    @classmethod
    def chooses_epochs(cls, init=None):
        return True

    def train(self, max_epochs=None, *, split_key="agevi_split", train_roles=("train",), early_stopping=True, **kwargs):
        obs = self.adata.obs
        rows = obs[split_key].isin(train_roles).to_numpy()
        ages = obs[rows].groupby(obs["donor"].astype(str))["age"].first().dropna()
        if self.fails_on and not self.fails_on & set(obs["donor"].astype(str)):
            raise RuntimeError("a planted failure")
        self.value, self.best_epoch_, self.is_trained_ = ages.mean(), max_epochs or self.best, True
        seed = self.init_params_["non_kwargs"]["rng"]
        self.calls.append(
            {"trained": set(obs["donor"][rows].astype(str)), "ages": ages, "max_epochs": max_epochs, "seed": seed}
            | {"cells": self.adata.n_obs, "all": set(obs["donor"].astype(str)), "early_stopping": early_stopping}
        )

    def predict_age(self, adata=None, *, indices=None, level="cell", batch_size=None):
        data = self.adata if adata is None else adata
        assert adata is None or "age" not in data.obs
        n = data.n_obs if indices is None else len(indices)
        return np.full(n, self.value + (1000 if level == "sample" else 0), dtype=np.float32)


class AllClock(MeanClock):
    """The same, without an epoch to choose."""

    calls: ClassVar[list[dict]] = []
    selects_epochs = False


class SumClock(AllClock):
    """The same, predicting 1,000 years more from sums."""

    calls: ClassVar[list[dict]] = []
    sums = True
