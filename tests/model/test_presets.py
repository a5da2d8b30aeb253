from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest
import torch

import agevi
from agevi.model import presets
from agevi.nn.schedules import cosine_restarts, cyclical_kl
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}
NAMED = [name for name in presets.__all__ if name.startswith("NEURON")]


def class_of(preset):
    return getattr(agevi.model, preset["model"])


def small(preset):
    """The preset with networks and training small enough for a test; nothing is left out."""
    preset = copy.deepcopy(preset)
    init, train = preset["init"], preset["train"]
    if "n_hidden" in init:
        init["n_hidden"] = [max(4, n // 250) for n in init["n_hidden"]]
    if "n_components" in init:
        init["n_components"] = 4
    if "max_epochs" in train:
        train |= {"max_epochs": 1, **QUIET}
    return preset


@pytest.mark.slow
@pytest.mark.parametrize("name", presets.ROWS)
def test_every_row_trains_and_predicts(cohort, name):
    preset = small(presets.ROWS[name])
    cls = class_of(preset)
    assert cls in agevi.model.MODELS
    cls.setup_anndata(cohort, **SETUP, **preset["setup"])
    model = cls(cohort, **preset["init"])
    model.train(**preset["train"])
    agevi.tl.predict_age(cohort, model)
    assert np.isfinite(cohort.obs["agevi_predicted"]).all()
    assert set(cohort.obs["agevi_role"]) == {"train", "validation", "test"}


@pytest.mark.parametrize("name", presets.ROWS)
def test_every_argument_is_one_of_the_class(name):
    preset = presets.ROWS[name]
    cls = class_of(preset)
    for verb, arguments in ((cls.setup_anndata, preset["setup"]), (cls, preset["init"]), (cls.train, preset["train"])):
        assert set(arguments) <= set(inspect.signature(verb).parameters)


def test_every_table_is_complete():
    """The numbers of rows in the paper: four MLPs, nine Gaussian VAEs, three Poisson VAEs, three denoising VAEs."""
    rows = [preset["model"] for preset in presets.ROWS.values()]
    counts = {name: rows.count(name) for name in dict.fromkeys(rows)}
    assert counts == {
        "ElasticNetClock": 1, "MLPClock": 4, "NMFClock": 1, "GaussianVAE": 9, "PoissonVAE": 3,
        "DenoisingVAE": 6,  # each in two units of the noise
    }  # fmt: skip


def test_rows_differ():
    shown = [repr(preset) for preset in presets.ROWS.values()]
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize("name", NAMED)
def test_named_presets_are_rows(name):
    assert any(preset is getattr(presets, name) for preset in presets.ROWS.values())


def test_the_neuron_clock_is_the_published_one():
    preset = presets.NEURON_CLOCK
    init, train = preset["init"], preset["train"]
    assert preset["model"] == "PoissonVAE"
    assert preset["setup"]["normalize"] == "none"
    assert (init["n_latent"], init["n_hidden"], init["n_head"]) == (100, [300, 150], [20, 20])
    assert (init["rate"], init["dropout_rate"]) == ("softplus", 0.4)
    assert (train["max_epochs"], train["batch_size"]) == (1000, 4096)
    plan = train["plan_kwargs"]
    assert (plan["optimizer"], plan["lr"]) == ("Adam", 1e-3)


def test_schedules_are_the_published_ones():
    """KL weight 0 for 20 epochs, a rise over 10, 1 for 10; torch's warm restarts every 20 epochs."""
    plan = presets.NEURON_CLOCK["train"]["plan_kwargs"]
    assert (plan["kl_schedule"], plan["lr_schedule"]) == ("cyclical", "cosine_restarts")
    weights = np.array([cyclical_kl(e, **plan["kl_kwargs"]) for e in range(80)])
    np.testing.assert_array_equal(weights[:40], weights[40:])
    assert (weights[:21] == 0).all()
    assert (np.diff(weights[20:31]) > 0).all()
    assert (weights[30:40] == 1).all()
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=20)
    for epoch in range(60):
        assert cosine_restarts(epoch, **plan["lr_kwargs"]) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        schedule.step()


def test_noise_comes_in_both_units():
    rows = [p["init"] for p in presets.ROWS.values() if p["model"] == "DenoisingVAE"]
    assert {(r["noise_level"], r["noise_relative_to"]) for r in rows} == {
        (level, unit) for level in (0.5, 5.0) for unit in ("input_sd", "max")
    }
    assert all((r["gene_likelihood"], r["noise"], r["n_latent"]) == ("normal", "gaussian", 100) for r in rows)
    assert {(r["n_head"][0], r["noise_level"]) for r in rows} == {(20, 5.0), (20, 0.5), (30, 0.5)}


def test_dropout_is_where_the_paper_has_it():
    """In its MLPs, in one Gaussian row and in the Poisson rows; the table of denoising autoencoders says "No"."""
    rate = {name: preset["init"].get("dropout_rate", 0.0) for name, preset in presets.ROWS.items()}
    with_dropout = {name for name, value in rate.items() if value}
    assert {rate[name] for name in with_dropout} == {0.4}
    expected = {n for n in rate if n.startswith(("mlp", "nmf", "poisson"))} | {
        "gaussian, latent 60, dropout, 200 epochs"
    }
    assert with_dropout == expected


def test_the_multimodal_clock_is_the_published_one(cohort):
    preset = presets.PRECIOUS1GPT
    init, train = preset["init"], preset["train"]
    assert (init["architecture"], init["n_hidden"], init["activation"]) == ("tab", [128, 2048, 128], "elu")
    assert (init["dropout_rate"], init["age_loss"], train["batch_size"]) == (0.0, "mse", 96)
    plan = train["plan_kwargs"]
    assert (plan["optimizer"], plan["lr"], plan["weight_decay"]) == ("AdamW", 2.3e-4, 0.0)
    preset = small(preset)
    cls = class_of(preset)
    cls.setup_anndata(cohort, **SETUP, **preset["setup"], tissue_key="cell_type")
    model = cls(cohort, **preset["init"])
    model.train(max_epochs=1, **QUIET | preset["train"])
    assert np.isfinite(model.predict_age()).all()
