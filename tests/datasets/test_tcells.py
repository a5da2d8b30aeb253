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

from agevi.datasets import _tcells, sample_cells, tcells
from tests.files import stored

DATA = files("agevi.datasets") / "data"


def ridge_out_of_fold(x: np.ndarray, age: np.ndarray, n_folds: int) -> np.ndarray:
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 15)))
    return cross_val_predict(model, x, age, cv=KFold(n_folds, shuffle=True, random_state=0))


@pytest.fixture(scope="module")
def cohort() -> ad.AnnData:
    return tcells(n_subjects=200, n_cells=20, rng=0)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_all_donors_can_be_asked_for() -> None:
    everyone = tcells(722, 1)
    assert everyone.obs["dataset"].value_counts().to_dict() == {"aida": 623, "perez_sle": 99}


@pytest.fixture(scope="module")
def both() -> ad.AnnData:
    return tcells(6, 3, rng=4, cell_types=("CD4 T", "CD8 T"))


def test_a_second_type_leaves_the_first_as_it_is(both: ad.AnnData) -> None:
    alone = tcells(6, 3, rng=4)
    cd4, cd8 = (both[both.obs["cell_type"] == name] for name in ("CD4 T", "CD8 T"))
    assert "cell_type" not in alone.obs and alone.uns["source"].startswith(
        "Semi-synthetic. Between-donor signal: real CD4 T prof"
    )
    assert cd4.obs["donor"].tolist() == alone.obs["donor"].tolist() == cd8.obs["donor"].tolist()
    assert cd4.obs["age"].tolist() == cd8.obs["age"].tolist()
    assert cd4.obs_names.tolist() == alone.obs_names.tolist()
    assert (cd4.X != alone[:, both.var_names].X).nnz == 0


def test_two_types_keep_the_genes_of_both_tables(both: ad.AnnData) -> None:
    assert both.shape == (36, 1066)
    assert both.obs["cell_type"].cat.categories.tolist() == ["CD4 T", "CD8 T"]
    assert both.X.format == "csr" and both.X.dtype == np.float32 and both.obs_names.is_unique
    assert "inferred" in both.uns["source"]
    assert set(both.var_names) == set(_tcells._profiles("CD4 T").var_names) & set(_tcells._profiles("CD8 T").var_names)


def test_outer_join_says_which_genes_a_type_has(both: ad.AnnData) -> None:
    outer = tcells(6, 3, rng=4, cell_types=("CD4 T", "CD8 T"), join="outer")
    assert outer.shape == (36, 3827)
    assert outer.var.sum().to_dict() == {"CD4 T": 2025, "CD8 T": 2868}
    assert (outer[:, both.var_names].X != both.X).nnz == 0
    for name in outer.var:
        assert outer[outer.obs["cell_type"] == name, ~outer.var[name]].X.nnz == 0


def test_order_of_types_is_that_of_the_argument(both: ad.AnnData) -> None:
    turned = tcells(6, 3, rng=np.random.default_rng(4), cell_types=["CD8 T", "CD4 T"])
    assert turned.obs["cell_type"].tolist() == ["CD8 T"] * 18 + ["CD4 T"] * 18
    back = turned[np.r_[18:36, :18], both.var_names]
    assert (back.X != both.X).nnz == 0


def test_the_other_type_alone_has_all_its_genes() -> None:
    everyone = tcells(720, 1, cell_types="CD8 T")
    assert everyone.shape == (720, 2868) and "cell_type" not in everyone.obs
    assert everyone.obs["dataset"].value_counts().to_dict() == {"aida": 621, "perez_sle": 99}
    assert "real CD8 T profiles" in everyone.uns["source"]


def test_two_donors_lack_the_second_type() -> None:
    everyone = tcells(722, 1, cell_types=("CD4 T", "CD8 T"))
    types = everyone.obs.groupby("donor", observed=True)["cell_type"].agg(list)
    assert types.map(len).value_counts().to_dict() == {2: 720, 1: 2}
    assert types[types.map(len) == 1].tolist() == [["CD4 T"]] * 2
    assert everyone.obs.groupby("donor", observed=True)["age"].nunique().eq(1).all()


@pytest.mark.parametrize(
    "spelling",
    [
        "CD8 T",
        "cd8",
        "CD8T",
        "CD8+ T",
        "CD8 T cell",
        "CD8_T_cells",
        "CD8-positive, alpha-beta T cell",
        "CD8 \u03b1\u03b2 T",
    ],
)
def test_usual_spellings_are_understood(spelling: str) -> None:
    assert _tcells._types(spelling) == ["CD8 T"]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        pytest.param(
            {"n_subjects": 723}, ValueError, "n_subjects=723 is out of range.*between 1 and 722", id="too-many"
        ),
        pytest.param({"n_subjects": 0}, ValueError, "n_subjects=0 is out of range", id="none"),
        pytest.param({"n_cells": 0}, ValueError, "n_cells=0 is out of range", id="no-cells"),
        pytest.param({"n_cells": "30"}, TypeError, "n_cells='30' is a str; pass a whole number", id="text"),
        pytest.param(
            {"n_subjects": 721, "cell_types": "CD8 T"}, ValueError, "n_subjects=721 .* between 1 and 720", id="of-cd8"
        ),
        pytest.param(
            {"cell_types": ("CD4 T", "NK")}, ValueError, "cell_types='NK' is not bundled. Available: 'CD4 T'", id="nk"
        ),
        pytest.param({"cell_types": "CD3 T"}, ValueError, "'CD3 T' is not bundled; closest: 'CD", id="closest"),
        pytest.param({"cell_types": ()}, ValueError, "cell_types is empty; pass one of 'CD4 T'", id="no-type"),
        pytest.param(
            {"cell_types": ("CD4 T", "CD4+ T cells")}, ValueError, "'CD4 T', 'CD4 T', one of them twice", id="twice"
        ),
        pytest.param({"join": "left"}, ValueError, "join='left' is not known; choose one of 'inner'", id="join"),
    ],
)
def test_parameters_out_of_range(kwargs, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tcells(**kwargs)


def test_bundled_files_are_small_and_licensed() -> None:
    assert sum(len((DATA / name).read_bytes()) for name in _tcells._TABLES.values()) < 4_000_000
    assert "Jalil Nourisa" in (DATA / "LICENSE-grnimmuneclock.txt").read_text()
    readme = (DATA / "README.md").read_text()
    assert all(word in readme for word in ("grnimmuneclock 1.2.0", "AIDA v1", "Perez", "CC BY 4.0", "CELLxGENE"))


def test_cohort_survives_files(tmp_path: Path) -> None:
    cohort = tcells(3, 2)
    for form in ("h5ad", "zarr"):
        back = stored(cohort, form, tmp_path)
        assert (back.X != cohort.X).nnz == 0
        assert back.obs["donor"].tolist() == cohort.obs["donor"].tolist()
        assert back.uns["source"] == cohort.uns["source"]


def published(cell_type: str) -> ad.AnnData:
    name = cell_type[:3].lower()
    file = Path(os.environ.get("AGEVI_DATA", "../shared/data")) / f"pb_tcells_{name}/{name}t_donors.h5ad"
    if not file.is_file():
        pytest.skip(f"{file} is absent; set AGEVI_DATA")
    profiles = ad.read_h5ad(file)
    return profiles[profiles.obs["dataset"] != "zhang"].copy()


@pytest.mark.realdata
@pytest.mark.parametrize("cell_type", ["CD4 T", "CD8 T"])
def test_quantising_costs_less_than_a_tenth_of_a_year(cell_type: str) -> None:
    source, bundled = published(cell_type), _tcells._profiles(cell_type)
    assert bundled.obs_names.tolist() == source.obs["donor"].tolist()
    assert bundled.var_names.tolist() == source.var_names.tolist()
    assert bundled.obs["dataset"].tolist() == source.obs["dataset"].tolist()
    np.testing.assert_array_equal(bundled.obs["age"], source.obs["age"])
    np.testing.assert_allclose(bundled.X, source.X, atol=0.017)
    age = source.obs["age"].to_numpy()
    before, after = (np.abs(ridge_out_of_fold(a.X, age, 10) - age).mean() for a in (source, bundled))
    assert abs(before - after) < 0.1


@pytest.mark.realdata
@pytest.mark.parametrize("cell_type", ["CD4 T", "CD8 T"])
def test_cells_are_those_of_the_rounded_file(cell_type: str) -> None:
    source, generator = published(cell_type), np.random.default_rng(5)
    x = np.asarray(source.X)
    low = x.min(0)
    step = ((x.max(0) - low) / 255).astype(np.float32)
    codes = np.rint((x - low) / np.where(step > 0, step, 1)).clip(0, 255).astype(np.uint8)
    source.X = (low + codes * step).astype(np.float32)
    stream = generator if cell_type == "CD4 T" else generator.spawn(1)[0]
    chosen = np.sort(generator.choice(len(source), 9, replace=False))
    expected = sample_cells(source[chosen].copy(), 4, rng=stream)
    got = tcells(9, 4, rng=5, cell_types=cell_type)
    assert got.obs["donor"].tolist() == expected.obs["donor"].tolist()
    assert (got.X != expected.X).nnz == 0
