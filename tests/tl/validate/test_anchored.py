from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.model import CellTypeClock
from tests.laboratories import cohorts

KEYS = {"age_key": "age", "subject_key": "donor"}
TYPED = {"setup_kwargs": {"cell_type_key": "cell_type"}}
ANCHORED = {"model_kwargs": {"anchor": "type1", "min_cells": 3, "combine": "mean"}, **TYPED}


def run(adata, **arguments):
    agevi.tl.cross_validate(adata, CellTypeClock, **KEYS, **({"fold_key": "study"} | ANCHORED | arguments))
    return adata


@pytest.fixture(scope="module")
def _found():
    return run(cohorts())


@pytest.fixture
def found(_found):
    """Both cohorts held out in turn."""
    return _found.copy()


def mae(adata, key):
    table = agevi.get.subjects_df(adata, key_added=key)
    return float((table["predicted"] - table["age"]).abs().mean())


def levels(adata, key):
    """Mean error of each cohort."""
    table = agevi.get.subjects_df(adata, key_added=key)
    return (table["predicted"] - table["age"]).groupby(table["subject"] < "d35").mean()


def test_cohorts_held_out_are_moved_to_the_level_of_the_anchor(found):
    raw, anchored = (levels(found, key) for key in ("agevi", "agevi_anchored"))
    assert raw.abs().max() > 10
    assert anchored.abs().max() < 4
    moved = found.uns["agevi_anchored_recalibration"]
    assert moved["cohort"].tolist() == ["new", "old"]
    assert (moved["level_from"] == "anchor").all()
    agevi.tl.recalibrate(found, by="study", anchor="agevi", key_added="by_hand")
    by_hand, own = (found.obs[f"{key}_predicted"] for key in ("by_hand", "agevi_anchored"))
    np.testing.assert_array_equal(by_hand, own)


@pytest.mark.slow
def test_the_clock_of_a_fold_sees_neither_ages_nor_cells_of_it(found):
    other = cohorts()
    new = (other.obs["study"] == "new").to_numpy()
    other.obs.loc[new, "age"] = 110 - other.obs.loc[new, "age"]
    again = run(other)
    anchor, before = again.uns["agevi_anchor"]["anchor"], found.uns["agevi_anchor"]["anchor"]
    donors = sorted(set(other.obs.loc[new, "donor"].astype(str)))
    pd.testing.assert_series_equal(anchor[donors], before[donors], check_names=False)


@pytest.mark.slow
def test_levels_are_taken_from_those_who_may_train(found):
    found.obs["group"] = np.where(found.obs["donor"].astype(str) < "d10", "case", "control")
    run(found, train_on="group == 'control'")
    by_hand = found.copy()
    on = {"shift_on": "group == 'control'"}
    agevi.tl.recalibrate(by_hand, by="study", anchor="agevi", **on, key_added="by_hand")
    np.testing.assert_array_equal(by_hand.obs["by_hand_predicted"], found.obs["agevi_anchored_predicted"])
    assert by_hand.uns["by_hand_recalibration"]["n_level"].min() < 35


@pytest.mark.slow
def test_random_folds_have_no_level_of_their_own(caplog):
    caplog.set_level(logging.INFO, "agevi")
    adata = run(cohorts(30), fold_key=None, n_folds=2)
    assert "agevi_anchored_predicted" not in adata.obs
    assert np.isfinite(adata.uns["agevi_anchor"]["anchor"]).mean() > 0.5


@pytest.mark.slow
def test_folds_without_an_anchor_keep_their_ages(caplog):
    """Where types age alike, one of two folds finds an anchor by chance."""
    adata = run(cohorts(30, ageing_rates=[1, 1]))
    assert "Nobody in 1 folds ('new') has an age by the anchor, so" in caplog.text
    kept = (adata.obs["study"] == "new").to_numpy()
    same = adata.obs["agevi_anchored_predicted"] == adata.obs["agevi_predicted"]
    assert same[kept].all()
    assert not same[~kept].any()


@pytest.mark.slow
def test_a_run_without_any_anchor_has_no_second_key(caplog):
    adata = run(cohorts(24, ageing_rates=[1, 1], rng=2))
    assert "Nobody in 2 folds" in caplog.text
    assert (
        "In 2 of them no type against the anchor tells the ages of training subjects held out (r at most" in caplog.text
    )
    assert "agevi_anchored_predicted" not in adata.obs


@pytest.mark.slow
def test_the_leaderboard_judges_cohorts_at_that_level(found):
    models = {"anchored": (CellTypeClock, ANCHORED), "alone": (CellTypeClock, _without_anchor())}
    agevi.tl.compare_models(found, models, **KEYS, cohort_key="study", n_folds=2, n_null_linear=0, key_added="board")
    board = agevi.get.leaderboard_df(found, key_added="board").set_index("model")
    assert board.loc["anchored", "mae"] == pytest.approx(board.loc["alone", "mae"], rel=1e-6)
    assert board.loc["anchored", "mae_cohorts"] == pytest.approx(mae(found, "agevi_anchored"), rel=1e-4)
    assert board.loc["alone", "mae_cohorts"] == pytest.approx(mae(found, "agevi"), rel=1e-4)
    assert board.loc["anchored", "level_cohorts"] < board.loc["alone", "level_cohorts"]


def _without_anchor():
    own = {name: value for name, value in ANCHORED["model_kwargs"].items() if name != "anchor"}
    return TYPED | {"model_kwargs": own}


@pytest.mark.slow
def test_a_run_is_taken_up_where_it_stopped(found, tmp_path):
    for _ in range(2):
        again = run(cohorts(), checkpoint_dir=tmp_path)
        np.testing.assert_array_equal(again.obs["agevi_anchored_predicted"], found.obs["agevi_anchored_predicted"])


def test_a_later_run_leaves_nothing_of_an_earlier_one(found):
    run(found, fold_key=None, n_folds=2, model_kwargs=_without_anchor()["model_kwargs"])
    assert not [name for name in (*found.obs, *found.uns) if "_anchored" in name]


def test_folds_of_nobody_who_may_train_keep_their_ages(caplog):
    """The held-out ages of the one fold without a level are not read in its place."""
    adata = cohorts(40)
    donor = adata.obs["donor"].astype(str)
    adata.obs["group"] = np.where(donor < "d20", "control", "case")
    adata.obs["study"] = np.where(donor < "d10", "first", adata.obs["study"])
    run(adata, train_on="group == 'control'")
    assert "Nobody in 1 folds ('new') has an age by the anchor and may train" in caplog.text
    kept = (adata.obs["study"] == "new").to_numpy()
    same = (adata.obs["agevi_anchored_predicted"] == adata.obs["agevi_predicted"]).to_numpy()
    assert same[kept].all()
    assert not same[~kept].any()


def test_all_cells_of_one_type_can_be_written():
    adata = cohorts(20)
    run(adata, fold_key=None, n_folds=2, model_kwargs={"min_cells": 3, "combine": "mean"}, setup_kwargs=None)
    assert adata.uns["agevi_by_group_params"] == {"min_cells": 3}
    CellTypeClock.setup_anndata(adata, **KEYS)
    assert "one PLSClock of all cells" in CellTypeClock(adata)._model_summary_string


def test_donors_may_be_numbers(found):
    adata = cohorts()
    adata.obs["donor"] = adata.obs["donor"].astype(str).str[1:].astype(float)
    run(adata)
    np.testing.assert_array_equal(adata.obs["agevi_anchored_predicted"], found.obs["agevi_anchored_predicted"])
