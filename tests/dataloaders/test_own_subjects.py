"""Barcodes in place of donors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse as sp

import agevi
from tests.test_gates import check_style


@pytest.fixture(scope="module")
def cells():
    adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=60, n_genes=60, library_size=60, rng=0)
    adata.obs["barcode"] = adata.obs_names
    return adata


def set_up(adata, key, cls=agevi.model.PLSClock, **arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cls.setup_anndata(adata, age_key="age", subject_key=key, **arguments)
    return [w for w in caught if "subject of its own" in str(w.message)]


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray], ids=["csr", "csc", "dense"])
@pytest.mark.parametrize("cls", [agevi.model.PLSClock, agevi.model.PoissonVAE])
def test_barcodes_as_subjects_are_said_once(cells, form, cls):
    adata = cells.copy()
    adata.X = form(adata.X.toarray())
    (warned,) = set_up(adata, "barcode", cls)
    assert warned.filename == __file__
    assert "in adata.obs['barcode'], and rows look like single cells" in str(warned.message)
    check_style(str(warned.message))
    assert set_up(adata, "donor", cls) == []


def test_bulk_samples_normalised_values_and_few_rows_are_left_alone(cells):
    bulk = cells.copy()
    bulk.X = cells.X * 1000  # of the same sparsity, but deep
    assert set_up(bulk, "barcode") == []
    full = cells.copy()
    full.X = cells.X.toarray() + 1  # shallow, but without zeros
    assert set_up(full, "barcode") == []
    assert set_up(cells.copy(), "barcode", normalize="none") == []
    assert set_up(cells[:900].copy(), "barcode") == []
    some = cells.copy()  # one row in ten belongs to a subject of several
    some.obs["barcode"] = np.where(np.arange(some.n_obs) % 10 == 0, some.obs["donor"].astype(str), some.obs["barcode"])
    assert set_up(some, "barcode") == []
