from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import chi2_contingency, chisquare

from agevi._compat.scvi import REGISTRY_KEYS
from agevi.dataloaders import _pseudocells
from agevi.dataloaders._fields import AGE, CELLS, SAMPLE, SUMMED
from agevi.dataloaders._pseudocells import PseudocellLoader, PseudocellSplitter, Rows, Samples, draw_cells
from agevi.model import PoissonVAE
from agevi.nn.rows import as_dense, is_csr

X = REGISTRY_KEYS.X_KEY


@pytest.fixture
def manager(cohort):
    PoissonVAE.setup_anndata(cohort, age_key="age", subject_key="donor", batch_key="batch")
    return PoissonVAE(cohort, n_hidden=[4], n_latent=2).adata_manager


@pytest.mark.parametrize("averaged", [False, True], ids=["sums", "means"])
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, lambda x: x.toarray()], ids=["csr", "csc", "dense"])
def test_rows_equal_numpy(manager, form, averaged):
    adata = manager.adata
    dense = adata.X.toarray()
    adata.X = form(adata.X)
    rows = Rows(manager, averaged=averaged)
    members = [np.array([3, 5, 9]), np.array([40])]
    batch = rows.batch(np.concatenate(members), np.array([3, 1]), np.array([7, 7, 1]))
    of = np.mean if averaged else np.sum
    np.testing.assert_allclose(batch[X].numpy(), np.stack([of(dense[m], axis=0) for m in members]), rtol=1e-6)
    np.testing.assert_array_equal(as_dense(batch[CELLS]).numpy(), dense[[7, 7, 1]])
    assert is_csr(batch[CELLS]) == (form is sp.csr_matrix)
    assert batch[SUMMED] is True
    ages = manager.get_from_registry(AGE).ravel()
    np.testing.assert_allclose(batch[AGE].numpy().ravel(), ages[[3, 40, 7, 7, 1]])
    none = rows.batch(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.array([2]))
    assert (none[X].shape, none[CELLS].shape) == ((0, 60), (1, 60))
    assert CELLS not in rows.batch(np.array([2]), np.array([1]))


def test_an_epoch_takes_every_sample_as_often(manager, monkeypatch):
    monkeypatch.setattr(_pseudocells, "MIN_STEPS", 1)
    samples = [np.arange(i * 20, (i + 1) * 20) for i in range(24)]
    torch.manual_seed(0)
    loader = PseudocellLoader(Rows(manager, averaged=False), samples, np.arange(480), size=0.5, n_rows=16, n_cells=8)
    assert len(loader) == 3
    batches = list(loader)
    assert all((b[X].shape, b[CELLS].shape, len(b[SAMPLE])) == ((16, 60), (8, 60), 24) for b in batches)
    codes = torch.cat([b[SAMPLE][:16] for b in batches]).numpy().ravel().astype(int)
    np.testing.assert_array_equal(np.bincount(codes), np.full(24, 2))


@pytest.mark.parametrize(("size", "wanted"), [(0.5, 10), (0.05, 1), (7, 7), (100, 20)])
def test_size_of_a_pseudocell(size, wanted):
    drawn = draw_cells(np.arange(20), size, np.random.default_rng(0))
    assert len(set(drawn)) == len(drawn) == wanted


def test_large_samples_are_capped(monkeypatch):
    monkeypatch.setattr(_pseudocells, "MAX_CELLS", 5)
    assert len(draw_cells(np.arange(20), 0.5, np.random.default_rng(0))) == 5


SEVERAL = [np.array([8, 3]), np.array([11]), np.array([20, 24, 22, 21, 23]), np.array([30, 31, 32])]


@pytest.mark.parametrize("at_once", [0, 2**15], ids=["one by one", "at once"])
def test_cells_of_each_sample_are_drawn_as_often_as_all_subsets_are(at_once, monkeypatch):
    monkeypatch.setattr(_pseudocells, "_SHUFFLED", at_once)
    samples, rng, n = Samples(SEVERAL, 0.5), np.random.default_rng(0), 3000
    members, sizes = samples.draw(np.tile([2, 0, 3, 1], n), rng)
    np.testing.assert_array_equal(sizes, np.tile([3, 1, 2, 1], n))
    drawn = members.reshape(n, 7)
    for part, sample, k in ((drawn[:, :3], 2, 3), (drawn[:, 3:4], 0, 1), (drawn[:, 4:6], 3, 2), (drawn[:, 6:], 1, 1)):
        subsets = sorted(combinations(sorted(SEVERAL[sample]), k))
        seen = [tuple(row) for row in np.sort(part, axis=1).tolist()]
        counts = np.array([seen.count(subset) for subset in subsets])
        assert counts.sum() == n  # none beside these, and none with a cell twice
        assert len(subsets) == 1 or chisquare(counts).pvalue > 0.001
    first, second = drawn[:, 0], np.roll(drawn[:, 3], 1)  # what one step draws says nothing about the next
    assert chi2_contingency(pd.crosstab(first, second)).pvalue > 0.001


@pytest.mark.parametrize("at_once", [0, 2**15], ids=["one by one", "at once"])
def test_draws_are_capped_and_repeat_with_their_seed(at_once, monkeypatch):
    monkeypatch.setattr(_pseudocells, "_SHUFFLED", at_once)
    monkeypatch.setattr(_pseudocells, "MAX_CELLS", 2)
    draws = [Samples(SEVERAL, 4).draw(np.arange(4), np.random.default_rng(s)) for s in (0, 0, 1)]
    assert draws[0][1].tolist() == [2, 1, 2, 2]
    np.testing.assert_array_equal(draws[0][0], draws[1][0])
    assert (draws[0][0] != draws[2][0]).any()


def test_processes_share_the_draws_of_a_step(manager, monkeypatch):
    samples = [np.arange(i * 20, (i + 1) * 20) for i in range(5)]

    def step(process):
        monkeypatch.setattr(_pseudocells, "processes", lambda: process)
        torch.manual_seed(0)
        return next(iter(PseudocellLoader(Rows(manager, averaged=False), samples, np.arange(100), size=0.5)))

    whole, *parts = step((0, 1)), step((0, 2)), step((1, 2))
    for rank, part in enumerate(parts):
        assert torch.equal(part[X], whole[X][rank::2])
        assert torch.equal(as_dense(part[CELLS]), as_dense(whole[CELLS])[rank::2])
        assert torch.equal(part[SAMPLE], torch.cat([whole[SAMPLE][:130][rank::2], whole[SAMPLE][130:][rank::2]]))


def test_few_samples_fill_a_step_with_more_pseudocells(manager):
    samples = [np.arange(i * 20, (i + 1) * 20) for i in range(5)]
    loader = PseudocellLoader(Rows(manager, averaged=False), samples, np.arange(100), size=0.5)
    batch = next(iter(loader))
    assert (len(batch[X]), len(batch[CELLS])) == (130, 100)


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
    sums = whole[0][X].numpy()
    expected = pd.DataFrame(sp.csr_matrix(cohort.X).toarray()[donors == last]).sum(axis=0).to_numpy()[None]
    np.testing.assert_allclose(sums, expected)
