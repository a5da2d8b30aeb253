"""Negative-binomial counts drawn straight into a sparse matrix, block by block, on several threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import scipy.sparse as sp

Block = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Nonzeros per row (n_rows,), column of each, value of each."""

BLOCK_SIZE = 1 << 20  # entries of the dense block that one thread works on
_SLACK = 1.05
_WALK_UP_TO = 3.0  # means up to this are drawn by inverting the distribution function, larger ones as gamma-Poisson
_LONGEST_WALK = 10_000
_FLOAT32_STEP = 2.0**-24  # spacing of Generator.random(dtype=float32)


def draw_block(mean: np.ndarray, dispersion: float, dropout: float, rng: np.random.Generator) -> Block:
    """Sparse rows of gamma-Poisson counts of these means, (n_rows, n_genes), of which ``dropout`` are set to 0."""
    n_rows, n_genes = mean.shape
    above = _probability_above_zero(mean, dispersion)
    above *= np.float32(1 - dropout)
    # One uniform number per entry decides whether its count is zero; only the others get a value.
    uniform = rng.random(mean.shape, dtype=np.float32)
    hit = uniform < above
    per_row = np.count_nonzero(hit, axis=1)
    flat = np.flatnonzero(hit)
    columns = (flat - np.repeat(np.arange(n_rows) * n_genes, per_row)).astype(np.int32)
    values = _positive_counts(mean.ravel()[flat], uniform.ravel()[flat], dispersion, dropout, rng)
    return per_row, columns, values


def _probability_above_zero(mean: np.ndarray, dispersion: float) -> np.ndarray:
    """P(count > 0) before dropout, float32."""
    if dispersion > 0:
        out = mean * np.float32(dispersion)
        out += np.float32(1)
        np.log(out, out=out)
        out *= np.float32(-1 / dispersion)
    else:
        out = -mean
    np.exp(out, out=out)
    return np.subtract(np.float32(1), out, out=out)


def _positive_counts(
    mean: np.ndarray, uniform: np.ndarray, dispersion: float, dropout: float, rng: np.random.Generator
) -> np.ndarray:
    """Counts given that they are not zero, float32 (n,)."""
    values = np.empty(len(mean), dtype=np.float32)
    small = mean <= _WALK_UP_TO
    values[small] = _walk(mean[small], uniform[small], dispersion, dropout, rng)
    large = np.flatnonzero(~small)
    while len(large):
        drawn = mean[large].astype(np.float64)
        if dispersion > 0:
            drawn *= rng.standard_gamma(1 / dispersion, len(large)) * dispersion
        count = rng.poisson(drawn)
        values[large] = count
        large = large[count == 0]
    return values


def _walk(
    mean: np.ndarray, uniform: np.ndarray, dispersion: float, dropout: float, rng: np.random.Generator
) -> np.ndarray:
    """Counts by walking down the upper tail: the count is at least k where ``uniform`` is below P(count >= k)."""
    mu = mean.astype(np.float64)
    below = (uniform + rng.random(len(mu)) * _FLOAT32_STEP) / (1 - dropout)  # the bits that float32 lacks
    odds = mu / (1 + dispersion * mu)
    log_zero = -np.log1p(dispersion * mu) / dispersion if dispersion > 0 else -mu
    point = np.exp(log_zero) * odds  # P(count = 1)
    tail = -np.expm1(log_zero) - point  # P(count >= 2)
    values = np.ones(len(mu), dtype=np.float32)
    active = np.flatnonzero(below < tail)
    below, odds, point, tail = below[active], odds[active], point[active], tail[active]
    for k in range(2, _LONGEST_WALK):
        if not len(active):
            break
        values[active] = k
        point *= odds * ((1 + dispersion * (k - 1)) / k)
        tail -= point
        keep = below < tail
        active, below, odds, point, tail = active[keep], below[keep], odds[keep], point[keep], tail[keep]
    return values


def stack(blocks: Iterable[Block], n_rows: int, n_genes: int) -> sp.csr_matrix:
    """One CSR matrix of the blocks' rows, written into buffers that are allocated once."""
    indptr = np.zeros(n_rows + 1, dtype=np.int64)
    columns, values = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32)
    row = filled = 0
    for per_row, block_columns, block_values in blocks:
        end = filled + len(block_columns)
        last = row + len(per_row)
        if end > len(columns):  # pages beyond what is filled are not touched, and growing moves them, not copies
            capacity = int(end * n_rows / last * _SLACK) + 1
            columns.resize(capacity, refcheck=False)
            values.resize(capacity, refcheck=False)
        columns[filled:end], values[filled:end] = block_columns, block_values
        indptr[row + 1 : last + 1] = filled + np.cumsum(per_row)
        row, filled = last, end
    columns.resize(filled, refcheck=False)
    values.resize(filled, refcheck=False)
    matrix = sp.csr_matrix((values, columns, indptr), shape=(n_rows, n_genes), copy=False)
    matrix.has_canonical_format = True
    return matrix


def in_threads(tasks: list[Callable[[], Block]], n_jobs: int | None) -> Iterator[Block]:
    """Results of the tasks in their order, a few of them in work at a time."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_threads = n_jobs or usable
    if n_threads == 1 or len(tasks) == 1:
        yield from (task() for task in tasks)
        return
    waiting: deque[Future[Block]] = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > n_threads + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
