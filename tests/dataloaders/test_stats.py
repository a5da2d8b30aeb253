from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from agevi.dataloaders import _stats

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
@pytest.mark.parametrize("log1p_cp10k", [True, False])
def test_means_equal_numpy_over_blocks(matrix, log1p_cp10k, monkeypatch):
    monkeypatch.setattr(_stats, "_ROWS", 7)
    rows = np.arange(0, 50, 3)
    stats = _stats.gene_stats(matrix, rows, log1p_cp10k=log1p_cp10k)
    x = X[rows]
    library = np.maximum(x.sum(1, keepdims=True), 1)
    np.testing.assert_allclose(stats.input_mean, (np.log1p(x / library * 1e4) if log1p_cp10k else x).mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats.share, x.sum(0) / x.sum())
    assert stats.library == pytest.approx(x.sum(1).mean())
    dense = matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
    np.testing.assert_array_equal(dense, X)
