from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from agevi import metrics

SINGLE = [metrics.mae, metrics.rmse, metrics.mdae, metrics.mad, metrics.r2, metrics.pearson, metrics.spearman]
REFERENCES = [
    pytest.param(metrics.mae, sklearn.metrics.mean_absolute_error, id="mae"),
    pytest.param(metrics.rmse, sklearn.metrics.root_mean_squared_error, id="rmse"),
    pytest.param(metrics.mdae, sklearn.metrics.median_absolute_error, id="mdae"),
    pytest.param(metrics.mad, lambda a, p: scipy.stats.median_abs_deviation(np.subtract(p, a)), id="mad"),
    pytest.param(metrics.r2, sklearn.metrics.r2_score, id="r2"),
    pytest.param(metrics.pearson, lambda a, p: scipy.stats.pearsonr(a, p).statistic, id="pearson"),
    pytest.param(metrics.spearman, lambda a, p: scipy.stats.spearmanr(a, p).statistic, id="spearman"),
]


def cohort(n, seed, *, ties=False):
    rng = np.random.default_rng(seed)
    age = rng.integers(20, 40, n).astype(float) if ties else rng.uniform(20, 90, n)
    predicted = 20 + 0.6 * age + rng.normal(0, 8, n)
    return age, np.round(predicted / 5) * 5 if ties else predicted


@pytest.mark.parametrize(("metric", "reference"), REFERENCES)
@pytest.mark.parametrize(
    ("n", "ties"),
    [
        pytest.param(2, False, id="two"),
        pytest.param(3, False, id="three"),
        pytest.param(20, False, id="even"),
        pytest.param(101, True, id="ties"),
    ],
)
def test_metrics_equal_their_references(metric, reference, n, ties):
    age, predicted = cohort(n, seed=n, ties=ties)
    out = metric(age, predicted)
    assert type(out) is float
    np.testing.assert_allclose(out, reference(age, predicted), rtol=1e-12, atol=1e-12)


def test_lists_and_float32_are_taken():
    age, predicted = cohort(10, seed=0)
    assert metrics.mae(age.tolist(), predicted.astype(np.float32)) == pytest.approx(
        metrics.mae(age, predicted), rel=1e-6
    )


def test_mad_ignores_a_common_shift():
    age, predicted = cohort(30, seed=1)
    assert metrics.mad(age, age + 10) == pytest.approx(0)
    assert metrics.mad(age, predicted + 100) == pytest.approx(metrics.mad(age, predicted))


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_line_equals_scipy(level):
    age, predicted = cohort(25, seed=2)
    fit = metrics.slope_intercept(age, predicted, level=level)
    reference = scipy.stats.linregress(age, predicted)
    t = scipy.stats.t.ppf((1 + level) / 2, 23)
    expected = [
        reference.slope,
        reference.slope - t * reference.stderr,
        reference.slope + t * reference.stderr,
        reference.intercept,
        reference.intercept - t * reference.intercept_stderr,
        reference.intercept + t * reference.intercept_stderr,
    ]
    np.testing.assert_allclose(dataclasses.astuple(fit), expected, rtol=1e-10)


def test_interval_of_the_slope_covers_as_it_should():
    age = np.linspace(20, 90, 12)
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        fit = metrics.slope_intercept(age, 10 + 0.7 * age + rng.normal(0, 5, 12))
        hits += fit.slope_low <= 0.7 <= fit.slope_high
    assert abs(hits / 1000 - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 1000)


def test_line_is_frozen():
    fit = metrics.slope_intercept([1, 2, 3], [1, 2, 4])
    with pytest.raises(dataclasses.FrozenInstanceError):
        fit.slope = 1.0


def test_line_of_two_samples_has_no_interval():
    fit = metrics.slope_intercept([20, 40], [30, 40])
    assert (fit.slope, fit.intercept) == (0.5, 20.0)
    assert np.isnan([fit.slope_low, fit.slope_high, fit.intercept_low, fit.intercept_high]).all()


def test_line_of_equal_ages_is_undefined():
    assert np.isnan(dataclasses.astuple(metrics.slope_intercept([50, 50, 50], [1, 2, 3]))).all()


@pytest.mark.parametrize("constant", [0.1, 50.0, 1e-8, float(np.float32(41.3))])
def test_constant_predictions_have_no_correlation_and_no_warning(constant, recwarn):
    """A constant such as 0.1 has a mean that differs from it by rounding; it is constant all the same."""
    age, _ = cohort(7, seed=3)
    out = metrics.regression_metrics(age, np.full(7, constant))
    assert np.isnan(out["pearson"])
    assert np.isnan(out["spearman"])
    assert out["slope"] == pytest.approx(0, abs=1e-12)
    assert out["mae"] == pytest.approx(np.abs(age - constant).mean())
    assert out["r2"] == pytest.approx(sklearn.metrics.r2_score(age, np.full(7, constant)))
    assert len(recwarn) == 0


def test_constant_ages_leave_errors_defined(recwarn):
    out = metrics.regression_metrics(np.full(4, 30.1), [30.0, 31.0, 29.0, 35.0])
    undefined = {name for name, value in out.items() if np.isnan(value)}
    assert undefined == {
        "r2", "pearson", "spearman", "slope", "slope_low", "slope_high", "intercept", "intercept_low", "intercept_high"
    }  # fmt: skip
    assert len(recwarn) == 0


def test_regression_metrics_hold_every_metric_and_leave_out_unlabelled():
    age, predicted = cohort(20, seed=4)
    with_nan = np.r_[age, np.nan, np.nan]
    out = metrics.regression_metrics(with_nan, np.r_[predicted, 1.0, 2.0])
    assert out["n"] == 20
    for metric in SINGLE:
        assert out[metric.__name__] == metric(age, predicted)
    fit = dataclasses.asdict(metrics.slope_intercept(age, predicted))
    assert {name: out[name] for name in fit} == fit
    assert set(out) == {"n", *fit, *(m.__name__ for m in SINGLE)}


@pytest.mark.parametrize(
    ("age", "predicted", "message"),
    [
        pytest.param(
            [1, 2, 3], [1, 2], "age has 3 values and predicted has 2; pass one prediction per age", id="length"
        ),
        pytest.param([1], [2], r"only 1 row\(s\) with an age; a metric needs at least 2", id="one row"),
        pytest.param([], [], r"only 0 row\(s\)", id="no rows"),
        pytest.param([1, np.nan], [1, 2], r"age is missing or infinite in 1 of 2 rows \(first: row 1\)", id="NaN age"),
        pytest.param([1, np.inf], [1, 2], "age is missing or infinite in 1 of 2", id="infinite age"),
        pytest.param(
            [1, 2], [np.nan, 2], r"predicted is missing or infinite in 1 of 2 rows \(first: row 0\)", id="NaN"
        ),
        pytest.param([[1, 2]], [[1, 2]], r"shapes \(1, 2\) and \(1, 2\); pass one-dimensional arrays", id="two axes"),
    ],
)
@pytest.mark.parametrize("metric", [*SINGLE, metrics.slope_intercept], ids=lambda m: m.__name__)
def test_metrics_refuse(metric, age, predicted, message):
    with pytest.raises(ValueError, match=message):
        metric(age, predicted)


def test_regression_metrics_refuse_missing_predictions_and_too_few_ages():
    with pytest.raises(ValueError, match="predicted is missing or infinite in 1 of 2 rows"):
        metrics.regression_metrics([1, 2], [np.nan, 2])
    with pytest.raises(ValueError, match=r"only 1 row\(s\) with an age"):
        metrics.regression_metrics([1, np.nan, np.nan], [1, 2, 3])


@pytest.mark.parametrize("level", [0, 1, 95])
def test_level_is_a_coverage(level):
    with pytest.raises(ValueError, match=f"level={level} is not a coverage; pass a number between 0 and 1"):
        metrics.slope_intercept([1, 2, 3], [1, 2, 3], level=level)


@pytest.mark.parametrize("level", ["0.9", None, (0.8, 0.9)])
def test_level_is_a_number(level):
    with pytest.raises(TypeError, match="; pass a number between 0 and 1, such as 0.9"):
        metrics.slope_intercept([1, 2, 3], [1, 2, 3], level=level)
