from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from agevi.datasets import _counts

N = 200_000
GRID = [
    pytest.param(mean, dispersion, dropout, id=f"mean{mean}-dispersion{dispersion}-dropout{dropout}")
    for mean in (0.002, 0.3, 2.9, 3.1, 40.0)
    for dispersion in (0.0, 0.3, 4.0)
    for dropout in (0.0, 0.25)
]


def draw(mean: float, dispersion: float, dropout: float, n: int = N, seed: int = 0) -> np.ndarray:
    """``n`` counts of one mean, dense."""
    block = np.full((n // 100, 100), mean, dtype=np.float32)
    per_row, columns, values = _counts.draw_block(block, dispersion, dropout, np.random.default_rng(seed))
    matrix = sp.csr_matrix((values, columns, np.append(0, per_row.cumsum())), shape=block.shape)
    assert matrix.has_canonical_format and values.min() >= 1
    return matrix.toarray().ravel()


def distribution(mean: float, dispersion: float):
    """The same law from scipy."""
    if dispersion == 0:
        return stats.poisson(mean)
    return stats.nbinom(1 / dispersion, 1 / (1 + dispersion * mean))


@pytest.mark.parametrize(("mean", "dispersion", "dropout"), GRID)
def test_counts_follow_the_negative_binomial_law(mean: float, dispersion: float, dropout: float) -> None:
    counts, law = draw(mean, dispersion, dropout), distribution(mean, dispersion)
    edges = np.unique(law.ppf(np.linspace(0, 1, 40)[1:-1]))  # a class between each two, so that none is empty
    bounds = np.concatenate([[-1], edges, [np.inf]])
    share = np.diff(law.cdf(bounds)) * (1 - dropout)
    share[0] += dropout  # zeros are in the first class
    observed = np.histogram(counts, bounds + 0.5)[0]
    keep = share > 0
    assert observed[~keep].sum() == 0
    if keep.sum() > 1:
        assert stats.chisquare(observed[keep], N * share[keep] / share[keep].sum()).pvalue > 1e-4


@pytest.mark.parametrize(("mean", "dispersion", "dropout"), GRID)
def test_moments_and_zeros_match_closed_form(mean: float, dispersion: float, dropout: float) -> None:
    counts, kept = draw(mean, dispersion, dropout, seed=1), 1 - dropout
    expected = kept * mean
    variance = kept * (mean + (1 + dispersion) * mean**2) - expected**2
    zero = dropout + kept * (np.exp(-mean) if dispersion == 0 else (1 + dispersion * mean) ** (-1 / dispersion))
    assert abs(counts.mean() - expected) < 4.5 * np.sqrt(variance / N)
    squares = (counts - expected) ** 2
    assert abs(squares.mean() - variance) < 4.5 * squares.std() / np.sqrt(N)
    assert abs((counts == 0).mean() - zero) < 4.5 * np.sqrt(zero * (1 - zero) / N) + 1e-7


def test_means_of_zero_give_zero() -> None:
    per_row, columns, values = _counts.draw_block(np.zeros((3, 4), np.float32), 0.3, 0.0, np.random.default_rng(0))
    assert per_row.tolist() == [0, 0, 0] and len(columns) == len(values) == 0


def test_counts_of_two_entries_are_independent() -> None:
    counts = draw(1.0, 0.3, 0.1).reshape(-1, 2)
    assert abs(np.corrcoef(counts.T)[0, 1]) < 4.5 / np.sqrt(len(counts))


def test_stack_equals_vstack_of_uneven_blocks() -> None:
    """The first blocks are the emptiest, so that the buffers have to grow."""
    parts = [
        sp.random(n, 30, density=d, format="csr", random_state=0) for n, d in ((5, 0.0), (3, 0.01), (7, 0.5), (1, 1))
    ]
    blocks = [(np.diff(p.indptr), p.indices.astype(np.int32), p.data.astype(np.float32)) for p in parts]
    stacked = _counts.stack(blocks, 16, 30)
    np.testing.assert_array_equal(stacked.toarray(), sp.vstack(parts).toarray().astype(np.float32))
    assert stacked.data.dtype == np.float32 and stacked.has_canonical_format
    assert len(stacked.data) == len(stacked.indices) == stacked.nnz


@pytest.mark.parametrize(
    "n_jobs", [pytest.param(1, id="one"), pytest.param(4, id="four"), pytest.param(None, id="all")]
)
def test_threads_keep_the_order(n_jobs: int | None) -> None:
    tasks = [lambda i=i: (np.array([1]), np.array([i]), np.array([i])) for i in range(30)]
    assert [block[1][0] for block in _counts.in_threads(tasks, n_jobs)] == list(range(30))


def test_errors_in_threads_reach_the_caller() -> None:
    def fail() -> _counts.Block:
        raise FloatingPointError("planted")

    with pytest.raises(FloatingPointError, match="planted"):
        list(_counts.in_threads([fail] * 5, 2))
