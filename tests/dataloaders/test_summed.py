from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import agevi
from agevi import io, model, pp, tl
from agevi.dataloaders._summed import RowSums, row_totals
from agevi.dataloaders._sums import UnitSums
from tests.test_gates import check_message

KEYS = {"age_key": "age", "subject_key": "donor"}
TYPED = {"cell_type_key": "cell_type"}
CLOCKS = [
    pytest.param(model.PLSClock, {}, {}, id="pls"),
    pytest.param(model.PLSClock, {"normalize": "none"}, {}, id="pls of means"),
    pytest.param(model.PLSClock, {}, {"subject_weight": "cells", "method": "ridge"}, id="ridge by cells"),
    pytest.param(model.ElasticNetClock, {}, {"alphas": 10, "l1_ratios": 0.2}, id="elastic net"),
    pytest.param(model.CellTypeClock, TYPED, {"min_cells": 4, "composition": True}, id="types"),
]


@pytest.fixture(scope="module")
def cells():
    """24 donors with 30 cells each."""
    out = agevi.datasets.simulate_cohort(n_subjects=24, n_cells=30, n_genes=40)
    pp.split_subjects(out, subject_key="donor", age_key="age")
    return out


@pytest.fixture(scope="module")
def sums(cells):
    """Their sums by sample and type, in random order."""
    out = pp.sum_samples(cells, ["donor", "cell_type"])
    return out[np.random.default_rng(0).permutation(out.n_obs)].copy()


def trained(cls, adata, setup, init):
    cls.setup_anndata(adata, **KEYS, **setup)
    clock = cls(adata, **init)
    clock.train(enable_progress_bar=False)
    return clock


def ages(clock, adata):
    """Predicted age of every donor."""
    predicted = clock.predict_age(adata, level="sample")
    return pd.Series(predicted).groupby(adata.obs["donor"].astype(str).to_numpy()).first()


@pytest.mark.parametrize(("cls", "setup", "init"), CLOCKS)
def test_clocks_on_sums_are_those_on_the_cells(cells, sums, tmp_path, cls, setup, init):
    of_cells, of_sums = trained(cls, cells, setup, init), trained(cls, sums, setup, init)
    weights, found = of_cells.module.state_dict(), of_sums.module.state_dict()
    for name in weights:
        if not name.endswith("cell_offset"):  # of single cells, which sums do not tell
            np.testing.assert_array_equal(found[name], weights[name], err_msg=name)
    assert of_sums.age_summary_ == of_cells.age_summary_
    expected = ages(of_cells, cells)
    for clock, adata in ((of_cells, sums), (of_sums, cells), (of_sums, sums)):
        pd.testing.assert_series_equal(ages(clock, adata), expected)
    of_sums.save(tmp_path / "clock")
    loaded = io.load_clock(tmp_path / "clock")
    for adata in (cells, sums):
        pd.testing.assert_series_equal(ages(loaded, adata), expected)


def test_moments_of_rows_are_those_of_the_cells(cells, sums):
    names = pd.Index(sorted(cells.obs["donor"].astype(str).unique()))
    for normalize in ("log1p_cp10k", "none"):
        whole, of_rows = (
            UnitSums(
                a.X, names.get_indexer(pd.Index(a.obs["donor"].astype(str))), len(names), normalize, rows=RowSums.of(a)
            )
            for a in (cells, sums)
        )
        np.testing.assert_array_equal(of_rows.n_cells, whole.n_cells)
        np.testing.assert_array_equal(of_rows.values(), whole.values())
        np.testing.assert_array_equal(of_rows._noise, whole._noise)


def test_totals_beyond_float32(cells):
    deep = cells.copy()
    deep.X = (deep.X * 40000).astype(np.float64)
    deep.X.data += 1  # odd numbers, so that their sums would be rounded
    sums = pp.sum_samples(deep, "donor")
    assert sums.X.sum() > 2**25
    names = pd.Index(sorted(deep.obs["donor"].astype(str).unique()))
    whole, of_rows = (
        UnitSums(a.X, names.get_indexer(pd.Index(a.obs["donor"].astype(str))), len(names), "log1p_cp10k", rows=rows)
        for a, rows in ((deep, None), (sums, RowSums.of(sums)))
    )
    np.testing.assert_allclose(of_rows._noise, whole._noise, rtol=1e-9)
    narrow = sp.csr_matrix(np.full((2, 3000), 2**23 - 1, dtype=np.float32))
    np.testing.assert_array_equal(row_totals(narrow), [3000 * (2**23 - 1)] * 2)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        pytest.param(model.PLSClock, {}, id="pls"),
        pytest.param(model.PLSClock, {"groupby": "cell_type", "min_cells": 4}, id="by type"),
        pytest.param(
            model.CellTypeClock,
            {"setup_kwargs": TYPED, "model_kwargs": {"min_cells": 4}},
            id="types",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_cross_validation_of_sums_is_that_of_the_cells(cells, sums, cls, options):
    tables, folds, groups = [], [], []
    for adata in (cells.copy(), sums.copy()):
        tl.cross_validate(adata, cls, **KEYS, n_folds=3, **options)
        tl.aggregate_subjects(adata)
        tables.append(adata.uns["agevi_subjects"])
        folds.append(adata.uns["agevi"]["folds"]["n_cells"].tolist())
        groups.append(adata.uns.get("agevi_by_group", pd.DataFrame()))
    assert folds[0] == folds[1]
    kept = tables[0].columns.drop("sd_cells")
    pd.testing.assert_frame_equal(tables[1][kept], tables[0][kept])
    pd.testing.assert_frame_equal(groups[1], groups[0])


@pytest.mark.slow
def test_compared_models_are_those_of_the_cells(cells, sums):
    found = []
    for adata in (cells.copy(), sums.copy()):
        tl.compare_models(adata, ["PLSClock"], **KEYS, n_folds=3)
        found.append(adata.uns["agevi_leaderboard"].drop(columns=["seconds", "peak_memory"], errors="ignore"))
    pd.testing.assert_frame_equal(found[1], found[0])


def no_mark(a):
    del a.uns["agevi_sums"]


def logarithms(a):
    a.X = np.log1p(a.X)


@pytest.mark.parametrize(
    ("call", "change", "words"),
    [
        pytest.param(lambda a: trained(model.MLPClock, a, {}, {}), None, "MLPClock", id="network"),
        pytest.param(
            lambda a: trained(model.ElasticNetClock, a, {}, {"train_unit": "cell"}),
            None,
            "train_unit='cell'",
            id="cell",
        ),
        pytest.param(
            lambda a: tl.cross_validate(a, model.MLPClock, **KEYS), None, "PLSClock, ElasticNetClock", id="cv"
        ),
        pytest.param(lambda a: pp.pseudocells(a, subject_key="donor"), None, "pp.pseudocells draws", id="pseudocells"),
        pytest.param(lambda a: pp.audit_leakage(a, **KEYS), None, "pp.audit_leakage compares", id="audit"),
        pytest.param(lambda a: trained(model.PLSClock, a, {}, {}), no_mark, "uns_merge='same'", id="no mark"),
        pytest.param(lambda a: trained(model.PLSClock, a, {}, {}), logarithms, "sums of raw counts", id="logarithms"),
        pytest.param(
            lambda a: trained(model.PLSClock, a[:, :20].copy(), {}, {}), None, "has other genes than when", id="genes"
        ),
    ],
)
def test_what_sums_do_not_tell_is_refused(sums, call, change, words):
    adata = sums.copy()
    if change is not None:
        change(adata)
    with pytest.raises(ValueError) as raised:
        call(adata)
    check_message(raised, words)


def test_single_cells_are_not_predicted_from_sums(cells, sums):
    clock = trained(model.PLSClock, cells, {}, {})
    with pytest.raises(ValueError) as raised:
        clock.predict_age(sums)
    check_message(raised, "level='sample'")
    table = pd.DataFrame({"gene": ["intercept", *cells.var_names[:3]], "coef": [40.0, 1.5, -2.0, 0.5]})
    published = model.LinearClock.from_coefficients(table)
    with pytest.raises(ValueError) as raised:
        tl.predict_age(sums.copy(), published)
    check_message(raised, "normalise the sums as its publication says")


def test_published_clocks_read_sums_of_the_values_that_they_are_made_for(cells):
    logs = cells.copy()
    logs.X = np.log1p(logs.X.toarray() / np.asarray(logs.X.sum(axis=1)) * 1e4).astype(np.float32)
    sums = pp.sum_samples(logs, "donor", values="any")
    table = pd.DataFrame({"gene": ["intercept", *cells.var_names[:3]], "coef": [40.0, 1.5, -2.0, 0.5]})
    clock = model.LinearClock.from_coefficients(table, values="log")
    for adata in (logs, sums):
        tl.predict_age(adata, clock)
        tl.aggregate_subjects(adata)
    one, other = (a.uns["agevi_subjects"].set_index("subject")["predicted"] for a in (sums, logs))
    pd.testing.assert_series_equal(one, other, rtol=1e-5)
    means = logs.to_df().groupby(logs.obs["donor"].to_numpy()).mean()
    expected = 40 + means.iloc[:, :3] @ np.array([1.5, -2.0, 0.5])
    np.testing.assert_allclose(one, expected.loc[one.index], rtol=1e-5)
    betas = model.LinearClock.from_coefficients(table, values="beta")
    with pytest.raises(ValueError) as raised:
        betas.predict_age(sums, level="sample")
    check_message(raised, "values outside 0 to 1")


def test_sums_of_values_as_they_are_train_clocks_of_means(cells):
    logs = cells.copy()
    logs.X = np.log1p(logs.X.toarray())
    sums = pp.sum_samples(logs, ["donor", "cell_type"], values="any")
    of_cells, of_sums = (trained(model.PLSClock, a, {"normalize": "none"}, {}) for a in (logs, sums))
    expected = ages(of_cells, logs)
    for clock, adata in ((of_cells, sums), (of_sums, logs), (of_sums, sums)):
        pd.testing.assert_series_equal(ages(clock, adata), expected, rtol=1e-4)
    with pytest.raises(ValueError) as raised:
        model.PLSClock.setup_anndata(sums, **KEYS)
    check_message(raised, "PLSClock normalises raw counts itself")
    found = []
    for adata in (logs, sums):
        tl.cross_validate(adata, model.PLSClock, **KEYS, setup_kwargs={"normalize": "none"}, n_folds=3)
        tl.aggregate_subjects(adata)
        found.append(adata.uns["agevi_subjects"].set_index("subject")["predicted"])
    pd.testing.assert_series_equal(found[1], found[0], rtol=1e-3)


def test_sums_of_several_files_are_put_together(cells, sums):
    halves = [cells[cells.obs["donor"].isin(names)] for names in np.array_split(cells.obs["donor"].unique(), 2)]
    both = ad.concat([pp.sum_samples(half.copy(), ["donor", "cell_type"]) for half in halves], uns_merge="same")
    one, other = (trained(model.PLSClock, a, {}, {}) for a in (both, sums))
    pd.testing.assert_series_equal(one.coefficients(), other.coefficients())
