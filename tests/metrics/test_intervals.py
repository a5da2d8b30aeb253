"""Coverage, width and interval score against closed forms and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from agevi import metrics

AGE = np.array([30.0, 50.0, 70.0, 20.0])
LOWER = np.array([20.0, 45.0, 71.0, 20.0])
UPPER = np.array([40.0, 60.0, 80.0, 30.0])


def test_values_by_hand():
    assert metrics.coverage(AGE, LOWER, UPPER) == 0.75  # a limit belongs to its interval
    assert metrics.mean_width(LOWER, UPPER) == 13.5
    assert metrics.interval_score(AGE, LOWER, UPPER, level=0.8) == pytest.approx(13.5 + 10 * 1 / 4)


def test_the_score_is_smallest_for_quantiles_of_the_truth():
    age = np.random.default_rng(0).normal(50, 10, 20000)
    score = [
        metrics.interval_score(age, np.full(20000, 50 - z * 10), np.full(20000, 50 + z * 10))
        for z in norm.ppf([0.9, 0.95, 0.975])
    ]
    assert score[1] == min(score)


def test_table_by_group():
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 80, 90)
    predicted = age + rng.normal(size=90) * 6
    sex = np.where(np.arange(90) % 2, "f", "m").astype(object)
    sex[:3] = None
    age[4] = np.nan
    table = metrics.interval_metrics(age, predicted - 9, predicted + 9, predicted=predicted, groups={"sex": sex})
    assert table["groupby"].tolist() == ["overall", *["predicted"] * 3, *["age"] * 3, "sex", "sex"]
    overall = table.iloc[0]
    inside = np.abs(predicted - age)[~np.isnan(age)] <= 9
    assert overall["n"] == 89
    assert overall["coverage"] == pytest.approx(inside.mean())
    wanted = proportion_confint(inside.sum(), 89, method="wilson")
    np.testing.assert_allclose(overall[["coverage_low", "coverage_high"]].astype(float), wanted)
    assert table.loc[table["groupby"] == "age", "n"].sum() == 89
    assert table.loc[table["groupby"] == "sex", "n"].sum() == 86
    np.testing.assert_allclose(table["width"], 18)


def test_equal_ages_make_one_third():
    table = metrics.interval_metrics([50, 50, 50], [40, 40, 40], [60, 60, 60])
    assert table["group"].tolist() == ["", "50 to 50"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: metrics.coverage([1, 2], [0], [3]), r"shapes \(2,\), \(1,\) and \(1,\)", id="shapes"),
        pytest.param(
            lambda: metrics.coverage([1, np.nan], [0, 0], [3, 3]), "age is missing or infinite in 1 of 2", id="nan"
        ),
        pytest.param(lambda: metrics.mean_width([0, 5], [3, 4]), r"lower is above upper in row 1 \(5, 4\)", id="order"),
        pytest.param(lambda: metrics.interval_score([1], [0], [3], level=90), "level=90 is not a coverage", id="level"),
        pytest.param(lambda: metrics.interval_metrics([np.nan], [0], [3]), "none of 1 samples has an age", id="none"),
    ],
)
def test_what_cannot_be_judged_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
