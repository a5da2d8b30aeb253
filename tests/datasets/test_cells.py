from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from agevi.datasets import benchmark_folds, sample_cells

LIBRARY, SD_LOG = 4000.0, 0.35


@pytest.fixture
def profiles() -> ad.AnnData:
    """Three subjects, four genes, log1p(CPM)."""
    cpm = np.array([[100.0, 1000.0, 5000.0, 0.0], [200.0, 1000.0, 50.0, 0.0], [400.0, 1000.0, 20_000.0, 10.0]])
    obs = pd.DataFrame(
        {"donor": ["a", "b", "c"], "age": [30.0, 40.0, np.nan], "site": ["x", "y", "x"]}, index=list("rst")
    )
    return ad.AnnData(np.log1p(cpm).astype(np.float32), obs=obs, var=pd.DataFrame(index=["g0", "g1", "g2", "g3"]))


@pytest.mark.parametrize("dispersion", [pytest.param(0.0, id="poisson"), pytest.param(0.3, id="gamma-poisson")])
def test_moments_match_closed_form(profiles: ad.AnnData, dispersion: float) -> None:
    n = 20_000
    counts = sample_cells(profiles, n, dispersion=dispersion, rng=3).X.toarray().reshape(3, n, 4)
    share = np.expm1(profiles.X.astype(float)) / 1e6
    # library: log-normal with median 4000, so E[L] = 4000 exp(s^2 / 2) and E[L^2] = 4000^2 exp(2 s^2)
    mean = share * LIBRARY * np.exp(SD_LOG**2 / 2)
    second = (share * LIBRARY) ** 2 * np.exp(2 * SD_LOG**2)
    variance = mean + second * (1 + dispersion) - mean**2
    error = np.sqrt(variance / n)
    assert np.all(np.abs(counts.mean(1) - mean) <= 4.5 * error)
    squares = (counts - mean[:, None]) ** 2
    assert np.all(np.abs(squares.mean(1) - variance) <= 4.5 * squares.std(1) / np.sqrt(n))


def test_cells_carry_the_subjects_columns(profiles: ad.AnnData) -> None:
    cells = sample_cells(profiles, 2)
    assert cells.shape == (6, 4)
    assert sp.issparse(cells.X) and cells.X.format == "csr" and cells.X.dtype == np.float32
    assert list(cells.obs.columns) == ["donor", "age", "site"]
    assert cells.obs["donor"].tolist() == ["a", "a", "b", "b", "c", "c"]
    np.testing.assert_array_equal(cells.obs["age"], [30, 30, 40, 40, np.nan, np.nan])
    assert cells.obs_names.tolist() == [f"cell{i}" for i in range(6)]
    assert cells.var_names.tolist() == profiles.var_names.tolist()


def test_subject_column_is_made_of_row_names_where_absent(profiles: ad.AnnData) -> None:
    cells = sample_cells(profiles, 1, subject_key="person")
    assert cells.obs["person"].tolist() == ["r", "s", "t"]
    assert "person" not in profiles.obs


def test_profiles_stay_as_they_are(profiles: ad.AnnData) -> None:
    before = profiles.copy()
    sample_cells(profiles, 2)
    np.testing.assert_array_equal(profiles.X, before.X)
    pd.testing.assert_frame_equal(profiles.obs, before.obs)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(sp.csr_matrix, id="csr"),
        pytest.param(sp.csc_matrix, id="csc"),
        pytest.param(sp.csr_array, id="csr_array"),
    ],
)
def test_sparse_profiles_give_the_same_cells(profiles: ad.AnnData, form: type) -> None:
    dense = sample_cells(profiles, 5, rng=1)
    sparse = ad.AnnData(form(profiles.X), obs=profiles.obs, var=profiles.var)
    assert (sample_cells(sparse, 5, rng=1).X != dense.X).nnz == 0


def test_view_and_backed_profiles_give_the_same_cells(profiles: ad.AnnData, tmp_path: Path) -> None:
    dense = sample_cells(profiles, 5, rng=1)
    assert (sample_cells(profiles[["r", "s", "t"]], 5, rng=1).X != dense.X).nnz == 0
    profiles.write_h5ad(tmp_path / "p.h5ad")
    backed = ad.read_h5ad(tmp_path / "p.h5ad", backed="r")
    assert (sample_cells(backed, 5, rng=1).X != dense.X).nnz == 0
    backed.file.close()


def test_seed_decides_the_cells(profiles: ad.AnnData) -> None:
    first = sample_cells(profiles, 20, rng=4).X
    assert (first != sample_cells(profiles, 20, rng=np.random.default_rng(4)).X).nnz == 0
    assert (first != sample_cells(profiles, 20, rng=5).X).nnz > 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param(lambda p: p.X.__setitem__((0, 0), -1.0), ValueError, "negative values", id="negative"),
        pytest.param(lambda p: p.X.__setitem__((0, 0), np.nan), ValueError, "missing or infinite", id="nan"),
        pytest.param(lambda p: p.X.__setitem__((0, 0), 14.0), ValueError, r"not log1p\(CPM\)", id="too-large"),
        pytest.param(lambda p: p.X.__setitem__(slice(None), 13.5), ValueError, r"not log1p\(CPM\)", id="row-sum"),
        pytest.param(lambda p: setattr(p, "X", None), ValueError, "profiles.X is absent", id="absent"),
    ],
)
def test_profiles_that_are_not_log_cpm(profiles: ad.AnnData, change, error: type[Exception], message: str) -> None:
    change(profiles)
    with pytest.raises(error, match=message):
        sample_cells(profiles, 2)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        pytest.param({"n_cells": 0}, ValueError, "n_cells=0 is out of range", id="no-cells"),
        pytest.param({"n_cells": 2.5}, TypeError, "n_cells=2.5 is a float; pass a whole number", id="half-cells"),
        pytest.param({"library_size": 0}, ValueError, "library_size=0 is out of range.*above 0", id="library"),
        pytest.param({"library_size": "big"}, TypeError, "library_size='big' is a str; pass a number", id="text"),
        pytest.param({"dispersion": -1}, ValueError, "dispersion=-1 is out of range.*0 or more", id="dispersion"),
        pytest.param({"rng": "seed"}, TypeError, "rng='seed' is a str", id="rng-text"),
        pytest.param({"rng": -1}, TypeError, "rng=-1 is a int; pass a non-negative integer seed", id="rng-negative"),
    ],
)
def test_parameters_out_of_range(profiles: ad.AnnData, kwargs, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sample_cells(profiles, **kwargs)


def test_profiles_must_be_anndata() -> None:
    with pytest.raises(TypeError, match="profiles is a ndarray"):
        sample_cells(np.zeros((2, 2)))


def test_folds_hold_subjects_together_and_are_even() -> None:
    subjects = np.repeat([f"d{i}" for i in range(23)], np.arange(1, 24))
    folds = benchmark_folds(subjects, 5, rng=2)
    table = pd.DataFrame({"subject": subjects, "fold": folds}).drop_duplicates()
    assert len(table) == 23
    assert sorted(table["fold"].value_counts()) == [4, 4, 5, 5, 5]


def test_folds_do_not_depend_on_the_order_of_cells() -> None:
    subjects = np.repeat([f"d{i}" for i in range(10)], 4)
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(benchmark_folds(pd.Series(subjects)[order]), benchmark_folds(subjects)[order])


@pytest.mark.parametrize(
    ("n_folds", "message"),
    [
        pytest.param(4, r"n_folds=4 but there are only 3 subjects \('a', 'b', 'c'\)", id="more-than-subjects"),
        pytest.param(1, "n_folds=1 is out of range", id="one"),
    ],
)
def test_folds_need_enough_subjects(n_folds: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        benchmark_folds(["a", "b", "c", "a"], n_folds)


@pytest.fixture
def reference() -> tuple[ModuleType, Path]:
    """The script that fixed the benchmark's cells, and the profiles that it was made for."""
    data = Path(os.environ.get("AGEVI_DATA", "../shared/data"))
    script, file = data.parent / "tools/sample_cells.py", data / "pb_tcells_cd4/cd4t_donors.h5ad"
    if not (script.is_file() and file.is_file()):
        pytest.skip(f"{script} or {file} is absent; set AGEVI_DATA")
    spec = importlib.util.spec_from_file_location("reference_sample_cells", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, file


@pytest.mark.realdata
def test_cells_equal_the_benchmarks_cells(reference: tuple[ModuleType, Path]) -> None:
    script, file = reference
    profiles = ad.read_h5ad(file)[::10].copy()
    theirs = script.sample_cells(profiles, n_cells=7, lib=3000, disp=0.5, seed=11)
    ours = sample_cells(profiles, 7, library_size=3000, dispersion=0.5, rng=11)
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(ours.X, part), getattr(theirs.X, part))
    assert ours.X.dtype == theirs.X.dtype
    pd.testing.assert_frame_equal(ours.obs[["donor", "age", "dataset"]], theirs.obs)
    pd.testing.assert_index_equal(ours.var_names, theirs.var_names)


@pytest.mark.realdata
def test_folds_equal_the_benchmarks_folds(reference: tuple[ModuleType, Path]) -> None:
    script, file = reference
    donors = ad.read_h5ad(file).obs["donor"]
    np.testing.assert_array_equal(benchmark_folds(donors), script.folds(donors))
    np.testing.assert_array_equal(benchmark_folds(donors, 7, rng=3), script.folds(donors, 7, 3))
