from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from agevi.dataloaders import _stats
from agevi.nn.inputs import GeneInput

X = np.random.default_rng(0).poisson(1.0, (50, 6)).astype(np.float32)
X[3] = 0


@pytest.mark.parametrize(
    "matrix",
    [
        pytest.param(sp.csr_matrix(X), id="csr"),
        pytest.param(sp.csr_array(X), id="csr_array"),
        pytest.param(sp.csc_matrix(X), id="csc"),
        pytest.param(X, id="dense"),
        pytest.param(sp.csr_matrix(X.astype(np.int32)), id="int"),
    ],
)
@pytest.mark.parametrize("normalize", ["log1p_cp10k", "none"])
def test_moments_equal_numpy_over_blocks(matrix, normalize, monkeypatch):
    monkeypatch.setattr(_stats, "_ROWS", 7)
    rows = np.arange(0, 50, 3)
    stats = _stats.gene_stats(matrix, rows, normalize=normalize)
    x = X[rows]
    library = np.maximum(x.sum(1, keepdims=True), 1)
    values = np.log1p(x / library * 1e4) if normalize == "log1p_cp10k" else x
    np.testing.assert_allclose(stats.input_mean, values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats.input_sd, values.std(0), rtol=1e-5)
    assert stats.input_max == pytest.approx(values.max(), rel=1e-6)
    np.testing.assert_allclose(stats.mean_square, (x.astype(float) ** 2).mean(0))
    np.testing.assert_allclose(stats.zero_share, (x == 0).mean(0))
    assert stats.library_square == pytest.approx((x.sum(1) ** 2).mean())
    np.testing.assert_allclose(stats.share, x.sum(0) / x.sum())
    assert stats.library == pytest.approx(x.sum(1).mean())
    dense = matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
    np.testing.assert_array_equal(dense, X)


@pytest.mark.parametrize("value", [0.0, 3.0, 1234.5])
def test_genes_that_do_not_vary_have_unit_scale(value):
    x = np.full((40, 2), value, dtype=np.float32)
    x[:, 1] = np.arange(40)
    stats = _stats.gene_stats(x, np.arange(40), normalize="none")
    np.testing.assert_allclose(stats.input_sd, [1.0, np.arange(40).std()], rtol=1e-6)


def test_the_buffers_of_an_input_are_set():
    stats = _stats.gene_stats(X, np.arange(50), normalize="none")
    module = GeneInput(6, normalize="none", standardize=True)
    stats.fill(module)
    got = module(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(got, (X - X.mean(0)) / X.std(0), rtol=1e-4, atol=1e-5)
    assert module.mean_library.item() == pytest.approx(X.sum(1).mean())
    np.testing.assert_allclose(module.share.numpy(), X.sum(0) / X.sum(), rtol=1e-6)
