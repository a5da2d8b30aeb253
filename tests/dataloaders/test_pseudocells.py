from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from agevi._compat.scvi import REGISTRY_KEYS
from agevi.dataloaders import _pseudocells
from agevi.dataloaders._fields import AGE, SAMPLE, SUMMED
from agevi.dataloaders._pseudocells import PseudocellLoader, PseudocellSplitter, Rows, draw_cells
from agevi.model import PoissonVAE

X = REGISTRY_KEYS.X_KEY


@pytest.fixture
def manager(cohort):
    PoissonVAE.setup_anndata(cohort, age_key="age", subject_key="donor", batch_key="batch")
    return PoissonVAE(cohort, n_hidden=[4], n_latent=2).adata_manager


@pytest.mark.parametrize("averaged", [False, True], ids=["sums", "means"])
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, lambda x: x.toarray()], ids=["csr", "csc", "dense"])
def test_rows_equal_numpy(manager, form, averaged):
    rows = Rows(manager, averaged=averaged)
    dense = sp.csr_matrix(rows.x).toarray()
    rows.x = form(sp.csr_matrix(rows.x))
    members = [np.array([3, 5, 9]), np.array([40])]
    batch = rows.batch(members, np.array([7, 7, 1]))
    of = np.mean if averaged else np.sum
    expected = np.stack([*(of(dense[m], axis=0) for m in members), *dense[[7, 7, 1]]])
    np.testing.assert_allclose(batch[X].numpy(), expected, rtol=1e-6)
    assert batch[SUMMED].tolist() == [True, True, False, False, False]
    ages = manager.get_from_registry(AGE).ravel()
    np.testing.assert_allclose(batch[AGE].numpy().ravel(), ages[[3, 40, 7, 7, 1]])


def test_an_epoch_takes_every_sample_as_often(manager, monkeypatch):
    monkeypatch.setattr(_pseudocells, "MIN_STEPS", 1)
    samples = [np.arange(i * 20, (i + 1) * 20) for i in range(24)]
    torch.manual_seed(0)
    loader = PseudocellLoader(Rows(manager, averaged=False), samples, np.arange(480), size=0.5, n_rows=16, n_cells=8)
    assert len(loader) == 3
    batches = list(loader)
    assert all(b[X].shape == (24, 60) for b in batches)
    codes = torch.cat([b[SAMPLE][b[SUMMED]] for b in batches]).numpy().ravel().astype(int)
    np.testing.assert_array_equal(np.bincount(codes), np.full(24, 2))


@pytest.mark.parametrize(("size", "wanted"), [(0.5, 10), (0.05, 1), (7, 7), (100, 20)])
def test_size_of_a_pseudocell(size, wanted):
    drawn = draw_cells(np.arange(20), size, np.random.default_rng(0))
    assert len(set(drawn)) == len(drawn) == wanted


def test_large_samples_are_capped(monkeypatch):
    monkeypatch.setattr(_pseudocells, "MAX_CELLS", 5)
    assert len(draw_cells(np.arange(20), 0.5, np.random.default_rng(0))) == 5


def test_few_samples_fill_a_step_with_more_pseudocells(manager):
    samples = [np.arange(i * 20, (i + 1) * 20) for i in range(5)]
    loader = PseudocellLoader(Rows(manager, averaged=False), samples, np.arange(100), size=0.5)
    batch = next(iter(loader))
    assert (batch[SUMMED].sum(), (~batch[SUMMED]).sum()) == (130, 100)


def test_splitter_keeps_subjects_apart_and_skips_those_without_age(cohort):
    donors = cohort.obs["donor"].astype(str)
    cohort.obs.loc[(donors == donors.iloc[0]).to_numpy(), "age"] = np.nan
    PoissonVAE.setup_anndata(cohort, age_key="age", subject_key="donor")
    manager = PoissonVAE(cohort, n_hidden=[4], n_latent=2).adata_manager
    first, last = donors.iloc[0], donors.iloc[-1]
    roles = np.where(donors == last, "validation", "train")
    splitter = PseudocellSplitter(
        manager,
        roles,
        units=manager.get_from_registry(SAMPLE).ravel().astype(int),
        size=0.5,
        averaged=False,
        with_cells=True,
    )
    samples = splitter.samples(splitter.train_idx)
    assert len(samples) == donors.nunique() - 2
    for cells in samples:
        assert donors.iloc[cells].nunique() == 1
    assert not np.isin(np.concatenate(samples), np.flatnonzero(donors.isin([first, last]))).any()
    assert np.isin(np.flatnonzero(donors == first), splitter.train_idx).all()  # reconstructed all the same
    whole = list(splitter.val_dataloader())
    assert len(whole) == 1
    sums = whole[0][X][whole[0][SUMMED]].numpy()
    expected = pd.DataFrame(sp.csr_matrix(cohort.X).toarray()[donors == last]).sum(axis=0).to_numpy()[None]
    np.testing.assert_allclose(sums, expected)
