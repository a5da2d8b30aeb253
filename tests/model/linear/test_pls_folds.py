from __future__ import annotations

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression

from agevi.model.linear import _pls_folds
from agevi.model.linear._pls_folds import pls_errors


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 80)) + rng.normal(size=(30, 2)) @ rng.normal(size=(2, 80))
    y = x[:, :5].sum(axis=1) + rng.normal(size=30)
    return x, y, np.array([rng.permutation(30) % 3 == 0 for _ in range(7)])


@pytest.mark.parametrize("block", [pytest.param(2**22, id="at once"), pytest.param(1, id="one by one")])
def test_errors_equal_those_of_scikit_learn(data, block, monkeypatch):
    x, y, held = data
    monkeypatch.setattr(_pls_folds, "_BLOCK", block)
    found = pls_errors(x, y, np.ones(30), held, 6)
    for own, errors in zip(held, found, strict=True):
        for n in (1, 3, 6):
            net = PLSRegression(n, scale=False).fit(x[~own], y[~own])
            expected = np.mean((net.predict(x[own]).ravel() - y[own]) ** 2)
            np.testing.assert_allclose(errors[n - 1], expected, rtol=1e-8)


def test_a_weight_of_two_is_that_of_two_equal_rows(data):
    x, y, held = data
    times = np.where(np.arange(30) % 4 == 0, 2, 1)
    found = pls_errors(x, y, times.astype(float), held, 5)
    twice = np.repeat(np.arange(30), times)
    np.testing.assert_allclose(found, pls_errors(x[twice], y[twice], np.ones(len(twice)), held[:, twice], 5), rtol=1e-8)


def test_components_add_nothing_where_nothing_is_left_to_explain():
    rng = np.random.default_rng(0)
    x = np.outer(rng.normal(size=12), rng.normal(size=20))  # of rank 1
    held = np.arange(12)[None] % 3 == np.arange(3)[:, None]
    errors = pls_errors(x, x[:, 0] + rng.normal(size=12), np.ones(12), held, 4)
    assert np.isfinite(errors).all()
    np.testing.assert_allclose(errors[:, 1:], errors[:, :1].repeat(3, axis=1), rtol=1e-6)
