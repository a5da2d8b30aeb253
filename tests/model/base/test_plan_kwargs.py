"""Arguments of a training plan that no plan takes are refused before a training."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

import agevi
from tests.conftest import QUIET


@pytest.fixture
def model() -> agevi.model.MLPClock:
    """A network that was not trained."""
    adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=6, n_genes=30)
    agevi.model.MLPClock.setup_anndata(adata, age_key="age", subject_key="donor")
    return agevi.model.MLPClock(adata, n_hidden=[4])


@pytest.mark.parametrize(
    ("kwargs", "error", "said"),
    [
        ({"batch_size": 1}, ValueError, "batch_size=1 .* 2 or more"),
        ({"batch_size": 8.0}, TypeError, "batch_size=8.0"),
        ({"max_epochs": 0}, ValueError, "max_epochs=0"),
        ({"plan_kwargs": [("lr", 1)]}, TypeError, "plan_kwargs is a list; pass a dictionary"),
        ({"plan_kwargs": {"lrr": 1}}, TypeError, "'lrr'.*closest: 'lr'; it takes .*'weight_decay'"),
        ({"plan_kwargs": {"n_epochs_kl_warmup": 1}}, TypeError, "'n_epochs_kl_warmup'"),
        ({"plan_kwargs": {"kl_schedule": "constant"}}, TypeError, "'kl_schedule'"),  # an MLP has no KL divergence
        ({"plan_kwargs": {"lr": "0.1"}}, ValueError, "'lr': '0.1'.* above 0"),
        ({"plan_kwargs": {"lr": 0}}, ValueError, "above 0"),
        ({"plan_kwargs": {"lr": np.nan}}, ValueError, "above 0"),
        ({"plan_kwargs": {"weight_decay": -1e-3}}, ValueError, "0 or more"),
        ({"plan_kwargs": {"optimizer": "SGD"}}, ValueError, "'SGD' .*'Adam', 'AdamW', 'Custom'"),
        ({"plan_kwargs": {"optimizer": "Custom"}}, ValueError, "'optimizer_creator'"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named_before_anything_is_trained(model, kwargs, error, said):
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    with pytest.raises(error, match=said):
        model.train(**{"max_epochs": 1, **QUIET, **kwargs})
    assert not model.is_trained_
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())


def test_an_optimizer_of_ones_own_trains(model):
    before = model.module.head.output.weight.detach().clone()
    creator = partial(torch.optim.SGD, lr=0.01)
    plan = {"optimizer": "Custom", "optimizer_creator": creator, "lr_schedule": "constant", "weight_decay": 0}
    model.train(2, plan_kwargs=plan, **QUIET)
    assert model.is_trained_
    assert not torch.equal(model.module.head.output.weight, before)


def test_an_autoencoder_takes_the_schedule_of_its_divergence():
    adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=6, n_genes=30)
    agevi.model.PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor")
    model = agevi.model.PoissonVAE(adata, n_hidden=[4], n_latent=2)
    model.train(1, plan_kwargs={"kl_schedule": "constant", "kl_kwargs": None, "lr": np.float32(1e-3)}, **QUIET)
    assert model.is_trained_
