from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from agevi.model.linear._training_cells import TrainingCells, cell_offset


def make(normalize, form=sp.csr_matrix):
    x = np.random.default_rng(0).poisson(2.0, (12, 5)).astype(np.float32)
    index, sample = np.array([1, 2, 5, 7, 8, 11]), np.array([0, 2, 1, 0, 2, 2])
    cells = TrainingCells(form(x), index, sample, np.array([0, 0, 1]), np.array([30.0, 40.0, 60.0]), normalize)
    return cells, x[index], sample


def dense(x):
    return x.toarray() if sp.issparse(x) else np.asarray(x)


@pytest.mark.parametrize("form", [sp.csr_matrix, np.asarray], ids=["csr", "dense"])
@pytest.mark.parametrize("normalize", ["log1p_cp10k", "none"])
def test_sums(normalize, form):
    cells, x, sample = make(normalize, form)
    join = np.mean if normalize == "none" else np.sum
    np.testing.assert_allclose(dense(cells.sums), [join(x[sample == s], axis=0) for s in range(3)], rtol=1e-6)
    np.testing.assert_array_equal(cells.n_cells, [2, 1, 3])
    np.testing.assert_array_equal(cells.subject_age, [35.0, 60.0])


@pytest.mark.parametrize("normalize", ["log1p_cp10k", "none"])
def test_pseudocells_are_sums_of_cells_of_one_sample(normalize):
    cells, x, sample = make(normalize)
    drawn, unit = cells.pseudocells(2, 4, np.random.default_rng(0))
    drawn = dense(drawn)
    assert drawn.shape == (12, 5)
    for row, s in zip(drawn, unit, strict=True):
        own = x[sample == s]
        pairs = [own[i] + own[j] for i in range(len(own)) for j in range(i)] if len(own) > 1 else [own[0]]
        scale = min(2, len(own)) if normalize == "none" else 1
        assert any(np.allclose(row, pair / scale) for pair in pairs)


@pytest.mark.parametrize(
    "to_age", [pytest.param(lambda z: 50 + 10 * z, id="linear"), pytest.param(lambda z: np.exp(4 + z / 3), id="log")]
)
def test_offset_brings_means_to_the_level_of_sums(to_age):
    rng = np.random.default_rng(0)
    sample = np.repeat([0, 1, 2], [3, 50, 7])
    cells, sums = rng.normal(-20, 3, 60), np.array([-1.0, 0.0, 2.0])
    offset = cell_offset(to_age, cells, sample, sums)
    means = [to_age(cells[sample == s] + offset).mean() for s in range(3)]
    assert np.mean(means) == pytest.approx(to_age(sums).mean(), rel=1e-6)


def test_offset_of_cells_that_agree():
    assert cell_offset(lambda z: z, np.zeros(4), np.array([0, 0, 1, 1]), np.zeros(2)) == pytest.approx(0, abs=1e-8)
