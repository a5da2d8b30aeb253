from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

import agevi
from agevi._keys import SLOTS, Keys

TABLES = [noun for noun, slot in SLOTS.items() if slot.of_predictions and slot.where == "uns"]
TABLES = [noun for noun in TABLES if not noun.endswith("_params")]


@pytest.fixture(scope="module")
def made():
    """A cohort with held-out predictions, every table that is made from them, and a clock."""
    adata = agevi.datasets.simulate_cohort(n_subjects=60, n_cells=4, n_genes=30, case_fraction=0.4, rng=1)
    agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
    clock = agevi.model.PLSClock(adata)
    clock.train()
    noise = pd.Series(np.random.default_rng(0).normal(0, 5, 60), sorted(set(adata.obs["donor"])))
    adata.obs["agevi_predicted"] = adata.obs["age"] + adata.obs["donor"].map(noise).astype(float)
    adata.obs["agevi_role"] = "out_of_fold"
    adata.obs["agevi_fold"] = "0"
    adata.uns["agevi"] = {"subject_key": "donor", "sample_key": "donor", "age_key": "age", "age_unit": "years"}
    of_type = {"sample": noise.index, "group": "T", "subject": noise.index, "age": 50.0, "predicted": noise.to_numpy()}
    adata.uns["agevi_by_group"] = pd.DataFrame(of_type | {"n_cells": 4, "weight": 1.0})
    adata.uns["agevi_anchor"] = pd.DataFrame({"anchor": 50.0}, index=noise.index)
    agevi.tl.explain_age(adata, n_boot=10)
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.evaluate_by(adata, n_boot=10)
    agevi.tl.calibrate(adata)
    agevi.tl.subject_posterior(adata)
    agevi.tl.age_acceleration(adata, groupby="condition", reference="control", n_permutations=0)
    agevi.tl.normative_scores(adata, groupby="condition", reference="control")
    adata.obs["dose"] = adata.obs["age"]
    agevi.tl.trend_test(adata, order_key="dose", n_boot=10, n_permutations=10)
    return adata, clock


def written(adata):
    """Slots of the default key."""
    return {name for name in adata.uns if name.startswith("agevi")}


@pytest.mark.slow
def test_new_predictions_remove_all_that_was_made_from_earlier_ones(made, caplog):
    adata, clock = made[0].copy(), made[1]
    tables = {Keys().table(noun) for noun in TABLES if noun != "recalibration"}
    assert tables <= written(adata)
    caplog.set_level(logging.INFO, "agevi")
    agevi.tl.predict_age(adata, clock, overwrite=True)
    assert written(adata) == {"agevi"}
    assert "agevi_fold" not in adata.obs
    said = [line for line in caplog.messages if "made from the earlier predictions" in line]
    assert len(said) == 1
    assert all(repr(name) in said[0] for name in tables)


@pytest.mark.slow
def test_a_cross_validation_removes_them_too(made):
    adata = made[0].copy()
    agevi.tl.cross_validate(adata, agevi.model.PLSClock, age_key="age", subject_key="donor", n_folds=2)
    assert written(adata) == {"agevi"}


@pytest.mark.slow
def test_predictions_under_another_key_leave_the_tables(made, caplog):
    adata = made[0].copy()
    before = written(adata)
    caplog.set_level(logging.INFO, "agevi")
    agevi.tl.predict_age(adata, made[1], key_added="other")
    assert before == written(adata)
    assert "earlier predictions" not in caplog.text


def test_recalibrated_predictions_remove_what_was_made_from_their_forerunners():
    adata = agevi.datasets.simulate_cohort(n_subjects=40, n_cells=5, n_genes=50)
    adata.obs["agevi_predicted"] = adata.obs["age"] / 2 + 30 + np.random.default_rng(0).normal(size=adata.n_obs)
    adata.obs["agevi_role"] = "new"
    adata.uns["agevi"] = {"subject_key": "donor", "sample_key": "donor", "age_key": "age"}
    agevi.tl.aggregate_subjects(adata)
    labelled = sorted(set(adata.obs["donor"]))[:10]
    adata.obs["known"] = adata.obs["age"].where(adata.obs["donor"].isin(labelled))
    agevi.tl.recalibrate(adata, by=None, labels="known")
    agevi.tl.evaluate_by(adata, n_boot=10, key_added="recalibrated")
    agevi.tl.recalibrate(adata, by=None, labels="known")
    assert "recalibrated_metrics" not in adata.uns
    assert {"recalibrated_subjects", "recalibrated_recalibration"} <= set(adata.uns)
