from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import agevi
from tests.tl.clocks import AllClock, MeanClock, SumClock

KEYS = {"age_key": "age", "subject_key": "donor"}


class TypeClock(MeanClock):
    """Predicts 30 for cells of type0, 50 for type1 and 70 for type2: what it was trained on says which."""

    calls: list = []

    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        types = set(self.adata.obs["cell_type"])
        assert len(types) == 1
        self.value = {"type0": 30.0, "type1": 50.0, "type2": 70.0}[types.pop()]


@pytest.fixture
def typed(cohort):
    """24 subjects with 8, 8 and 4 cells of three types."""
    cohort.obs["cell_type"] = pd.Categorical(np.resize(["type0"] * 8 + ["type1"] * 8 + ["type2"] * 4, cohort.n_obs))
    for cls in (TypeClock, AllClock, SumClock, MeanClock):
        cls.calls.clear()
    return cohort


@pytest.mark.slow
def test_each_type_has_its_clock_and_samples_combine_them(typed):
    agevi.tl.cross_validate(typed, TypeClock, **KEYS, n_folds=3, groupby="cell_type", min_cells=4)
    expected = typed.obs["cell_type"].astype(str).map({"type0": 30.0, "type1": 50.0, "type2": 70.0})
    np.testing.assert_allclose(typed.obs["agevi_predicted"], expected)
    assert len(TypeClock.calls) == 2 * 3 * 3
    table = typed.uns["agevi_by_group"]
    assert len(table) == 72
    assert table["n_cells"].tolist() == [8, 8, 4] * 24
    assert table["group"].tolist() == ["type0", "type1", "type2"] * 24
    np.testing.assert_allclose(table["predicted"], [30.0, 50.0, 70.0] * 24)
    assert (table["sample"] == table["subject"]).all()
    age = typed.obs.groupby(typed.obs["donor"].astype(str))["age"].first()
    np.testing.assert_allclose(table["age"], age.loc[table["sample"]])
    for _, rows in table.groupby("sample"):
        weight = 1 / rows["validation_mae"]
        np.testing.assert_allclose(rows["weight"], weight / weight.sum())
        np.testing.assert_allclose(rows["combined"], np.average(rows["predicted"], weights=weight))
    combined = table.groupby("sample")["combined"].first()
    np.testing.assert_allclose(
        typed.obs["agevi_predicted_sample"], combined.loc[typed.obs["donor"].astype(str)], rtol=1e-6
    )
    agevi.tl.aggregate_subjects(typed)
    np.testing.assert_allclose(typed.uns["agevi_subjects"]["predicted"], combined, rtol=1e-6)


@pytest.mark.slow
def test_weights_never_see_the_held_out_fold(typed):
    """The validation error of a type and fold is that of its own training subjects."""
    agevi.tl.cross_validate(typed, TypeClock, **KEYS, n_folds=3, groupby="cell_type", min_cells=4)
    record = typed.uns["agevi"]["folds"]
    age = typed.obs.groupby(typed.obs["donor"].astype(str))["age"].first()
    value = {"type0": 30.0, "type1": 50.0, "type2": 70.0}
    held_out = typed.obs.groupby("agevi_fold", observed=True)["donor"].unique()
    for row, first in zip(record.itertuples(), TypeClock.calls[::2], strict=True):
        assert not first["all"] & set(held_out[row.fold])
        validation = age[sorted(first["all"] - first["trained"])]
        assert row.validation_mae == pytest.approx(np.abs(validation - value[row.group]).mean())
    table = typed.uns["agevi_by_group"].merge(record, on=["fold", "group"])
    np.testing.assert_allclose(table["validation_mae_x"], table["validation_mae_y"])


@pytest.mark.slow
def test_a_clock_without_selection_is_weighed_too(typed):
    agevi.tl.cross_validate(typed, AllClock, **KEYS, n_folds=3, groupby="cell_type", min_cells=4)
    assert [len(c["trained"]) for c in AllClock.calls] == [14, 16] * 9
    assert typed.uns["agevi_by_group"]["weight"].gt(0).all()


def test_sums_of_a_type(typed):
    agevi.tl.cross_validate(typed, SumClock, **KEYS, n_folds=3, groupby="cell_type", min_cells=4)
    assert (typed.uns["agevi_by_group"]["predicted"] > 1000).all()
    table = typed.uns["agevi_by_group"].set_index(["sample", "group"])["predicted"]
    of_cell = pd.MultiIndex.from_frame(typed.obs[["donor", "cell_type"]].astype(str))
    np.testing.assert_allclose(typed.obs["agevi_predicted"], table.loc[of_cell])  # of the sample's cells of the type


@pytest.mark.slow
def test_few_cells_of_a_type(typed):
    """Below min_cells a sample does not train the type and has no place in the mean, but its cells are predicted."""
    donor = typed.obs["donor"].astype(str)
    few = (donor == "d05") & (typed.obs["cell_type"] == "type2")
    typed = typed[~(few & (few.cumsum() > 2))].copy()  # two cells are left
    agevi.tl.cross_validate(typed, AllClock, **KEYS, n_folds=3, groupby="cell_type", min_cells=4)
    assert typed.obs["agevi_predicted"].notna().all()
    table = typed.uns["agevi_by_group"].set_index(["sample", "group"])
    assert table.loc[("d05", "type2"), "n_cells"] == 2
    assert np.isnan(table.loc[("d05", "type2"), "predicted"])
    assert table.loc[("d05", "type2"), "weight"] == 0
    rows = table.loc["d05"].iloc[:2]
    assert rows["combined"].iloc[0] == pytest.approx(np.average(rows["predicted"], weights=1 / rows["validation_mae"]))
    of_type2 = [c for c in AllClock.calls if c["cells"] < 16 * 8]
    assert not any("d05" in c["all"] for c in of_type2)


def test_rare_types_and_cells_without_type(typed):
    donor = typed.obs["donor"].astype(str)
    values = typed.obs["cell_type"].astype(object)
    values[(values == "type2") & (donor > "d01")] = "type1"
    values[donor == "d09"] = np.nan
    typed.obs["cell_type"] = values
    with pytest.warns(UserWarning, match="enough cells per sample .min_cells=4., .*: 'type2' .in ") as caught:
        agevi.tl.cross_validate(typed, AllClock, **KEYS, n_folds=3, groupby="cell_type", min_cells=4)
    assert caught[0].filename == __file__
    lacking = (values == "type2") | (donor == "d09")
    assert (typed.obs["agevi_predicted"].isna() == lacking).all()
    assert set(typed.uns["agevi_by_group"]["group"]) == {"type0", "type1"}
    assert (typed.obs["agevi_predicted_sample"].isna() == (donor == "d09")).all()
    assert set(typed.obs["agevi_role"]) == {"out_of_fold"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agevi.tl.aggregate_subjects(typed)
    assert typed.uns["agevi_subjects"]["predicted"].isna().sum() == 1


@pytest.mark.slow
def test_the_table_goes_with_the_next_run(typed):
    agevi.tl.cross_validate(typed, AllClock, **KEYS, n_folds=3, groupby="cell_type", min_cells=4)
    agevi.tl.cross_validate(typed, AllClock, **KEYS, n_folds=3)
    assert "agevi_by_group" not in typed.uns
    assert "agevi_by_group_params" not in typed.uns
    assert "agevi_predicted_sample" not in typed.obs


@pytest.mark.slow
def test_the_type_that_ages_has_the_best_clock():
    """Only one type ages: its clock predicts the held-out subjects, and the clocks of the others know no more than chance."""
    rates = [0, 0, 1]
    adata = agevi.datasets.simulate_cohort(
        60, 60, 100, effect_range=(0.2, 0.4), ageing_rates=rates, composition_shift=0, composition_sd=0.5, rng=1
    )
    agevi.tl.cross_validate(adata, agevi.model.PLSClock, **KEYS, n_folds=3, groupby="cell_type", min_cells=3)
    table = adata.uns["agevi_by_group"].dropna()
    error = (table["predicted"] - table["age"]).abs().groupby(table["group"]).mean()
    chance = (adata.obs["age"] - adata.obs["age"].median()).abs().mean()
    own = "type2"
    assert error[own] < 0.6 * chance
    assert error.drop(own).min() > 0.85 * chance
    weight = table.groupby("group")["weight"].mean()
    assert weight.idxmax() == own
    assert weight[own] > 1.5 * weight.drop(own).max()
