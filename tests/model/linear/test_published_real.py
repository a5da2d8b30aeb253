"""Published clocks, and the scale of Horvath, on real samples."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

import agevi
from agevi.model import LinearClock, PLSClock

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def controls(data_dir):
    adata = ad.read_h5ad(data_dir / "dnam_blood_horvath_cpgs" / "dnam_blood_horvath_cpgs.h5ad")
    return adata[adata.obs["group"].astype(str).str.lower().str.contains("control").to_numpy()].copy()


def test_horvath_on_blood_controls(controls, data_dir):
    clock = LinearClock.from_coefficients(data_dir / "clocks" / "dnam_Horvath2013.csv", transform="horvath")
    agevi.tl.predict_age(controls, clock)
    agevi.tl.aggregate_subjects(controls)
    agevi.tl.evaluate_by(controls, n_boot=10)
    row = agevi.get.metrics_by_df(controls).iloc[0]
    assert row["n"] == 902
    assert row["mae"] == pytest.approx(4.27, abs=0.05)
    assert row["pearson"] == pytest.approx(0.979, abs=0.001)
    child = controls.obs["age"] <= 20
    assert spearmanr(controls.obs["age"][child], controls.obs["agevi_predicted"][child]).statistic > 0.7


def test_absent_sites_of_horvath_enter_at_their_median(controls, data_dir):
    clock = LinearClock.from_coefficients(data_dir / "clocks" / "dnam_Horvath2013.csv", transform="horvath")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ages = clock.predict_age(controls[:, 30:].copy())
    assert np.corrcoef(ages, controls.obs["age"])[0, 1] > 0.95


def test_grnimmuneclock_by_cohort(data_dir):
    adata = ad.read_h5ad(data_dir / "pb_tcells_cd4" / "cd4t_donors.h5ad")
    clock = LinearClock.from_coefficients(data_dir / "clocks" / "grnimmuneclock" / "CD4T_coefs.csv")
    agevi.tl.predict_age(adata, clock)
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.evaluate_by(adata, "dataset", n_boot=10)
    mae = agevi.get.metrics_by_df(adata).set_index("group")["mae"]
    assert mae["aida"] == pytest.approx(6.3, abs=0.1)
    assert mae["perez_sle"] == pytest.approx(7.1, abs=0.1)
    assert mae["zhang"] == pytest.approx(12.7, abs=0.1)


def test_every_table_is_read_or_refused_with_its_reason(data_dir):
    folder, refused = data_dir / "clocks", {}
    for path in sorted(p for p in folder.rglob("*.csv*") if not p.stem.endswith("_meta")):
        table = pd.read_csv(path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the table names 1 features more than once")
            try:
                clock = LinearClock.from_coefficients(path)
            except ValueError as error:
                refused[path.name] = str(error)
                continue
        values = clock.predict_age(_zeros(clock))
        assert values[0] == pytest.approx(_at_zero(table, path), rel=1e-4), path.name
    assert set(refused) == {
        "dnam_Hannum.csv", "brain_ct_coefs.csv.gz", "scage_polyak_coefs.csv.gz",
        "PASTA_CT46_coefs.csv", "PASTA_PASTA_coefs.csv", "PASTA_REG_coefs.csv",
    }  # fmt: skip
    assert "pass intercept=..., 0 if the clock has none" in refused["dnam_Hannum.csv"]
    assert "holds 33 models in its column 'model_key'" in refused["scage_polyak_coefs.csv.gz"]
    assert "'SC_Microglia'" in refused["brain_ct_coefs.csv.gz"]
    assert "one of the ranks" in refused["PASTA_REG_coefs.csv"]


def _zeros(clock):
    """One sample whose values are all 0, so that its score is the intercept less what centring takes."""
    return ad.AnnData(np.zeros((1, len(clock.genes)), np.float32), var=pd.DataFrame(index=clock.genes))


def _at_zero(table, path):
    first = table.columns[0]
    is_intercept = table[first].astype(str).str.lower().str.contains("intercept")
    if is_intercept.any():
        return table.loc[is_intercept, "coef"].item()
    if (path.parent / "intercepts.tsv").exists():
        names = pd.read_csv(path.parent / "intercepts.tsv", sep="\t", header=None, index_col=0)[1]
        names.index = names.index.str.replace(" ", "_")
        constant = names[path.stem.removesuffix("_coefs")]
    else:
        constant = float((path.parent / path.name.replace("_coefs.csv", "_intercept.txt")).read_text())
    return constant - (table["coef_scaled"] * table["mean"] / table["scale"]).sum()


@pytest.mark.parametrize("file", ["brain_ct_coefs.csv.gz", "scage_polyak_coefs.csv.gz"])
def test_models_of_one_table(data_dir, file):
    table = pd.read_csv(data_dir / "clocks" / file)
    name = table["model_key"].iloc[-1]
    clock = LinearClock.from_coefficients(table, model=name)
    rows = table[table["model_key"] == name]
    wide = rows.pivot_table(index="feature_name", columns="fold", values="coefficient", aggfunc="sum", fill_value=0)
    assert clock.predict_age(_zeros(clock))[0] == pytest.approx(wide.loc["intercept"].mean(), rel=1e-5)
    expected = wide.drop(index="intercept").mean(axis=1)
    np.testing.assert_allclose(clock.coefficients()[expected.index], expected, rtol=1e-6)


def test_ages_rise_within_childhood(controls):
    setup = {"age_transform": "horvath", "normalize": "none"}
    agevi.tl.cross_validate(controls, PLSClock, subject_key="donor", age_key="age", setup_kwargs=setup)
    agevi.tl.aggregate_subjects(controls)
    table = agevi.get.subjects_df(controls)
    child = table["age"] <= 20
    assert child.sum() == 379
    assert spearmanr(table["age"][child], table["predicted"][child]).statistic > 0.8
    assert (table["age"] - table["predicted"]).abs().mean() < 3.5


def test_foetal_and_adult_cortex_separate(data_dir):
    adata = ad.read_h5ad(data_dir / "sc_darmanis_cortex" / "darmanis_adult_fetal.h5ad")
    setup = {"age_transform": "horvath"}
    agevi.tl.cross_validate(adata, PLSClock, subject_key="donor", age_key="age", setup_kwargs=setup)
    agevi.tl.aggregate_subjects(adata)
    table = agevi.get.subjects_df(adata)
    foetal = table["age"] < 0
    assert foetal.sum() == 4
    assert table["predicted"][foetal].max() < 10 < 20 < table["predicted"][~foetal].min()
    assert table["predicted"].min() >= -1
