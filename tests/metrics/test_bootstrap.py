from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from agevi import metrics
from agevi.metrics import _bootstrap


@pytest.fixture
def cohort():
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 90, 60)
    return age, 20 + 0.6 * age + rng.normal(0, 8, 60)


def test_interval_of_the_mae_equals_scipy(cohort):
    """The percentile interval of a mean, against scipy's bootstrap of the same mean with its own draws."""
    low, high = metrics.bootstrap_interval(metrics.mae, *cohort, n_boot=20_000, rng=1)
    error = np.abs(cohort[0] - cohort[1])
    reference = scipy.stats.bootstrap(
        (error,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    np.testing.assert_allclose([low, high], reference, rtol=0.01)


def test_level_widens(cohort):
    narrow = metrics.bootstrap_interval(metrics.mae, *cohort, level=0.5)
    wide = metrics.bootstrap_interval(metrics.mae, *cohort, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize(
    "metric",
    [metrics.mae, metrics.rmse, metrics.mdae, metrics.mad, metrics.r2, metrics.pearson, metrics.spearman],
    ids=lambda m: m.__name__,
)
def test_all_at_once_equals_one_by_one(cohort, metric):
    once = metrics.bootstrap_interval(metric, *cohort, n_boot=200, rng=3)
    single = metrics.bootstrap_interval(lambda a, p: metric(a, p), *cohort, n_boot=200, rng=3)
    np.testing.assert_allclose(once, single, rtol=1e-12)


def test_pieces_do_not_change_the_number_of_draws(cohort, monkeypatch):
    monkeypatch.setattr(_bootstrap, "_VALUES", 60 * 7)
    seen = []
    metrics.bootstrap_interval(lambda a, p: seen.append(len(a)) or 0.0, *cohort, n_boot=50)
    assert seen == [60] * 50


def test_seeds(cohort):
    first, same, other = (metrics.bootstrap_interval(metrics.mae, *cohort, n_boot=100, rng=r) for r in (0, 0, 1))
    assert first == same
    assert first != other
    assert first == metrics.bootstrap_interval(metrics.mae, *cohort, n_boot=100, rng=np.random.default_rng(0))


def test_unlabelled_rows_are_left_out(cohort):
    age, predicted = cohort
    more = np.r_[age, np.nan], np.r_[predicted, 50.0]
    assert metrics.bootstrap_interval(metrics.mae, *more) == metrics.bootstrap_interval(metrics.mae, *cohort)


def test_groups_of_one_change_nothing(cohort):
    names = [f"d{i}" for i in range(60)]
    grouped = metrics.bootstrap_interval(metrics.mae, *cohort, groups=names)
    assert grouped == metrics.bootstrap_interval(metrics.mae, *cohort)


def test_whole_subjects_are_drawn():
    """Five equal rows per subject carry one subject's information: the interval is that of the subjects alone."""
    rng = np.random.default_rng(5)
    age, predicted = rng.uniform(20, 90, 30), rng.uniform(20, 90, 30)
    names = np.repeat(np.arange(30), 5)
    repeated = metrics.bootstrap_interval(
        metrics.mae, np.repeat(age, 5), np.repeat(predicted, 5), groups=names, n_boot=4000
    )
    alone = metrics.bootstrap_interval(metrics.mae, age, predicted, n_boot=4000)
    naive = metrics.bootstrap_interval(metrics.mae, np.repeat(age, 5), np.repeat(predicted, 5), n_boot=4000)
    np.testing.assert_allclose(repeated, alone, rtol=0.03)
    assert naive[1] - naive[0] < 0.6 * (alone[1] - alone[0])


def test_groups_with_unlabelled_rows_and_an_own_metric():
    age = [20.0, np.nan, 40.0, 60.0, 61.0]
    low, high = metrics.bootstrap_interval(
        lambda a, p: float(np.mean(p - a)), age, [21.0, 0.0, 41.0, 61.0, 62.0], groups=list("aabcc"), n_boot=50
    )
    assert low == pytest.approx(1.0)
    assert high == pytest.approx(1.0)


def test_undefined_in_every_draw_is_nan(recwarn):
    low, high = metrics.bootstrap_interval(metrics.pearson, [1.0, 2.0, 3.0], [5.0, 5.0, 5.0], n_boot=20)
    assert np.isnan(low)
    assert np.isnan(high)
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"level": 1.5}, "level=1.5 is not a coverage", id="level"),
        pytest.param({"n_boot": 0}, "n_boot=0 is not a number of draws; pass 1 or more", id="n_boot"),
        pytest.param(
            {"groups": ["a"]}, r"groups has shape \(1,\) and age has \(60,\); pass one subject per row", id="groups"
        ),
    ],
)
def test_refuses(cohort, arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.bootstrap_interval(metrics.mae, *cohort, **arguments)


def test_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="age has 3 values and predicted has 2"):
        metrics.bootstrap_interval(metrics.mae, [1, 2, 3], [1, 2])
