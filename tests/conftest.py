from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.fabric.utilities import registry

import agevi
from agevi import _threads
from agevi.dataloaders import _pseudocells
from agevi.model.linear import _pls
from agevi.model.transfer import _draws

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture(scope="session", autouse=True)
def _one_thread_for_fixtures() -> None:
    """The networks are small, and on a busy machine threads wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _one_look_at_what_is_installed() -> Iterator[None]:
    """Look for plug-ins of Lightning and for libraries with threads once, not in each of thousands of trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", functools.cache(registry.entry_points))
        patch.setattr(_threads, "ThreadpoolController", functools.cache(_threads.ThreadpoolController))
        yield


@pytest.fixture(autouse=True)
def _one_thread(_one_thread_for_fixtures: None) -> None:
    """Again before every test, since scanpy's neighbours set the number of threads of torch too."""
    torch.set_num_threads(1)


@contextmanager
def fits(n_steps: int, draws: dict[str, int]) -> Iterator[None]:
    """Steps in an epoch, and draws of the folds of a linear clock."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (_pseudocells, _draws):
            patch.setattr(module, "MIN_STEPS", n_steps)
        patch.setattr(_pls, "_DRAWS", draws)
        yield


USUAL = {"n_steps": _pseudocells.MIN_STEPS, "draws": _pls._DRAWS}


@pytest.fixture(scope="session", autouse=True)
def _short_fits() -> Iterator[None]:
    """A fifth of the steps and draws of users: few tests depend on how much is learnt."""
    with fits(2, {"pls": 5, "ridge": 2}):
        yield


@pytest.fixture
def usual_fits() -> Iterator[None]:
    """Fits as users make them, for tests of how much is learnt, and of numbers that come from other processes."""
    with fits(**USUAL):
        yield


@pytest.fixture(scope="module")
def usual_fits_of_module() -> Iterator[None]:
    """The same for fixtures of a module."""
    with fits(**USUAL):
        yield


@pytest.fixture
def bars_of_short_calls(monkeypatch) -> None:
    """Bars leave their trace however short a call is, as those of long calls do."""
    monkeypatch.setattr(agevi._progress, "SHORT", 0.0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets."""
    return Path(os.environ.get("AGEVI_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def _cohort():
    adata = agevi.datasets.simulate_cohort(n_subjects=24, n_cells=20, n_genes=60, n_age_genes=20, rng=1)
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", rng=0)
    del adata.uns["truth"]  # tables that take long to write
    return adata


@pytest.fixture
def cohort(_cohort):
    """24 subjects x 20 cells x 60 genes with a split, not registered."""
    return _cohort.copy()


@pytest.fixture(scope="session")
def _trained(_cohort):
    adata = _cohort.copy()
    agevi.model.PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor", batch_key="batch")
    model = agevi.model.PoissonVAE(adata, n_hidden=[16], n_latent=5, n_head=[8], train_unit="cell")
    model.train(max_epochs=3, **QUIET)
    return model


@pytest.fixture
def trained(_trained):
    """A PoissonVAE trained on single cells for three epochs of the cohort; tests must not change it."""
    return _trained


@pytest.fixture
def twelve_cells():
    """Twelve cells of four subjects with one age each, counts in X; nothing but numpy, pandas and anndata."""
    x = np.arange(48, dtype=np.float32).reshape(12, 4)
    obs = pd.DataFrame({"donor": np.repeat(["d1", "d2", "d3", "d4"], 3)})
    obs["age"] = np.repeat([20.0, 41.0, 60.0, np.nan], 3)
    obs.index = [f"cell{i}" for i in range(12)]
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=list("abcd")))
