"""A table of samples of which some no longer have cells is not judged."""

from __future__ import annotations

import logging
import time

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi import _keys, _subjects
from tests.tl.intervals.cohorts import predicted

REFUSED = "of 60 samples of adata.uns['agevi_subjects'] ("
JUDGES = {
    "metrics_df": agevi.get.metrics_df,
    "predicted_vs_actual": agevi.pl.predicted_vs_actual,
    "subject_intervals": agevi.pl.subject_intervals,
    "pl.calibration": agevi.pl.calibration,
    "calibrate": agevi.tl.calibrate,
    "recalibrate": lambda a: agevi.tl.recalibrate(a, by=None, labels="known"),
    "subject_posterior": agevi.tl.subject_posterior,
    "evaluate_by": agevi.tl.evaluate_by,
    "trend_test": lambda a: agevi.tl.trend_test(a, order_key="age"),
    "normative_scores": agevi.tl.normative_scores,
    "age_acceleration": lambda a: agevi.tl.age_acceleration(a, groupby="cohort", reference="a", n_permutations=0),
}


@pytest.fixture
def whole():
    adata = predicted(60)
    agevi.tl.calibrate(adata)
    adata.obs["known"] = adata.obs["age"].where(adata.obs["donor"] < "s0012")
    return adata


@pytest.mark.parametrize("name", JUDGES)
def test_a_table_of_removed_samples_is_not_judged(whole, name):
    part = whole[whole.obs["cohort"] == "b"].copy()
    judge = JUDGES[name]
    before = {key: value.copy() for key, value in part.uns.items()}
    with pytest.raises(ValueError) as error:
        judge(part)
    assert "samples of adata.uns['agevi_subjects'] (" in str(error.value)
    assert "have no cells in adata.obs['visit'" in str(error.value)
    assert set(part.uns) == set(before)
    plt.close("all")


@pytest.mark.slow
def test_after_the_advice_it_is_judged(whole):
    part = whole[whole.obs["donor"] < "s0040"].copy()
    agevi.tl.aggregate_subjects(part)
    assert agevi.get.metrics_df(part)["n"].tolist() == [40]
    agevi.tl.calibrate(part)
    agevi.pl.subject_intervals(part)
    plt.close("all")


def test_subjects_df_returns_the_table_and_says_so(whole, caplog):
    part = whole[whole.obs["cohort"] == "b"].copy()
    n = part.obs["visit"].nunique()
    with caplog.at_level(logging.WARNING, "agevi"):
        assert len(agevi.get.subjects_df(part)) == 60
    assert [r.getMessage().startswith(f"{60 - n} {REFUSED}'s0000_0'") for r in caplog.records] == [True]


@pytest.mark.parametrize("change", ["no column", "no record", "other samples", "empty record"])
def test_planted_tables_are_judged(whole, change):
    """Without the column, and where the table is of another one, nothing can be told."""
    part = whole[whole.obs["donor"] < "s0040"].copy()
    if change == "no column":
        del part.obs["visit"]
    elif change == "no record":
        del part.uns["agevi"]
    elif change == "other samples":
        part.uns["agevi_subjects"].index = "x" + part.uns["agevi_subjects"].index
    else:
        part.uns["agevi"] = {}
    assert agevi.get.metrics_df(part)["n"].tolist() == [60]


def test_names_are_compared_as_names(whole):
    """Numbers in a column are the text of the table."""
    whole.obs["visit"] = np.repeat(np.arange(60.0), 2)
    agevi.tl.aggregate_subjects(whole)
    assert agevi.get.metrics_df(whole)["n"].tolist() == [60]
    with pytest.raises(ValueError, match="20 of 60 samples"):
        agevi.get.metrics_df(whole[whole.obs["visit"] < 40].copy())


@pytest.mark.slow
def test_the_cost_is_that_of_the_samples(whole):
    obs = pd.DataFrame({"visit": pd.Categorical(np.tile(whole.uns["agevi_subjects"].index, 20_000))})
    obs.index = obs.index.astype(str)
    big = ad.AnnData(np.zeros((len(obs), 1), dtype=np.float32), obs=obs, uns=dict(whole.uns))
    start = time.process_time()
    _subjects.subject_table(big, _keys.Keys())
    assert time.process_time() - start < 1
