"""What clocks of sums learn from all training cells at once depends neither on the order of cells nor on the seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import agevi
from tests.conftest import QUIET

VAE = {"n_hidden": [8], "n_latent": 3, "n_head": [4]}
NETWORKS = {"PoissonVAE": VAE, "GaussianVAE": VAE, "DenoisingVAE": VAE, "MLPClock": {"n_hidden": [8]}}


def buffers(adata, name, **init):
    cls = getattr(agevi.model, name)
    cls.setup_anndata(adata, age_key="age", subject_key="donor")
    model = cls(adata, **NETWORKS[name], **init)
    model.train(max_epochs=1, early_stopping=False, **QUIET)
    return {key: value.double() for key, value in model.module.input.named_buffers()}


@pytest.mark.slow
@pytest.mark.parametrize("groups", [None, "cell_type"])
@pytest.mark.parametrize("name", NETWORKS)
def test_scales_of_genes(cohort, name, groups):
    other = cohort[np.random.default_rng(0).permutation(cohort.n_obs)].copy()
    got, expected = (
        buffers(other, name, rng=1, pseudocell_groupby=groups),
        buffers(cohort, name, pseudocell_groupby=groups),
    )
    assert got["sum_scale"].std() > 0
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, rtol=1e-5, atol=1e-6, msg=key)


def test_all_clocks_with_scales_of_sums_are_tested(cohort):
    for cls in agevi.model.MODELS:
        if cls.trainable and not cls.of_types and cls.__name__ not in NETWORKS and cls.expects != "continuous":
            cls.setup_anndata(cohort, age_key="age", subject_key="donor")
            init = {"n_components": 4} if cls.__name__ == "NMFClock" else {}
            assert not getattr(getattr(cls(cohort, **init).module, "input", None), "sums", False)
