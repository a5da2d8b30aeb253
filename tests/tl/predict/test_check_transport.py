"""Verdicts on cohorts: the rules one by one, and what a user sees."""

from __future__ import annotations

import logging
import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.tl.predict._verdict import VERDICTS, Found, judge


def found(**changes) -> Found:
    out = {
        "n_subjects": 20, "gene_coverage": 1.0, "outside": 0.1, "level": 50.0, "level_anchor": np.nan, "n_anchored": 0,
        "n_cohorts": 3, "n_trained": 200, "mean_age": 50.0, "slope": 0.8, "left_out": np.nan, "n_left_out": 0,
        "year": 1.0,
    }  # fmt: skip
    return Found(**(out | changes))


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, "supported", "as those of the 3 training cohorts do, predictions rise by 0.80 years per year"),
        ({"slope": np.nan}, "supported", "3 training cohorts do."),
        ({"gene_coverage": 0.89}, "genes missing", "carry 89% of what the clock reads of age, under 90%"),
        ({"outside": 0.5}, "shifted", "50% of samples lie outside"),
        (
            {"outside": 1.0, "n_anchored": 5, "level_anchor": 55.9},
            "unproven",
            "only -5.9 years from the anchor (5 subjects)",
        ),
        ({"outside": 0.4, "n_anchored": 5, "level_anchor": 55.9}, "supported", "vary"),
        ({"outside": 0.0, "n_anchored": 5, "level_anchor": 43.9}, "shifted", "+6.1 years from the anchor (5 subjects)"),
        ({"outside": 0.6, "n_anchored": 4, "level_anchor": 50.0}, "shifted", "60% of samples"),
        ({"level": 63.0}, "shrunk", "likely too young by about 3.2 years"),
        ({"level": 38.0, "mean_age": 51.0}, "shrunk", "likely too old by about 3.2 years"),
        ({"level": 61.0}, "supported", ""),
        ({"slope": 0.49}, "shrunk", "rise by 0.49 years per year"),
        ({"slope": -0.1}, "shrunk", "rise by -0.10 years per year"),
        ({"n_cohorts": 1}, "unproven", "200 subjects of 1 cohort,"),
        ({"n_trained": 59}, "unproven", "59 subjects of 3 cohorts"),
        ({"n_cohorts": 0, "n_trained": 0, "mean_age": np.nan}, "unproven", "does not say on which cohorts"),
        ({"left_out": 6.1, "n_left_out": 5}, "unproven", "off by 6.1 years"),
        ({"left_out": 6.1, "n_left_out": 4}, "supported", ""),
        ({"left_out": 6.1, "n_left_out": 5, "year": 12.0}, "supported", ""),
        ({"n_cohorts": 1, "outside": 1.0, "gene_coverage": 0.5}, "genes missing", ""),
    ],
)
def test_the_first_rule_that_holds_gives_the_verdict(changes, verdict, words):
    said = judge(found(**changes), "cohort 'x'", "years", "agevi.tl.recalibrate(adata, by='lab'")
    assert said["verdict"] == verdict
    assert words in said["message"]
    assert said["message"].startswith(f"cohort 'x': {verdict}: ")
    assert verdict in VERDICTS


KEYS = {"age_key": "age", "subject_key": "donor"}


@pytest.fixture(scope="module")
def data():
    """Two training cohorts, and a new one whose genes have factors of their own, with donors from home beside it."""
    adata = agevi.datasets.simulate_cohort(
        n_subjects=160, n_cells=15, n_genes=80, n_age_genes=40, n_batches=2, batch_sd=0.3, rng=4
    )
    adata.obs["donor"] = adata.obs["donor"].astype(str)
    home = adata.obs["donor"].isin(adata.obs["donor"].unique()[:30]).to_numpy()
    old, new = adata[~home].copy(), adata[home].copy()
    other = new.copy()
    factor = np.exp(np.random.default_rng(0).normal(size=80) * 0.7)
    other.X = np.rint(other.X.toarray() * factor).astype(np.float32)
    new.obs["lab"], other.obs["lab"] = "home", "other"
    other.obs["donor"] = "other_" + other.obs["donor"]
    query = ad.concat([new, other], index_unique="_")
    old.obs["all"] = "train"
    agevi.model.PLSClock.setup_anndata(old, **KEYS)
    clock = agevi.model.PLSClock(old)
    clock.train(split_key="all")
    agevi.tl.cross_validate(old, agevi.model.PLSClock, **KEYS)
    agevi.tl.aggregate_subjects(old)
    clock.set_evaluation(old)
    clock.set_cohorts(old, by="batch")
    return old, query, clock


def test_a_cohort_of_other_factors_is_shifted_and_donors_from_home_are_not(data, caplog):
    _, query, clock = data
    with caplog.at_level(logging.INFO, logger="agevi"):
        table = agevi.tl.check_transport(query, clock, by="lab")
    assert table.set_index("cohort")["verdict"].to_dict() == {"home": "supported", "other": "shifted"}
    assert [record.message for record in caplog.records] == table["message"].tolist()
    assert table["n_subjects"].tolist() == [30, 30]
    assert table["slope"].iloc[0] == clock.evaluation["slope"]


def test_no_age_is_read_and_nothing_is_written(data):
    _, query, clock = data
    table = agevi.tl.check_transport(query, clock, by="lab")
    blind = query.copy()
    del blind.obs["age"]
    columns = list(blind.obs)
    pd.testing.assert_frame_equal(agevi.tl.check_transport(blind, clock, by="lab"), table)
    assert list(blind.obs) == columns
    assert not blind.uns


def test_an_anchor_decides_where_there_is_one(data):
    _, query, clock = data
    predicted = agevi.tl.predict_age(query, clock, copy=True)
    agevi.tl.aggregate_subjects(predicted)
    own = agevi.get.subjects_df(predicted).set_index("subject")["predicted"]
    same = agevi.tl.check_transport(query, clock, by="lab", anchor=own).set_index("cohort")
    np.testing.assert_allclose(same["level_anchor"], same["level"], rtol=1e-4)
    assert same.loc["other", "verdict"] != "shifted"
    apart = agevi.tl.check_transport(predicted, clock, by="lab", anchor=own + 8).set_index("cohort")
    assert (apart["verdict"] == "shifted").all()
    assert re.search(r"-8\.\d years from the anchor", apart.loc["home", "message"])
    few = agevi.tl.check_transport(query, clock, by="lab", anchor=(own + 8).iloc[:4]).set_index("cohort")
    assert few["n_anchored"].tolist() == [4, 0]
    assert few.loc["home", "verdict"] == "supported"
    agevi.tl.recalibrate(predicted, by="lab", anchor=own + 8)
    moved = agevi.get.subjects_df(predicted, key_added="recalibrated").set_index("subject")["predicted"]
    home = moved[~moved.index.str.startswith("other")].mean()
    assert apart.loc["home", "level_anchor"] == pytest.approx(home, abs=0.3)


def test_genes_that_are_absent_count_by_their_importance(data):
    _, query, clock = data
    of_age = np.argsort(-clock.reference_.importance)
    without = query[:, np.sort(of_age[20:])].copy()
    table = agevi.tl.check_transport(without, clock, by="lab")
    assert set(table["verdict"]) == {"genes missing"}
    np.testing.assert_allclose(table["gene_coverage"], clock.reference_.importance[of_age[20:]].sum(), rtol=1e-5)
    unimportant = query[:, np.sort(of_age[:-5])].copy()
    assert agevi.tl.check_transport(unimportant, clock, by="lab")["verdict"].tolist() == ["supported", "shifted"]


def test_prediction_gives_the_verdict_where_the_cohort_is_named(data, caplog):
    old, query, clock = data
    with caplog.at_level(logging.INFO, logger="agevi"):
        agevi.tl.predict_age(query.copy(), clock, by="lab")
    assert sum("cohort 'other': shifted" in record.message for record in caplog.records) == 1
    caplog.clear()
    agevi.tl.predict_age(old.copy(), clock, by="batch", key_added="again")  # all of them trained it
    assert not any("cohort" in record.message for record in caplog.records)


def test_subjects_that_trained_the_clock_are_left_out(data):
    old, query, clock = data
    with pytest.raises(ValueError, match=r"all subjects in adata.obs\['donor'\] trained the clock"):
        agevi.tl.check_transport(old, clock, by="batch")
    both = ad.concat([old, query[(query.obs["lab"] == "home").to_numpy()]], index_unique="_")
    assert agevi.tl.check_transport(both, clock, by=None)["n_subjects"].tolist() == [30]


def test_a_clock_that_does_not_know_its_cohorts_is_unproven(data):
    _, query, clock = data
    published = agevi.model.LinearClock.from_coefficients(pd.Series(np.linspace(-1, 1, 80), clock.genes), intercept=40)
    table = agevi.tl.check_transport(query, published, by="lab")
    assert set(table["verdict"]) == {"unproven"}
    assert "does not say on which cohorts it was trained" in table["message"].iloc[0]
    with pytest.raises(ValueError, match="names no subjects that it was trained on"):
        published.set_cohorts(query, by="lab")
    bulk = query[::15].copy()  # rows are samples where no column names them
    bulk.obs = bulk.obs[["lab"]]
    found = agevi.tl.check_transport(bulk, published, by="lab").set_index("cohort")
    assert found["n_subjects"].tolist() == [30, 30]
    expected = pd.Series(published.predict_age(bulk)).groupby(bulk.obs["lab"].to_numpy()).mean()
    np.testing.assert_allclose(found["level"], expected.loc[found.index], rtol=1e-5)


@pytest.mark.slow
def test_clocks_of_types_are_judged_one_by_one_and_told_in_one_line(caplog):
    adata = agevi.datasets.simulate_cohort(n_subjects=40, n_cells=20, n_genes=40, n_batches=2, n_cell_types=2, rng=0)
    agevi.model.CellTypeClock.setup_anndata(adata, **KEYS, cell_type_key="cell_type")
    model = agevi.model.CellTypeClock(adata, min_cells=3)
    model.train()
    model.set_cohorts(adata, by="batch")
    new = adata.copy()
    new.obs["donor"] = "new_" + new.obs["donor"].astype(str)
    caplog.clear()
    table = agevi.tl.check_transport(new, model, by="batch")
    assert table["clock"].tolist() == ["type0", "type1"] * 2
    assert [record.message for record in caplog.records] == [
        f"cohort 'batch{i}': unproven for 2 of 2 clocks; the table says why." for i in range(2)
    ]


def test_what_is_refused(data):
    _, query, clock = data
    with pytest.raises(KeyError, match="'laboratory' is not a column"):
        agevi.tl.check_transport(query, clock, by="laboratory")
    with pytest.raises(TypeError, match="trained clock"):
        agevi.tl.check_transport(query, agevi.model.PLSClock, by="lab")
    odd = query.copy()
    odd.obs["plate"] = np.arange(odd.n_obs) % 2
    with pytest.raises(ValueError, match="a sample is of one cohort"):
        agevi.tl.check_transport(odd, clock, by="plate")
