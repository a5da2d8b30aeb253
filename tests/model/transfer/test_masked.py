"""Classifiers from transformer clocks: what was not measured, and the linear path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logit

import agevi
from agevi.model import CaseControlClassifier, TransformerClock
from tests.conftest import QUIET
from tests.model.transformer.masked import SETUP, SMALL, one, samples

CONDITION = {"condition_key": "condition", "control": "control"}
FREEZE = {
    "frozen": {},
    "encoder": {"freeze": "encoder"},
    "none": {"freeze": "none"},
    "scratch": {"freeze": "none", "from_scratch": True},
}
each_freeze = pytest.mark.parametrize("arguments", FREEZE.values(), ids=FREEZE)
ARCHITECTURES = {"ft": {}, "tab": {"architecture": "tab", "n_hidden": [8, 8]}}
each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def with_condition(adata):
    """Every third subject is a case, in whom the features that both modalities measure are raised."""
    case = adata.obs["donor"].str[1:].astype(int).to_numpy() % 3 == 0
    adata.obs["condition"] = np.where(case, "case", "control")
    beta = (adata.obs["modality"] == "methylation").to_numpy()
    adata.X[case, 12:20] += np.where(beta[case], 0.1, 2.0)[:, None].astype(np.float32)
    return adata


@pytest.fixture
def data():
    return with_condition(samples())


@pytest.fixture(scope="module")
def clocks():
    made = {}
    for name, arguments in ARCHITECTURES.items():
        others = samples(80, seed=1)
        TransformerClock.setup_anndata(others, **SETUP)
        made[name] = TransformerClock(others, **(SMALL | arguments))
        made[name].train(max_epochs=3, **QUIET)
    return made


def trained(clock, adata, **arguments):
    model = CaseControlClassifier.from_clock(clock, adata, **CONDITION, **arguments)
    model.train(max_epochs=4)
    return model


@pytest.mark.slow
@each_architecture
@each_freeze
def test_what_was_not_measured_says_nothing(clocks, data, architecture, arguments):
    other = data.copy()
    masks = other.varm["agevi_measured"].T[(other.obs["modality"] == "methylation").to_numpy().astype(int)]
    other.X[~masks] = 7
    first, second = (trained(clocks[architecture], adata, **arguments) for adata in (data, other))
    np.testing.assert_array_equal(first.predict_proba(), second.predict_proba())
    part = one(data, "methylation")
    rows = (data.obs["modality"] == "methylation").to_numpy()
    np.testing.assert_allclose(
        first.predict_proba(part, level="cell"), first.predict_proba(level="cell")[rows], rtol=1e-4
    )


def test_a_classifier_finds_the_features_of_one_modality_as_its_clock_does(clocks, data):
    part = one(data, "methylation")
    model = trained(clocks["ft"], part)
    place = model.find_genes(part)
    np.testing.assert_array_equal(place, clocks["ft"].find_genes(part))
    assert (place < 0).any() and (place >= 0).any()
    agevi.tl.attribute_genes(part, model, n_samples=5, n_boot=10)
    assert np.isfinite(part.varm["agevi_attribution"]).all()


@pytest.mark.slow
@each_architecture
def test_held_out_samples_shape_nothing_from_scratch(clocks, data, architecture):
    """Nor the linear path, which is one of classes then."""
    agevi.pp.split_subjects(data, age_key="age", subject_key="donor", stratify_by=["condition"], rng=0)
    other, held_out = data.copy(), (data.obs["agevi_split"] != "train").to_numpy()
    other.X[held_out] += 1
    found = [trained(clocks[architecture], adata, **FREEZE["scratch"]) for adata in (data, other)]
    np.testing.assert_array_equal(*(model.predict_proba(data) for model in found))
    has_line = architecture == "ft"
    assert bool(found[0].module.coef.any()) == has_line
    assert torch.equal(found[0].module.coef, clocks[architecture].module.coef) == (not has_line)


@pytest.mark.slow
@each_architecture
def test_the_line_is_read_and_not_added(clocks, data, architecture):
    """Log-odds of the frozen transfer are a linear map of the latent representation, by numpy."""
    model = trained(clocks[architecture], data)
    found, output = model.predict_rows(data), model.module.output
    expected = found.latent @ output.weight.detach().numpy()[0] + output.bias.detach().numpy()
    np.testing.assert_allclose(found.value, expected, rtol=1e-4, atol=1e-5)
    case = (data.obs["condition"] == "case").to_numpy()
    model = CaseControlClassifier.from_clock(clocks[architecture], data, **CONDITION, freeze="none")
    model.train()
    assert agevi.metrics.auroc(case, model.predict_proba(level="cell")) > 0.95


@pytest.mark.slow
@each_architecture
def test_attributions_add_up_to_log_odds(clocks, data, architecture):
    model = trained(clocks[architecture], data, freeze="none")
    agevi.tl.attribute_genes(data, model)
    record = data.uns["agevi_attribution"]
    assert record["age_unit"] == "log-odds"
    assert record["completeness_error"] < 0.05 * record["predicted_range"]
    assert record["predicted_range"] >= 0.5 * np.ptp(logit(model.predict_proba(level="cell")))


@pytest.mark.slow
@each_architecture
def test_a_saved_classifier_is_the_same(clocks, data, architecture, tmp_path):
    model = trained(clocks[architecture], data, **FREEZE["scratch"])
    model.save(tmp_path / "model")
    back = agevi.io.load_clock(tmp_path / "model")
    np.testing.assert_array_equal(back.predict_proba(data), model.predict_proba())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* subjects trained the clock or chose its epochs")
def test_a_comparison_keeps_the_mask(clocks, data, monkeypatch):
    seen = []
    monkeypatch.setattr(
        CaseControlClassifier, "_train_until",
        lambda self, *_, **__: seen.append(self._adata.varm["agevi_measured"]) or setattr(self, "is_trained_", True),
    )  # fmt: skip
    monkeypatch.setattr(CaseControlClassifier, "predict_proba", lambda self, indices: np.full(len(indices), 0.5))
    agevi.tl.compare_transfer(data, clocks["ft"], **CONDITION, n_folds=2, n_repeats=1, n_boot=10)
    assert len(seen) == 16  # each network chooses its epochs first
    for mask in seen:
        np.testing.assert_array_equal(mask, data.varm["agevi_measured"])
