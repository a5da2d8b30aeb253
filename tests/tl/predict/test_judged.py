from __future__ import annotations

import logging

import numpy as np
import pytest

import agevi
from agevi.tl import aggregate_subjects, compare_models, cross_validate, evaluate_by
from tests.tl.clocks import AllClock
from tests.tl.tuning.spied import KEYS


@pytest.fixture
def typed():
    """Clocks per type of cells; one donor has few cells of one type, and one has no age."""
    adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=60, n_genes=40)
    few = np.flatnonzero((adata.obs["donor"] == "d03") & (adata.obs["cell_type"] == "type0"))[2:]
    assert len(few)
    adata = adata[np.setdiff1d(np.arange(adata.n_obs), few)].copy()
    adata.obs.loc[adata.obs["donor"] == "d05", "age"] = np.nan
    cross_validate(adata, "PLSClock", groupby="cell_type", min_cells=3, n_folds=3, **KEYS)
    return adata


def by_hand(table):
    """Error and that of the median age of other folds, over samples of one type."""
    table = table[table["age"].notna() & table["predicted"].notna()]
    error = (table["predicted"] - table["age"]).abs().mean()
    median = [table.loc[table["fold"] != fold, "age"].median() for fold in table["fold"]]
    return len(table), error, np.abs(np.asarray(median) - table["age"]).mean()


def test_types_of_a_cross_validation_are_rows(typed):
    aggregate_subjects(typed)
    found = agevi.get.metrics_df(typed, groupby="cell_type")
    table = typed.uns["agevi_by_group"]
    assert found.index.tolist() == sorted(set(table["group"]))
    assert found.index.name == "cell_type"
    evaluate_by(typed, ["cell_type", "sex", ("sex", "cell_type")])
    metrics = agevi.get.metrics_by_df(typed)
    rows = metrics[metrics["groupby"] == "cell_type"].set_index("group")
    for name, part in table.groupby("group"):
        n, mae, median = by_hand(part)
        for row in (found.loc[name], rows.loc[name]):
            assert row["n"] == n
            assert row[["mae", "mae_median"]].tolist() == pytest.approx([mae, median])
    assert found.loc["type0", "n"] == found["n"].max() - 1 == 18
    assert metrics["groupby"].drop_duplicates().tolist() == ["overall", "cell_type", "sex", "sex;cell_type"]
    sex = typed.obs.drop_duplicates("donor").set_index("donor")["sex"].astype(str)
    part = table[(table["group"] == "type0") & (table["subject"].map(sex) == "female")]
    crossed = metrics[(metrics["groupby"] == "sex;cell_type") & (metrics["group"] == "female;type0")].iloc[0]
    assert crossed["mae"] == pytest.approx(by_hand(part)[1])
    overall = agevi.get.metrics_df(typed).loc["out_of_fold"]
    assert metrics.iloc[0]["mae"] == pytest.approx(overall["mae"])


def test_types_may_be_called_like_a_column_of_the_tables(typed):
    typed.obs["condition"] = np.where(typed.obs["donor"].str[1:].astype(int) % 2, "case", "control")
    aggregate_subjects(typed)
    arguments = {"groupby": "condition", "reference": "control", "n_permutations": 0}
    found = []
    for name in (
        "cell_type",
        "group",
        "sample",
        "subject",
        "role",
        "predicted",
        "fold",
        "n_cells",
        "reference",
        "type",
    ):
        adata = typed.copy()
        adata.obs = adata.obs.rename(columns={"cell_type": name})
        adata.uns["agevi"]["params"]["groupby"] = name
        metrics = agevi.get.metrics_df(adata, groupby=name)
        evaluate_by(adata, [name])
        agevi.tl.age_acceleration(adata, by=name, **arguments)
        table = agevi.get.acceleration_df(adata)
        assert list(agevi.pl.predicted_vs_actual(adata, groupby=name, show=False)) == metrics.index.tolist()
        assert table["type"].tolist() == ["overall", *metrics.index]
        found.append(
            (metrics["mae"].tolist(), agevi.get.metrics_by_df(adata)["mae"].tolist(), table["difference"].tolist())
        )
    assert all(values == found[0] for values in found)


def test_age_bins_are_crossed_with_types(typed):
    aggregate_subjects(typed)
    evaluate_by(typed, [("cell_type", "age_bin")], age_bins=[0, 50, 100])
    metrics = agevi.get.metrics_by_df(typed).set_index("group")
    table = typed.uns["agevi_by_group"].query("group == 'type0' and age < 50")
    assert metrics.loc["type0;0 to 50", "n"] == table["predicted"].notna().sum()


def test_without_clocks_per_type_there_are_no_rows(typed):
    cross_validate(typed, AllClock, n_folds=3, **KEYS)
    aggregate_subjects(typed)
    with pytest.raises(KeyError, match="groupby='cell_type' is not a column of the subject table"):
        agevi.get.metrics_df(typed, groupby="cell_type")
    with pytest.raises(ValueError, match="one value per sample; for cell types see agevi.tl.cross_validate"):
        evaluate_by(typed, "cell_type")


def test_samples_that_drop_out_are_counted(typed, caplog):
    caplog.set_level(logging.INFO, "agevi")
    without_age = "1 of 20 samples (1 of 20 subjects) are left out of the accuracy: 1 without an age."
    aggregate_subjects(typed)
    assert without_age in caplog.messages
    caplog.clear()
    agevi.get.metrics_df(typed)
    assert without_age in caplog.messages
    caplog.clear()
    evaluate_by(typed, "cell_type")
    assert without_age in caplog.messages
    types = typed.uns["agevi_by_group"]
    n_age, n_few = types["age"].isna().sum(), (types["age"].notna() & types["predicted"].isna()).sum()
    assert n_age and n_few
    assert (
        f"{n_age + n_few} of {len(types)} samples (1 of 20 subjects) are left out of the accuracy: {n_age} without an age, "
        f"{n_few} without a clock of the type or enough cells."
    ) in caplog.messages
    caplog.clear()


def test_the_leaderboard_counts_who_is_not_judged(typed, caplog):
    caplog.set_level(logging.INFO, "agevi")
    compare_models(typed, [], train_on="donor != 'd07'", n_folds=3, **KEYS)
    assert "2 of 20 samples are not judged: 1 without an age, 1 that may not train." in caplog.messages


def test_nothing_is_said_where_all_are_judged(cohort, caplog):
    caplog.set_level(logging.INFO, "agevi")
    cross_validate(cohort, AllClock, n_folds=3, **KEYS)
    aggregate_subjects(cohort)
    agevi.get.metrics_df(cohort)
    compare_models(cohort, [], n_folds=3, **KEYS)
    assert not [m for m in caplog.messages if "left out" in m or "not judged" in m]
