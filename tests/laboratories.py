"""Cohorts of two laboratories, for tests of what repairs the ages of another one."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

import agevi


def cohorts(n_subjects=70, n_genes=150, **arguments):
    """Two types that age in opposite directions; the laboratory of the old cohort multiplies every gene."""
    adata = agevi.datasets.simulate_cohort(
        n_subjects,
        20,
        n_genes,
        **{
            "n_cell_types": 2,
            "ageing_rates": [1, -1],
            "effect_range": (0.1, 0.3),
            "n_batches": 1,
            "composition_shift": 0.0,
            "rng": 1,
        }
        | arguments,
    )
    adata.obs["everybody"] = "train"
    donors = sorted(set(adata.obs["donor"].astype(str)))
    old = adata.obs["donor"].astype(str).isin(donors[: n_subjects // 2]).to_numpy()
    adata.obs["study"] = np.where(old, "old", "new")
    factor = np.exp(np.random.default_rng(3).normal(0, 0.7, adata.n_vars))
    own = sp.csr_matrix(adata.X).toarray()
    own[old] = np.random.default_rng(4).poisson(own[old] * factor)
    adata.X = sp.csr_matrix(own.astype(np.float32))
    return adata
