"""The conformal kernel against crepes, against the law of split-conformal coverage, and at its borders."""

from __future__ import annotations

import numpy as np
import pytest
from crepes import ConformalRegressor
from scipy.stats import beta, norm

from agevi.tl.intervals import _conformal
from agevi.tl.intervals._conformal import Calibration

BELOW = 1e-9  # crepes takes (1 - .9) * 10 for less than 1


def subjects(n, seed=0):
    """Ages, predictions whose errors grow with age, and numbers of cells."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(30, 90, n)
    cells = rng.integers(3, 200, n).astype(float)
    return age, age + rng.normal(size=n) * age / 8 * (1 + 5 / cells), cells


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("n", [9, 45, 600])
@pytest.mark.parametrize("scale", ["constant", "predicted", "mondrian"])
def test_intervals_are_those_of_crepes(n, level, scale):
    age, predicted, cells = subjects(n)
    new = np.linspace(35, 85, 40)
    features = ("predicted", "n_cells") if scale == "predicted" else ()
    ours = Calibration.of(
        age, predicted, cells, np.ones(n), level=level, scale=scale, features=features, min_age=-1000.0
    )
    theirs = ConformalRegressor()
    if scale == "constant":
        theirs.fit(age - predicted)
        options = {}
    elif scale == "predicted":
        theirs.fit(age - predicted, sigmas=ours.difficulty(predicted, cells))
        options = {"sigmas": ours.difficulty(new, np.full(40, 50.0))}
    else:
        theirs.fit(age - predicted, bins=ours.stratum(predicted))
        options = {"bins": ours.stratum(new)}
    if np.isnan(ours.quantiles()).any():
        with pytest.warns(UserWarning, match="too small"):
            expected = theirs.predict_int(new, confidence=level - BELOW, **options)
    else:
        expected = theirs.predict_int(new, confidence=level - BELOW, **options)
    found = np.stack(ours.interval(new, np.full(40, 50.0)), axis=1)
    expected[np.isinf(expected)] = np.nan
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [20, 45])
def test_coverage_follows_its_law_over_calibration_sets(n):
    level, draws = 0.9, 4000
    residual = np.abs(np.random.default_rng(n).normal(size=(draws, n)))
    q = np.array([_conformal.conformal_quantile(row, level) for row in residual])

    coverage = 2 * norm.cdf(q) - 1
    k = np.ceil((n + 1) * level)
    assert coverage.mean() == pytest.approx(k / (n + 1), abs=0.004)
    assert coverage.std() == pytest.approx(beta(k, n + 1 - k).std(), rel=0.1)


@pytest.mark.parametrize(("level", "n"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_the_number_of_subjects_that_a_level_needs(level, n):
    assert _conformal.needed(level) == n
    age, predicted, _ = subjects(n)
    assert np.isfinite(Calibration.fit(age, predicted, level=level).interval([50.0])).all()
    if n > 1:
        with pytest.raises(
            ValueError, match=rf"{n - 1} calibration subjects? cannot give level={level}, which needs {n} "
        ):
            Calibration.fit(age[1:], predicted[1:], level=level)
