from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

import agevi
from agevi.model import PoissonVAE
from agevi.nn.schedules import cosine_restarts, cyclical_kl
from tests.conftest import QUIET

SMALL = {"n_hidden": [16], "n_latent": 4, "n_head": [8]}


def make(adata, **kwargs) -> PoissonVAE:
    PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor")
    return PoissonVAE(adata, **(SMALL | {"train_unit": "cell"} | kwargs))


def weights(model) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.module.state_dict().items()}


def same(a, b) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def per_subject_mae(adata, age, role) -> float:
    frame = adata.obs.assign(p=age)[(adata.obs["agevi_split"] == role).to_numpy()]
    means = frame.groupby("donor", observed=True)[["p", "age"]].mean()
    return float((means["p"] - means["age"]).abs().mean())


def test_history_is_at_subject_level_and_best_weights_are_kept(cohort):
    model = make(cohort)
    model.train(max_epochs=6, **QUIET)
    curve = model.history["age_mae_validation"].iloc[:, 0]
    assert len(curve) == 6
    assert model.best_epoch_ == curve.argmin() + 1
    assert per_subject_mae(cohort, model.predict_age(), "validation") == pytest.approx(curve.min(), rel=1e-4)
    for name in ("train_loss", "validation_loss", "elbo_train", "elbo_validation", "age_mae_train", "kl_weight"):
        assert np.isfinite(model.history[name].to_numpy()).all()


def test_without_early_stopping_the_last_weights_are_kept(cohort):
    model = make(cohort)
    model.train(max_epochs=4, early_stopping=False, **QUIET)
    last = model.history["age_mae_validation"].iloc[-1, 0]
    assert model.best_epoch_ == 4
    assert per_subject_mae(cohort, model.predict_age(), "validation") == pytest.approx(last, rel=1e-4)


def test_held_out_subjects_do_not_shape_the_weights(cohort):
    other = cohort.copy()
    held = (other.obs["agevi_split"] == "test").to_numpy()
    other.obs.loc[held, "age"] = 21.0
    x = other.X.toarray()
    x[held] = x[held][:, ::-1]
    other.X = x
    a, b = make(cohort), make(other)
    for model in (a, b):
        model.train(max_epochs=2, **QUIET)
    assert same(weights(a), weights(b))
    assert {s for s, r in a.split_.items() if r == "test"} == set(cohort.obs["donor"][held].astype(str))


@pytest.mark.slow
def test_same_seed_same_bits_and_global_state_untouched(cohort):
    models = [make(cohort, rng=3), make(cohort, rng=3), make(cohort, rng=4)]
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    for model in models:
        model.train(max_epochs=2, **QUIET)
    assert torch.equal(torch.rand(1), expected)
    assert same(weights(models[0]), weights(models[1]))
    assert not same(weights(models[0]), weights(models[2]))


@pytest.mark.slow
def test_second_training_continues_in_training_mode(cohort):
    model = make(cohort, dropout_rate=0.5)
    model.train(max_epochs=2, early_stopping=False, **QUIET)
    before, modes = weights(model), []
    hook = model.module.encoder.register_forward_hook(lambda m, *_: modes.append(m.training))
    model.train(max_epochs=3, early_stopping=False, **QUIET)
    hook.remove()
    assert any(modes)
    assert not model.module.training
    after = weights(model)
    key = "encoder.stack.blocks.0.1.running_mean"
    assert not torch.equal(before[key], after[key])
    assert len(model.history["age_mae_train"]) == 5
    assert list(model.history["age_mae_train"].index) == list(range(5))
    assert model.best_epoch_ == 5
    model.train(max_epochs=4, **QUIET)
    curve = model.history["age_mae_validation"].iloc[:, 0].to_numpy()
    assert model.best_epoch_ == 5 + curve[5:].argmin() + 1
    assert per_subject_mae(cohort, model.predict_age(), "validation") == pytest.approx(
        curve[model.best_epoch_ - 1], rel=1e-4
    )


@pytest.mark.slow
def test_changed_roles_start_from_new_weights(cohort, caplog):
    model, fresh = make(cohort), make(cohort)
    model.train(max_epochs=2, **QUIET)
    with caplog.at_level(logging.INFO, "agevi"):
        model.train(max_epochs=2, train_roles=("train", "validation"), **QUIET)
    assert "starts from new weights" in caplog.text
    fresh.train(max_epochs=2, train_roles=("train", "validation"), **QUIET)
    assert same(weights(model), weights(fresh))
    assert set(model.split_.values()) == {"train", "test"}
    assert model.best_epoch_ == 2
    assert "age_mae_validation" not in model.history


def test_own_split_is_made_announced_and_kept(cohort, caplog):
    del cohort.obs["agevi_split"]
    model = make(cohort)
    with caplog.at_level(logging.INFO, "agevi"):
        model.train(max_epochs=1, **QUIET)
    assert "agevi.pp.split_subjects" in caplog.text
    assert set(model.split_) == set(cohort.obs["donor"].astype(str))
    assert set(model.split_.values()) == {"train", "validation", "test"}
    assert "agevi_split" not in cohort.obs


@pytest.mark.parametrize("subject_weight", ["equal", "cells"])
def test_subject_weights(cohort, subject_weight):
    cells = cohort.obs.groupby("donor", observed=True).cumcount()
    first = cohort.obs["donor"] == cohort.obs["donor"].iloc[0]
    adata = cohort[~(first & (cells >= 5)).to_numpy()].copy()
    model = make(adata, subject_weight=subject_weight)
    train = np.ones(adata.n_obs, dtype=bool)
    codes = np.unique(adata.obs["donor"].astype(str), return_inverse=True)[1]
    per_cell = model._subject_weights(train).numpy()[codes]
    sums = np.bincount(codes, per_cell)
    assert per_cell.mean() == pytest.approx(1)
    assert (np.ptp(sums) < 1e-3) == (subject_weight == "equal")


@pytest.mark.slow
def test_unlabelled_subjects_train_the_latent_space_but_not_the_age(cohort):
    adata = cohort.copy()
    train = adata.obs["agevi_split"] == "train"
    unlabelled = adata.obs["donor"].isin(adata.obs["donor"][train].unique()[:4]).to_numpy()
    adata.obs.loc[unlabelled, "age"] = np.nan
    model = make(adata)
    model.train(max_epochs=2, **QUIET)
    assert np.isfinite(model.history["age_mae_train"].to_numpy()).all()
    assert model.age_summary_["n_subjects"] == adata.obs["donor"][train & ~unlabelled].nunique()
    assert np.isfinite(model.predict_age()).all()


@pytest.mark.slow
def test_schedules_are_followed(cohort):
    seen = []

    class Spy(agevi._compat.scvi.Callback):
        def on_train_epoch_start(self, trainer, plan):
            seen.append((float(plan.kl_weight), trainer.optimizers[0].param_groups[0]["lr"]))

    make(cohort).train(max_epochs=45, early_stopping=False, callbacks=[Spy()], batch_size=512, **QUIET)
    expected = [(cyclical_kl(e), 1e-3 * cosine_restarts(e)) for e in range(45)]
    np.testing.assert_allclose(seen, expected, atol=1e-9)


def test_schedules_can_be_switched(cohort):
    model = make(cohort)
    plan = {"kl_schedule": "constant", "lr_schedule": lambda epoch: 0.5, "kl_kwargs": {"max_weight": 0.25}}
    model.train(max_epochs=2, plan_kwargs=plan, **QUIET)
    assert (model.history["kl_weight"].to_numpy() == 0.25).all()
    assert model.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(5e-4)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        pytest.param({"split_key": "mine"}, KeyError, "split_key='mine' is not a column", id="no column"),
        pytest.param({"train_roles": ("tain",)}, ValueError, "train_roles='tain' is not known", id="role"),
        pytest.param({"train_roles": ("validation",), "split_key": "none"}, ValueError, "two or more", id="nobody"),
        pytest.param({"enable_checkpointing": True}, ValueError, "would write scvi-tools' pickles", id="checkpoints"),
        pytest.param({"plan_kwargs": {"kl_schedule": "cycle"}}, ValueError, "kl_schedule='cycle'.*'cyclical'", id="kl"),
    ],
)
def test_bad_arguments(cohort, kwargs, error, message):
    cohort.obs["none"] = "test"
    model = make(cohort)
    with pytest.raises(error, match=message):
        model.train(max_epochs=1, **kwargs, **QUIET)
    assert not model.is_trained


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_with_advice(cohort):
    model = make(cohort)
    with pytest.raises(RuntimeError, match="lower the learning rate"):
        model.train(max_epochs=3, plan_kwargs={"lr": 1e30}, **QUIET)


def test_log_transform_and_prenatal_ages(cohort):
    cohort.obs["age"] = cohort.obs["age"] / 100 - 0.8
    PoissonVAE.setup_anndata(cohort, age_key="age", subject_key="donor", age_transform="log")
    model = PoissonVAE(cohort, **SMALL)
    model.train(max_epochs=2, **QUIET)
    train = cohort.obs[cohort.obs["agevi_split"] == "train"].groupby("donor", observed=True)["age"].first()
    assert float(model.module.age_scale.mean) == pytest.approx(np.log(train + 2).mean())
    assert float(model.module.age_scale.sd) == pytest.approx(np.log(train + 2).std(ddof=0))
    assert (model.predict_age() > -2).all()


@pytest.mark.slow  # a network learns to the end
def test_it_learns_age_on_held_out_subjects():
    adata = agevi.datasets.simulate_cohort(n_subjects=80, n_cells=40, n_genes=300, effect_range=(0.1, 0.3), rng=0)
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", test_size=0.3, rng=0)
    PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor")
    model = PoissonVAE(adata)
    model.train(**QUIET)
    test = (adata.obs["agevi_split"] == "test").to_numpy()
    means = (
        adata.obs[test]
        .assign(p=model.predict_age(level="sample")[test])
        .groupby("donor", observed=True)[["p", "age"]]
        .mean()
    )
    median = adata.obs[~test].groupby("donor", observed=True)["age"].first().median()
    assert (means["p"] - means["age"]).abs().mean() < 0.6 * (means["age"] - median).abs().mean()
