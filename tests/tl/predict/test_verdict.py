"""The line that says that a clock is of no use."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import agevi
from agevi.get import _tables
from agevi.metrics._rows import error_ratio
from agevi.tl.predict import _verdict
from agevi.tl.predict._verdict import verdict

KEYS = {"age_key": "age", "subject_key": "donor"}


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
        for module in (_tables, _verdict):
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
