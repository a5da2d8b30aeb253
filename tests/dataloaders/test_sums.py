from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from agevi.dataloaders._sums import draw_pseudocells, sum_rows

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
