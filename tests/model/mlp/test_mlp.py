from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from agevi.model.mlp import MLPClock
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}


def fit(adata, setup=None, epochs=2, **init):
    MLPClock.setup_anndata(adata, **SETUP, **(setup or {}))
    model = MLPClock(adata, **({"n_hidden": [16]} | init))
    model.train(max_epochs=epochs, **QUIET)
    return model


def test_genes_are_z_scored_by_training_cells(cohort):
    model = fit(cohort, epochs=1)
    train = (cohort.obs["agevi_split"] == "train").to_numpy()
    x = sp.csr_matrix(cohort.X).toarray()[train].astype(float)
    values = np.log1p(x / x.sum(1, keepdims=True) * 1e4)
    np.testing.assert_allclose(model.module.input.mean, values.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.module.input.sd, values.std(0), rtol=1e-4)


@pytest.mark.parametrize("transform", ["none", "log"])
def test_ages_are_linear_in_the_latent_representation(cohort, transform):
    model = fit(cohort, {"age_transform": transform}, n_hidden=[12, 6])
    latent, age = model.get_latent_representation(), model.predict_age().astype(float)
    assert latent.shape == (cohort.n_obs, 6)
    assert (latent >= 0).all()  # after a ReLU
    target = np.log(age + 1 + 1) if transform == "log" else age
    design = np.column_stack([latent, np.ones(len(latent))])
    left = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    assert np.abs(left).max() < 1e-4 * np.ptp(target)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["cell", "sample"])
def test_absent_genes_enter_at_their_training_mean(cohort, level):
    x = np.random.default_rng(0).normal(size=cohort.shape).astype(np.float32)
    cohort.X = x
    model = fit(cohort, {"normalize": "none"})
    train, absent = (cohort.obs["agevi_split"] == "train").to_numpy(), np.arange(3, 12)
    filled = cohort.copy()
    # Samples have equally many cells here, so that the mean over samples is that over cells.
    filled.X[:, absent] = x[train][:, absent].mean(0)
    fewer = cohort[:, np.setdiff1d(np.arange(cohort.n_vars), absent)].copy()
    expected, got = (model.predict_age(data, level=level) for data in (filled, fewer))
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert not np.allclose(got, model.predict_age(cohort, level=level), rtol=1e-4)


def test_it_takes_at_least_one_layer(cohort):
    MLPClock.setup_anndata(cohort, **SETUP)
    with pytest.raises(ValueError, match=r"n_hidden=\[\] is empty; pass at least one width"):
        MLPClock(cohort, n_hidden=[])
