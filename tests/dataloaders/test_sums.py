from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from agevi.dataloaders import _sums
from agevi.dataloaders._sums import _halves, draw_pseudocells, sum_rows, sum_stats

X = np.random.default_rng(0).poisson(1.0, (60, 5)).astype(np.float32)
CODES = np.random.default_rng(1).integers(-1, 4, 60)


@pytest.mark.parametrize("matrix", [X, sp.csr_matrix(X), sp.csr_array(X)], ids=["dense", "csr", "csr_array"])
def test_sums_equal_pandas(matrix):
    got = sum_rows(matrix, CODES, 4)
    got = got.toarray() if sp.issparse(got) else got
    expected = pd.DataFrame(X).groupby(CODES).sum().loc[range(4)]
    np.testing.assert_allclose(got, expected)
    assert got.dtype == np.float32


@pytest.mark.parametrize(("size", "wanted"), [(0.5, lambda n: -(-n // 2)), (3, lambda n: min(n, 3)), (99, lambda n: n)])
def test_pseudocells_are_drawn_without_replacement_within_units(size, wanted):
    drawn, unit = draw_pseudocells(CODES, size, 3, np.random.default_rng(0))
    assert drawn.shape == (12, 60)
    assert drawn.max() == 1
    for row, code in enumerate(unit):
        cells = drawn[row].indices
        assert (CODES[cells] == code).all()
        assert len(cells) == wanted((CODES == code).sum())
    np.testing.assert_array_equal(np.bincount(unit), [3, 3, 3, 3])


def test_every_cell_is_as_likely_and_draws_differ():
    drawn, _ = draw_pseudocells(np.zeros(20, dtype=int), 0.25, 4000, np.random.default_rng(0))
    share = np.asarray(drawn.mean(0)).ravel()
    np.testing.assert_allclose(share, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / 4000))
    again, _ = draw_pseudocells(np.zeros(20, dtype=int), 0.25, 4000, np.random.default_rng(0))
    assert (drawn != again).nnz == 0


def two_halves(x: np.ndarray, codes: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Reliability by its definition, one sample at a time."""
    halves = _halves(codes, np.random.default_rng(seed))
    a, b = (
        np.stack([np.log1p(s / s.sum() * 1e4) for s in (x[(codes == i) & (halves == h)].sum(0) for i in range(n))])
        for h in (0, 1)
    )
    a, b = a - a.mean(0), b - b.mean(0)
    rho = np.clip((a * b).mean(0) / (0.5 * ((a**2).mean(0) + (b**2).mean(0))), 0, 1)
    return 2 * rho / (1 + rho)


def test_moments_and_reliability_of_sums():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(40), 12)
    rate = np.full((40, 30), 3.0)
    rate[:, :10] *= rng.lognormal(0, 1.0, (40, 10))  # ten genes differ between samples
    x = rng.poisson(rate[codes]).astype(np.float32)
    stats = sum_stats(sp.csr_matrix(x), codes, 40, normalize="log1p_cp10k", rng=np.random.default_rng(5))
    sums = np.stack([x[codes == i].sum(0) for i in range(40)])
    values = np.log1p(sums / sums.sum(1, keepdims=True) * 1e4)
    np.testing.assert_allclose(stats.mean, values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats.sd, values.std(0), rtol=1e-4)
    np.testing.assert_allclose(stats.reliability, two_halves(x, codes, 40, 5), atol=1e-4)
    assert stats.reliability[:10].min() > 0.8
    assert stats.reliability[10:].mean() < 0.6


def test_genes_whose_halves_disagree_are_still_seen():
    codes = np.repeat(np.arange(40), 12)
    x = np.random.default_rng(0).poisson(3.0, (480, 30)).astype(np.float32)  # no gene differs but by chance
    stats = sum_stats(x, codes, 40, normalize="log1p_cp10k", rng=np.random.default_rng(5))
    r = two_halves(x, codes, 40, 5)
    assert (r < 0.05).any()
    assert (r > 0.05).any()
    np.testing.assert_allclose(stats.scale * (stats.sd + 1e-3), np.maximum(r, 0.05), atol=1e-4)


def test_halves_are_even_within_units():
    codes = np.random.default_rng(0).integers(0, 7, 200)
    halves = _halves(codes, np.random.default_rng(1))
    for i in range(7):
        assert abs((halves[codes == i] == 0).sum() - (halves[codes == i] == 1).sum()) <= 1


def test_few_samples_and_single_cells_have_no_estimate():
    x = np.random.default_rng(0).poisson(2.0, (12, 4)).astype(np.float32)
    stats = sum_stats(x, np.arange(12), 12, normalize="none", rng=np.random.default_rng(0))
    assert (stats.reliability == 1).all()
    np.testing.assert_allclose(stats.mean, x.mean(0), rtol=1e-6)


@pytest.mark.parametrize("n_samples", [5, 20])  # without and with an estimate of the reliability
@pytest.mark.parametrize(("normalize", "value"), [("log1p_cp10k", 0.0), ("none", 0.1)])
def test_constant_genes_are_scaled_to_nothing(n_samples, normalize, value):
    x = np.random.default_rng(0).poisson(2.0, (10 * n_samples, 4)).astype(np.float32)
    x[:, 2] = value
    stats = sum_stats(
        x, np.repeat(np.arange(n_samples), 10), n_samples, normalize=normalize, rng=np.random.default_rng(0)
    )
    assert stats.scale[2] == pytest.approx(0, abs=1e-12)
    assert (stats.scale[[0, 1, 3]] > 0).any()
    assert np.isfinite(stats.scale).all()


@pytest.mark.parametrize("matrix", [X, sp.csr_matrix(X), sp.csr_array(X)], ids=["dense", "csr", "csr_array"])
def test_sums_over_blocks_of_rows(matrix, monkeypatch):
    expected = sum_rows(matrix, CODES, 4)
    monkeypatch.setattr(_sums, "_BLOCK", 7)
    got = sum_rows(matrix, CODES, 4)
    assert type(got) is type(expected)
    assert got.dtype == np.float32
    assert abs(got - expected).max() == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_matrix_is_not_copied(dtype):
    x = sp.random(40_000, 200, density=0.5, format="csr", dtype=dtype, random_state=0)
    codes = np.arange(40_000) % 3
    drawn, _ = draw_pseudocells(codes, 2, 4, np.random.default_rng(0))
    peaks = {}
    for name, product in {"samples": lambda: sum_rows(x, codes, 3), "pseudocells": lambda: drawn @ x}.items():
        tracemalloc.start()
        product()
        peaks[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert max(peaks.values()) < x.data.nbytes / 2, peaks
