from __future__ import annotations

import dataclasses
import itertools
import logging

import numpy as np
import pytest
from scipy.stats import binomtest

import agevi
from agevi.tl.validate import _null
from agevi.tl.validate._baselines import make_units, profiles, ridge_ages, shuffled_ages
from tests.tl.validate.test_baselines import cohort_of


def simulated(n_subjects=40, rng=5, n_cells=30):
    return agevi.datasets.simulate_cohort(
        n_subjects=n_subjects, n_cells=n_cells, n_genes=150, subject_sd=0.2, rng=rng, n_jobs=1
    )


def of_ridge(adata, people, n=5):
    """What the ridge makes of shuffled ages."""
    units = make_units(people)
    values = profiles(adata.X, units, cells=np.ones(adata.n_obs, dtype=bool), normalize="log1p_cp10k")
    shuffled = [shuffled_ages(people, np.random.default_rng(i)) for i in range(n)]
    predicted = ridge_ages(values, values, units, np.stack(shuffled))
    return _null.null_summary(list(zip(shuffled, predicted, strict=True)), people, units, np.random.default_rng(0))


def test_the_p_value_is_the_share_of_all_orders():
    rng = np.random.default_rng(0)
    groups = [(rng.uniform(20, 90, n), rng.uniform(20, 90, n)) for n in (4, 1, 3)]
    sums = [[np.dot(order, predicted) for order in itertools.permutations(age)] for age, predicted in groups]
    found = sum(np.dot(age, predicted) for age, predicted in groups)
    expected = np.mean([sum(chosen) >= found - 1e-9 for chosen in itertools.product(*sums)])
    assert _null.exchange_p(groups, rng) == pytest.approx(expected, abs=0.04)


def test_predictions_that_are_all_the_same_say_nothing():
    age = np.random.default_rng(0).uniform(20, 90, 10)
    assert _null.exchange_p([(age, np.full(10, 55.3))], np.random.default_rng(0)) == 1


def test_the_p_value_is_uniform_where_folds_are_whole():
    """Also for few subjects and shuffles, and for a model that predicts means, which vary less than medians."""
    rng, p = np.random.default_rng(0), []
    for _ in range(400):
        groups = []
        for _ in range(3):  # shuffles, of which 5 of 24 subjects are held out
            age = rng.permutation(np.linspace(20, 90, 24))
            groups.append((age[:5], age[5:].mean() + rng.normal(0, 5, 5)))
        p.append(_null.exchange_p(groups, rng))
    for level in (0.05, 0.2):
        assert binomtest(int((np.array(p) <= level).sum()), len(p), level).pvalue > 0.01


@pytest.mark.slow
def test_the_level_holds_for_models_of_all_folds():
    """Folds of one shuffle go together, since each trains the others: summed up, twice as many p values would be small."""
    people, rng = cohort_of(simulated(24, n_cells=2), n_folds=5), np.random.default_rng(0)
    units, profile = make_units(people), rng.normal(size=(24, 30))
    shuffled = [shuffled_ages(people, rng) for _ in range(600)]
    predicted = ridge_ages(profile, profile, units, np.stack(shuffled))
    shuffles = list(zip(shuffled, predicted, strict=True))
    p = [_null.null_summary(shuffles[i : i + 2], people, units, rng)["null_p"] for i in range(0, 600, 2)]
    assert binomtest(int((np.array(p) <= 0.05).sum()), len(p), 0.05).pvalue > 0.01


@pytest.mark.slow
def test_cells_on_both_sides_are_found_and_nothing_else(caplog):
    adata = simulated()
    people = cohort_of(adata, n_folds=5)
    clean = of_ridge(adata, people)
    assert clean["n_null"] == 5
    assert clean["null_gain"] == pytest.approx(clean["null_mae_median"] - clean["null_mae"])
    by_cell = dataclasses.replace(people, fold=np.random.default_rng(0).permutation(np.arange(adata.n_obs) % 5))
    leaking = of_ridge(adata, by_cell)
    assert leaking["null_p"] == 1 / (_null.N_EXCHANGES + 1)
    assert leaking["null_gain"] > 5 * leaking["null_se"]
    _null.tell({"clean": clean, "none": {"n_null": 0}})
    assert caplog.text == ""
    _null.tell({"clean": clean, "leaking": leaking})
    assert (
        "leaking (p 0.0005): predicts ages that were shuffled between subjects, at a family-wise level of 5 %"
        in caplog.text
    )


@pytest.mark.slow
def test_one_shuffle_of_one_small_fold_is_enough_where_the_leak_is_strong():
    adata = simulated(24)
    people = cohort_of(adata, n_folds=4)
    by_cell = dataclasses.replace(people, fold=np.random.default_rng(0).permutation(np.arange(adata.n_obs) % 4))
    assert of_ridge(adata, by_cell, n=1)["null_p"] < 0.01


@pytest.mark.slow
def test_visits_that_are_not_judged_do_not_matter():
    """The distance of a visit from the mean of its subject is no part of what was dealt out."""
    adata = simulated(20, n_cells=4)
    second = np.arange(adata.n_obs) % 2 == 1
    donor = adata.obs["donor"].astype(str)
    adata.obs["visit"] = donor + np.where(second, " b", " a")
    adata.obs["age"] += np.where(second, 30.0, 0.0)
    judged = np.where(adata.obs["donor"].cat.codes % 2 == 0, second, ~second)  # half of them late, half early
    adata.obs["trains"] = judged
    people = cohort_of(adata, n_folds=2, sample_key="visit", train_on="trains")
    units, rng, p = make_units(people), np.random.default_rng(0), []
    for _ in range(100):
        age = shuffled_ages(people, rng)
        late = np.array([name.endswith("b") for name in people.samples])[units.sample]
        p.append(_null.null_summary([(age, 40.0 + 30 * late)], people, units, rng)["null_p"])
    assert np.mean(np.array(p) <= 0.05) < 0.13


def test_the_warning_keeps_its_level_over_models(caplog):
    """Holm: the smallest of four p values must be below 0.05 / 4, the next below 0.05 / 3."""
    row = {"n_null": 3, "null_smallest_p": 1e-4}
    _null.tell({name: row | {"null_p": p} for name, p in zip("abcd", (0.013, 0.2, 0.03, 0.6), strict=True)})
    assert caplog.text == ""
    _null.tell({name: row | {"null_p": p} for name, p in zip("abcd", (0.012, 0.016, 0.03, 0.6), strict=True)})
    assert "a (p 0.012), b (p 0.016): predicts" in caplog.text
    assert "c (p" not in caplog.text


def test_too_few_to_say_anything(caplog):
    caplog.set_level(logging.INFO, "agevi")
    few = [(np.array([30.0, 50.0]), np.array([31.0, 49.0]))]
    p = _null.exchange_p(few, np.random.default_rng(0))
    _null.tell({"small": {"n_null": 1, "null_p": p, "null_smallest_p": 0.5}})
    assert "The shuffled ages say nothing about small: too few subjects were held out" in caplog.text
    assert "predicts ages" not in caplog.text


def test_the_smallest_p_value_counts_orders():
    people = cohort_of(simulated(9, n_cells=4), n_folds=3)
    units, age = make_units(people), people.age
    predicted = np.where(units.fold == 0, 50.0, np.nan)
    summary = lambda n: _null.null_summary([(age, predicted)] * n, people, units, np.random.default_rng(0))  # noqa: E731
    assert summary(1)["null_smallest_p"] == pytest.approx(1 / 6)
    assert summary(2)["null_smallest_p"] == pytest.approx(1 / 36)
    assert summary(9)["null_smallest_p"] == 1 / (_null.N_EXCHANGES + 1)


@pytest.mark.slow
def test_copies_under_other_names_cannot_be_found():
    """The copy of a subject gets another shuffled age, so that what is learnt on one is wrong for the other."""
    adata = simulated()
    adata.obs["donor"] = adata.obs["donor"].astype(str) + np.where(np.arange(adata.n_obs) % 2, "", " again")
    assert of_ridge(adata, cohort_of(adata, n_folds=5))["null_p"] > 0.01
