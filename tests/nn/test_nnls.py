from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch

from agevi.nn import nnls as nnls_module
from agevi.nn.nnls import nnls


def problem(n=40, k=6, n_genes=30, seed=0, correlated=0.0):
    """Rows, and components that share ``correlated`` of their values."""
    rng = np.random.default_rng(seed)
    h = (1 - correlated) * rng.gamma(0.5, size=(k, n_genes)) + correlated * rng.gamma(0.5, size=n_genes)
    return rng.gamma(0.3, size=(n, k)) @ h + rng.normal(0, 1, (n, n_genes)), h


def solve(x, h, dtype=torch.float64, **kwargs):
    x, h = torch.from_numpy(x), torch.from_numpy(h)
    return nnls(h @ h.T, (x @ h.T).to(dtype), **kwargs)


def reference(x, h):
    return np.stack([scipy.optimize.nnls(h.T, row)[0] for row in x])


@pytest.mark.parametrize(
    "case",
    [
        pytest.param({}, id="small"),
        pytest.param({"k": 25, "n_genes": 60}, id="many components"),
        pytest.param({"k": 12, "correlated": 0.9}, id="correlated components"),
        pytest.param({"k": 1}, id="one component"),
        pytest.param({"n": 1}, id="one row"),
    ],
)
@pytest.mark.parametrize("n_sweeps", [0, 50])
def test_equals_scipy(case, n_sweeps):
    x, h = problem(**case)
    expected = reference(x, h)
    assert (expected == 0).any(), "the bound has to matter"
    np.testing.assert_allclose(solve(x, h, n_sweeps=n_sweeps).numpy(), expected, atol=1e-7)


def test_exchanges_one_by_one_where_all_at_once_go_in_circles(monkeypatch):
    monkeypatch.setattr(nnls_module, "_PATIENCE", -1)
    x, h = problem(k=10)
    np.testing.assert_allclose(solve(x, h, n_sweeps=0).numpy(), reference(x, h), atol=1e-7)


def test_components_that_repeat_others_do_no_harm():
    x, h = problem()
    twice = np.concatenate([h, h[:3], np.zeros((1, h.shape[1]))])
    w = solve(x, twice).numpy()
    assert (w >= 0).all()
    assert (w[:, -1] == 0).all()
    left = ((x - reference(x, h) @ h) ** 2).sum(1)
    np.testing.assert_allclose(((x - w @ twice) ** 2).sum(1), left, rtol=1e-6)


def test_scales_of_components_do_not_matter():
    x, h = problem()
    factor = np.logspace(-6, 6, len(h))[:, None]
    np.testing.assert_allclose(solve(x, h * factor).numpy() * factor.T, reference(x, h), atol=1e-6)


def test_rows_do_not_depend_on_those_beside_them(monkeypatch):
    x, h = problem()
    together = solve(x, h)
    alone = torch.cat([solve(row[None], h) for row in x])
    np.testing.assert_allclose(together.numpy(), alone.numpy(), atol=1e-10)
    monkeypatch.setattr(nnls_module, "_CHUNK", 7 * len(h) ** 2)
    np.testing.assert_allclose(solve(x, h).numpy(), together.numpy(), atol=1e-10)


def test_precision_and_shape_are_those_of_the_target():
    x, h = problem()
    single = solve(x, h, torch.float32)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), reference(x, h), atol=1e-4)
    assert solve(x[:0], h).shape == (0, len(h))


def test_without_exchanges_the_descent_is_kept():
    x, h = problem()
    w = solve(x, h, n_sweeps=3, max_exchanges=0).numpy()
    assert (w >= 0).all()
    gap = ((x - w @ h) ** 2).sum() / ((x - reference(x, h) @ h) ** 2).sum()
    assert 1 < gap < 1.1


def test_gradient_is_that_of_the_solution():
    x, h = problem(n=5)
    gram, target = torch.from_numpy(h @ h.T), torch.from_numpy(x @ h.T)
    target.requires_grad_()
    assert torch.autograd.gradcheck(lambda t: nnls(gram, t), (target,), eps=1e-6, atol=1e-6)
