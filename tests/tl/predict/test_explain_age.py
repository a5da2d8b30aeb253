from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import agevi
from agevi._names import BASELINE

pytestmark = pytest.mark.slow  # clocks of several types, each trained on held-out folds
KEYS = {"age_key": "age", "subject_key": "donor"}


@pytest.fixture(scope="module")
def _cohort_of_types():
    """Only type1 ages, and the shares of the types change with age."""
    adata = agevi.datasets.simulate_cohort(
        40, 40, 60, n_cell_types=3, ageing_rates=[0, 1, 0], effect_range=(0.1, 0.3), composition_sd=0.3, rng=2
    )
    adata.obs["everybody"] = "train"
    setup = {
        "setup_kwargs": {"cell_type_key": "cell_type"},
        "model_kwargs": {"min_cells": 3, "composition": True, "n_folds": 3},
    }
    agevi.tl.cross_validate(adata, agevi.model.CellTypeClock, **KEYS, **setup, n_folds=3)
    return adata


@pytest.fixture
def adata(_cohort_of_types):
    return _cohort_of_types.copy()


@pytest.fixture(scope="module")
def model(_cohort_of_types):
    adata = _cohort_of_types.copy()
    agevi.model.CellTypeClock.setup_anndata(adata, **KEYS, cell_type_key="cell_type")
    model = agevi.model.CellTypeClock(adata, min_cells=3, composition=True, n_folds=3)
    model.train(split_key="everybody")
    return model


def test_what_ages_comes_out_on_top(adata):
    agevi.tl.explain_age(adata, n_boot=200)
    found = agevi.get.explanation_df(adata).set_index("part")
    assert set(found["size"].drop(BASELINE).nlargest(2).index) == {"composition", "type1"}
    assert found.loc[["type1", "composition"], "share_low"].min() > 0.05
    assert found.loc[["type0", "type2"], "share"].abs().max() < 0.1
    assert found["share"].sum() == pytest.approx(1)
    of_sample = adata.uns["agevi_by_group"].drop_duplicates("sample")
    slope = np.polyfit(of_sample["age"], of_sample["combined"], 1)[0]
    assert found["slope"].sum() == pytest.approx(slope, rel=1e-5)
    assert found.loc[["type0", "type2"], "slope"].abs().max() < 0.1


def test_parts_sum_to_the_held_out_age(adata):
    agevi.tl.explain_age(adata, n_boot=10)
    of_samples = agevi.get.explanation_df(adata, "samples")
    combined = adata.uns["agevi_by_group"].groupby("sample")["combined"].first()
    total = of_samples.groupby("sample")["contribution"].sum()
    np.testing.assert_allclose(total, combined[total.index], rtol=1e-5)
    baseline = of_samples[of_samples["part"] == BASELINE]
    assert baseline["age"].isna().all()
    assert (baseline["n_cells"] == 0).all()


def test_parts_sum_to_the_age_of_a_clock(adata, model):
    agevi.tl.explain_age(adata, model, n_boot=10, key_added="clock")
    of_samples = agevi.get.explanation_df(adata, "samples", key_added="clock")
    total = of_samples.groupby("sample")["contribution"].sum()
    ages = pd.Series(model.predict_age(adata, level="sample"), index=adata.obs["donor"].astype(str)).groupby(level=0)
    np.testing.assert_allclose(total, ages.first()[total.index], rtol=1e-5)
    trained = of_samples[of_samples["part"] == "type1"]
    mean = trained["age"].mean()
    np.testing.assert_allclose(trained["contribution"], trained["weight"] * (trained["age"] - mean), atol=1e-9)


def test_intervals_are_those_of_subjects(adata):
    agevi.tl.explain_age(adata, n_boot=4000)
    row = agevi.get.explanation_df(adata).set_index("part").loc["type1"]
    of_samples = agevi.get.explanation_df(adata, "samples")
    values = of_samples[of_samples["part"] == "type1"].set_index("sample")["contribution"]
    values = values.reindex(of_samples["sample"].unique(), fill_value=0.0).to_numpy()
    assert row["size"] == pytest.approx(np.abs(values).mean())
    half = 1.96 * np.abs(values).std() / np.sqrt(len(values))
    assert row["size_high"] - row["size_low"] == pytest.approx(2 * half, rel=0.15)
    assert row["mean"] == pytest.approx(values.mean())


def test_groups(adata):
    agevi.tl.explain_age(adata, groupby="condition", n_boot=20)
    found = agevi.get.explanation_df(adata)
    assert list(dict.fromkeys(found["group"])) == ["overall", "case", "control"]
    n = found.drop_duplicates("group").set_index("group")["n_samples"]
    assert n["overall"] == n["case"] + n["control"]
    mean = found[found["part"] == "type1"].set_index("group")["mean"]
    weighted = (mean["case"] * n["case"] + mean["control"] * n["control"]) / n["overall"]
    assert mean["overall"] == pytest.approx(weighted)


def test_ages_that_mean_nothing_are_given_to_no_type(adata):
    age = adata.obs.groupby("donor", observed=True)["age"].first()
    drawn = pd.Series(np.random.default_rng(5).permutation(age), index=age.index)
    adata.obs["age"] = adata.obs["donor"].map(drawn).astype(float)
    setup = {
        "setup_kwargs": {"cell_type_key": "cell_type"},
        "model_kwargs": {"min_cells": 3, "composition": True, "n_folds": 3},
    }
    agevi.tl.cross_validate(adata, agevi.model.CellTypeClock, **KEYS, **setup, n_folds=2)
    agevi.tl.explain_age(adata, n_boot=200)
    found = agevi.get.explanation_df(adata).set_index("part").drop(index=BASELINE)
    assert (found["slope_low"] < 0.02).all()
    assert found["slope"].max() < 0.15


def test_files_hold_it(adata, tmp_path):
    import anndata as ad

    agevi.tl.explain_age(adata, groupby="condition", n_boot=10)
    adata.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad")
    pd.testing.assert_frame_equal(
        agevi.get.explanation_df(again), agevi.get.explanation_df(adata), check_dtype=False, check_column_type=False
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"groupby": "cell_type"}, ValueError, "one value per sample"),
        ({"groupby": "centre"}, KeyError, "groupby='centre' is not a column"),
        ({"key_added": "other"}, KeyError, r"adata.uns\['other_by_group'\] is absent"),
        ({"level": 2}, ValueError, "level=2"),
        ({"model": "clock"}, TypeError, "pass a trained clock"),
    ],
)
def test_bad_calls(adata, change, error, message):
    with pytest.raises(error, match=message):
        agevi.tl.explain_age(adata, **change)
    assert "agevi_explanation" not in adata.uns


def test_names_of_rows_are_no_types_and_groups(adata):
    adata.obs["whom"] = "overall"
    with pytest.raises(ValueError, match="has a group 'overall', the name of all samples; rename it"):
        agevi.tl.explain_age(adata, groupby="whom")
    table = adata.uns["agevi_by_group"]
    table["group"] = table["group"].astype(object).replace({"type0": BASELINE})
    with pytest.raises(ValueError, match="a type of cells is called 'baseline'"):
        agevi.tl.explain_age(adata)
    assert "agevi_explanation" not in adata.uns


def test_clocks_without_types_are_refused(adata, model):
    with pytest.raises(TypeError, match="a PLSClock, which has no clock per type of cells"):
        agevi.tl.explain_age(adata, model.type_clocks["type0"])
