from __future__ import annotations

import numpy as np
import pytest
import torch

from agevi.nn.attribution import Reader, linear_attributions, path_attributions, points

N, M, GENES, UNITS = 7, 5, 6, 4


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def tensor(values):
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)


def rows(rng, n):
    return tensor(rng.normal(size=(n, GENES)))


def test_points_of_one_path_are_midpoints():
    np.testing.assert_allclose(points(4, 1), [[0.125, 0.375, 0.625, 0.875]])


def test_points_of_many_paths_fill_the_line_evenly():
    of_all = np.sort(points(4, 50).ravel())
    assert np.abs(of_all - (np.arange(200) + 0.5) / 200).max() < 0.01


@pytest.mark.parametrize("n_points", [1, 3])
@pytest.mark.parametrize("explain", ["path", "closed form"])
def test_a_linear_function_gives_coefficient_times_distance_from_the_background(rng, explain, n_points):
    weight, x, b = rng.normal(size=(1, GENES)), rows(rng, N), rows(rng, M)
    reader = Reader((tensor(weight),), lambda units: 3 * units[0][:, 0] + 40)
    shifts = [tensor([0.3])]
    if explain == "path":
        found = path_attributions(reader, [x], [b], shifts, n_points=n_points)
    else:
        found = linear_attributions(reader, [x], [b], shifts)
    expected = 3 * weight * (x.numpy() - b.numpy().mean(0))
    np.testing.assert_allclose(found.values[0], expected, atol=1e-4)
    np.testing.assert_allclose(found.output, 3 * (x.numpy() @ weight[0] + 0.3) + 40, rtol=1e-5)
    np.testing.assert_allclose(found.error, 0, atol=1e-4)


def test_the_closed_form_equals_many_points_for_a_curved_age(rng):
    weight, x, b = 0.3 * rng.normal(size=(1, GENES)), rows(rng, N), rows(rng, M)
    reader = Reader((tensor(weight),), lambda units: torch.exp(units[0][:, 0].double() + 3).float())
    exact = linear_attributions(reader, [x], [b], [tensor([0.1])])
    many = path_attributions(reader, [x], [b], [tensor([0.1])], n_points=400)
    np.testing.assert_allclose(exact.values[0], many.values[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(exact.error, 0, atol=1e-3)


def test_a_closed_form_exists_where_a_row_is_its_background():
    weight, x = torch.ones(1, GENES), torch.ones(1, GENES)
    reader = Reader((weight,), lambda units: units[0][:, 0] ** 2)
    found = linear_attributions(reader, [x], [x], [torch.zeros(1)])
    np.testing.assert_allclose(found.values[0], 0, atol=1e-3)


def brute_force(function, x, b, n):
    """Expected gradients of one row by autograd on the whole function, without its first layer taken apart."""
    total = torch.zeros_like(x)
    for start in b:
        for alpha in (np.arange(n) + 0.5) / n:
            point = (start + alpha * (x - start)).requires_grad_()
            total += (x - start) * torch.autograd.grad(function(point), point)[0] / n / len(b)
    return total


def test_a_network_equals_brute_force_with_a_shift_per_row(rng):
    w, v = tensor(rng.normal(size=(UNITS, GENES))), tensor(rng.normal(size=UNITS))
    x, b, shift = rows(rng, N), rows(rng, M), tensor(rng.normal(size=(N, UNITS)))
    reader = Reader((w,), lambda units: torch.tanh(units[0]) @ v)
    found = path_attributions(reader, [x], [b], [shift], n_points=400)
    for i in range(N):
        expected = brute_force(lambda p, i=i: torch.tanh(p @ w.T + shift[i]) @ v, x[i], b, 60)
        np.testing.assert_allclose(found.values[0][i], expected, atol=2e-3)
        reference = torch.stack([torch.tanh(p @ w.T + shift[i]) @ v for p in b]).mean()
        np.testing.assert_allclose(found.reference[i], reference, rtol=1e-4)
    np.testing.assert_allclose(found.error, 0, atol=2e-3)


def test_several_tables_share_one_path(rng):
    """f = (a'x) * (c'y): along a straight path each side has half of the cross term."""
    a, c = tensor(rng.normal(size=(1, GENES))), tensor(rng.normal(size=(1, GENES)))
    x, y, zero = rows(rng, N), rows(rng, N), torch.zeros(1, GENES)
    reader = Reader((a, c), lambda units: units[0][:, 0] * units[1][:, 0])
    found = path_attributions(reader, [x, y], [zero, zero], [torch.zeros(1), torch.zeros(1)], n_points=2)
    product = (x @ a[0]) * (y @ c[0])
    np.testing.assert_allclose(found.values[0].sum(1), product / 2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.values[1], (x @ a[0])[:, None] * y * c / 2, rtol=1e-4, atol=1e-5)


def test_no_gradient_is_left_on_the_weights(rng):
    layer = torch.nn.Linear(UNITS, 1)
    reader = Reader((tensor(rng.normal(size=(UNITS, GENES))),), lambda units: layer(units[0])[:, 0])
    path_attributions(reader, [rows(rng, N)], [rows(rng, M)], [torch.zeros(UNITS)], n_points=2)
    assert layer.weight.grad is None
