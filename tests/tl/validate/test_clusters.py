"""Folds on clusters: local ones of Dask and Ray, with processes of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import distributed
import joblib
import numpy as np
import pandas as pd
import pytest
import ray
from ray.util.joblib import register_ray

import agevi
from agevi.tl.validate import _fit_fold
from tests.conftest import QUIET

RECIPE = {
    "model_kwargs": {"n_hidden": [8], "n_latent": 2},
    "train_kwargs": {"max_epochs": 2, "accelerator": "cpu", **QUIET},
}

MLP = {"model_kwargs": {"n_hidden": [8]}, "train_kwargs": RECIPE["train_kwargs"]}


@contextmanager
def on_dask() -> Iterator[None]:
    """A worker on this machine, with two threads, since fits of one at a time stay in this process."""
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        yield


@contextmanager
def on_ray() -> Iterator[None]:
    """Two processors of this machine."""
    # Ray's workers make way for every other process by default, and starve on a busy machine.
    with mock.patch.dict(os.environ, RAY_worker_niceness="0", RAY_AUTH_MODE="disabled"):
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        try:
            register_ray()
            with joblib.parallel_config(backend="ray", n_jobs=2):
                yield
        finally:
            ray.shutdown()


def predictions() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Columns and folds of a cross-validation."""
    adata = agevi.datasets.simulate_cohort(n_subjects=18, n_cells=8, n_genes=40, rng=1)
    agevi.tl.cross_validate(
        adata, agevi.model.PoissonVAE, age_key="age", subject_key="donor", n_folds=3, rng=3, **RECIPE
    )
    columns = [c for c in adata.obs if c.startswith("agevi")]
    folds = pd.DataFrame(adata.uns["agevi"]["folds"])
    return adata.obs[columns], folds.drop(columns=["seconds", "peak_memory"])


def leaderboard() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Places and out-of-fold ages of two clocks, with shuffled ages."""
    adata = agevi.datasets.simulate_cohort(n_subjects=18, n_cells=8, n_genes=40, rng=1)
    models = {"linear": agevi.model.PLSClock, "network": (agevi.model.MLPClock, MLP)}
    agevi.tl.compare_models(
        adata, models, age_key="age", subject_key="donor", n_folds=3, n_null_linear=2, n_null_network=1, rng=3
    )
    places = agevi.get.leaderboard_df(adata)
    return places.drop(columns=["seconds", "peak_memory"], errors="ignore"), adata.uns["agevi_leaderboard_predictions"]


@pytest.fixture(scope="module")
def expected(usual_fits_of_module: None) -> list[pd.DataFrame]:
    """What one process gives."""
    return [*predictions(), *leaderboard()]


@pytest.mark.slow  # workers read torch and lightning
@pytest.mark.parametrize("cluster", [on_dask, on_ray], ids=["dask", "ray"])
def test_clusters_give_the_folds_numbers_and_places_of_one_process(cluster, expected, monkeypatch):
    monkeypatch.setattr(_fit_fold, "_single", None)  # a fold that is run in this process fails
    with cluster():
        found = [*predictions(), *leaderboard()]
    assert np.isfinite(expected[0]["agevi_predicted"]).all()
    for got, wanted in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(got, wanted, check_exact=True)
