"""Training and prediction with rounded factors of matrix products."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agevi.model import GaussianVAE, MLPClock, PoissonVAE
from agevi.nn import products
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}


def fit(adata, cls=PoissonVAE, precision="float32", train_unit="cell", **init):
    cls.setup_anndata(adata, **SETUP)
    model = cls(adata, n_hidden=[16], train_unit=train_unit, **init)
    model.train(2, precision=precision, **QUIET)
    return model


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().ravel() for p in model.module.parameters()])


@pytest.mark.slow
@pytest.mark.parametrize("cls", [PoissonVAE, GaussianVAE, MLPClock])
@pytest.mark.parametrize("train_unit", ["cell", "pseudocell"])
def test_rounded_factors_change_little_and_are_the_same_again(cohort, cls, train_unit):
    exact = fit(cohort.copy(), cls, train_unit=train_unit)
    a, b = (fit(cohort.copy(), cls, "bfloat16", train_unit) for _ in range(2))
    assert torch.equal(weights(a), weights(b))
    assert not torch.equal(weights(a), weights(exact))
    assert weights(a).dtype == torch.float32
    name = "train_loss"
    np.testing.assert_allclose(a.history[name].to_numpy(), exact.history[name].to_numpy(), rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("has", [True, False])
def test_auto_takes_what_the_hardware_has(cohort, has, monkeypatch):
    monkeypatch.setattr(products, "_has_bfloat16", lambda device: has)
    expected = fit(cohort.copy(), precision="bfloat16" if has else "float32")
    assert torch.equal(weights(fit(cohort.copy(), precision="auto")), weights(expected))


def test_predictions_are_rounded_on_request_only(trained):
    exact, again = trained.predict_age(), trained.predict_age(precision="float32")
    rounded = trained.predict_age(precision="bfloat16")
    np.testing.assert_array_equal(exact, again)
    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(rounded, exact, atol=0.5)


def test_an_unknown_precision_is_refused(cohort, trained):
    with pytest.raises(ValueError, match="precision='half' is not known; choose one of 'float32', 'bfloat16'"):
        trained.predict_age(precision="half")
    PoissonVAE.setup_anndata(cohort, **SETUP)
    with pytest.raises(ValueError, match="precision='half' is not known; choose one of 'auto'"):
        PoissonVAE(cohort).train(precision="half")


def test_the_loss_makes_no_distribution_and_a_user_gets_one(trained):
    tensors = next(iter(trained._make_data_loader(trained.adata_manager.adata, batch_size=32)))
    module = trained.module
    with torch.no_grad():
        torch.manual_seed(0)
        _, lean, output = module(tensors, generative_kwargs={"decode": False})
        torch.manual_seed(0)
        _, full, same = module(tensors)
    assert "px" not in lean
    expected = -full["px"].log_prob(tensors["X"]).sum(-1)
    assert torch.allclose(same.reconstruction_loss["reconstruction_loss"], expected, rtol=1e-4)
    assert torch.equal(output.loss, same.loss)
