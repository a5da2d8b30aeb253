from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from agevi.dataloaders import _sums
from agevi.dataloaders._sums import UnitSums, draw_pseudocells, sum_rows, sum_stats

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


def halves_agree(x: np.ndarray, codes: np.ndarray, normalize: str, n_draws: int) -> np.ndarray:
    """Correlation of random halves of every sample's cells over ``n_draws`` draws, for the whole."""
    rng, both, squares = np.random.default_rng(3), 0.0, 0.0
    cells = [np.flatnonzero(codes == i) for i in np.unique(codes[codes >= 0])]
    for _ in range(n_draws):
        shuffled = [rng.permutation(c) for c in cells]
        halves = []
        for part in ([c[: len(c) // 2] for c in shuffled], [c[len(c) // 2 :] for c in shuffled]):
            sums = np.stack([x[c].sum(0) for c in part])
            means = sums / np.array([[len(c)] for c in part])
            half = means if normalize == "none" else np.log1p(sums / sums.sum(1, keepdims=True) * 1e4)
            halves.append(half - half.mean(0))
        both = both + (halves[0] * halves[1]).mean(0)
        squares = squares + (halves[0] ** 2 + halves[1] ** 2).mean(0) / 2
    rho = np.clip(both / squares, 0, 1)
    return 2 * rho / (1 + rho)


def samples_that_differ(n_cells: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Counts, (n, 30), of cells of 40 samples, of which the first ten genes differ between samples."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(40), n_cells)
    rates = np.full((40, 30), rate)
    rates[:, :10] *= rng.lognormal(0, np.linspace(0.02, 1, 10), (40, 10))
    depth = rng.lognormal(0, 0.3, (len(codes), 1))
    return rng.poisson(rates[codes] * depth).astype(np.float32), codes


@pytest.mark.slow
@pytest.mark.parametrize("matrix", [np.asarray, sp.csr_matrix, sp.csr_array], ids=["dense", "csr", "csr_array"])
@pytest.mark.parametrize(
    ("normalize", "n_cells", "rate", "tolerance"),
    [
        pytest.param("none", 12, 3.0, 0.03, id="means"),
        pytest.param("log1p_cp10k", 40, 3.0, 0.02, id="sums"),
        pytest.param("log1p_cp10k", 4, 30.0, 0.08, id="sums of few cells"),
        pytest.param("log1p_cp10k", 4, 3.0, 0.35, id="sums of few counts"),  # first order of the logarithm
    ],
)
def test_moments_and_reliability_of_sums(normalize, n_cells, rate, tolerance, matrix, monkeypatch):
    monkeypatch.setattr(_sums, "_BLOCK", 100)
    x, codes = samples_that_differ(n_cells, rate)
    codes[:2] = -1
    stats = sum_stats(matrix(x), codes, 40, normalize=normalize)
    sums = np.stack([x[codes == i].sum(0) for i in range(40)])
    values = np.log1p(sums / sums.sum(1, keepdims=True) * 1e4)
    if normalize == "none":
        values = sums / np.bincount(codes[2:])[:, None]
    np.testing.assert_allclose(stats.mean, values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats.sd, values.std(0), rtol=1e-4)
    np.testing.assert_allclose(stats.reliability, halves_agree(x, codes, normalize, 300), atol=tolerance)
    assert stats.reliability[9] > 0.8
    assert stats.reliability[10:].max() < stats.reliability[9]


def test_means_with_equal_cells_have_the_reliability_of_an_analysis_of_variance():
    x, codes = samples_that_differ(12, 3.0)
    r = sum_stats(x, codes, 40, normalize="none").reliability
    cells = x.reshape(40, 12, 30)
    between = cells.mean(1).var(0, ddof=1)
    within = cells.var(1, ddof=1).mean(0) / 12
    np.testing.assert_allclose(r, np.clip(1 - within / between, 0, 1), rtol=1e-5, atol=1e-6)


def test_large_values_keep_their_precision():
    x, codes = samples_that_differ(12, 3.0)
    r = sum_stats(x, codes, 40, normalize="none").reliability
    np.testing.assert_allclose(sum_stats(x + 4096.0, codes, 40, normalize="none").reliability, r, atol=1e-2)


@pytest.mark.parametrize("normalize", ["log1p_cp10k", "none"])
def test_the_order_of_cells_changes_no_reliability(normalize):
    x, codes = samples_that_differ(12, 3.0)
    order = np.random.default_rng(1).permutation(len(x))
    got, expected = (
        sum_stats(sp.csr_matrix(a), c, 40, normalize=normalize) for a, c in ((x[order], codes[order]), (x, codes))
    )
    np.testing.assert_array_equal(got.mean, expected.mean)
    np.testing.assert_allclose(got.reliability, expected.reliability, rtol=1e-9)


def test_samples_of_one_cell_are_left_out_of_the_reliability():
    x, codes = samples_that_differ(12, 3.0)
    more = np.random.default_rng(1).poisson(3.0, (20, 30)).astype(np.float32)
    expected = sum_stats(x, codes, 40, normalize="log1p_cp10k")
    got = sum_stats(np.vstack([x, more]), np.r_[codes, 40:60], 60, normalize="log1p_cp10k")
    np.testing.assert_allclose(got.reliability, expected.reliability, rtol=1e-9)
    assert (got.mean != expected.mean).all()


def test_genes_that_differ_by_chance_are_still_seen():
    codes = np.repeat(np.arange(40), 12)
    x = np.random.default_rng(0).poisson(3.0, (480, 30)).astype(np.float32)
    stats = sum_stats(x, codes, 40, normalize="log1p_cp10k")
    assert (stats.reliability < 0.05).any()
    assert (stats.reliability > 0.05).any()
    np.testing.assert_allclose(stats.scale * (stats.sd + 1e-3), np.maximum(stats.reliability, 0.05))


def test_few_samples_and_single_cells_have_no_estimate():
    x = np.random.default_rng(0).poisson(2.0, (12, 4)).astype(np.float32)
    stats = sum_stats(x, np.arange(12), 12, normalize="none")
    assert (stats.reliability == 1).all()
    np.testing.assert_allclose(stats.mean, x.mean(0), rtol=1e-6)


@pytest.mark.parametrize("n_samples", [5, 20])  # without and with an estimate of the reliability
@pytest.mark.parametrize(("normalize", "value"), [("log1p_cp10k", 0.0), ("none", 0.1)])
def test_constant_genes_are_scaled_to_nothing(n_samples, normalize, value):
    x = np.random.default_rng(0).poisson(2.0, (10 * n_samples, 4)).astype(np.float32)
    x[:, 2] = value
    stats = sum_stats(x, np.repeat(np.arange(n_samples), 10), n_samples, normalize=normalize)
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


@pytest.mark.slow
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


@pytest.mark.parametrize("normalize", ["log1p_cp10k", "none"])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix], ids=["dense", "csr"])
def test_moments_of_some_units_are_those_of_their_cells_alone(form, normalize):
    rng = np.random.default_rng(4)
    codes = rng.integers(-1, 15, 9000)
    x = rng.poisson(rng.gamma(2.0, 0.5, (15, 6))[codes]).astype(np.float32)
    shared, units = UnitSums(form(x), codes, 15, normalize), np.array([1, 2, 3, 5, 8, 9, 10, 12, 14])
    used = np.isin(codes, units)
    alone = sum_stats(form(x[used]), np.searchsorted(units, codes[used]), len(units), normalize=normalize)
    found = shared.stats(units)
    for name in ("mean", "sd", "reliability"):
        np.testing.assert_allclose(getattr(found, name), getattr(alone, name), rtol=1e-9)
    values = np.stack([x[codes == unit].sum(axis=0) for unit in units]).astype(float)
    if normalize == "none":
        values /= np.bincount(codes[used])[units][:, None]
    else:
        values = np.log1p(1e4 * values / values.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.sd, values.std(axis=0), rtol=1e-5)
