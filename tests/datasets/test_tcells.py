from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from agevi.datasets import _tcells, tcells

DATA = files("agevi.datasets") / "data"


def ridge_out_of_fold(x: np.ndarray, age: np.ndarray, n_folds: int) -> np.ndarray:
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 15)))
    return cross_val_predict(model, x, age, cv=KFold(n_folds, shuffle=True, random_state=0))


@pytest.fixture(scope="module")
def cohort() -> ad.AnnData:
    return tcells(n_subjects=200, n_cells=20, rng=0)


def test_shape_and_columns(cohort: ad.AnnData) -> None:
    assert cohort.shape == (4000, 2025)
    assert cohort.X.format == "csr" and cohort.X.dtype == np.float32
    np.testing.assert_array_equal(cohort.X.data, np.round(cohort.X.data))
    assert (cohort.obs["donor"].value_counts() == 20).all() and cohort.obs["donor"].nunique() == 200
    assert str(cohort.obs["donor"].dtype) == str(cohort.obs["dataset"].dtype) == "category"
    assert set(cohort.obs["dataset"].cat.categories) == {"aida", "perez_sle"}
    assert cohort.obs["age"].dtype == np.float64 and cohort.obs["age"].between(21, 90).all()
    assert {"CD3E", "LEF1", "CCR7"} & set(cohort.var_names)
    assert cohort.var_names.is_unique and cohort.obs_names.is_unique
    assert cohort.uns["source"].startswith("Semi-synthetic")


def test_age_signal_between_donors_is_there(cohort: ad.AnnData) -> None:
    sums = cohort.X.toarray().reshape(200, 20, -1).sum(1)
    age = cohort.obs["age"].to_numpy()[::20]
    predicted = ridge_out_of_fold(np.log1p(sums / sums.sum(1, keepdims=True) * 1e4), age, 5)
    assert pearsonr(predicted, age).statistic > 0.5
    assert np.abs(predicted - age).mean() < 0.85 * np.abs(np.median(age) - age).mean()


def test_seed_decides_donors_and_cells() -> None:
    first, again, other = tcells(4, 3, rng=1), tcells(4, 3, rng=np.random.default_rng(1)), tcells(4, 3, rng=2)
    assert (first.X != again.X).nnz == 0
    assert first.obs["donor"].tolist() == again.obs["donor"].tolist()
    assert set(first.obs["donor"]) != set(other.obs["donor"])


def test_all_donors_can_be_asked_for() -> None:
    everyone = tcells(722, 1)
    assert everyone.obs["dataset"].value_counts().to_dict() == {"aida": 623, "perez_sle": 99}


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        pytest.param(
            {"n_subjects": 723}, ValueError, "n_subjects=723 is out of range.*between 1 and 722", id="too-many"
        ),
        pytest.param({"n_subjects": 0}, ValueError, "n_subjects=0 is out of range", id="none"),
        pytest.param({"n_cells": 0}, ValueError, "n_cells=0 is out of range", id="no-cells"),
        pytest.param({"n_cells": "30"}, TypeError, "n_cells='30' is a str; pass a whole number", id="text"),
    ],
)
def test_parameters_out_of_range(kwargs, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tcells(**kwargs)


def test_bundled_files_are_small_and_licensed() -> None:
    with (DATA / "cd4_tcells.npz").open("rb") as file:
        assert len(file.read()) < 2_000_000
    assert "Jalil Nourisa" in (DATA / "LICENSE-grnimmuneclock.txt").read_text()
    readme = (DATA / "README.md").read_text()
    assert all(word in readme for word in ("grnimmuneclock 1.2.0", "AIDA v1", "Perez", "CC BY 4.0", "CELLxGENE"))


def test_cohort_survives_files(tmp_path: Path) -> None:
    cohort = tcells(3, 2)
    cohort.write_h5ad(tmp_path / "c.h5ad")
    cohort.write_zarr(tmp_path / "c.zarr")
    for back in (ad.read_h5ad(tmp_path / "c.h5ad"), ad.read_zarr(tmp_path / "c.zarr")):
        assert (back.X != cohort.X).nnz == 0
        assert back.obs["donor"].tolist() == cohort.obs["donor"].tolist()
        assert back.uns["source"] == cohort.uns["source"]


@pytest.mark.realdata
def test_quantising_costs_less_than_a_tenth_of_a_year() -> None:
    file = Path(os.environ.get("AGEVI_DATA", "../shared/data")) / "pb_tcells_cd4/cd4t_donors.h5ad"
    if not file.is_file():
        pytest.skip(f"{file} is absent; set AGEVI_DATA")
    published = ad.read_h5ad(file)
    published = published[published.obs["dataset"] != "zhang"].copy()
    bundled = _tcells._profiles()
    assert bundled.obs_names.tolist() == published.obs["donor"].tolist()
    assert bundled.var_names.tolist() == published.var_names.tolist()
    np.testing.assert_array_equal(bundled.obs["age"], published.obs["age"])
    np.testing.assert_allclose(bundled.X, published.X, atol=0.015)
    age = published.obs["age"].to_numpy()
    before, after = (np.abs(ridge_out_of_fold(a.X, age, 10) - age).mean() for a in (published, bundled))
    assert abs(before - after) < 0.1
