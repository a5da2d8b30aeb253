"""Levels of cohorts by an anchor or a mean age."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

import agevi
from agevi import _ages
from agevi.tl.intervals._cohort_level import _per_log
from tests.test_gates import snapshot
from tests.tl.intervals.test_recalibrate import cohorts


def tables(adata, key="recalibrated"):
    return (agevi.get.subjects_df(adata, key_added=k).set_index("sample") for k in ("agevi", key))


def with_errors(adata):
    adata.uns["agevi_calibration_params"] = {"residuals": np.random.default_rng(2).normal(0, 5, 100)}
    return adata


def anchor_of(adata, noise=6.0, only=None):
    """Ages of subjects by a clock that is off by no constant."""
    age = adata.obs.groupby("donor")["age"].first()
    age = age if only is None else age[age.index.str[0] == only]
    return age + np.random.default_rng(1).normal(0, noise, len(age))


@pytest.mark.parametrize("transform", ["none", "log"])
def test_an_anchor_moves_the_cohort_by_the_shrunk_mean_difference(transform):
    adata, scale = with_errors(cohorts(transform=transform)), _ages.AgeTransform(transform)
    anchor = anchor_of(adata)
    agevi.tl.recalibrate(adata, by="lab", anchor=anchor)
    old, new = tables(adata)
    rows = adata.uns["recalibrated_recalibration"].set_index("cohort")
    for name in "ab":
        own = old.index[old.index.str[0] == name]
        x = scale.forward(old.loc[own, "predicted"].to_numpy())
        u = scale.forward(anchor[own].to_numpy()) - x
        between = (0.35 * _per_log(scale, old.loc[own, "predicted"].to_numpy())) ** 2
        shift = between / (between + u.var(ddof=1) / len(u)) * u.mean()
        np.testing.assert_allclose(new.loc[own, "predicted"], scale.back(x + shift), rtol=1e-9)
        assert rows.loc[name, "level_shift"] == pytest.approx(shift)
        assert rows.loc[name, "level_from"] == "anchor"
        assert rows.loc[name, "n_level"] == len(own)
    assert set(new["role"]) == {"new"}
    gap = (new["predicted"] - new["age"]).groupby(new.index.str[0]).mean()
    assert gap.abs().max() < 4
    assert ((new["lower"] < new["predicted"]) & (new["predicted"] < new["upper"])).all()


def test_the_scale_of_the_spread():
    log, none = _ages.AgeTransform("log"), _ages.AgeTransform("none")
    assert _per_log(log, np.array([20.0, 60])) == pytest.approx(1)
    assert _per_log(none, np.array([20.0, 60])) == pytest.approx(42, rel=1e-3)


def test_a_mean_age_sets_the_level():
    adata = cohorts()
    agevi.tl.recalibrate(adata, by="lab", mean_age={"a": 50, "b": 52.0})
    new = list(tables(adata))[1]
    means = new["predicted"].groupby(new.index.str[0]).mean()
    assert means.to_dict() == pytest.approx({"a": 50, "b": 52})
    assert new[["lower", "upper"]].isna().all(axis=None)  # the clock was not calibrated
    agevi.tl.recalibrate(adata, by=None, mean_age=40, key_added="all")
    assert list(tables(adata, "all"))[1]["predicted"].mean() == pytest.approx(40)


def test_cohorts_without_a_level_keep_their_predictions(caplog):
    adata = with_errors(cohorts())
    with caplog.at_level(logging.WARNING, logger="agevi"):
        agevi.tl.recalibrate(adata, by="lab", anchor=anchor_of(adata, only="b"))
    old, new = tables(adata)
    kept = old.index[old.index.str[0] == "a"]
    np.testing.assert_array_equal(new.loc[kept, "predicted"], old.loc[kept, "predicted"])
    assert "1 cohorts of by='lab' have no level by the anchor ('a')" in caplog.text


def test_labels_correct_what_the_anchor_left():
    adata = with_errors(cohorts())
    agevi.tl.recalibrate(adata, by="lab", anchor=anchor_of(adata) + 10, key_added="anchored")
    agevi.tl.recalibrate(adata, by="lab", anchor=anchor_of(adata) + 10, labels="known", kind="shift")
    rows = adata.uns["recalibrated_recalibration"].set_index("cohort")
    assert rows.loc["b", "kind"] == "shift"
    assert rows.loc["b", "n_labelled"] == 10
    errors = {}
    for key in ("anchored", "recalibrated"):
        new = list(tables(adata, key))[1]
        others = new[(new.index.str[0] == "b") & (new["role"] == "new")]
        errors[key] = abs((others["predicted"] - others["age"]).mean())
    assert errors["recalibrated"] < errors["anchored"] - 3


def test_few_subjects_move_less(caplog):
    adata = with_errors(cohorts())
    anchor = anchor_of(adata, noise=20)
    few = anchor[["b00", "b01", "b02"]]
    with caplog.at_level(logging.WARNING, logger="agevi"):
        agevi.tl.recalibrate(adata, by="lab", anchor=few)
    assert "1 cohorts have an anchor for fewer than 10 subjects (b: 3)" in caplog.text.replace("'", "")
    row = adata.uns["recalibrated_recalibration"].set_index("cohort").loc["b"]
    old = list(tables(adata))[0]
    assert 0 < row["level_shift"] / (few - old.loc[few.index, "predicted"]).mean() < 1
    assert row["level_sd"] > 5


def test_only_controls_tell_the_level():
    adata = with_errors(cohorts())
    case = adata.obs["donor"].str[-1].isin(list("01234"))
    adata.obs["condition"] = np.where(case, "case", "control")
    anchor = anchor_of(adata)
    of_cases = anchor.index.str[-1].isin(list("01234"))
    agevi.tl.recalibrate(adata, by="lab", anchor=anchor[~of_cases], key_added="wanted")
    agevi.tl.recalibrate(adata, by="lab", anchor=anchor + 30 * of_cases, shift_on="condition == 'control'")
    wanted, found = (list(tables(adata, key))[1]["predicted"] for key in ("wanted", "recalibrated"))
    np.testing.assert_allclose(found, wanted)


def test_an_anchor_may_be_other_predictions_of_the_data():
    adata = with_errors(cohorts())
    anchor = anchor_of(adata)
    adata.obs["other_predicted"] = adata.obs["donor"].map(anchor).astype(np.float32)
    adata.obs["other_role"] = adata.obs["agevi_role"]
    adata.uns["other"] = adata.uns["agevi"]
    agevi.tl.aggregate_subjects(adata, key_added="other")
    agevi.tl.recalibrate(adata, by="lab", anchor="other", key_added="by_key")
    agevi.tl.recalibrate(adata, by="lab", anchor=anchor.to_dict(), key_added="by_dict")
    by_key, by_dict = (list(tables(adata, key))[1]["predicted"] for key in ("by_key", "by_dict"))
    np.testing.assert_allclose(by_key, by_dict, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"anchor": [1, 2]}, TypeError, "anchor is a list"),
        ({"anchor": pd.Series({"b00": "old"})}, TypeError, "anchor holds"),
        ({"anchor": pd.Series({"x": 40.0})}, ValueError, "anchor has an age for none of the 80 samples: it names 'x'"),
        ({"anchor": pd.Series([1.0, 2], ["b00", "b00"])}, ValueError, "anchor names 'b00' twice"),
        ({"anchor": "other"}, KeyError, "other_subjects"),
        ({"mean_age": "old"}, ValueError, "mean_age='old' is not an age"),
        ({"mean_age": {"b": -7}}, ValueError, "mean_age=-7 for 'b' is not an age"),
        ({"mean_age": {"c": 40}}, ValueError, "mean_age names the cohort 'c'"),
        ({"mean_age": 40, "anchor": {"b00": 1.0}}, ValueError, "both given"),
        ({"shift_on": "lab == 'a'"}, ValueError, "without anchor or mean_age"),
        ({"mean_age": 40, "shift_on": "centre == 1"}, KeyError, "shift_on='centre' is not a column"),
    ],
)
def test_bad_calls(arguments, error, message):
    adata = with_errors(cohorts())
    before = snapshot(adata)
    with pytest.raises(error, match=message):
        agevi.tl.recalibrate(adata, by="lab", **arguments)
    assert snapshot(adata) == before
