"""Sums that are taken once in a call."""

from __future__ import annotations

import numpy as np
import pytest

import agevi
from agevi.model.base import _predict
from agevi.model.base._kept_sums import summed_once

SETUP = {"age_key": "age", "subject_key": "donor"}


@pytest.fixture
def summed(monkeypatch):
    """Cells of every pass that sums some."""
    passes, sum_rows = [], _predict.sum_rows

    def counted(x, codes, n_units, *dtype):
        passes.append(int((codes >= 0).sum()))
        return sum_rows(x, codes, n_units, *dtype)

    monkeypatch.setattr(_predict, "sum_rows", counted)
    return passes


def pls(adata, **setup):
    agevi.model.PLSClock.setup_anndata(adata, **SETUP, **setup)
    model = agevi.model.PLSClock(adata)
    model.train(split_key="everybody")
    return model


@pytest.fixture
def old(cohort):
    """Cells of the first half of the donors, who train; the second half is new."""
    cohort.obs["everybody"], cohort.obs["donor"] = "train", cohort.obs["donor"].astype(str)
    cohort.obs["lab"] = np.where(cohort.obs["donor"].str[-1].astype(int) < 5, "a", "b")
    return cohort[cohort.obs["donor"] < "d12"].copy()


def test_ages_and_the_verdict_come_from_the_same_sums(cohort, old, summed):
    model = pls(old)
    model.set_cohorts(old, by="lab")
    ages = agevi.tl.predict_age(cohort, model, copy=True).obs["agevi_predicted"]
    verdicts = agevi.tl.check_transport(cohort, model, by="lab")
    new = int((cohort.obs["donor"] >= "d12").sum())
    assert summed[-2:] == [cohort.n_obs, new]
    n = len(summed)
    both = agevi.tl.predict_age(cohort, model, by="lab", copy=True)
    assert summed[n:] == [cohort.n_obs]
    np.testing.assert_array_equal(both.obs["agevi_predicted"], ages)
    with summed_once():  # of all cells, and then of the new ones
        model.predict_age(cohort, level="sample")
        found = agevi.tl.check_transport(cohort, model, by="lab")
    np.testing.assert_allclose(found["level"], verdicts["level"], rtol=1e-6)
    np.testing.assert_array_equal(found["verdict"], verdicts["verdict"])


def test_members_that_read_the_same_genes_share_sums(old, summed):
    alike = agevi.model.EnsembleClock([pls(old), pls(old)])
    apart = agevi.model.EnsembleClock([pls(old), pls(old, features=old.var_names[:30])])
    for model, n in ((alike, 1), (apart, 2)):
        summed.clear()
        ages = model.predict_age(old, level="sample")
        assert summed == [old.n_obs] * n
        alone = np.stack([clock.predict_age(old, level="sample") for clock in model.clocks])
        expected = np.expm1(np.log1p(alone.astype(float) + 1).mean(axis=0)) - 1
        np.testing.assert_allclose(ages, expected, rtol=1e-5)


def test_parts_of_samples_are_summed_by_themselves(old, summed):
    model, some = pls(old), np.arange(0, old.n_obs, 2)
    alone = model.predict_age(old, indices=some, level="sample")
    other = old.copy()
    other.X = other.X * 2
    doubled = model.predict_age(other, indices=some, level="sample")
    summed.clear()
    with summed_once():
        model.predict_age(old, level="sample")
        np.testing.assert_array_equal(model.predict_age(old, indices=some, level="sample"), alone)
        np.testing.assert_array_equal(model.predict_age(other, indices=some, level="sample"), doubled)
        twice = model.predict_age(old, indices=np.repeat(some, 2), level="sample")
    assert summed == [old.n_obs, len(some), len(some)]
    np.testing.assert_allclose(twice[::2], alone, rtol=1e-5)
