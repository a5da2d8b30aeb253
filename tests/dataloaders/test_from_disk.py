"""Clocks of sums on data that stay on disk: one pass, and the numbers of the same data in memory."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi import io, model, pp, tl
from agevi.io import _matrix_file
from tests.dataloaders.test_summed import CLOCKS, KEYS, ages, trained
from tests.test_gates import check_message, snapshot


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """24 donors with 30 cells each, in random order, with a split."""
    out = agevi.datasets.simulate_cohort(n_subjects=24, n_cells=30, n_genes=40, n_batches=2)
    pp.split_subjects(out, subject_key="donor", age_key="age")
    out = out[np.random.default_rng(0).permutation(out.n_obs)].copy()
    out.obs["depth"] = np.asarray(out.X.sum(axis=1)).ravel()
    file = tmp_path_factory.mktemp("data") / "cells.h5ad"
    out.write_h5ad(file)
    return file


@pytest.fixture
def backed(path):
    found = ad.read_h5ad(path, backed="r")
    yield found
    found.file.close()


@pytest.fixture
def cells(path):
    return ad.read_h5ad(path)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(_matrix_file, "_VALUES", 2000)


@pytest.mark.parametrize(("cls", "setup", "init"), CLOCKS)
def test_clocks_trained_on_a_file_are_those_of_its_cells(backed, cells, tmp_path, cls, setup, init):
    before = snapshot(backed)
    of_file, of_cells = trained(cls, backed, setup, init), trained(cls, cells, setup, init)
    assert snapshot(backed) == before
    weights, found = of_cells.module.state_dict(), of_file.module.state_dict()
    for name in weights:
        if cls is not model.CellTypeClock or not name.endswith("cell_offset"):
            np.testing.assert_array_equal(found[name], weights[name], err_msg=name)
    assert (of_file.split_, of_file.age_summary_) == (of_cells.split_, of_cells.age_summary_)
    expected = ages(of_cells, cells)
    for clock, adata in ((of_file, backed), (of_cells, backed), (of_file, cells)):
        pd.testing.assert_series_equal(ages(clock, adata), expected)
    own = of_file.predict_age(level="sample")  # of its own data, which are those of the file
    np.testing.assert_array_equal(own, of_cells.predict_age(level="sample"))
    of_file.save(tmp_path / "clock")
    pd.testing.assert_series_equal(ages(io.load_clock(tmp_path / "clock", backed), backed), expected)


def test_the_file_is_read_once(backed, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="agevi")
    rows, read = [], _matrix_file.Matrix._read
    monkeypatch.setattr(_matrix_file.Matrix, "_read", lambda self, part: rows.append(part) or read(self, part))
    trained(model.PLSClock, backed, {}, {})
    assert [part.start for part in rows] == [0, *(part.stop for part in rows[:-1])]
    assert len(rows) > 3 and rows[-1].stop == backed.n_obs
    assert any("agevi.pp.sum_samples(path, by=['donor'])" in text for text in caplog.messages)


def test_a_split_that_is_made_later_counts(backed, cells):
    clocks = []
    for adata in (backed, cells):
        model.PLSClock.setup_anndata(adata, **KEYS)
        clocks.append(model.PLSClock(adata))
        pp.split_subjects(adata, subject_key="donor", age_key="age", rng=7)
        clocks[-1].train(enable_progress_bar=False)
    assert clocks[0].split_ == clocks[1].split_
    np.testing.assert_array_equal(clocks[0].coefficients(), clocks[1].coefficients())


def test_features_and_columns_of_names(backed, cells):
    setup = {"features": [f"gene{i:02d}" for i in (3, 1, 20, 7, 9, 30)], "batch_key": "batch"}
    of_file, of_cells = (trained(model.PLSClock, a, setup, {}) for a in (backed, cells))
    assert list(of_file.genes) == list(of_cells.genes)
    pd.testing.assert_series_equal(of_file.coefficients(), of_cells.coefficients())


def test_tools_predict_and_judge_on_the_file(backed, cells):
    tables = []
    for adata in (backed, cells):
        tl.predict_age(adata, trained(model.PLSClock, adata, {}, {}))
        tl.aggregate_subjects(adata)
        tables.append(adata.uns["agevi_subjects"].drop(columns="sd_cells"))
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        pytest.param(
            lambda a: trained(model.ElasticNetClock, a, {}, {"train_unit": "cell"}),
            "is on disk, and ElasticNetClock with train_unit='cell' draws cells",
            id="cell",
        ),
        pytest.param(
            lambda a: trained(model.PLSClock, a, {"continuous_covariate_keys": ["depth"]}, {}),
            "adata.obs['depth'] differs within samples",
            id="covariate",
        ),
        pytest.param(lambda a: trained(model.PLSClock, a[:50], {}, {}), "view of data on disk", id="view"),
    ],
)
def test_what_cannot_be_summed_is_refused(backed, call, words):
    with pytest.raises(ValueError) as raised:
        call(backed)
    check_message(raised, words)


def test_a_file_that_changed_after_set_up_is_refused(path, tmp_path):
    own = tmp_path / "own.h5ad"
    own.write_bytes(path.read_bytes())
    adata = ad.read_h5ad(own, backed="r")
    model.PLSClock.setup_anndata(adata, **KEYS)
    clock = model.PLSClock(adata)
    own.touch()
    with pytest.raises(ValueError) as raised:
        clock.train()
    check_message(raised, "holds other values than when it was set up for PLSClock")
    adata.file.close()
