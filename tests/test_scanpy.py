"""Scanpy goes on from where agevi stops."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData

import agevi


@pytest.mark.slow
def test_umap_coloured_by_predicted_age(cohort, trained):
    agevi.tl.predict_age(cohort, trained)
    sc.pp.neighbors(cohort, use_rep="X_agevi")
    sc.tl.umap(cohort)
    with mpl.rc_context({"backend": "Agg"}):
        figure = sc.pl.umap(cohort, color="agevi_predicted", return_fig=True)
    assert figure.axes[0].get_title() == "agevi_predicted"


@pytest.mark.slow  # numba compiles pynndescent
def test_neighbours_of_many_cells():
    """Above 8,192 cells scanpy asks pynndescent, whose release 0.7.0 fails there."""
    rng = np.random.default_rng(0)
    adata = AnnData(np.zeros((8200, 1), dtype=np.float32), obs=pd.DataFrame(index=[f"c{i}" for i in range(8200)]))
    adata.obsm["X_agevi"] = rng.normal(size=(8200, 5)).astype(np.float32)
    sc.pp.neighbors(adata, use_rep="X_agevi")
    assert adata.obsp["connectivities"].shape == (8200, 8200)
