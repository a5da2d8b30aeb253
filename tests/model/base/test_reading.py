from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch

from agevi.model import (
    DenoisingVAE,
    EnsembleClock,
    GaussianVAE,
    MLPClock,
    NMFClock,
    PLSClock,
    PoissonVAE,
    TransformerClock,
)
from agevi.model.base._unit_rows import UnitRows
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}
SMALL = {"n_hidden": [12], "rng": 1}
CASES = [
    pytest.param(PoissonVAE, {**SMALL, "n_latent": 4}, {}, id="poisson"),
    pytest.param(PoissonVAE, {**SMALL, "n_latent": 4, "train_unit": "cell"}, {}, id="poisson-cell"),
    pytest.param(PoissonVAE, {"n_hidden": [], "n_latent": 4, "n_head": [5]}, {}, id="no-hidden"),
    pytest.param(
        PoissonVAE,
        {**SMALL, "n_latent": 4, "encode_covariates": True},
        {"batch_key": "batch", "categorical_covariate_keys": ["sex"], "continuous_covariate_keys": ["depth"]},
        id="covariates",
    ),
    pytest.param(GaussianVAE, {"n_hidden": [8, 8], "n_latent": 4, "standardize": False}, {}, id="gaussian"),
    pytest.param(DenoisingVAE, {**SMALL, "n_latent": 4}, {}, id="denoising"),
    pytest.param(MLPClock, {"n_hidden": [8, 6]}, {}, id="mlp"),
    pytest.param(MLPClock, {"n_hidden": [8]}, {"normalize": "none"}, id="mlp-none"),
    pytest.param(NMFClock, {**SMALL, "n_components": 5}, {}, id="nmf"),
    pytest.param(NMFClock, {**SMALL, "n_components": 5, "train_unit": "cell"}, {"normalize": "none"}, id="nmf-none"),
    pytest.param(PLSClock, {}, {}, id="pls"),
    pytest.param(
        TransformerClock,
        {"n_tokens": 7, "n_token": 8, "n_layers": 1},
        {"tissue_key": "cell_type", "categorical_covariate_keys": ["sex"]},
        id="transformer-ft",
    ),
    pytest.param(
        TransformerClock,
        {"architecture": "tab", "skip": "ridge", "n_hidden": [8]},
        {"tissue_key": "cell_type"},
        id="transformer-tab",
    ),
    pytest.param(PLSClock, {}, {"age_transform": "none", "normalize": "none"}, id="pls-none"),
]


def make(cohort, cls, init, setup):
    cohort.obs["depth"] = np.log(np.asarray(cohort.X.sum(1)).ravel())
    cls.setup_anndata(cohort, **SETUP, **setup)
    model = cls(cohort, **init)
    model.train(max_epochs=2, **QUIET)
    return model


def ages(model, adata, codes=None):
    """Ages from the readings, one per row."""
    cells = np.arange(adata.n_obs)
    parts = [UnitRows(clock, adata, cells, codes) for clock in model.members()]
    rows = np.arange(adata.n_obs if codes is None else codes.max() + 1)
    with torch.no_grad():
        reader = model.reader([part.reading for part in parts])
        return reader([part.values(rows) for part in parts], [part.shift(rows) for part in parts]).numpy()


def donors(adata):
    return np.unique(adata.obs["donor"].astype(str), return_inverse=True)[1]


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "init", "setup"), CASES)
def test_readings_predict_what_the_clock_predicts(cohort, cls, init, setup):
    model = make(cohort, cls, init, setup)
    for absent in (0, 4):  # genes that the new data lack
        new = cohort[::-1, absent:].copy()
        np.testing.assert_allclose(ages(model, new), model.predict_age(new), rtol=2e-4, atol=1e-4)
        if model.predicts_sums:
            found = ages(model, new, donors(new))[donors(new)]
            np.testing.assert_allclose(found, model.predict_age(new, level="sample"), rtol=2e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["log", "age"])
def test_readings_of_an_ensemble_of_ensembles(cohort, scale):
    other = cohort[:, 10:].copy()
    first = make(cohort, PLSClock, {}, {})
    second, third = (
        make(other, MLPClock, {"n_hidden": [8]}, {}),
        make(other, NMFClock, {**SMALL, "n_components": 4}, {}),
    )
    model = EnsembleClock([first, EnsembleClock([second, third], weights=[1, 3])], scale=scale)
    assert [type(clock) for clock in model.members()] == [PLSClock, MLPClock, NMFClock]
    np.testing.assert_allclose(ages(model, cohort), model.predict_age(cohort), rtol=2e-4, atol=1e-4)
    found = ages(model, cohort, donors(cohort))[donors(cohort)]
    np.testing.assert_allclose(found, model.predict_age(cohort, level="sample"), rtol=2e-4, atol=1e-4)


def test_sums_of_backed_data(cohort, tmp_path):
    model = make(cohort, PLSClock, {}, {})
    whole = ages(model, cohort, donors(cohort))
    cohort.write_h5ad(tmp_path / "cohort.h5ad")
    np.testing.assert_allclose(ages(model, ad.read_h5ad(tmp_path / "cohort.h5ad", backed="r"), donors(cohort)), whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cls", "init"), [(PLSClock, {}), (NMFClock, {**SMALL, "n_components": 4})], ids=["log", "nmf"]
)
def test_scaled_values_are_those_of_scaled_counts(cohort, cls, init):
    model = make(cohort, cls, init, {})
    reading = UnitRows(model, cohort, np.arange(3), None).reading
    counts = torch.tensor([[4.0, 6.0] + [5.0] * 58])
    moved = counts.clone()
    moved[0, :2] = torch.tensor([2.0, 8.0])  # the same library
    values, expected = reading.values(counts), reading.values(moved)
    np.testing.assert_allclose(reading.scaled(values[:, :1], 0.5), expected[:, :1], rtol=1e-5)
    np.testing.assert_allclose(reading.scaled(values, 0.0), 0, atol=1e-6)
