"""Every clock on few cells, few subjects, samples of very different size, and genes that training donors lack."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import agevi
from tests.clocks import OF_COUNTS, each_clock_of_counts, params
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}
VAE = {"n_hidden": [16], "n_latent": 4, "n_head": [8]}
SMALL = {
    "PoissonVAE": VAE,
    "GaussianVAE": VAE,
    "DenoisingVAE": VAE,
    "ElasticNetClock": {"alphas": 20, "l1_ratios": 0.2},
    "PLSClock": {},
    "MLPClock": {"n_hidden": [16]},
    "NMFClock": {"n_components": 4, "n_hidden": [8]},
}
GENES, AGES = 60, (20.0, 90.0)
SAMPLES = (0, 130)
"""Ages that a sample of these cohorts may be given."""


def simulate(n_subjects, n_cells):
    adata = agevi.datasets.simulate_cohort(n_subjects, n_cells, GENES, n_age_genes=20, age_range=AGES, rng=2)
    agevi.pp.split_subjects(adata, **SETUP, test_size=0.25, rng=0)
    return adata


def uneven():
    """3 cells, and 3,000, in training donors and in test donors; 30 in the others."""
    roles = simulate(20, 1).obs["agevi_split"].to_numpy()  # the split depends on names and ages only
    n_cells = np.full(20, 30)
    for role in ("train", "test"):
        n_cells[np.flatnonzero(roles == role)[:3]] = [3, 3, 3000]
    adata = simulate(20, n_cells)
    sizes = adata.obs.groupby("agevi_split", observed=True)["donor"].value_counts()
    for role in ("train", "test"):
        assert {3, 3000} <= set(sizes[role])
    return adata


def absent(n_subjects, n_cells=10):
    """Two genes are absent in training donors, and have about 30 counts each of 2,000 in the cells of all others."""
    adata = simulate(n_subjects, n_cells)
    x, train = adata.X.toarray(), (adata.obs["agevi_split"] == "train").to_numpy()
    x[:, :2] = np.where(train[:, None], 0, np.random.default_rng(0).poisson(30, (len(x), 2)))
    adata.X = sp.csr_matrix(x.astype(np.float32))
    return adata


COHORTS = {
    "5 cells a donor": lambda: simulate(20, 5),
    "1 cell a donor": lambda: simulate(20, 1),
    "3 and 3,000 cells": uneven,
    "absent genes": lambda: absent(20),
    "absent genes, 8 subjects": lambda: absent(8),
}
CASES = [
    pytest.param(*cls.values, unit, id=f"{cls.id}-{unit or 'default'}", marks=cls.marks)
    for cls in params(OF_COUNTS, fast=("ElasticNetClock",))
    for unit in ([None, "cell"] if "train_unit" in inspect.signature(cls.values[0].__init__).parameters else [None])
]


@pytest.fixture(scope="module", params=COHORTS, ids=str)
def hard(request):
    return COHORTS[request.param]()


def fit(cls, adata, **init):
    cls.setup_anndata(adata, **SETUP)
    model = cls(adata, **SMALL[cls.__name__], **init)
    model.train(max_epochs=3, **QUIET)
    return model


@pytest.mark.parametrize(("cls", "unit"), CASES)
def test_ages_are_finite_and_plausible(cls, unit, hard):
    adata = hard.copy()
    model = fit(cls, adata, **({"train_unit": unit} if unit else {}))
    weights = [w for w in model.module.state_dict().values() if w.is_floating_point()]
    assert all(torch.isfinite(w).all() for w in weights)
    for level in ("cell", "sample") if model.predicts_sums else ("cell",):
        ages = model.predict_age(level=level)
        assert ages.shape == (adata.n_obs,)
        assert np.isfinite(ages).all()
        low, high = (-1, 160) if level == "cell" else SAMPLES  # one cell may say anything that an age can be
        assert low <= ages.min(), level
        assert ages.max() <= high, level
    agevi.tl.predict_age(adata, model)
    agevi.tl.aggregate_subjects(adata)
    assert adata.uns["agevi_subjects"]["predicted"].between(*SAMPLES).all()


@pytest.mark.slow
@pytest.mark.parametrize("n_subjects", [8, 20])
@each_clock_of_counts
def test_genes_that_training_donors_lack_say_little(cls, n_subjects):
    adata = absent(n_subjects)
    model = fit(cls, adata)
    without = adata.copy()
    without.X = sp.csr_matrix(adata.X.toarray() * (np.arange(GENES) >= 2))
    moved = np.abs(model.predict_age(level="sample") - model.predict_age(without, level="sample"))
    assert moved[(adata.obs["agevi_split"] == "train").to_numpy()].max() == 0
    assert moved.max() < 10  # 3 % of the counts are gone, and so the shares of all other genes are larger
