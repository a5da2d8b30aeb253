from __future__ import annotations

import logging

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import ElasticNet

from agevi.model.linear import _moments, _scaled_rows
from agevi.model.linear._moments import MomentProblem
from agevi.model.linear._scaled_rows import SampleTargets, ScaledRows

N_GENES = 120


@pytest.fixture(scope="module")
def data():
    """Sparse rows of 30 samples of different size and weight, 3 folds."""
    rng = np.random.default_rng(0)
    unit = np.repeat(np.arange(30), rng.integers(5, 40, 30))
    target = rng.normal(size=30)
    effect = np.where(rng.random(N_GENES) < 0.2, rng.normal(size=N_GENES), 0)
    rate = np.exp(rng.normal(-1, 1, N_GENES) + 0.3 * target[unit, None] * effect)
    x = sp.csr_matrix(rng.poisson(rate * rng.gamma(2, 0.5, (len(unit), N_GENES))).astype(np.float32))
    samples = SampleTargets(target, rng.uniform(0.5, 2, 30), rng.permutation(30) % 3)
    dense = x.toarray().astype(np.float64)
    log = np.log1p(dense / dense.sum(1, keepdims=True) * 1e4)
    rows = ScaledRows(x, np.arange(len(unit)), unit, normalize="log1p_cp10k", mean=log.mean(0), sd=log.std(0))
    return rows, samples, (log - log.mean(0)) / log.std(0)


def row_weights(samples, unit):
    return (samples.weight / np.bincount(unit))[unit]


def loss(z, y, weight, coefficients, intercept, alpha, l1_ratio):
    residual = y - z @ coefficients - intercept
    penalty = l1_ratio * np.abs(coefficients).sum() + 0.5 * (1 - l1_ratio) * coefficients @ coefficients
    return 0.5 * np.average(residual**2, weights=weight) + alpha * penalty


def scikit_learn(z, y, weight, alpha, l1_ratio):
    return ElasticNet(alpha=alpha, l1_ratio=l1_ratio, tol=1e-9, max_iter=100_000).fit(z, y, sample_weight=weight)


@pytest.mark.parametrize("genes_per_pass", [1024, 10])
@pytest.mark.parametrize("exact_bytes", [10**9, 0], ids=["float64", "float32"])
@pytest.mark.parametrize("share", [0.5, 0.05])
@pytest.mark.parametrize("l1_ratio", [0.1, 1.0])
def test_objective_equals_scikit_learns(data, monkeypatch, l1_ratio, share, exact_bytes, genes_per_pass):
    monkeypatch.setattr(_moments, "_EXACT_BYTES", exact_bytes)
    monkeypatch.setattr(_scaled_rows, "_BLOCK", 50)
    rows, samples, z = data
    problem = MomentProblem(rows, samples, genes_per_pass=genes_per_pass)
    alpha = share * problem.largest() / l1_ratio
    fit = problem.refit(alpha, l1_ratio)
    y, weight = samples.target[rows.unit], row_weights(samples, rows.unit)
    net = scikit_learn(z, y, weight, alpha, l1_ratio)
    ours = loss(z, y, weight, fit.coefficients, fit.intercept, alpha, l1_ratio)
    theirs = loss(z, y, weight, net.coef_, net.intercept_, alpha, l1_ratio)
    assert fit.converged
    assert ours == pytest.approx(theirs, rel=1e-6 if exact_bytes else 1e-4)
    np.testing.assert_allclose(fit.coefficients, net.coef_, atol=1e-6 if exact_bytes else 1e-3)
    assert fit.intercept == pytest.approx(net.intercept_, abs=1e-5 if exact_bytes else 1e-3)
    assert (len(problem.screened) < N_GENES) == (genes_per_pass == 10 and share == 0.5)


def test_errors_are_those_of_nets_fitted_without_the_fold(data):
    rows, samples, z = data
    problem = MomentProblem(rows, samples)
    means = np.array([z[rows.unit == s].mean(0) for s in range(30)])
    weight = row_weights(samples, rows.unit)
    for alpha in (0.2, 0.05):
        found = problem.errors(alpha, 0.5)
        for fold in range(3):
            train, held = samples.fold[rows.unit] != fold, samples.fold == fold
            net = scikit_learn(z[train], samples.target[rows.unit][train], weight[train], alpha, 0.5)
            squares = (samples.target[held] - net.predict(means[held])) ** 2
            assert found[fold] == pytest.approx(np.average(squares, weights=samples.weight[held]), rel=1e-6)


def test_errors_can_be_those_of_other_values(data):
    rows, samples, _ = data
    other = np.random.default_rng(0).normal(size=(30, N_GENES))
    errors = MomentProblem(rows, samples, other).errors(0.1, 0.5)
    assert not np.allclose(errors, MomentProblem(rows, samples).errors(0.1, 0.5))


def test_a_path_ends_where_the_memory_does(data, caplog, monkeypatch):
    monkeypatch.setattr(_moments, "_MIN_GENES", 1)
    rows, samples, z = data
    problem = MomentProblem(rows, samples, max_bytes=15 * 8 * N_GENES * 4)
    assert problem.capacity == 15
    whole = MomentProblem(rows, samples)
    np.testing.assert_allclose(problem.errors(0.3, 1.0), whole.errors(0.3, 1.0))
    with caplog.at_level(logging.INFO, "agevi"):
        assert problem.errors(0.01, 1.0) is None
    assert "genes want to enter beside the 15 in memory" in caplog.text
    assert not problem.refit(0.01, 1.0).converged


def test_a_target_that_nothing_explains(data):
    rows, samples, _ = data
    flat = SampleTargets(np.zeros(30), samples.weight, samples.fold)
    fit = MomentProblem(rows, flat).refit(0.1, 0.5)
    assert (fit.coefficients == 0).all()
    assert fit.intercept == 0
