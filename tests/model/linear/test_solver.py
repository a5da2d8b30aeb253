from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import ElasticNet

from agevi.model.linear import _solver
from agevi.model.linear._solver import elastic_net_gram, violation


def moments(x, y):
    x, y = x - x.mean(0), y - y.mean()
    return x.T @ x / len(y), x.T @ y / len(y)


def objective(gram, xy, l1, l2, b):
    """What the solver minimises."""
    return float(0.5 * b @ gram @ b - xy @ b + l1 * np.abs(b).sum() + 0.5 * l2 * b @ b)


def regression(n, p, rho=0.5, seed=0):
    """Correlated columns, a tenth of which matter."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) + rho * rng.normal(size=(n, 1))
    return x, x[:, : max(1, p // 10)].sum(1) + rng.normal(size=n)


PROBLEMS = [
    pytest.param(400, 60, 0.5, id="tall"),
    pytest.param(60, 200, 0.5, id="wide"),
    pytest.param(60, 200, 5.0, id="wide, strongly correlated"),
]


@pytest.mark.parametrize("l1_ratio", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("share", [0.5, 0.05])
@pytest.mark.parametrize(("n", "p", "rho"), PROBLEMS)
def test_equals_scikit_learn(n, p, rho, share, l1_ratio):
    x, y = regression(n, p, rho)
    gram, xy = moments(x, y)
    alpha = share * np.abs(xy).max() / l1_ratio
    l1, l2 = alpha * l1_ratio, alpha * (1 - l1_ratio)
    expected = ElasticNet(alpha=alpha, l1_ratio=l1_ratio, tol=1e-9, max_iter=100_000).fit(x, y).coef_
    found, converged = elastic_net_gram(gram, xy, l1, l2)
    assert converged
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert objective(gram, xy, l1, l2, found) <= objective(gram, xy, l1, l2, expected) + 1e-10


def test_objective_is_scikit_learns_up_to_a_constant():
    x, y = regression(50, 8)
    gram, xy = moments(x, y)
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 8))

    def loss(beta):
        residual = (y - y.mean()) - (x - x.mean(0)) @ beta
        return residual @ residual / 100 + 0.3 * np.abs(beta).sum() + 0.5 * 0.7 * beta @ beta

    assert objective(gram, xy, 0.3, 0.7, a) - objective(gram, xy, 0.3, 0.7, b) == pytest.approx(loss(a) - loss(b))


def test_a_warm_start_does_not_change_the_result():
    gram, xy = moments(*regression(100, 150))
    cold, _ = elastic_net_gram(gram, xy, 0.1, 0.1)
    warm, _ = elastic_net_gram(gram, xy, 0.1, 0.1, np.random.default_rng(0).normal(size=150))
    np.testing.assert_allclose(warm, cold, atol=1e-9)


def test_gradient_steps_alone_arrive_too(monkeypatch):
    monkeypatch.setattr(_solver, "_NEWTON_STEPS", 0)
    gram, xy = moments(*regression(200, 40, 3.0))
    found, converged = elastic_net_gram(gram, xy, 0.2, 0.05, tol=1e-9, max_iter=20_000)
    assert converged
    assert violation(xy - gram @ found - 0.05 * found, found, 0.2).max() < 1e-8 * np.abs(xy).max()


def test_it_says_when_it_did_not_arrive(monkeypatch):
    monkeypatch.setattr(_solver, "_NEWTON_STEPS", 0)
    monkeypatch.setattr(_solver, "_GRADIENT_STEPS", 3)
    gram, xy = moments(*regression(200, 40, 3.0))
    assert not elastic_net_gram(gram, xy, 0.01, 0.0, max_iter=3)[1]


def test_equal_columns_and_constant_ones():
    x, y = regression(80, 10)
    x = np.hstack([x, x, np.zeros((80, 2))])
    gram, xy = moments(x, y)
    found, converged = elastic_net_gram(gram, xy, 0.1, 0.0)
    once, _ = elastic_net_gram(*moments(x[:, :10], y), 0.1, 0.0)
    assert converged
    np.testing.assert_allclose(found[:10] + found[10:20], once, atol=1e-4)
    assert (found[20:] == 0).all()


def test_no_columns():
    assert elastic_net_gram(np.empty((0, 0)), np.empty(0), 0.1, 0.1)[0].shape == (0,)


@pytest.mark.parametrize("seed", range(3))
def test_the_step_is_short_enough(seed):
    gram, _ = moments(*regression(30, 20, 2.0, seed))
    largest = np.linalg.eigvalsh(gram)[-1]
    assert largest <= _solver._largest_eigenvalue(gram) <= 1.5 * largest
    assert _solver._largest_eigenvalue(np.zeros((2, 2))) > 0


@pytest.mark.parametrize(
    ("gradient", "coefficient", "expected"),
    [
        pytest.param(0.3, 0.0, 0.0, id="stays out"),
        pytest.param(-0.7, 0.0, 0.2, id="should enter"),
        pytest.param(0.5, 2.0, 0.0, id="is right"),
        pytest.param(-0.5, 2.0, 1.0, id="has the wrong sign"),
    ],
)
def test_violation(gradient, coefficient, expected):
    assert violation(np.array([gradient]), np.array([coefficient]), 0.5) == pytest.approx(expected)
