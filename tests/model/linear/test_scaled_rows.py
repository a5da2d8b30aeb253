from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from agevi.model.linear import _scaled_rows
from agevi.model.linear._scaled_rows import ScaledRows, sample_weights


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(1.0, (30, 7)).astype(np.float32)


def make(counts, normalize="log1p_cp10k", form=sp.csr_matrix):
    rng = np.random.default_rng(1)
    index, unit = rng.permutation(30)[:20], rng.permutation(np.arange(20) % 3)
    scale = {"mean": rng.normal(size=7), "sd": rng.uniform(1, 2, 7)}
    rows = ScaledRows(form(counts), index, unit, normalize=normalize, **scale)
    x = counts[index].astype(float)
    if normalize != "none":
        x = np.log1p(x / np.maximum(x.sum(1, keepdims=True), 1) * 1e4)
    return rows, (x - scale["mean"]) / scale["sd"], unit


@pytest.mark.parametrize("block", [1024, 4])
@pytest.mark.parametrize("normalize", ["log1p_cp10k", "none"])
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csr_array, np.asarray], ids=["csr", "csr_array", "dense"])
def test_against_dense_arithmetic(counts, normalize, form, block, monkeypatch):
    monkeypatch.setattr(_scaled_rows, "_BLOCK", block)
    rows, expected, unit = make(counts, normalize, form)
    np.testing.assert_allclose(rows.standardized(np.array([3, 0])), expected[[3, 0]], atol=1e-6)
    np.testing.assert_allclose(rows.unit_means(3), [expected[unit == u].mean(0) for u in range(3)], atol=1e-6)
    slope = np.arange(7.0)
    np.testing.assert_allclose(rows.project(slope), expected @ slope, atol=1e-5)


def test_blocks_hold_each_row_once_and_few_samples(counts, monkeypatch):
    monkeypatch.setattr(_scaled_rows, "_BLOCK", 6)
    rows, _, unit = make(counts)
    parts = list(rows.parts(np.arange(5, 20)))
    assert max(map(len, parts)) <= 6
    assert sorted(np.concatenate(parts)) == list(range(5, 20))
    assert (np.diff(unit[np.concatenate(parts)]) >= 0).all()


def test_only_a_block_is_dense(counts, monkeypatch):
    seen = []
    rows, *_ = make(counts)
    monkeypatch.setattr(_scaled_rows, "_BLOCK", 4)
    monkeypatch.setattr(ScaledRows, "normalized", lambda self, part: seen.append(len(part)) or make(counts)[0].x[part])
    monkeypatch.setattr(_scaled_rows, "_SPARSE", 3)
    rows.unit_means(3)
    assert max(seen) == 4
    seen.clear()
    rows.project(np.ones(7))  # which stays sparse
    assert max(seen) == 3


@pytest.mark.parametrize(
    ("size", "subject_weight", "expected"),
    [
        pytest.param([1, 1, 1], "equal", [0.75, 0.75, 1.5], id="samples, subjects equal"),
        pytest.param([10, 30, 20], "equal", [0.375, 1.125, 1.5], id="cells, subjects equal"),
        pytest.param([1, 1, 1], "cells", [0.5, 1.5, 1.0], id="samples, cells equal"),
        pytest.param([1, 1, 1], "density", [0.75, 0.75, 1.5], id="two subjects have ages equally common"),
    ],
)
def test_weights(size, subject_weight, expected):
    weight = sample_weights(
        np.array([0, 0, 1]), np.array(size), np.array([10, 30, 20]), subject_weight, subject_age=np.array([30.0, 50.0])
    )
    np.testing.assert_allclose(weight, expected)
