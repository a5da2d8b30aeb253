"""Likelihoods and their gradients from the last layer of a decoder, against SciPy and autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit, gammaln, log_expit, log_softmax
from torch import nn

from agevi.nn import rows
from agevi.nn.decoding import decoded_nll
from agevi.nn.likelihoods import GENE_LIKELIHOODS, CountLikelihood, NormalLikelihood, log_factorial

N, H, G = 7, 3, 30
RNG = np.random.default_rng(0)
HIDDEN, WEIGHT, BIAS = RNG.normal(0, 1, (N, H)), RNG.normal(0, 1, (G, H)), RNG.normal(0, 1, G)
LOG_THETA, ZERO_LOGIT = RNG.normal(0, 2, (2, G))
MEAN, SCALE = RNG.normal(0, 1, G), RNG.uniform(0.5, 2, G)
LOGITS = HIDDEN @ WEIGHT.T + BIAS
X = RNG.poisson(np.exp(LOGITS) * RNG.gamma(1.0, 1.0, LOGITS.shape)).astype(float)
X[3] = 0
LIBRARY = np.maximum(X.sum(1, keepdims=True), 1.0)

tensor = torch.from_numpy
each = pytest.mark.parametrize("kind", GENE_LIKELIHOODS)
each_rate = pytest.mark.parametrize("rate", ["softmax", "softplus"])


def rates(kind: str, rate: str) -> np.ndarray:
    if rate == "softplus":
        return np.logaddexp(0, LOGITS) + 1e-8
    share = np.exp(log_softmax(LOGITS, axis=1))
    kept = expit(-ZERO_LOGIT) if kind in ("zip", "zinb") else 1.0  # the library size counts what is not lost
    return LIBRARY * share / (share * kept).sum(1, keepdims=True)


def log_p(x: np.ndarray, kind: str, rate: np.ndarray) -> np.ndarray:
    theta = np.exp(LOG_THETA)
    if kind in ("poisson", "zip"):
        return stats.poisson.logpmf(x, rate)
    return stats.nbinom.logpmf(x, theta, theta / (theta + rate))


def expected(kind: str, rate: str) -> np.ndarray:
    lam = rates(kind, rate)
    out = log_p(X, kind, lam)
    if kind in ("zip", "zinb"):
        lost, kept = log_expit(ZERO_LOGIT), log_expit(-ZERO_LOGIT)
        out = np.where(X == 0, np.logaddexp(lost, kept + out), kept + out)
    return -out.sum(1)


def parameters(kind: str) -> list[torch.Tensor]:
    names = {"nb": [LOG_THETA], "zip": [ZERO_LOGIT], "zinb": [LOG_THETA, ZERO_LOGIT]}
    return [tensor(p.copy()) for p in names.get(kind, [])]


def counts(kind, rate, x, *given, h, w, b):
    log_theta = given[0] if kind in ("nb", "zinb") else None
    zero_logit = given[-1] if kind in ("zip", "zinb") else None
    library = x.to_dense().sum(-1, keepdim=True).clamp_min(1.0)
    return decoded_nll(h, w, b, x, CountLikelihood(kind, rate, library.log(), log_theta, zero_logit))


def layer() -> dict[str, torch.Tensor]:
    return {"h": tensor(HIDDEN.copy()), "w": tensor(WEIGHT.copy()), "b": tensor(BIAS.copy())}


@each_rate
@each
def test_equals_scipy(kind, rate):
    total, of_rows = counts(kind, rate, tensor(X), *parameters(kind), **layer())
    np.testing.assert_allclose(of_rows.numpy(), expected(kind, rate), rtol=1e-9, atol=1e-6)
    assert total.item() == pytest.approx(expected(kind, rate).sum())


@each_rate
@each
def test_gradients(kind, rate, monkeypatch):
    monkeypatch.setitem(rows._CHUNK_BYTES, "cpu", 3 * 8 * 8)  # several blocks
    x = tensor(X[:5, :8].copy())
    tensors = [tensor(v.copy()).requires_grad_() for v in (HIDDEN[:5], WEIGHT[:8], BIAS[:8])]
    more = [p[:8].clone().requires_grad_() for p in parameters(kind)]
    assert torch.autograd.gradcheck(
        lambda h, w, b, *p: 3 * counts(kind, rate, x, *p, h=h, w=w, b=b)[0], (*tensors, *more)
    )


@each
def test_blocks_and_sparse_rows_change_nothing(kind, monkeypatch):
    whole = counts(kind, "softmax", tensor(X), *parameters(kind), **layer())[1]
    monkeypatch.setitem(rows._CHUNK_BYTES, "cpu", 2 * G * 8)
    for x in (tensor(X), tensor(X).to_sparse_csr()):
        assert torch.allclose(counts(kind, "softmax", x, *parameters(kind), **layer())[1], whole, rtol=1e-12)


@pytest.mark.parametrize("log_theta", [15.0, 25.0])
@each_rate
def test_a_negative_binomial_without_dispersion_is_a_poisson(log_theta, rate):
    flat = torch.full((G,), log_theta, dtype=torch.float64)
    got = counts("nb", rate, tensor(X), flat, **layer())[1]
    assert torch.allclose(got, counts("poisson", rate, tensor(X), **layer())[1], rtol=1e-3)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "CSR"])
@pytest.mark.parametrize("scaled", [False, True])
def test_normal_equals_scipy(scaled, sparse):
    sd = tensor(np.exp(0.3 * LOG_THETA))
    scaler = (tensor(MEAN), tensor(SCALE)) if scaled else (None, None)
    x = tensor(X).to_sparse_csr() if sparse else tensor(X)
    got = decoded_nll(*layer().values(), x, NormalLikelihood(sd, *scaler))[1]
    mean = LOGITS * SCALE + MEAN if scaled else LOGITS
    np.testing.assert_allclose(got.numpy(), -stats.norm.logpdf(X, mean, sd.numpy()).sum(1), rtol=1e-9)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "CSR"])
def test_gradients_of_the_normal(sparse):
    x = tensor(X[:4, :6].copy())
    x = x.to_sparse_csr() if sparse else x
    tensors = [tensor(v.copy()).requires_grad_() for v in (HIDDEN[:4], WEIGHT[:6], BIAS[:6], SCALE[:6])]

    def loss(h, w, b, sd):
        return decoded_nll(h, w, b, x, NormalLikelihood(sd, tensor(MEAN[:6]), tensor(SCALE[6:12].copy())))[0]

    assert torch.autograd.gradcheck(loss, tuple(tensors))


@each
def test_extreme_logits_are_finite_in_float32(kind):
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(G, H) * 60)
    x, h, b = tensor(X).float(), tensor(HIDDEN).float().requires_grad_(), torch.zeros(G)
    more = [p.float().requires_grad_() for p in parameters(kind)]
    total, of_rows = counts(kind, "softmax", x, *more, h=h, w=w, b=b)
    total.backward()
    assert all(torch.isfinite(t).all() for t in (of_rows, w.grad, h.grad, *(p.grad for p in more)))


def test_no_gradient_where_none_is_asked_for():
    total, _ = counts("poisson", "softmax", tensor(X), **layer())
    assert not total.requires_grad
    given = layer()
    given["w"].requires_grad_()
    with torch.no_grad():
        assert not counts("poisson", "softmax", tensor(X), **given)[0].requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_factorial_equals_scipy(dtype):
    x = np.r_[np.random.default_rng(0).poisson(3, 40), 0, 1, 4095, 4096, 1e6, 2.5].astype(float)
    np.testing.assert_allclose(log_factorial(tensor(x).to(dtype)), gammaln(x + 1), rtol=1e-6)


THETAS = np.logspace(-3, 6, 19)
MEANS = np.logspace(-4, 4, 9)
COUNTS = np.r_[0:8, 30, 1000, 10_000].astype(float)


def exact(x: float, mean: float, theta: float) -> np.ndarray:
    """Negative log-likelihood and its derivative with respect to log(theta), and the sizes of what they are made of.

    The sums over k do not cancel, whatever theta is.
    """
    k, r = np.arange(int(x)), mean / theta
    rising, slope = math.fsum(np.log1p(k / theta)), math.fsum(k / (theta + k))
    order = np.arange(2, 40)
    zero = np.log1p(r) - r / (1 + r) if r > 0.1 else math.fsum((-r) ** order * (1 - 1 / order))
    value = [theta * np.log1p(r), x * np.log1p(r), -x * np.log(mean), gammaln(x + 1), -rising]
    gradient = [theta * zero, slope, -x * r / (1 + r)]
    return np.array([sum(value), sum(gradient), np.abs(value).sum(), np.abs(gradient).sum()])


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_negative_binomials_are_precise_for_all_dispersions(dtype, tolerance):
    x, mean, theta = (v.ravel() for v in np.meshgrid(COUNTS, MEANS, THETAS))
    bias = np.where(mean > 30, mean, np.log(np.expm1(np.minimum(mean, 30))))
    # One row each for the values, one gene each for the gradients.
    for n, g in ((len(x), 1), (1, len(x))):
        for t in THETAS if g == 1 else [theta]:
            at = theta == t if g == 1 else np.ones(len(x), dtype=bool)
            rows = tensor(x[at]).to(dtype).reshape(-1, g)
            h, b = tensor(bias[at]).to(dtype).reshape(-1, g), torch.zeros(g, dtype=dtype)
            h, w, b = (
                (h, torch.ones(1, 1, dtype=dtype), b) if g == 1 else (torch.zeros(n, 1, dtype=dtype), b[:, None], h[0])
            )
            log_theta = tensor(np.log(np.atleast_1d(t))).to(dtype).requires_grad_()
            likelihood = CountLikelihood("nb", "softplus", torch.zeros(len(rows), 1, dtype=dtype), log_theta)
            total, of_rows = decoded_nll(h, w, b, rows, likelihood)
            used = np.broadcast_to(log_theta.detach().double().exp().numpy(), at.sum())
            means = np.logaddexp(0, (h if g == 1 else b).double().numpy().ravel()) + 1e-8
            truth = np.array([exact(*v) for v in zip(x[at], means, used, strict=True)])
            if g == 1:
                assert (np.abs(of_rows.double().numpy() - truth[:, 0]) <= tolerance * truth[:, 2]).all()
            else:
                total.backward()
                error = np.abs(log_theta.grad.double().numpy() - truth[:, 1])
                assert (
                    error <= tolerance * (8 * truth[:, 3] + np.where(theta < 16, x + mean + 1, x / (x + theta)))
                ).all()


@pytest.mark.parametrize("kind", ["nb", "zinb"])
def test_hardly_dispersed_counts_are_the_same_in_float32(kind):
    found = []
    for dtype in (torch.float32, torch.float64):
        log_theta = torch.full((G,), math.log(1e6), dtype=dtype, requires_grad=True)
        more = [tensor(ZERO_LOGIT).to(dtype)] if kind == "zinb" else []
        given = {name: value.to(dtype) for name, value in layer().items()}
        total, of_rows = counts(kind, "softmax", tensor(X).to(dtype), log_theta, *more, **given)
        total.backward()
        found.append((of_rows, log_theta.grad))
    (got, got_slope), (expected, slope) = found
    np.testing.assert_allclose(got, expected, rtol=2e-6)
    np.testing.assert_allclose(got_slope, slope, rtol=1e-3, atol=1e-6)  # it was off by 1 at every count
