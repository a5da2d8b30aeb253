"""What the clocks without a decoder share: ``MLPClock`` and ``NMFClock``."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import agevi
from agevi.dataloaders._fields import AGE, SUBJECT
from agevi.model.mlp import MLPClock
from agevi.model.nmf import NMFClock
from tests.clocks import params
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}
SMALL = {MLPClock: {"n_hidden": [16]}, NMFClock: {"n_components": 4, "n_hidden": [8], "n_fit": 200}}
each = pytest.mark.parametrize("cls", params([MLPClock, NMFClock], fast=("MLPClock",)))
both = pytest.mark.parametrize("unit", ["cell", "pseudocell"])


def fit(cls, adata, epochs=2, train=None, **init):
    cls.setup_anndata(adata, **SETUP)
    model = cls(adata, **(SMALL[cls] | init))
    model.train(max_epochs=epochs, **QUIET, **(train or {}))
    return model


@pytest.mark.slow
@each
@both
def test_held_out_subjects_shape_nothing(cls, unit, cohort):
    other = cohort.copy()
    held = np.flatnonzero((other.obs["agevi_split"] != "train").to_numpy())
    order = np.random.default_rng(0).permutation(held)
    x = sp.csr_matrix(cohort.X).toarray()
    x[held] = x[order][:, ::-1]
    other.X = sp.csr_matrix(x)
    donors = other.obs["donor"].astype(str).iloc[held]
    ages = other.obs["age"].iloc[held].groupby(donors).first()
    other.obs.iloc[held, other.obs.columns.get_loc("age")] = donors.map(
        dict(zip(ages.index, ages[::-1] + 1, strict=True))
    )
    kept = {"early_stopping": False}
    a, b = (fit(cls, data, train=kept, train_unit=unit).module.state_dict() for data in (cohort, other))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
@each
@both
def test_a_seed_gives_the_same_clock(cls, unit, cohort):
    a, b, c = (fit(cls, cohort.copy(), train_unit=unit, rng=seed).module.state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


@each
def test_samples_are_predicted_from_their_sums(cls, cohort):
    model = fit(cls, cohort)
    got = model.predict_age(level="sample")
    x, donors = sp.csr_matrix(cohort.X), cohort.obs["donor"].astype(str).to_numpy()
    names = np.unique(donors)
    sums = np.stack([np.asarray(x[donors == d].sum(0)).ravel() for d in names]).astype(np.float32)
    module = model.module.eval()
    with torch.no_grad():
        ages = module.age(module.latent(torch.from_numpy(sums), summed=True), summed=True)
    expected = dict(zip(names, ages.numpy(), strict=True))
    np.testing.assert_allclose(got, [expected[d] for d in donors], rtol=1e-4)


@each
def test_the_units_have_scales_of_their_own(cls, cohort):
    model = fit(cls, cohort, epochs=1, **({"n_fit": 1000} if cls is NMFClock else {}))
    module, train = model.module.eval(), (cohort.obs["agevi_split"] == "train").to_numpy()
    seen = {}
    head = module.head.stack.blocks[0] if cls is MLPClock else module.head
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    for level in ("cell", "sample"):
        # All samples have the same number of cells, so that the mean over cells is one over samples.
        model.predict_age(indices=np.flatnonzero(train), level=level)
        limit = 1e-3 if level == "cell" or cls is MLPClock else 0.5  # NMF: moments are those of pseudocells
        assert seen["x"].mean(0).abs().max() < limit, level
    handle.remove()


@each
@both
def test_history_is_the_error_of_validation_subjects(cls, unit, cohort):
    model = fit(cls, cohort, epochs=3, train={"early_stopping": False}, train_unit=unit)
    held = (cohort.obs["agevi_split"] == "validation").to_numpy()
    level = "sample" if unit == "pseudocell" else "cell"
    frame = cohort.obs[held].assign(p=model.predict_age(level=level)[held])
    means = frame.groupby("donor", observed=True)[["p", "age"]].mean()
    error = (means["p"] - means["age"]).abs().mean()
    assert model.history["age_mae_validation"].iloc[-1, 0] == pytest.approx(error, rel=1e-4)
    assert np.isfinite(model.history["train_loss"].to_numpy()).all()


@pytest.mark.slow
@each
@both
def test_a_saved_clock_predicts_and_trains_on(cls, unit, cohort, tmp_path):
    model = fit(cls, cohort, train_unit=unit)
    model.save(tmp_path / "clock")
    loaded = cls.load(tmp_path / "clock", cohort)
    np.testing.assert_array_equal(loaded.predict_age(), model.predict_age())
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())
    if unit == "pseudocell":
        np.testing.assert_array_equal(loaded.predict_age(level="sample"), model.predict_age(level="sample"))
    loaded.train(max_epochs=1, **QUIET)
    assert len(loaded.history["age_mae_train"]) == 3  # it went on and did not start anew
    assert not np.array_equal(loaded.predict_age(), model.predict_age())


@each
@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("huber", lambda e: np.where(np.abs(e) < 1, e**2 / 2, np.abs(e) - 0.5)),
        ("mse", lambda e: e**2),
        ("mae", np.abs),
    ],
)
def test_loss_is_that_of_standardised_ages(cls, kind, loss, cohort):
    cls.setup_anndata(cohort, **SETUP)
    module = cls(cohort, **SMALL[cls], age_loss=kind).module
    ages = torch.tensor([20.0, 80.0, torch.nan, 50.0])
    module.age_scale.fit(torch.tensor([30.0, 60.0, 70.0]))
    predicted = torch.tensor([0.3, -1.5, 0.2, 0.4])
    output = module.loss(
        {AGE: ages[:, None], SUBJECT: torch.tensor([[0.0], [1.0], [1.0], [1.0]])},
        {},
        {"predicted": predicted},
        subject_weights=torch.tensor([2.0, 0.5]),
    )
    standardised = (ages.numpy() - np.mean([30, 60, 70])) / np.std([30, 60, 70])
    rows = loss(predicted.numpy() - standardised) * [2, 0.5, 0.5, 0.5]
    assert output.loss.item() == pytest.approx(np.nansum(rows) / 3, rel=1e-5)
    np.testing.assert_allclose(
        output.extra_metrics["predicted_age"], predicted * np.std([30, 60, 70]) + np.mean([30, 60, 70]), rtol=1e-5
    )


@each
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"age_loss": "l2"}, "age_loss='l2' is not known; choose one of 'huber', 'mse', 'mae'"),
        ({"subject_weight": "sample"}, "subject_weight='sample' is not known; choose one of 'equal', 'cells'"),
        ({"train_unit": "donor"}, "train_unit='donor' is not known; choose one of 'cell', 'pseudocell'"),
        ({"pseudocell_size": 0}, "pseudocell_size=0 is neither a share below 1 nor a whole number"),
    ],
)
def test_bad_arguments(cls, kwargs, message, cohort):
    cls.setup_anndata(cohort, **SETUP)
    with pytest.raises(ValueError, match=message):
        cls(cohort, **kwargs)


@each
def test_cells_alone_give_no_samples(cls, cohort):
    model = fit(cls, cohort, train_unit="cell")
    with pytest.raises(ValueError, match=f"level='sample' needs .* this {cls.__name__} was trained on single cells"):
        model.predict_age(level="sample")


@pytest.mark.slow  # networks learn to the end
@pytest.mark.usefixtures("usual_fits")
@each
@both
def test_learns_age_on_held_out_subjects(cls, unit):
    adata = agevi.datasets.simulate_cohort(n_subjects=60, n_cells=30, n_genes=100, rng=3)
    agevi.pp.split_subjects(adata, **SETUP, test_size=0.3, validation_size=0.1, rng=0)
    cls.setup_anndata(adata, **SETUP)
    model = cls(adata, train_unit=unit, **({"n_components": 10, "n_fit": 500} if cls is NMFClock else {}))
    model.train(50 if cls is NMFClock and unit == "cell" else 20, **QUIET)
    agevi.tl.predict_age(adata, model)
    agevi.tl.aggregate_subjects(adata)
    metrics = agevi.get.metrics_df(adata).loc["test"]
    # Ages from single cells shrink to the mean, so that the error says less about them than the correlation.
    assert metrics["pearson"] > 0.7
    assert metrics["mae"] < (0.6 if unit == "pseudocell" else 0.97) * metrics["mae_median"]
