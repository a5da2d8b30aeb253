"""The calls of the README on real cells."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import agevi
from tests.conftest import QUIET

pytestmark = pytest.mark.realdata


def run(adata, max_epochs: int, **keys):
    """Split, register, train, predict, aggregate."""
    agevi.pp.split_subjects(adata, **keys)
    agevi.model.PoissonVAE.setup_anndata(adata, **keys)
    model = agevi.model.PoissonVAE(adata)
    model.train(max_epochs=max_epochs, **QUIET)
    agevi.tl.predict_age(adata, model)
    agevi.tl.aggregate_subjects(adata)
    return model


@pytest.mark.slow  # trains on thousands of real cells
def test_cortex_from_end_to_end(data_dir, tmp_path):
    adata = ad.read_h5ad(data_dir / "sc_darmanis_cortex" / "darmanis_adult.h5ad")
    adata = adata[:, :5000].copy()
    model = run(adata, 3, subject_key="donor", age_key="age")
    table = agevi.get.subjects_df(adata)
    assert len(table) == adata.obs["donor"].nunique() == 8
    assert set(table["role"]) == {"train", "validation", "test"}
    assert np.isfinite(table["predicted"]).all()
    agevi.pl.predicted_vs_actual(adata)
    sc.pp.neighbors(adata, use_rep="X_agevi", n_neighbors=5)
    model.save(tmp_path / "clock")
    np.testing.assert_array_equal(
        agevi.io.load_clock(tmp_path / "clock").predict_age(adata, level="sample"), adata.obs["agevi_predicted"]
    )


def test_prenatal_ages_are_taken(data_dir):
    adata = ad.read_h5ad(data_dir / "sc_darmanis_cortex" / "darmanis_adult_fetal.h5ad")
    adata = adata[:, :3000].copy()
    run(adata, 2, subject_key="donor", age_key="age")
    assert agevi.get.subjects_df(adata)["age"].min() == pytest.approx(-0.441, abs=0.01)


def test_many_donors_of_umi_counts(data_dir):
    adata = ad.read_h5ad(data_dir / "sc_onek1k_bcells_100donors" / "sc_onek1k_bcells_100donors.h5ad")
    run(adata, 2, subject_key="donor", age_key="age")
    table = agevi.get.subjects_df(adata)
    assert len(table) == 100
    assert (table["role"] == "test").sum() == 15


@pytest.mark.slow  # cross-validates real data
def test_intervals_of_tcells_hold(data_dir):
    profiles = ad.read_h5ad(data_dir / "pb_tcells_cd4" / "cd4t_donors.h5ad")
    adata = agevi.datasets.sample_cells(profiles, n_cells=60, rng=0)
    agevi.tl.cross_validate(adata, agevi.model.PLSClock, subject_key="donor", age_key="age")
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.calibrate(adata)
    table = agevi.get.calibration_df(adata).set_index("groupby")
    whole, thirds = table.loc["overall"], table.loc["predicted"]
    assert 0.88 <= whole["coverage"] <= 0.92  # docs/results/intervals.md: 0.899, 26.0 and 37.0
    assert thirds["coverage"].min() >= 0.86
    assert whole["width"] <= 27.5
    assert whole["interval_score"] <= 37.8 < 0.8 * whole["interval_score_trivial"]


def test_types_that_differ_between_cohorts(data_dir, tmp_path, caplog):
    """Sums of 10x and Rhapsody, several visits of a donor, and a clock that is of no use, which is said."""
    tables = [
        ad.read_h5ad(data_dir / "pseudobulk_covid_ss_2chemistries" / f"ss_cohort{i}_pseudobulk.h5ad") for i in (1, 2)
    ]
    genes = tables[0].var_names.intersection(tables[1].var_names)[:1500]
    own, new = (table[:, genes].copy() for table in tables)
    for table in (own, new):
        words = table.obs["cell_type"].astype(str).str.replace(r"^\d+_|_\d+$", "", regex=True)
        table.obs["type"] = words.where(
            words.isin(["NK_cells", "B_cells", "CD8+_T_cells", "Plasmablasts", "mDCs", "mDC"])
        )
        table.obs["everybody"] = "train"
    keys = {"age_key": "age", "subject_key": "donor", "sample_key": "sampleID"}
    clock, init = agevi.model.CellTypeClock, {"min_cells": 1, "n_folds": 3}
    clock.setup_anndata(own, **keys, cell_type_key="type")
    model = clock(own, **init)
    model.train(split_key="everybody", enable_progress_bar=False)
    assert set(model.type_clocks) == {"NK_cells", "B_cells", "CD8+_T_cells", "Plasmablasts", "mDCs"}
    model.save(tmp_path / "clock")
    loaded = agevi.io.load_clock(tmp_path / "clock")
    with caplog.at_level(logging.WARNING, logger="agevi"):
        agevi.tl.predict_age(new, loaded)
        agevi.tl.aggregate_subjects(new)
    assert "are of types that the clock never saw and are not read ('mDC')" in caplog.text
    assert "no cells of 1 of the clock's 5 types ('mDCs')" in caplog.text
    assert "predicted better than by the median age" in caplog.text  # "are not" or "cannot be said to be"
    table = agevi.get.subjects_df(new)
    assert len(table) > table["subject"].nunique() == 17
    pd.testing.assert_frame_equal(model.predict_types(new), loaded.predict_types(new))

    caplog.clear()
    setup = {"setup_kwargs": {"cell_type_key": "type"}, "model_kwargs": init | {"combine": "mean"}}
    with caplog.at_level(logging.WARNING, logger="agevi"):
        agevi.tl.cross_validate(new, clock, **keys, **setup, n_folds=3)
        agevi.tl.aggregate_subjects(new)
    assert "predicted better than by the median age" in caplog.text
    agevi.tl.evaluate_by(new, groupby=["type", "group_per_sample"])
    assert "mDC" in set(agevi.get.metrics_by_df(new)["group"])
