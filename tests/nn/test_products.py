from __future__ import annotations

import pytest
import torch

from agevi.nn import rows
from agevi.nn.decoding import decoded_nll
from agevi.nn.likelihoods import CountLikelihood
from agevi.nn.products import factors_in, linear

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


@pytest.mark.parametrize("density", [0.05, 0.5], ids=["sparse product", "dense product"])
def test_both_products_agree(density):
    generator = torch.Generator().manual_seed(0)
    dense = torch.rand(40, 50, generator=generator) * (torch.rand(40, 50, generator=generator) < density)
    weight = torch.randn(7, 50, generator=generator)
    assert torch.allclose(linear(rows.as_csr(dense), weight), dense @ weight.T, atol=1e-5)
