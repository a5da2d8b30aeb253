"""Clocks that learn ages from sums of cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.metrics import silhouette_score

import agevi
from agevi.model import DenoisingVAE, GaussianVAE, PoissonVAE
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}
SMALL = {"n_hidden": [16], "n_latent": 4}
each = pytest.mark.parametrize("cls", [PoissonVAE, GaussianVAE, DenoisingVAE])


def fit(cls, adata, epochs=2, setup=None, **init):
    cls.setup_anndata(adata, **SETUP, **(setup or {}))
    model = cls(adata, **(SMALL | init))
    model.train(max_epochs=epochs, **QUIET)
    return model


@pytest.mark.slow
@each
def test_sample_predictions_are_those_of_the_summed_counts(cls, cohort):
    model = fit(cls, cohort)
    got = model.predict_age(level="sample")
    x, donors = sp.csr_matrix(cohort.X), cohort.obs["donor"].astype(str).to_numpy()
    names = np.unique(donors)
    sums = np.stack([np.asarray(x[donors == d].sum(0)).ravel() for d in names]).astype(np.float32)
    module = model.module.eval()
    with torch.no_grad():
        mean = module.latent_mean(torch.from_numpy(sums), torch.zeros(len(names), 1), summed=True)
        expected = dict(zip(names, module.age(mean).numpy(), strict=True))
    np.testing.assert_allclose(got, [expected[d] for d in donors], rtol=1e-4)
    assert got.dtype == np.float32


@pytest.mark.slow
def test_tools_write_and_use_the_sample_predictions(cohort):
    model = fit(PoissonVAE, cohort)
    agevi.tl.predict_age(cohort, model)
    agevi.tl.aggregate_subjects(cohort)
    by_sample = cohort.obs.groupby("donor", observed=True)["agevi_predicted_sample"].first()
    table = cohort.uns["agevi_subjects"]
    np.testing.assert_allclose(table["predicted"], by_sample.loc[table.index], rtol=1e-6)
    assert (cohort.obs["agevi_predicted"] == cohort.obs["agevi_predicted_sample"]).all()
    assert table["sd_cells"].isna().all()
    with pytest.raises(ValueError, match="level='cells' averages predictions of single cells, and .* of sums of cells"):
        agevi.tl.aggregate_subjects(cohort, level="cells")
    of_cells = fit(PoissonVAE, cohort.copy(), train_unit="cell")
    agevi.tl.predict_age(cohort, of_cells)
    assert "agevi_predicted_sample" not in cohort.obs  # nothing of the other clock is left
    agevi.tl.aggregate_subjects(cohort, level="cells")
    by_cells = cohort.obs.groupby("donor", observed=True)["agevi_predicted"].mean()
    np.testing.assert_allclose(cohort.uns["agevi_subjects"]["predicted"], by_cells.loc[table.index], rtol=1e-5)
    assert cohort.uns["agevi_subjects"]["sd_cells"].gt(0).all()


@pytest.mark.slow
def test_samples_of_chosen_cells_of_disk_and_of_part_of_the_genes(cohort, tmp_path):
    import anndata as ad

    model = fit(PoissonVAE, cohort)
    chosen = np.array([5, 300, 7, 301])
    part = cohort[chosen].copy()
    np.testing.assert_allclose(
        model.predict_age(cohort, indices=chosen, level="sample"), model.predict_age(part, level="sample"), rtol=1e-5
    )
    cohort.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    np.testing.assert_allclose(
        model.predict_age(backed, level="sample"), model.predict_age(cohort, level="sample"), rtol=1e-5
    )
    backed.file.close()
    fewer = cohort[:, 5:].copy()
    assert np.isfinite(model.predict_age(fewer, level="sample")).all()
    del cohort.obs["donor"]
    with pytest.raises(KeyError, match="'donor' is not a column"):
        model.predict_age(cohort, level="sample")


@pytest.mark.slow
def test_history_watches_whole_samples(cohort):
    model = fit(PoissonVAE, cohort, epochs=3)
    assert model.best_epoch_ == 3
    held = (cohort.obs["agevi_split"] == "validation").to_numpy()
    means = cohort.obs[held].assign(p=model.predict_age(level="sample")[held]).groupby("donor", observed=True)
    error = (means["p"].first() - means["age"].first()).abs().mean()
    assert model.history["age_mae_validation"].iloc[-1, 0] == pytest.approx(error, rel=1e-4)
    for name in ("train_loss", "validation_loss", "elbo_train", "elbo_validation", "kl_weight"):
        assert np.isfinite(model.history[name].to_numpy()).all()


@pytest.mark.slow
def test_held_out_subjects_do_not_shape_the_clock(cohort):
    other = cohort.copy()
    held = (other.obs["agevi_split"] == "test").to_numpy()
    x = other.X.toarray()
    x[held] = x[held][:, ::-1]
    other.X = x
    other.obs.loc[held, "age"] = 33.0
    a, b = fit(PoissonVAE, cohort).module.state_dict(), fit(PoissonVAE, other).module.state_dict()
    assert all(torch.allclose(a[k], b[k], atol=1e-6) for k in a)


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_means_are_taken_where_values_are_normalised_already(cohort):
    cohort.X = np.log1p(sp.csr_matrix(cohort.X).toarray())
    model = fit(GaussianVAE, cohort, setup={"normalize": "none"})
    doubled = cohort[np.repeat(np.arange(cohort.n_obs), 2)].copy()
    doubled.obs_names_make_unique()
    np.testing.assert_allclose(
        model.predict_age(doubled, level="sample")[::2], model.predict_age(level="sample"), rtol=1e-4
    )


def test_samples_of_very_different_size(cohort):
    n = cohort.obs.groupby("donor", observed=True).cumcount().to_numpy()
    first = (cohort.obs["donor"] == cohort.obs["donor"].iloc[0]).to_numpy()
    uneven = cohort[~first | (n < 1)].copy()
    model = fit(PoissonVAE, uneven)
    assert np.isfinite(model.predict_age(level="sample")).all()


@pytest.mark.slow
def test_a_clock_is_the_same_again_and_survives_a_file(cohort, tmp_path):
    a, b = fit(PoissonVAE, cohort.copy()), fit(PoissonVAE, cohort.copy())
    np.testing.assert_array_equal(a.predict_age(level="sample"), b.predict_age(level="sample"))
    a.save(tmp_path / "clock")
    loaded = agevi.io.load_clock(tmp_path / "clock")
    assert loaded.predicts_sums
    np.testing.assert_array_equal(loaded.predict_age(cohort, level="sample"), a.predict_age(level="sample"))


@pytest.mark.slow
def test_the_learning_rate_goes_through_one_cycle(cohort):
    model = PoissonVAE
    model.setup_anndata(cohort, **SETUP)
    clock = model(cohort, **SMALL)
    rates = []

    class Watch(agevi._compat.scvi.Callback):
        def on_train_batch_start(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    clock.train(max_epochs=4, callbacks=[Watch()], **QUIET)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=len(rates))
    expected = []
    for _ in rates:
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"train_unit": "donor"}, "train_unit='donor' is not known; choose one of 'cell', 'pseudocell'"),
        ({"pseudocell_size": 0}, "pseudocell_size=0 is neither a share below 1 nor a whole number"),
        ({"pseudocell_size": 2.5}, "pseudocell_size=2.5 is neither"),
    ],
)
def test_bad_units(cohort, kwargs, message):
    PoissonVAE.setup_anndata(cohort, **SETUP)
    with pytest.raises(ValueError, match=message):
        PoissonVAE(cohort, **kwargs)


@pytest.mark.slow  # networks learn to the end
@pytest.mark.usefixtures("usual_fits")
def test_latent_space_still_describes_cells_and_ages_are_better_than_from_cells():
    adata = agevi.datasets.simulate_cohort(n_subjects=60, n_cells=30, n_genes=150, rng=3)
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", test_size=0.3, validation_size=0.1, rng=0)
    test = (adata.obs["agevi_split"] == "test").to_numpy()
    error, separation = {}, {}
    for unit in ("cell", "pseudocell"):
        PoissonVAE.setup_anndata(adata, **SETUP)
        model = PoissonVAE(adata, train_unit=unit)
        model.train(40, **QUIET)
        agevi.tl.predict_age(adata, model)
        agevi.tl.aggregate_subjects(adata)
        table = adata.uns["agevi_subjects"].query("role == 'test'")
        error[unit] = (table["predicted"] - table["age"]).abs().mean()
        separation[unit] = silhouette_score(adata.obsm["X_agevi"][test], adata.obs["cell_type"][test])
    assert error["pseudocell"] < error["cell"]
    assert separation["pseudocell"] > separation["cell"] - 0.05


@pytest.mark.parametrize("unit", ["cell", "pseudocell"])
@pytest.mark.parametrize("weight", ["equal", "cells"])
def test_weights_of_subjects_with_several_samples(cohort, unit, weight):
    rng = np.random.default_rng(0)
    cohort = cohort[rng.random(cohort.n_obs) < 0.6].copy()
    donors = cohort.obs["donor"].astype(str)
    visit = np.where(donors.isin(donors.unique()[:9]), rng.integers(0, 3, cohort.n_obs), 0)
    cohort.obs["visit"] = donors.to_numpy() + "-" + visit.astype(str)
    PoissonVAE.setup_anndata(cohort, **SETUP, sample_key="visit")
    model = PoissonVAE(cohort, **SMALL, train_unit=unit, subject_weight=weight)
    train = (cohort.obs["agevi_split"] == "train").to_numpy()
    weights = model._subject_weights(train).numpy()
    by_donor = cohort.obs[train].groupby(donors[train])
    rows = by_donor["visit"].nunique() if unit == "pseudocell" else by_donor.size()
    names = model.adata_manager.get_state_registry("agevi_subject")["names"]
    total = pd.Series(weights, index=list(names))[rows.index] * rows
    expected = by_donor.size() if weight == "cells" else pd.Series(1.0, index=rows.index)
    np.testing.assert_allclose(total / total.sum(), expected / expected.sum(), rtol=1e-5)
    assert total.sum() / rows.sum() == pytest.approx(1, rel=1e-5)
