from __future__ import annotations

import logging

import numpy as np
import pytest
import scipy.sparse as sp

from agevi._compat.scvi import REGISTRY_KEYS
from agevi.dataloaders._cells import CellDataset, cell_loader
from agevi.dataloaders._fields import AGE
from agevi.model import PoissonVAE
from agevi.nn.rows import as_dense, is_csr

X = REGISTRY_KEYS.X_KEY


def dataset(adata, **kwargs) -> CellDataset:
    PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor", batch_key="batch")
    manager = PoissonVAE._get_most_recent_anndata_manager(adata)
    return CellDataset(manager, **kwargs)


def with_stored_zeros(x: sp.csr_matrix) -> sp.csr_matrix:
    x = x.copy()
    x.data[:5] = 0
    return x


def with_duplicates(x: sp.csr_matrix) -> sp.csr_matrix:
    twice = np.repeat(x.data, 2)
    return sp.csr_matrix((twice, np.repeat(x.indices, 2), 2 * x.indptr), shape=x.shape)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda x: x, id="CSR"),
        pytest.param(lambda x: x.astype(np.uint8), id="CSR of bytes"),
        pytest.param(sp.csr_array, id="CSR array"),
        pytest.param(with_stored_zeros, id="stored zeros"),
        pytest.param(sp.csc_matrix, id="CSC"),
        pytest.param(lambda x: x.toarray(), id="dense"),
    ],
)
def test_rows_are_those_of_the_matrix(cohort, make):
    cohort.X = make(sp.csr_matrix(cohort.X))
    cells = dataset(cohort)
    rows = np.array([5, 2, 2, 300])
    batch = cells[rows]
    full = cohort.X.toarray() if sp.issparse(cohort.X) else cohort.X
    np.testing.assert_array_equal(as_dense(batch[X]).numpy(), full[rows])
    np.testing.assert_allclose(batch[AGE].numpy().ravel(), cohort.obs["age"].to_numpy()[rows], rtol=1e-6)
    assert is_csr(batch[X]) == (sp.issparse(cohort.X) and cohort.X.format == "csr")
    if is_csr(batch[X]):
        assert (batch[X].values() != 0).all()


@pytest.mark.parametrize("make", [with_duplicates, with_stored_zeros], ids=["duplicates", "stored zeros"])
def test_the_user_s_matrix_is_neither_copied_nor_changed(cohort, make):
    cohort.X = make(sp.csr_matrix(cohort.X, dtype=np.float32))
    x = cohort.X
    before = [x.data.copy(), x.indices.copy(), x.indptr.copy()]
    cells = dataset(cohort)
    batch = cells[np.arange(50)]
    np.testing.assert_allclose(as_dense(batch[X]).numpy(), x[:50].toarray(), rtol=1e-6)
    assert np.shares_memory(cells.x.data, cohort.X.data)
    assert np.shares_memory(cells.x.indices, cohort.X.indices)
    for old, new in zip(before, (x.data, x.indices, x.indptr), strict=True):
        np.testing.assert_array_equal(old, new)


def test_chosen_cells_and_masks(cohort):
    mask = np.zeros(cohort.n_obs, dtype=bool)
    mask[[3, 7]] = True
    by_mask, by_index = dataset(cohort, indices=mask), dataset(cohort, indices=np.array([3, 7]))
    assert len(by_mask) == 2
    np.testing.assert_array_equal(as_dense(by_mask[np.arange(2)][X]), as_dense(by_index[np.arange(2)][X]))


def test_batches_cover_the_cells_in_order(cohort):
    cells = dataset(cohort)
    got = [as_dense(b[X]).numpy() for b in cell_loader(cells.manager, batch_size=77)]
    assert max(map(len, got)) <= 77
    np.testing.assert_array_equal(np.concatenate(got), sp.csr_matrix(cohort.X).toarray())


def test_a_matrix_that_is_not_csr_is_logged(cohort, caplog):
    cohort.X = sp.csc_matrix(cohort.X)
    with caplog.at_level(logging.INFO, logger="agevi"):
        dataset(cohort)
    assert "because the matrix is a csc matrix" in caplog.text
