from __future__ import annotations

import copy

import pytest
import torch

from agevi.nn import products, rows
from agevi.nn.decoding import decoded_nll
from agevi.nn.likelihoods import CountLikelihood
from agevi.nn.products import factors_in, linear, store_by_input

N, G, H = 9, 12, 5


def tensors(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.poisson(torch.full((N, G), 0.7, dtype=dtype), generator=generator)
    weight, bias = (torch.randn(*s, generator=generator, dtype=dtype).requires_grad_() for s in ((H, G), (H,)))
    return x, weight, bias


@pytest.mark.parametrize("n_rows", [2, 100])
def test_sparse_rows_give_what_dense_rows_give(n_rows, monkeypatch):
    monkeypatch.setitem(rows._CHUNK_BYTES, "cpu", n_rows * G * 8)
    x, weight, bias = tensors()
    sparse = rows.as_csr(x)
    assert torch.allclose(linear(sparse, weight, bias), x @ weight.T + bias)
    assert torch.equal(linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias))
    assert torch.autograd.gradcheck(lambda w, b: linear(sparse, w, b), (weight, bias))


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "CSR"])
def test_factors_are_rounded_and_sums_are_not(sparse):
    x, weight, bias = tensors(torch.float32)
    x = rows.as_csr(x) if sparse else x
    with factors_in(torch.bfloat16):
        got = linear(x, weight, bias)
    exact = linear(x, weight, bias)
    assert got.dtype == torch.float32
    assert not torch.equal(got, exact)
    assert torch.allclose(got, exact, rtol=0.02, atol=0.05)
    got.sum().backward()
    assert weight.grad.dtype == torch.float32
    assert torch.equal(linear(x, weight, bias), exact)  # only inside the block


def test_decoding_with_rounded_factors():
    x, weight, _ = tensors(torch.float32)
    h, w, b = torch.randn(N, H), weight.detach().t().contiguous().requires_grad_(), torch.zeros(G, requires_grad=True)

    def run():
        library = x.sum(-1, keepdim=True).clamp_min(1).log()
        total, of_rows = decoded_nll(h, w, b, x, CountLikelihood("poisson", "softmax", library))
        return of_rows, torch.autograd.grad(total, w)[0]

    exact, gradient = run()
    with factors_in(torch.bfloat16):
        rounded, rounded_gradient = run()
    assert torch.allclose(rounded, exact, rtol=0.01)
    assert (rounded_gradient - gradient).norm() < 0.02 * gradient.norm()
    assert not torch.equal(rounded_gradient, gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("table_bytes", [2**23, 200], ids=["whole table", "table in parts"])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.5], ids=["nothing", "sparse product", "dense product"])
def test_both_products_agree(density, table_bytes, dtype, monkeypatch):
    monkeypatch.setattr(products, "_CACHE_BYTES", table_bytes)
    monkeypatch.setattr(products, "_MAX_DENSITY", dict.fromkeys((torch.float32, torch.bfloat16), (0.3, 0.2)))
    monkeypatch.setattr(products, "_READS_A_ROW", 0)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 50, generator=generator) * (torch.rand(40, 50, generator=generator) < density)
    x[3], x[-1] = 0, 0  # rows without a value, also the last one
    weight = torch.randn(7, 50, generator=generator, requires_grad=True)
    upstream = torch.randn(40, 7, generator=generator)
    with factors_in(dtype):
        got = linear(rows.as_csr(x), weight)
    gradient = torch.autograd.grad(got, weight, upstream)[0]
    near = 1e-5 if dtype == torch.float32 else 0.03
    assert torch.allclose(got, x @ weight.T, atol=near, rtol=near)
    assert torch.allclose(gradient, upstream.T @ x, atol=10 * near, rtol=near)


def test_gradients_of_wide_layers_are_laid_out_as_their_weights():
    layer = store_by_input(torch.nn.Linear(50, 7, bias=False))
    x = rows.as_csr((torch.rand(40, 50) < 0.1).float())
    linear(x, layer.weight).sum().backward()
    last = store_by_input(torch.nn.Linear(7, 50))
    counts = torch.poisson(torch.ones(40, 50))
    library = counts.sum(-1, keepdim=True).log()
    likelihood = CountLikelihood("poisson", "softmax", library)
    decoded_nll(torch.randn(40, 7), last.weight, last.bias, counts, likelihood)[0].backward()
    for weight in (layer.weight, last.weight):  # else every step would copy them
        assert weight.t().is_contiguous()
        assert weight.grad.t().is_contiguous()


def test_storage_leaves_values_and_files_as_they_were():
    plain = torch.nn.Linear(5, 3)
    stored = store_by_input(copy.deepcopy(plain))
    assert torch.equal(stored.weight, plain.weight)
    other = store_by_input(torch.nn.Linear(5, 3))
    other.load_state_dict(plain.state_dict())
    assert torch.equal(other.weight, plain.weight)
    assert copy.deepcopy(other).weight.t().is_contiguous()
