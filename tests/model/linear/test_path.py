from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import ElasticNetCV

from agevi.model.linear import _moments
from agevi.model.linear._moments import MomentProblem
from agevi.model.linear._path import alpha_grid, fit_samples, search, search_samples
from agevi.model.linear._scaled_rows import SampleTargets, ScaledRows
from tests.test_gates import check_message

RATIOS = (0.2, 0.9)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 40))
    x = (x - x.mean(0)) / x.std(0)
    y = x[:, :5].sum(1) + rng.normal(0, 2, 60)
    samples = SampleTargets((y - y.mean()) / y.std(), np.ones(60), rng.permutation(60) % 4)
    every = np.arange(60)
    rows = ScaledRows(x, every, every, normalize="none", mean=np.zeros(40), sd=np.ones(40))
    return x, samples, MomentProblem(rows, samples)


def folds(samples):
    return [(np.flatnonzero(samples.fold != k), np.flatnonzero(samples.fold == k)) for k in range(4)]


def test_errors_equal_those_of_scikit_learn(data):
    x, samples, problem = data
    reference = ElasticNetCV(l1_ratio=list(RATIOS), alphas=30, cv=folds(samples), tol=1e-10, max_iter=100_000)
    reference.fit(x, samples.target)
    found = search(problem, 30, RATIOS)
    for i, ratio in enumerate(RATIOS):
        own = found.l1_ratio == ratio
        expected = reference.mse_path_[i].mean(axis=1)
        np.testing.assert_allclose(found.alpha[own], reference.alphas_[i][: own.sum()])
        np.testing.assert_allclose(found.mse[own], expected[: own.sum()], rtol=1e-6)
        assert own.sum() - 1 - expected.argmin() == 3  # a path of 30 ends after 3 without a better error
    assert found.chosen == pytest.approx((reference.alpha_, reference.l1_ratio_))


@pytest.mark.parametrize("alphas", [pytest.param(30, id="path"), pytest.param([0.01, 1.0, 0.1], id="given")])
@pytest.mark.parametrize("even", [True, False], ids=["even", "weighted"])
def test_search_of_samples_equals_scikit_learn(data, even, alphas):
    x, samples, _ = data
    weight = np.ones(60) if even else np.random.default_rng(1).uniform(0.5, 2, 60)
    samples = SampleTargets(samples.target, weight, samples.fold)
    reference = ElasticNetCV(l1_ratio=list(RATIOS), alphas=alphas, cv=folds(samples))
    reference.fit(x, samples.target, sample_weight=weight)
    found = search_samples(x, samples, alphas, RATIOS, max_iter=1000, tol=1e-4)
    for i, ratio in enumerate(RATIOS):
        own, expected = found.mse[found.l1_ratio == ratio], reference.mse_path_[i].mean(axis=1)
        np.testing.assert_allclose(own, expected[: len(own)], rtol=1e-6)
        ended = len(own) - 1 - own.argmin() == 6  # a fifth of 30
        assert len(own) == len(expected) or (isinstance(alphas, int) and ended)
    assert found.chosen == pytest.approx((reference.alpha_, reference.l1_ratio_))


def test_search_of_samples_has_its_largest_penalty_where_scikit_learn_has(data):
    x, samples, _ = data
    weight = np.random.default_rng(1).uniform(0.5, 2, 60)
    reference = ElasticNetCV(l1_ratio=0.5, alphas=20, cv=folds(samples)).fit(x, samples.target, sample_weight=weight)
    samples = SampleTargets(samples.target, weight, samples.fold)
    found = search_samples(x, samples, 20, (0.5,), max_iter=1000, tol=1e-4)
    np.testing.assert_allclose(found.alpha, reference.alphas_[: len(found.alpha)])


def test_given_penalties_are_all_tried(data):
    _, _, problem = data
    found = search(problem, [0.01, 1.0, 0.1], (0.5, 1.0))
    np.testing.assert_array_equal(found.alpha, [1.0, 0.1, 0.01] * 2)
    np.testing.assert_array_equal(found.l1_ratio, [0.5] * 3 + [1.0] * 3)


def test_penalties_that_need_more_genes_than_fit(data, monkeypatch):
    x, samples, _ = data
    monkeypatch.setattr(_moments, "_MIN_GENES", 2)
    every = np.arange(60)
    rows = ScaledRows(x, every, every, normalize="none", mean=np.zeros(40), sd=np.ones(40))
    with pytest.raises(ValueError) as raised:
        search(MomentProblem(rows, samples, max_bytes=0), [0.001], (1.0,))
    check_message(raised, "at the largest, 0.001, more genes enter than fit into the memory")


@pytest.mark.parametrize("l1_ratio", RATIOS)
def test_grid_starts_where_all_genes_have_left(data, l1_ratio):
    x, samples, problem = data
    grid = alpha_grid(problem.largest(), l1_ratio, 50)
    reference = ElasticNetCV(l1_ratio=l1_ratio, eps=1e-3, alphas=50, cv=folds(samples)).fit(x, samples.target)
    np.testing.assert_allclose(grid, reference.alphas_)


def test_the_last_fit_says_whether_it_converged(data):
    x, samples, _ = data
    fit = fit_samples(x, samples, 0.01, 0.5, max_iter=1000, tol=1e-4)
    assert fit.converged
    assert not fit_samples(x, samples, 0.001, 0.5, max_iter=1, tol=1e-12).converged
