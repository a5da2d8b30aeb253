from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from agevi.pp.audit import _columns as columns


def cohort(n=60, seed=0):
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 90, n)
    return columns.make_samples(age, np.arange(n), rng), rng


def only(table, sample, n):
    """The feature of the single column of a table, or None."""
    found = dict(columns.features(table, sample, table.columns, n))
    return found.get(table.columns[0])


def test_folds_hold_out_whole_subjects():
    subject = np.repeat(np.arange(20), 3)
    samples = columns.make_samples(np.arange(60.0), subject, np.random.default_rng(0))
    assert pd.Series(samples.fold).groupby(subject).nunique().eq(1).all()
    assert set(samples.fold) == set(range(5))
    assert samples.subject.max() + 1 == 20


def test_error_is_that_of_a_ridge_regression():
    samples, rng = cohort()
    values = np.eye(4)[rng.integers(4, size=60)]
    error, median = np.zeros(60), np.zeros(60)
    for fold in range(5):
        test = samples.fold == fold
        y = samples.age[~test]
        model = Ridge(alpha=1.0, fit_intercept=False).fit(values[~test], y - y.mean())
        shift = np.median(y - model.predict(values[~test]))
        error[test] = np.abs(samples.age[test] - model.predict(values[test]) - shift)
        median[test] = np.abs(samples.age[test] - np.median(y))
    found = columns.age_error(samples, values, 10, rng)
    assert (found.mae, found.mae_median) == pytest.approx((error.mean(), median.mean()))


def test_p_values_of_columns_without_signal_are_uniform():
    p = []
    for seed in range(60):
        samples, rng = cohort(seed=seed)
        p.append(columns.age_error(samples, np.eye(5)[rng.integers(5, size=60)], 100, rng).p)
    assert 0.35 < np.mean(p) < 0.65
    assert np.mean(np.array(p) < 0.1) < 0.25


def test_a_confounded_batch_is_found():
    samples, rng = cohort()
    batch = np.eye(3)[np.digitize(samples.age + rng.normal(0, 5, 60), [40, 65])]
    found = columns.age_error(samples, batch, 200, rng)
    assert found.p == pytest.approx(1 / 201)
    assert found.mae < 0.6 * found.mae_median


def test_visits_of_a_subject_are_no_evidence_of_their_own():
    """Twelve subjects with ten visits each: a column of subjects must not count 120 times."""
    p = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        subject = np.repeat(np.arange(12), 10)
        age = np.repeat(rng.uniform(20, 90, 12), 10) + np.tile(np.arange(10.0), 12)
        samples = columns.make_samples(age, subject, rng)
        p.append(columns.age_error(samples, np.eye(2)[rng.integers(2, size=12)][subject], 100, rng).p)
    assert np.mean(np.array(p) < 0.05) < 0.15


SAMPLE = np.repeat(np.arange(6), 4)


def test_labels_are_shares_of_cells():
    cells = ["B", "T", "T", "T"] * 3 + ["B", "B", "T", "T"] * 3
    feature = only(pd.DataFrame({"cell_type": pd.Categorical(cells)}), SAMPLE, 6)
    np.testing.assert_allclose(feature.values, [[0.25, 0.75]] * 3 + [[0.5, 0.5]] * 3)
    assert not feature.is_design
    batch = only(pd.DataFrame({"batch": np.repeat(["x", "y"], 12)}), SAMPLE, 6)
    np.testing.assert_allclose(batch.values, [[1, 0]] * 3 + [[0, 1]] * 3)
    assert batch.is_design
    assert batch.order is None


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.repeat("one", 24), id="one label"),
        pytest.param([f"s{i}" for i in SAMPLE], id="a label per sample"),
        pytest.param(np.full(24, 3.5), id="one number"),
        pytest.param(np.full(24, np.nan), id="nothing"),
        pytest.param([None] * 24, id="None"),
    ],
)
def test_columns_that_say_nothing_are_passed_over(values):
    assert only(pd.DataFrame({"x": values}), SAMPLE, 6) is None


def test_barcodes_are_passed_over():
    table = pd.DataFrame({"barcode": [f"{i % 150}" for i in range(600)]})
    assert only(table, np.arange(600) % 7, 7) is None


def test_numbers_are_means_of_cells():
    values = np.arange(24.0) + 0.5
    feature = only(pd.DataFrame({"depth": values}), SAMPLE, 6)
    np.testing.assert_allclose(feature.order, values.reshape(6, 4).mean(axis=1))
    assert not feature.is_design
    assert feature.values[:, 0].mean() == pytest.approx(0)
    np.testing.assert_allclose(feature.values[:, 1:].sum(axis=1), 1)  # one bin each
    assert only(pd.DataFrame({"bmi": np.repeat(values[:6], 4)}), SAMPLE, 6).is_design


def test_codes_are_labels_and_missing_values_a_label():
    feature = only(pd.DataFrame({"chip": np.repeat([1.0, 1.0, 2.0, 2.0, np.nan, np.nan], 4)}), SAMPLE, 6)
    assert feature.order is None
    assert feature.values.sum(axis=0).tolist() == [2, 2, 2]


def test_cells_without_age_do_not_count():
    sample = np.where(SAMPLE < 4, SAMPLE, -1)
    cells = ["a"] * 8 + ["b"] * 8 + ["c"] * 8
    assert only(pd.DataFrame({"x": cells}), sample, 4).values.shape == (4, 2)
