from __future__ import annotations

import json
import logging

import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.io._bundle import BundleError, read_bundle, write_bundle
from agevi.model import CellTypeClock, PLSClock
from tests.laboratories import cohorts

SETUP = {"age_key": "age", "subject_key": "donor", "cell_type_key": "cell_type"}
TYPES = {"target": "type0", "reference": "type1", "subject_key": "donor"}


def fit(adata, setup=None, train=None, **init):
    CellTypeClock.setup_anndata(adata, **(SETUP | (setup or {})))
    model = CellTypeClock(adata, **({"min_cells": 3, "anchor": "type1"} | init))
    model.train(split_key="everybody", enable_progress_bar=False, **(train or {}))
    return model


@pytest.fixture(scope="module")
def _data():
    return cohorts()


@pytest.fixture(scope="module")
def _old(_data):
    return _data[_data.obs["study"] == "old"].copy()


@pytest.fixture(scope="module")
def _model(_old):
    return fit(_old)


@pytest.fixture
def new(_data):
    return _data[_data.obs["study"] == "new"].copy()


@pytest.fixture
def model(_model):
    """Trained on the old cohort; tests must not change it."""
    return _model


def by_donor(adata, column):
    return adata.obs.groupby(adata.obs["donor"].astype(str), observed=True)[column].first()


@pytest.mark.filterwarnings("ignore:.*left out:UserWarning")
def test_the_anchor_is_a_clock_of_the_contrast_alone(model, _old, new):
    """One trained by hand on what pp.contrast_types gives, with the same seed."""
    old = _old[_enough(_old)].copy()
    contrast = agevi.pp.contrast_types(old, "cell_type", **TYPES)
    PLSClock.setup_anndata(contrast, age_key="age", subject_key="donor", normalize="none")
    alone = PLSClock(contrast, rng=model.contrast_clocks["type0"].init_args["rng"])
    contrast.obs["everybody"] = "train"
    alone.train(split_key="everybody")
    other = agevi.pp.contrast_types(new[_enough(new)].copy(), "cell_type", like=contrast, **TYPES)
    expected = pd.Series(alone.predict_age(other, level="sample"), other.obs["donor"].astype(str).to_numpy())
    found = model.predict_anchor(new).dropna()
    assert len(found) > 20
    assert set(found.index) == set(expected.index)
    np.testing.assert_allclose(found, expected[found.index], rtol=1e-4)


def _enough(adata):
    """Cells of types of which a sample has 3."""
    n = adata.obs.groupby(["donor", "cell_type"], observed=True)["age"].transform("size")
    return (n >= 3).to_numpy()


def test_it_finds_the_level_of_a_cohort_that_the_clock_misses(model, new):
    agevi.tl.predict_age(new, model)
    agevi.tl.aggregate_subjects(new)
    agevi.tl.recalibrate(new, by="study", anchor="agevi")
    age = by_donor(new, "age")
    raw, moved = (by_donor(new, f"{key}_predicted") for key in ("agevi", "recalibrated"))
    assert abs((raw - age).mean()) > 10
    assert abs((moved - age).mean()) < 4
    given = new.copy()
    agevi.tl.recalibrate(given, by="study", anchor=model.predict_anchor(new), key_added="given")
    pd.testing.assert_frame_equal(given.uns["given_recalibration"], new.uns["recalibrated_recalibration"])
    assert new.uns["agevi_anchor"].index.name == "sample"


@pytest.mark.slow
def test_ages_do_not_change_by_it(model, _old, new):
    without = fit(_old.copy(), anchor=None)
    np.testing.assert_array_equal(model.predict_age(new, level="sample"), without.predict_age(new, level="sample"))
    with pytest.raises(ValueError, match=r"has no anchor \(anchor=None\)"):
        without.predict_anchor(new)


def test_verdicts_take_it_by_themselves(model, new):
    own = agevi.tl.check_transport(new, model, by="study")
    given = agevi.tl.check_transport(new, model, by="study", anchor=model.predict_anchor(new))
    pd.testing.assert_frame_equal(own, given)
    assert (own["n_anchored"] > 20).all()
    assert "shifted" in set(own["verdict"])
    assert own.loc[own["verdict"] == "shifted", "message"].str.contains("anchor=<key_added of the predictions>").all()


def test_a_bundle_keeps_it(model, new, tmp_path):
    model.save(tmp_path / "clock")
    loaded = agevi.io.load_clock(tmp_path / "clock")
    shuffled = new[:, np.random.default_rng(0).permutation(new.n_vars)].copy()
    del shuffled.obs["age"]
    pd.testing.assert_series_equal(loaded.predict_anchor(shuffled), model.predict_anchor(new), rtol=1e-6)
    assert "anchor" in (tmp_path / "clock" / "README.md").read_text()


@pytest.mark.parametrize("edit", ["names", "itself", "class", "count", "text"])
def test_edited_bundles_are_refused(model, edit, tmp_path):
    model.save(tmp_path / "clock")
    bundle = read_bundle(tmp_path / "clock")
    meta = json.loads(json.dumps(bundle.meta))
    if edit == "names":
        meta["against"] = ["another"]
    elif edit == "itself":
        meta["against"] = ["type1"]
    elif edit == "class":
        meta["contrasts"][0]["class"] = "MLPClock"
    elif edit == "count":
        meta["contrasts"] = []
    else:
        meta["against"] = "type0"
    write_bundle(tmp_path / "edited", meta, bundle.tensors, "card")
    with pytest.raises(BundleError):
        agevi.io.load_clock(tmp_path / "edited")


def test_samples_without_the_anchor_have_none(model, new):
    donors = sorted(set(new.obs["donor"].astype(str)))
    before = model.predict_anchor(new)
    lacking = (new.obs["donor"].astype(str).isin(donors[:3]) & (new.obs["cell_type"] == "type1")).to_numpy()
    after = model.predict_anchor(new[~lacking].copy())
    assert after[donors[:3]].isna().all()
    pd.testing.assert_series_equal(after.drop(donors[:3]), before.drop(donors[:3]))


def test_data_without_the_type_of_the_anchor_have_ages_and_no_level(model, new):
    lacking = new[new.obs["cell_type"] != "type1"].copy()
    agevi.tl.predict_age(lacking, model, by="study")
    assert lacking.uns["agevi_anchor"]["anchor"].isna().all()
    found = agevi.tl.check_transport(lacking, model, by="study")
    assert (found["n_anchored"] == 0).all()
    assert found["level_anchor"].isna().all()
    agevi.tl.aggregate_subjects(lacking)
    with pytest.raises(ValueError, match="anchor tells the level of none of the cohorts of by='study'"):
        agevi.tl.recalibrate(lacking, by="study", anchor="agevi")


def test_ages_are_not_read_where_the_anchor_says_nothing(model, new):
    """Half of the ages are known, by which recalibrate without an anchor would go."""
    lone = new.obs["donor"].astype(str) == sorted(set(new.obs["donor"].astype(str)))[0]
    new.obs["group"] = np.where(lone, "lone", "others")
    new = new[~(lone & (new.obs["cell_type"] == "type1")).to_numpy()].copy()
    half = new.obs["donor"].astype(str).isin(sorted(set(new.obs["donor"].astype(str)))[::2])
    new.obs.loc[half, "age"] = np.nan
    agevi.tl.predict_age(new, model)
    agevi.tl.aggregate_subjects(new)
    with pytest.raises(ValueError, match="not one sample of those with shift_on=\"group == 'lone'\" has both"):
        agevi.tl.recalibrate(new, by=None, anchor="agevi", shift_on="group == 'lone'")


def test_those_who_trained_the_clock_do_not_tell_its_level(model, _data, new):
    both = _data.copy()
    for adata in (both, new):
        agevi.tl.predict_age(adata, model)
        agevi.tl.aggregate_subjects(adata)
        agevi.tl.recalibrate(adata, by=None, anchor="agevi")
    own, of_both = (adata.uns["recalibrated_recalibration"].iloc[0] for adata in (new, both))
    assert of_both["n_level"] == own["n_level"]
    assert of_both["level_shift"] == pytest.approx(own["level_shift"], rel=1e-3)


def test_absent_genes_enter_at_their_mean(model, new):
    few = new[:, : int(0.9 * new.n_vars)].copy()
    assert np.abs(model.predict_anchor(few) - model.predict_anchor(new)).median() < 15


@pytest.mark.slow
def test_types_that_age_alike_give_none(caplog):
    adata = cohorts(40, ageing_rates=[1, 1])
    caplog.set_level(logging.WARNING, "agevi")
    model = fit(adata)
    assert not model.contrast_clocks
    assert "The clock has no anchor" in caplog.text
    with pytest.raises(ValueError, match="has no anchor"):
        model.predict_anchor(adata)
    agevi.tl.predict_age(adata, model)
    assert "agevi_anchor" not in adata.uns


@pytest.mark.slow
def test_ages_that_mean_nothing_give_none(_data):
    donor = by_donor(_data, "age")
    shuffled = pd.Series(np.random.default_rng(0).permutation(donor.to_numpy()), donor.index)
    adata = _data.copy()
    adata.obs["age"] = adata.obs["donor"].astype(str).map(shuffled).astype(float)
    assert not fit(adata).contrast_clocks


@pytest.mark.parametrize(
    ("anchor", "setup", "error", "said"),
    [
        ("type9", {}, ValueError, "anchor='type9' is not a type with a clock in adata.obs\\['cell_type'\\]"),
        (1, {}, TypeError, "anchor=1 is a int"),
        ("type1", {"normalize": "none"}, ValueError, "compares counts of types"),
        ("all cells", {"cell_type_key": None}, ValueError, "is the only type with a clock in the data"),
    ],
)
def test_what_cannot_be_an_anchor_is_refused(_old, anchor, setup, error, said):
    with pytest.raises(error, match=said):
        fit(_old.copy(), setup, anchor=anchor)


@pytest.mark.slow
def test_members_that_learn_from_cells_may_have_one(_old, new, model):
    small = {"n_hidden": [4], "train_unit": "cell"}
    of_cells = fit(_old.copy(), train={"max_epochs": 1}, clock="MLPClock", clock_kwargs=small, combine="mean")
    pd.testing.assert_series_equal(of_cells.predict_anchor(new), model.predict_anchor(new), rtol=1e-5)
