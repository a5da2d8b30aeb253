from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp

from agevi.tl.validate._baselines import (
    ALPHAS,
    make_units,
    median_ages,
    profiles,
    ridge_ages,
    shuffled_ages,
)
from agevi.tl.validate._cohort import make_cohort
from agevi.tl.validate._jobs import stream

SETUP = {"age_key": "age", "subject_key": "donor", "sample_key": None, "min_age": -1.0, "age_unit": "years"}


def cohort_of(adata, n_folds=4, train_on=None, **setup):
    return make_cohort(
        adata, SETUP | setup, n_folds=n_folds, fold_key=None, stratify_by=None, train_on=train_on, seed=stream(0, 0)
    )


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray], ids=["csr", "csc", "dense"])
def test_profiles(cohort, form):
    people = cohort_of(cohort, train_on="cell_type == 'type0'")
    units = make_units(people)
    x = cohort.X.toarray().astype(np.float64)
    some = people.trains
    for cells in (np.ones(cohort.n_obs, dtype=bool), some):
        sums = np.stack([x[(people.sample == i) & cells].sum(axis=0) for i in range(24)])
        expected = np.log1p(sums / sums.sum(axis=1, keepdims=True) * 1e4)
        found = profiles(form(cohort.X.toarray()), units, cells=cells, normalize="log1p_cp10k")
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        n = np.bincount(people.sample[cells], minlength=24)
        found = profiles(form(cohort.X.toarray()), units, cells=cells, normalize="none")
        np.testing.assert_allclose(found, sums / n[:, None], rtol=1e-5)


def test_units_are_samples_unless_a_fold_takes_single_cells(cohort):
    people = cohort_of(cohort, train_on="sex == 'male'")
    units = make_units(people)
    assert units.sample.tolist() == list(range(24))
    np.testing.assert_array_equal(units.cell, people.sample)
    np.testing.assert_array_equal(units.fold[units.cell], people.fold)
    np.testing.assert_array_equal(units.trains[units.cell], cohort.obs["sex"] == "male")
    split = make_units(dataclasses.replace(people, fold=np.arange(480) % 4))
    assert len(split.sample) == 96
    np.testing.assert_allclose(
        split.mean(np.arange(480.0)), [np.arange(480.0)[split.cell == i].mean() for i in range(96)]
    )


def test_median(cohort):
    cohort.obs.loc[cohort.obs["donor"] == "d03", "age"] = np.nan
    people = cohort_of(cohort, train_on="sex == 'male'")
    units = make_units(people)
    found = median_ages(units, np.stack([people.age, people.age + 7]))
    for i in range(24):
        trained = units.trains & (units.fold != units.fold[i]) & ~np.isnan(people.age)
        np.testing.assert_allclose(found[:, i], np.median(people.age[trained]) + np.array([0, 7]))


def ridge_by_hand(x, y, new):
    """Ridge with an intercept that is not penalised, the penalty with the least error in refits without one sample."""

    def fit(a, b, alpha):
        centre, mean = a.mean(axis=0), b.mean()
        solved = np.linalg.solve(
            (a - centre).T @ (a - centre) + alpha * np.eye(a.shape[1]), (a - centre).T @ (b - mean)
        )
        return lambda z: (z - centre) @ solved + mean

    errors = []
    for alpha in ALPHAS:
        left_out = [fit(np.delete(x, i, 0), np.delete(y, i), alpha)(x[i]) - y[i] for i in range(len(y))]
        errors.append(np.mean(np.square(left_out)))
    return fit(x, y, ALPHAS[int(np.argmin(errors))])(new)


def test_ridge_equals_its_definition(cohort):
    cohort.obs.loc[cohort.obs["donor"] == "d03", "age"] = np.nan
    people = cohort_of(cohort, n_folds=3)
    units = make_units(people)
    values = profiles(cohort.X, units, cells=np.ones(480, dtype=bool), normalize="log1p_cp10k")
    rng = np.random.default_rng(0)
    targets = np.stack([people.age, np.where(np.isnan(people.age), np.nan, rng.uniform(20, 90, 24))])
    found = ridge_ages(values, values + 0.01, units, targets)
    for fold in range(3):
        test = units.fold == fold
        train = ~test & ~np.isnan(people.age)
        centre, sd = values[train].mean(axis=0), values[train].std(axis=0)
        x, new = (values[train] - centre) / sd, (values[test] + 0.01 - centre) / sd
        for target, predicted in zip(targets, found, strict=True):
            np.testing.assert_allclose(predicted[test], ridge_by_hand(x, target[train], new), rtol=1e-4)


def test_shuffled_ages(cohort):
    visit = np.arange(480) % 2
    cohort.obs["visit"] = cohort.obs["donor"].astype(str) + "-" + visit.astype(str)
    cohort.obs["age"] += 4.0 * visit
    cohort.obs.loc[cohort.obs["donor"] == "d03", "age"] = np.nan
    people = cohort_of(cohort, sample_key="visit")
    first, same, other = (shuffled_ages(people, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    mean = lambda ages: ages.reshape(24, 2).mean(axis=1)  # noqa: E731
    assert np.isnan(first).tolist() == np.isnan(people.age).tolist()
    inside = (first > np.nanmin(people.age)) & (first < np.nanmax(people.age))
    np.testing.assert_allclose(np.diff(first.reshape(24, 2))[inside.reshape(24, 2).all(axis=1)], 4.0)
    assert (mean(first)[~np.isnan(mean(first))] != mean(people.age)[~np.isnan(mean(first))]).mean() > 0.5
