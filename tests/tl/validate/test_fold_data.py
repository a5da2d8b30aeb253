"""One way from an AnnData to the fits of every tool: masks, samples, layers, lists of clocks and types of cells."""

from __future__ import annotations

import numpy as np
import pytest

import agevi
from agevi.dataloaders import _sums
from agevi.model import PLSClock, TransformerClock
from agevi.tl import compare_models, cross_validate, tune
from agevi.tl.validate._fit_fold import FoldData
from tests.conftest import QUIET
from tests.model.transformer import masked
from tests.tl.tuning.spied import quiet_optuna  # noqa: F401

TRAIN = {"max_epochs": 2} | QUIET
UNITS = {"age_key": "age", "subject_key": "donor", "sample_key": "sample"}


def with_garbage(adata):
    """The same with values in what was not measured."""
    out = adata.copy()
    measured = adata.varm["agevi_measured"].T[agevi.dataloaders._measured.feature_sets(adata).codes]
    noise = np.random.default_rng(0).normal(3, 2, adata.shape).astype(np.float32)
    out.X = np.where(measured, adata.X, noise)
    return out


def of_cross_validate(adata, **arguments):
    cross_validate(adata, TransformerClock, n_folds=2, model_kwargs=masked.SMALL, train_kwargs=TRAIN, **arguments)
    return adata.obs["agevi_predicted"].to_numpy()


def of_compare_models(adata, **arguments):
    models = {"network": (TransformerClock, {"model_kwargs": masked.SMALL, "train_kwargs": TRAIN})}
    compare_models(adata, models, n_folds=2, n_null_network=0, n_null_linear=0, **arguments)
    table = adata.uns["agevi_leaderboard_predictions"]
    return table.loc[table["model"] == "network", "predicted"].to_numpy()


def of_tune(adata, **arguments):
    space, fixed = {"n_layers": [1]}, {k: v for k, v in masked.SMALL.items() if k != "n_layers"}
    study = tune(
        adata, TransformerClock, space, n_folds=2, n_trials=1, model_kwargs=fixed, train_kwargs=TRAIN, **arguments
    )
    return np.array([study.best_value])


@pytest.mark.slow
@pytest.mark.parametrize("tool", [of_cross_validate, of_compare_models, of_tune], ids=lambda tool: tool.__name__[3:])
def test_what_was_not_measured_changes_nothing(tool):
    adata = masked.samples(24, paired=0.5)
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", test_size=0)
    arguments = {k: v for k, v in masked.SETUP.items() if k in UNITS}
    keys = {k: v for k, v in masked.SETUP.items() if k not in UNITS}
    arguments["setup_kwargs"] = {"normalize": "none"} | keys
    clean, other = tool(adata.copy(), **arguments), tool(with_garbage(adata), **arguments)
    assert np.isfinite(clean).all()
    np.testing.assert_allclose(clean, other, rtol=1e-5)


@pytest.fixture(scope="module")
def _visits():
    """Two visits of each donor, of cells of three types, with counts in a layer and other values in X."""
    adata = agevi.datasets.simulate_cohort(n_subjects=15, n_cells=30, n_genes=40, n_visits=2)
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", sample_key="sample", test_size=0)
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X * 0.5
    return adata


@pytest.fixture
def visits(_visits):
    return _visits.copy()


def error(adata, cells=None):
    """Mean absolute error over samples of what a cross-validation left."""
    cells = adata.obs if cells is None else cells
    by_sample = cells.groupby("sample", observed=True)[["age", "agevi_predicted_sample"]].first()
    return (by_sample["age"] - by_sample["agevi_predicted_sample"]).abs().mean()


@pytest.mark.slow
def test_the_tools_agree_on_visits_and_layers(visits):
    """One clock on the same folds: its error is the value of a trial, and the row of a comparison."""
    arguments = UNITS | {"n_folds": 3, "setup_kwargs": {"layer": "counts"}}
    model = {"method": "ridge", "weights": "zscore", "rng": 3}
    cross_validate(visits, PLSClock, model_kwargs=model, **arguments)
    compare_models(visits, {"ridge": (PLSClock, model)}, n_null_linear=0, **arguments)
    study = tune(
        visits, PLSClock, {"method": ["ridge"]}, model_kwargs={"weights": "zscore", "rng": 3}, n_trials=1, **arguments
    )
    expected = error(visits)
    assert study.best_value == pytest.approx(expected, rel=1e-5)
    assert visits.uns["agevi_leaderboard"].loc["ridge", "mae"] == pytest.approx(expected, rel=1e-5)
    assert visits.uns["agevi_leaderboard"].loc["ridge", "n"] == 30


@pytest.mark.slow  # six cross-validations, three of them per type
def test_a_list_of_clocks_on_visits_and_types(visits):
    """The mean of the members, of all cells and of each type, as they are alone."""
    arguments = UNITS | {"n_folds": 2, "setup_kwargs": {"layer": "counts"}, "min_cells": 3}
    few = {"n_folds": 2, "alphas": 5}
    for groupby in (None, "cell_type"):
        parts = []
        for key, model in (
            ("a", PLSClock),
            ("b", agevi.model.ElasticNetClock),
            ("both", [PLSClock, agevi.model.ElasticNetClock]),
        ):
            of_all = {"EnsembleClock": {"scale": "age"}, "ElasticNetClock": few}
            own = {"a": {}, "b": few, "both": of_all}[key]
            cross_validate(visits, model, groupby=groupby, key_added=key, model_kwargs=own, **arguments)
            parts.append(visits.obs[f"{key}_predicted"].to_numpy())
        np.testing.assert_allclose(parts[2], (parts[0] + parts[1]) / 2, rtol=1e-4)


@pytest.mark.parametrize("model", ["PLSClock", "ElasticNetClock"])
@pytest.mark.parametrize("train_on", [None, "part"])
def test_fits_share_the_sums_of_samples(cohort, model, train_on, monkeypatch):
    cohort.obs["part"] = np.arange(cohort.n_obs) % 5 > 0  # some cells of every sample
    passes, sum_rows = [], _sums.sum_rows
    monkeypatch.setattr(_sums, "sum_rows", lambda *args: passes.append(1) or sum_rows(*args))
    options = {"age_key": "age", "subject_key": "donor", "n_folds": 4, "train_on": train_on, "copy": True}
    shared = agevi.tl.cross_validate(cohort, model, **options).obs["agevi_predicted_sample"]
    n = len(passes)
    assert n == (
        2 if train_on is None else 4
    )  # of the first fold and of all cells; of each fold, whose cells are some of all
    monkeypatch.setattr(FoldData, "lend_sums", lambda *args: None)
    np.testing.assert_array_equal(
        agevi.tl.cross_validate(cohort, model, **options).obs["agevi_predicted_sample"], shared
    )
    assert len(passes) - n == 4
