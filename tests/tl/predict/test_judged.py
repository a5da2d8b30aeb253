from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import agevi
from agevi.get import _samples
from agevi.metrics._rows import error_ratio
from agevi.pl import _figure
from agevi.tl import aggregate_subjects, compare_models, cross_validate, evaluate_by
from agevi.tl.predict import _judged
from agevi.tl.predict._judged import verdict
from tests.tl.clocks import AllClock
from tests.tl.tuning.spied import KEYS


@pytest.fixture(scope="module")
def _typed():
    adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=60, n_genes=40)
    few = np.flatnonzero((adata.obs["donor"] == "d03") & (adata.obs["cell_type"] == "type0"))[2:]
    assert len(few)
    adata = adata[np.setdiff1d(np.arange(adata.n_obs), few)].copy()
    adata.obs.loc[adata.obs["donor"] == "d05", "age"] = np.nan
    cross_validate(adata, "PLSClock", groupby="cell_type", min_cells=3, n_folds=3, **KEYS)
    return adata


@pytest.fixture
def typed(_typed):
    """Clocks per type of cells; one donor has few cells of one type, and one has no age."""
    return _typed.copy()


def by_hand(table):
    """Error and that of the median age of other folds, over samples of one type."""
    table = table[table["age"].notna() & table["predicted"].notna()]
    error = (table["predicted"] - table["age"]).abs().mean()
    median = [table.loc[table["fold"] != fold, "age"].median() for fold in table["fold"]]
    return len(table), error, np.abs(np.asarray(median) - table["age"]).mean()


@pytest.mark.slow
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


@pytest.mark.slow
def test_types_may_be_called_like_a_column_of_the_tables(typed, monkeypatch):
    monkeypatch.setattr(_figure, "_grow", lambda figure: None)  # which draws the figure three times
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


@pytest.mark.slow
def test_age_bins_are_crossed_with_types(typed):
    aggregate_subjects(typed)
    evaluate_by(typed, [("cell_type", "age_bin")], age_bins=[0, 50, 100])
    metrics = agevi.get.metrics_by_df(typed).set_index("group")
    table = typed.uns["agevi_by_group"].query("group == 'type0' and age < 50")
    assert metrics.loc["type0;0 to 50", "n"] == table["predicted"].notna().sum()


@pytest.mark.slow
def test_without_clocks_per_type_there_are_no_rows(typed):
    cross_validate(typed, AllClock, n_folds=3, **KEYS)
    aggregate_subjects(typed)
    with pytest.raises(KeyError, match="groupby='cell_type' is not a column of the subject table"):
        agevi.get.metrics_df(typed, groupby="cell_type")
    with pytest.raises(ValueError, match="one value per sample; for cell types see agevi.tl.cross_validate"):
        evaluate_by(typed, "cell_type")


@pytest.mark.slow
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


@pytest.mark.slow
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


def table_of(n, error_sd, rng, role="test", visits=1):
    age = rng.uniform(20, 90, n)
    rows = pd.DataFrame({"subject": [f"d{i}" for i in range(n)], "age": age, "role": role})
    rows["predicted"] = rows["age"] + rng.normal(0, error_sd, n)
    return pd.concat([rows] * visits, ignore_index=True)


def test_the_interval_is_that_of_explicit_draws_of_subjects():
    rng = np.random.default_rng(0)
    subject = np.repeat([f"s{i}" for i in range(40)], rng.integers(1, 4, 40))
    error, baseline = rng.exponential(3, len(subject)), rng.exponential(5, len(subject))
    ratio, low, high = error_ratio(error, baseline, subject, n_boot=4000)
    assert ratio == pytest.approx(error.mean() / baseline.mean())
    rows = {s: np.flatnonzero(subject == s) for s in set(subject)}
    names, draws = sorted(rows), []
    for _ in range(4000):
        drawn = np.concatenate([rows[names[i]] for i in rng.integers(40, size=40)])
        draws.append(error[drawn].mean() / baseline[drawn].mean())
    np.testing.assert_allclose([low, high], np.quantile(draws, [0.025, 0.975]), rtol=0.03)


@pytest.mark.parametrize(
    ("n", "sd", "said"),
    [
        pytest.param(40, 4, "", id="good"),
        pytest.param(40, 60, "Held-out subjects are not predicted better than by the median age of the", id="worse"),
        pytest.param(9, 4, "Only 9 held-out subjects with an age: too few to tell", id="few"),
        pytest.param(1, 4, "Only 1 held-out subject with an age", id="one"),
    ],
)
def test_what_is_said(n, sd, said):
    table = table_of(n, sd, np.random.default_rng(1))
    line = verdict(table, np.full(n, 55.0), "years")
    assert line.startswith(said)
    assert bool(line) == bool(said)
    assert "\n" not in line


def test_the_line_has_the_figures():
    table = table_of(30, 0, np.random.default_rng(2)).assign(predicted=54.0)
    reference = np.full(30, 55.0)
    line = verdict(table, reference, "months")
    mae, baseline = (np.abs(x - table["age"]).mean() for x in (54.0, reference))
    assert f"MAE {mae:.2f} against {baseline:.2f} months, ratio {mae / baseline:.2f} [" in line
    assert line.endswith("n = 30.")


def test_visits_of_a_subject_are_no_further_subjects():
    table = table_of(9, 4, np.random.default_rng(3), visits=4)
    assert verdict(table, np.full(36, 55.0), "years").startswith("Only 9 held-out subjects")


@pytest.mark.slow
def test_a_useless_clock_is_announced_by_every_step_and_a_good_one_is_not(caplog):
    adata = agevi.datasets.simulate_cohort(n_subjects=60, n_cells=10, n_genes=80, effect_range=(0.6, 0.9), rng=4)
    good, null = adata.copy(), adata.copy()
    donor = null.obs["donor"].astype(str)
    ages = null.obs.groupby(donor)["age"].first()
    null.obs["age"] = donor.map(
        dict(zip(ages.index, np.random.default_rng(0).permutation(ages), strict=True))
    ).to_numpy()
    for data, useless in ((good, False), (null, True)):
        agevi.tl.cross_validate(data, agevi.model.PLSClock, **KEYS)
        for step in (agevi.tl.aggregate_subjects, agevi.get.metrics_df, agevi.pl.predicted_vs_actual):
            caplog.clear()
            with caplog.at_level(logging.WARNING, "agevi"):
                step(data)
            said = [r.getMessage() for r in caplog.records if "median age" in r.getMessage()]
            assert len(said) == useless, (step.__name__, said)


def test_the_baseline_is_found_once_and_the_line_is_that_of_the_subject_table(cohort, trained, caplog, monkeypatch):
    agevi.tl.predict_age(cohort, trained)
    cohort.obs["agevi_role"] = "new"
    with caplog.at_level(logging.WARNING, "agevi"):
        agevi.tl.aggregate_subjects(cohort)
        expected = [r.getMessage() for r in caplog.records if "median age" in r.getMessage()]
        caplog.clear()
        calls = []
        for module in (_samples, _judged):
            find = module.references
            monkeypatch.setattr(module, "references", lambda *a, find=find: calls.append(1) or find(*a))
        agevi.get.metrics_df(cohort)
    assert len(calls) == 1
    assert [r.getMessage() for r in caplog.records] == expected != []


def test_fitted_subjects_are_not_judged(cohort, trained, caplog):
    agevi.tl.predict_age(cohort, trained)
    cohort.obs["agevi_role"] = "train"
    with caplog.at_level(logging.WARNING, "agevi"):
        agevi.tl.aggregate_subjects(cohort)
    assert "median age" not in caplog.text


def test_the_median_of_the_training_ages_travels_with_the_clock(cohort, tmp_path):
    agevi.model.PLSClock.setup_anndata(cohort, **KEYS)
    model = agevi.model.PLSClock(cohort)
    model.train()
    train = cohort.obs[cohort.obs["agevi_split"] == "train"]
    median = train.groupby("donor", observed=True)["age"].first().median()
    model.save(tmp_path / "clock")
    new = cohort.copy()
    new.obs["donor"] = "n" + new.obs["donor"].astype(str)
    agevi.tl.predict_age(new, agevi.io.load_clock(tmp_path / "clock"))
    agevi.tl.aggregate_subjects(new)
    table = agevi.get.metrics_df(new)
    ages = new.obs.groupby("donor")["age"].first()
    assert table.loc["new", "mae_median"] == pytest.approx(np.abs(ages - median).mean(), rel=1e-5)
    agevi.tl.predict_age(new, agevi.model.EnsembleClock([model, model]), overwrite=True)
    assert new.uns["agevi"]["median_age"] == pytest.approx(median, rel=1e-6)


def test_without_training_ages_the_subjects_own_median_is_the_baseline(caplog):
    adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=2, n_genes=20, rng=5)
    table = pd.DataFrame({"gene": ["intercept", *adata.var_names[:2]], "coef": [300.0, 0.5, 0.5]})
    agevi.tl.predict_age(adata, agevi.model.LinearClock.from_coefficients(table, values="any"))
    with caplog.at_level(logging.WARNING, "agevi"):
        agevi.tl.aggregate_subjects(adata)
    assert "than by the median age of these subjects: MAE" in caplog.text


@pytest.mark.slow
def test_types_without_signal_are_named_and_the_figure_has_their_own_baseline(caplog):
    rates = [1.5, 1.5, 0]
    adata = agevi.datasets.simulate_cohort(
        60, 30, 60, effect_range=(0.6, 0.9), ageing_rates=rates, composition_shift=0, n_cell_types=3, rng=3
    )
    agevi.tl.cross_validate(adata, agevi.model.PLSClock, **KEYS, groupby="cell_type", min_cells=3)
    agevi.tl.aggregate_subjects(adata)
    for step in (agevi.get.metrics_df, agevi.pl.predicted_vs_actual):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "agevi"):
            found = step(adata, groupby="cell_type")
        said = [r.getMessage() for r in caplog.records if "median age" in r.getMessage()]
        assert len(said) == 1
        assert said[0].endswith("better than by the median age in 1 of 3 types of adata.obs['cell_type']: 'type2'.")
    table = agevi.get.metrics_df(adata, groupby="cell_type")
    for name, ax in found.items():
        written = " ".join(text.get_text() for text in ax.findobj(Text))
        assert f"{table.loc[name, 'mae_median']:.2f}" in written
