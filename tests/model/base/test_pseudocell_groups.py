"""Clocks that keep the groups of a sample's cells apart."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import agevi
from agevi.dataloaders._fields import SAMPLE
from agevi.dataloaders._pseudocells import PseudocellSplitter
from agevi.dataloaders._sums import sample_groups
from agevi.model import MLPClock, NMFClock, PoissonVAE
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}
BY_TYPE = {"pseudocell_groupby": "cell_type"}
SMALL = {
    MLPClock: {"n_hidden": [16]},
    PoissonVAE: {"n_hidden": [16], "n_latent": 4},
    NMFClock: {"n_components": 4, "n_hidden": [8], "n_fit": 50},
}


def fit(cls, adata, epochs=2, **init):
    cls.setup_anndata(adata, **SETUP)
    model = cls(adata, **(SMALL[cls] | init))
    model.train(max_epochs=epochs, **QUIET)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("cls", list(SMALL), ids=lambda c: c.__name__)
def test_a_sample_is_the_mean_over_the_sums_of_its_groups(cls, cohort):
    model = fit(cls, cohort, **BY_TYPE)
    got = model.predict_age(level="sample")
    names = cohort.obs["donor"].astype(str) + "/" + cohort.obs["cell_type"].astype(str)
    units = np.unique(names)
    x = sp.csr_matrix(cohort.X)
    sums = np.stack([np.asarray(x[(names == u).to_numpy()].sum(0)).ravel() for u in units]).astype(np.float32)
    loader = [{"X": torch.from_numpy(sums), "batch": torch.zeros(len(units), 1)}]
    age = dict(zip(units, model._predict_batches(loader, None, summed=True)[0], strict=True))
    expected = names.map(age).groupby(cohort.obs["donor"].astype(str)).transform("mean")  # over cells
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert expected.nunique() == cohort.obs["donor"].nunique()


@pytest.mark.slow
def test_pseudocells_hold_cells_of_one_group_of_one_sample(cohort):
    model = fit(MLPClock, cohort, **BY_TYPE)
    identity = sp.identity(cohort.n_obs, dtype=np.float32, format="csr")
    roles = np.full(cohort.n_obs, "train", dtype=object)
    splitter = PseudocellSplitter(
        model.adata_manager, roles, units=model._units_of_sums(), size=0.5, averaged=False, with_cells=False
    )
    splitter.rows.x = identity  # columns of a sum are its cells
    pairs = cohort.obs["donor"].astype(str) + "/" + cohort.obs["cell_type"].astype(str)
    seen = set()
    for batch in splitter.train_dataloader():
        for row, code in zip(batch["X"].numpy(), batch[SAMPLE].numpy().ravel(), strict=True):
            held = pairs.iloc[np.flatnonzero(row)].unique()
            assert len(held) == 1
            assert len(np.flatnonzero(row)) == -(-(pairs == held[0]).sum() // 2)
            assert held[0].startswith(model.adata_manager.get_state_registry(SAMPLE)["names"][int(code)])
            seen.add(held[0])
    assert len(seen) > cohort.obs["donor"].nunique()


def test_codes_of_groups_equal_those_of_pandas(cohort):
    donor = cohort.obs["donor"].astype(str)
    sample = donor.astype("category").cat.codes.to_numpy(np.int64)
    group = cohort.obs["cell_type"].astype(str)
    np.testing.assert_array_equal(sample_groups(sample, group), cohort.obs.groupby([donor, group]).ngroup())


def test_every_subject_weighs_the_same_whatever_its_groups(cohort):
    first = (cohort.obs["donor"] == cohort.obs["donor"].iloc[0]).to_numpy()
    one_type = first & (cohort.obs["cell_type"] != cohort.obs["cell_type"].iloc[0]).to_numpy()
    cohort = cohort[~one_type].copy()
    model = fit(MLPClock, cohort, **BY_TYPE)
    train = (cohort.obs["agevi_split"] == "train").to_numpy()
    donor = cohort.obs["donor"].astype(str)
    names = list(model.adata_manager.get_state_registry("agevi_subject")["names"])
    weight = dict(zip(names, model._subject_weights(train).numpy(), strict=True))
    rows = cohort.obs[train].groupby(donor[train])["cell_type"].nunique()
    total = rows * rows.index.map(weight).to_numpy()
    np.testing.assert_allclose(total, total.iloc[0], rtol=1e-5)


@pytest.mark.slow
def test_a_file_keeps_the_column_and_new_data_must_have_it(cohort, tmp_path):
    model = fit(PoissonVAE, cohort, **BY_TYPE)
    model.save(tmp_path / "clock")
    assert "sums of their groups in adata.obs['cell_type']" in (tmp_path / "clock" / "README.md").read_text()
    loaded = agevi.io.load_clock(tmp_path / "clock")
    np.testing.assert_array_equal(loaded.predict_age(cohort, level="sample"), model.predict_age(level="sample"))
    chosen = np.array([5, 300, 7, 301])
    np.testing.assert_allclose(
        loaded.predict_age(cohort, indices=chosen, level="sample"),
        loaded.predict_age(cohort[chosen].copy(), level="sample"),
        rtol=1e-5,
    )
    again = agevi.io.load_clock(tmp_path / "clock", cohort)
    again.train(max_epochs=1, **QUIET)
    del cohort.obs["cell_type"]
    with pytest.raises(KeyError, match="pseudocell_groupby='cell_type' is not a column"):
        loaded.predict_age(cohort, level="sample")
    assert np.isfinite(loaded.predict_age(cohort)).all()  # cells need no group


def test_folds_that_were_made_with_other_groups_are_not_used_again(cohort, tmp_path):
    run = {**SETUP, "n_folds": 2, "checkpoint_dir": tmp_path, "train_kwargs": {"max_epochs": 1}}
    kwargs = {"model_kwargs": SMALL[MLPClock] | BY_TYPE}
    agevi.tl.cross_validate(cohort, MLPClock, **run, **kwargs)
    assert np.isfinite(cohort.obs["agevi_predicted_sample"]).all()
    cohort.obs["cell_type"] = cohort.obs["cell_type"].to_numpy()[::-1]
    with pytest.raises(ValueError, match="cell_type"):
        agevi.tl.cross_validate(cohort, MLPClock, **run, **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        pytest.param(
            {"pseudocell_groupby": "celltype"}, KeyError, "'celltype' is not a column.*cell_type", id="absent"
        ),
        pytest.param(BY_TYPE | {"train_unit": "cell"}, ValueError, "single cells are not grouped", id="cells"),
    ],
)
def test_bad_groups(cohort, kwargs, error, message):
    MLPClock.setup_anndata(cohort, **SETUP)
    with pytest.raises(error, match=message):
        MLPClock(cohort, **kwargs)


def test_cells_without_a_group_are_refused(cohort):
    cohort.obs["cell_type"] = cohort.obs["cell_type"].astype(object)
    cohort.obs.loc[cohort.obs_names[3], "cell_type"] = None
    MLPClock.setup_anndata(cohort, **SETUP)
    with pytest.raises(ValueError, match="'cell_type'.*is missing in 1 cells"):
        MLPClock(cohort, **BY_TYPE)


@pytest.mark.slow  # networks learn to the end
def test_types_that_age_in_opposite_directions_are_told_apart():
    adata = agevi.datasets.simulate_cohort(
        60, 30, 100, n_cell_types=2, ageing_rates=[1, -1], effect_range=(0.1, 0.3), composition_shift=0.0,
        composition_sd=1.0, rng=2,
    )  # fmt: skip
    error = {}
    for key in (None, "cell_type"):
        agevi.tl.cross_validate(adata, MLPClock, **SETUP, n_folds=3, model_kwargs={"pseudocell_groupby": key})
        agevi.tl.aggregate_subjects(adata)
        table = adata.uns["agevi_subjects"]
        error[key] = (table["predicted"] - table["age"]).abs().mean()
    assert error["cell_type"] < 0.6 * error[None]
