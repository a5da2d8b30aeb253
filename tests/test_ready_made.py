"""The clocks that come with agevi."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.io import _bundle, _load
from agevi.io._files import BundleMissingError

LISTED = agevi.clocks.list()
FAST = ("horvath_2013", "grn_cd4t", "mouse_brain_t_cell")
ROOT = Path(agevi.clocks.__file__).parent


def golden(name: str) -> tuple[np.ndarray, np.ndarray]:
    values = _load.found(name).golden
    return values["input"].double().numpy(), values["predicted"].numpy()


def test_the_list():
    assert len(LISTED) == 25 and (LISTED["where"] == "bundled").all()
    assert (
        LISTED[["cells", "tissue", "species", "unit", "licence", "citation", "source", "input"]].notna().all(axis=None)
    )
    assert LISTED.loc[LISTED["species"] == "mouse", "unit"].unique().tolist() == ["months"]
    packed = sum(len(zlib.compress(path.read_bytes())) for path in ROOT.rglob("*") if path.is_file())
    assert packed < 1_500_000  # in the wheel; 1.6 MB on disk


def test_every_licence_is_told_beside_the_clocks():
    text = (ROOT / "README.md").read_text()
    for name, licence in LISTED["licence"].items():
        row = next(
            line for line in text.splitlines() if re.match(rf"\| .*`{name.split('_')[0]}", line) and name[:6] in line
        )
        assert licence in row or licence in text
    assert {path.name for path in ROOT.glob("LICENSE-*")} == {
        "LICENSE-grnimmuneclock.txt",
        "LICENSE-spatial-aging-clock.txt",
    }


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in LISTED.index]
)
def test_each_predicts_its_golden_values(name):
    found = agevi.io.verify(name).loc[name]
    assert found["n_golden"] == 4 and found["difference"] <= found["tolerance"]
    assert golden(name)[1].std() > 0.5  # they tell one clock from another


def test_horvath_2013_is_its_formula():
    table, (x, age) = agevi.io.load_clock("horvath_2013"), golden("horvath_2013")
    score = 0.695507258 + pd.DataFrame(x, columns=table.genes)[table.coefficients().index] @ table.coefficients()
    assert table.coefficients()["cg00075967"] == pytest.approx(0.12933661, rel=1e-6)
    np.testing.assert_allclose(np.where(score < 0, 21 * np.exp(score) - 1, 21 * score + 20), age, rtol=1e-6)


@pytest.mark.realdata
@pytest.mark.parametrize(("cohort", "mae"), [("aida", 6.3), ("perez_sle", 7.1), ("zhang", 12.7)])
def test_grnimmuneclock_has_the_errors_of_its_own_software(cohort, mae, data_dir):
    adata = ad.read_h5ad(data_dir / "pb_tcells_cd4" / "cd4t_donors.h5ad")
    adata = adata[(adata.obs["dataset"] == cohort).to_numpy()].copy()
    error = agevi.io.load_clock("grn_cd4t").predict_age(adata) - adata.obs["age"].to_numpy()
    assert np.abs(error).mean() == pytest.approx(mae, abs=0.06)


@pytest.mark.parametrize(
    ("name", "reads"),
    [("grn_cd4t", "logarithms of normalised counts"), ("tcells_contrast", "contrasts of 'CD4 T' against 'CD8 T'")],
)
def test_raw_counts_are_refused_where_they_are_not_read(name, reads):
    counts = agevi.datasets.tcells(5, 5)
    with pytest.raises(ValueError, match=f"holds whole numbers up to .*, as raw counts are; this .* reads {reads}"):
        agevi.io.load_clock(name).predict_samples(counts, min_gene_coverage=0)


def test_half_of_the_genes_are_refused_with_the_reason():
    clock = agevi.io.load_clock("horvath_2013")
    adata = ad.AnnData(np.full((2, 176), 0.5, dtype=np.float32), var=pd.DataFrame(index=list(clock.genes[:176])))
    adata.obs["donor"] = ["a", "b"]
    with pytest.raises(
        ValueError, match=r"177 of the clock's 353 genes are absent .* A clock needs 80% of its genes\."
    ):
        agevi.tl.predict_age(adata, clock)


def test_another_species_is_refused_with_the_reason():
    clock = agevi.io.load_clock("mouse_brain_t_cell")
    adata = ad.AnnData(np.ones((2, 300), dtype=np.float32), var=pd.DataFrame(index=[g.upper() for g in clock.genes]))
    adata.obs["donor"] = ["a", "b"]
    with pytest.raises(
        ValueError, match="mouse symbols.* those of the data are spelled as human symbols|as mouse and human symbols do"
    ):
        agevi.tl.predict_age(adata, clock)


def test_a_directory_of_the_same_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundle = _load.found("grn_cd4t")
    _bundle.write_bundle("horvath_2013", bundle.meta, bundle.tensors, bundle.card)
    assert len(agevi.io.load_clock("horvath_2013").genes) == 2025


def test_an_unknown_name_lists_the_ready_made_clocks():
    with pytest.raises(
        BundleMissingError, match=r"Nor is 'horvath' a ready-made clock; those are 'horvath_2013', .*list"
    ):
        agevi.io.load_clock("horvath")
