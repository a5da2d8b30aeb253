from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from agevi.pp.audit import _columns as columns
from agevi.pp.audit import _split as split


def cells_of_subjects(n_subjects=30, n_cells=12, signal=0.0, recognisable=0.0, seed=0):
    """Features of cells: noise, something of the subject, and something of the age."""
    rng = np.random.default_rng(seed)
    samples = columns.make_samples(rng.uniform(20, 90, n_subjects), np.arange(n_subjects), rng)
    sample = np.repeat(np.arange(n_subjects), n_cells)
    z = rng.normal(size=(len(sample), 40)) + recognisable * rng.normal(size=(n_subjects, 40))[sample]
    z[:, 0] += signal * (samples.age[sample] - 55) / 20
    return z.astype(np.float32), sample, samples, rng


@pytest.mark.slow
def test_errors_of_both_splits_are_those_of_ridge_regressions():
    z, sample, samples, rng = cells_of_subjects(signal=1.0)
    fold = rng.permutation(len(sample)) % 5
    ages = np.column_stack([samples.age, rng.permutation(samples.age)])
    expected = np.full((len(split._PENALTIES), 2), np.inf)
    for i, penalty in enumerate(split._PENALTIES):
        for k in range(2):
            predicted, y = np.zeros(len(sample)), ages[sample, k]
            for f in range(5):
                train = fold != f
                centred = z[train] - z[train].mean(axis=0)
                alpha = penalty * np.trace(centred.T @ centred) / z.shape[1]
                model = Ridge(alpha=alpha).fit(z[train].astype(np.float64), y[train])
                predicted[~train] = model.predict(z[~train].astype(np.float64))
            means = np.bincount(sample, weights=predicted) / np.bincount(sample)
            expected[i, k] = np.abs(means - ages[:, k]).mean()
    np.testing.assert_allclose(split._errors(z, sample, ages, fold), expected.min(axis=0), rtol=1e-3)


def compare(**arguments):
    z, sample, samples, rng = cells_of_subjects(**arguments)
    return split.compare_splits(z, sample, samples.age, samples.subject, samples.fold, rng)


def test_a_random_split_that_recognises_subjects_is_caught_by_shuffled_ages():
    found = compare(recognisable=1.0)
    assert found.recognises
    assert found.shuffled_cells < 0.8 * found.shuffled_subjects
    assert found.mae_cells < 0.8 * found.mae_subjects
    assert found.mae_subjects == pytest.approx(found.mae_median, rel=0.15)


def test_cells_that_do_not_know_their_subject_pass():
    found = compare()
    assert not found.recognises
    assert found.mae_cells == pytest.approx(found.mae_subjects, rel=0.05)


def test_the_age_itself_is_learnt_with_both_splits():
    found = compare(signal=2.0)
    assert found.mae_cells == pytest.approx(found.mae_subjects, rel=0.1)
    assert found.mae_subjects < 0.6 * found.mae_median
    assert found.shuffled_cells > 0.9 * found.shuffled_subjects


def test_cells_without_age_are_not_fitted():
    z, sample, samples, rng = cells_of_subjects(recognisable=1.0)
    more = np.vstack([z, np.full((50, 40), 1e6, dtype=np.float32)])
    arguments = (samples.age, samples.subject, samples.fold)
    alone = split.compare_splits(z, sample, *arguments, np.random.default_rng(1))
    assert split.compare_splits(more, np.r_[sample, np.full(50, -1)], *arguments, np.random.default_rng(1)) == alone
