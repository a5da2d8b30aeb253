from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import gmean

from agevi.dataloaders._sums import sample_means
from agevi.model.ensemble._average import average, check_weights, weights_from_errors
from tests.test_gates import check_message

AGES = np.array([[20.0, 35.5, 80.0, 0.0], [30.0, 35.5, 60.0, 3.0], [40.0, 35.5, 100.0, -0.5]])


@pytest.mark.parametrize("weights", [[1, 1, 1], [0.2, 0.5, 0.3], [0, 0, 1]], ids=["equal", "unequal", "one"])
@pytest.mark.parametrize("min_age", [-1.0, 0.0, -40.0])
def test_the_log_scale_is_a_geometric_mean(weights, min_age):
    weights = np.asarray(weights) / np.sum(weights)
    ages = np.maximum(AGES, min_age)
    expected = gmean(ages - min_age + 1, axis=0, weights=np.tile(weights[:, None], 4)) + min_age - 1
    np.testing.assert_allclose(average(AGES, weights, scale="log", min_age=min_age), expected, rtol=1e-6, atol=1e-6)


def test_the_age_scale_is_the_mean():
    weights = np.array([0.2, 0.5, 0.3])
    got = average(AGES, weights, scale="age", min_age=-1.0)
    np.testing.assert_allclose(got, np.average(AGES, axis=0, weights=weights), rtol=1e-6)
    assert got.dtype == np.float32


def test_ages_that_nobody_believes_count_as_the_lowest():
    ages = np.array([[-500.0], [40.0]])
    expected = average(np.array([[-1.0], [40.0]]), np.array([0.5, 0.5]), scale="log", min_age=-1.0)
    assert average(ages, np.array([0.5, 0.5]), scale="log", min_age=-1.0) == expected
    assert -1 < expected[0] < 40


def test_sample_means():
    rng = np.random.default_rng(0)
    ages, sample = rng.uniform(0, 90, 50), rng.integers(0, 7, 50)
    expected = pd.Series(ages).groupby(sample).transform("mean")
    np.testing.assert_allclose(sample_means(ages, sample), expected, rtol=1e-6)


def test_weights_fall_with_the_error():
    np.testing.assert_allclose(weights_from_errors([2.0, 4.0, 8.0]), np.array([4, 2, 1]) / 7)
    np.testing.assert_allclose(weights_from_errors([0.0, 5.0]), [1, 0], atol=1e-6)


def test_numbers_are_scaled_once():
    weights = check_weights([1, 3], 2)
    np.testing.assert_allclose(weights, [0.25, 0.75])
    third = check_weights([1, 1, 1], 3)
    np.testing.assert_array_equal(check_weights(third, 3), third)


@pytest.mark.parametrize("weights", [[1], [1, -1], [0, 0], [1, np.nan], 0.5, None, [[1, 1]], ["a", "b"]], ids=str)
def test_bad_weights(weights):
    with pytest.raises(ValueError, match="is neither") as raised:
        check_weights(weights, 2)
    check_message(raised, "is neither 'equal' nor 'inner' nor one number from 0 for each of the 2 clocks;")


def test_an_unknown_rule():
    with pytest.raises(ValueError, match="weights='best' is not known; choose one of 'equal', 'inner'"):
        check_weights("best", 2)
