from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import agevi
from agevi import pp
from tests.test_gates import snapshot

KEYS = {"subject_key": "donor", "target": "T", "reference": "R", "min_counts": 1}
FORMS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}


@pytest.fixture
def adata():
    """Four donors with two cells of each of three types."""
    rng = np.random.default_rng(0)
    donor = np.repeat(["d1", "d2", "d3", "d4"], 6)
    obs = pd.DataFrame({"donor": donor, "cell_type": ["T", "T", "R", "R", "B", "B"] * 4})
    obs["age"], obs["lab"], obs["cell"] = np.repeat([30.0, 40, 50, 60], 6), "a", np.arange(24)
    obs.index = [f"c{i}" for i in range(24)]
    genes = pd.DataFrame({"symbol": list("vwxyz")}, index=[f"g{i}" for i in range(5)])
    return ad.AnnData(sp.csr_matrix(rng.poisson(20, (24, 5)).astype(np.float32)), obs=obs, var=genes)


def by_hand(adata, target=("T",), reference=("R",), scale=1e6):
    x = pd.DataFrame(adata.X.toarray(), index=adata.obs["donor"]).astype(float)
    logs = []
    for types in (target, reference):
        sums = x[adata.obs["cell_type"].isin(types).to_numpy()].groupby(level=0).sum()
        logs.append(np.log1p(scale * sums.div(sums.sum(axis=1), axis=0)))
    return (logs[0] - logs[1]).to_numpy()


@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_formula(adata, form):
    expected = by_hand(adata)
    adata.X = FORMS[form](adata.X.toarray())
    kept = snapshot(adata)
    out = pp.contrast_types(adata, "cell_type", **KEYS)
    assert snapshot(adata) == kept
    np.testing.assert_allclose(out.X, expected, atol=1e-5)
    assert out.X.dtype == np.float32
    assert list(out.obs_names) == ["d1", "d2", "d3", "d4"]
    assert list(out.obs["age"]) == [30, 40, 50, 60]
    assert {"lab", "donor"} <= set(out.obs)
    assert not {"cell", "cell_type"} & set(out.obs)
    assert list(out.var["symbol"]) == list("vwxyz")
    assert (out.obs[["n_cells_target", "n_cells_reference"]] == 2).all(axis=None)
    assert out.obs["n_counts_target"].iloc[0] == adata.X[:2].sum()


def test_several_types_and_another_scale(adata):
    out = pp.contrast_types(adata, "cell_type", **KEYS | {"reference": ["R", "B"]}, scale=1e4)
    np.testing.assert_allclose(out.X, by_hand(adata, reference=("R", "B"), scale=1e4), atol=1e-5)


def test_a_factor_of_a_gene_cancels(adata):
    adata.X = adata.X * 50
    before = pp.contrast_types(adata, "cell_type", **KEYS).X
    factors = np.array([1, 3, 1, 2, 1])
    adata.X = sp.csr_matrix(adata.X.toarray() * factors)
    after = pp.contrast_types(adata, "cell_type", **KEYS).X
    moved = after - before
    np.testing.assert_allclose(moved - moved.mean(axis=1, keepdims=True), 0, atol=0.01)  # but for the new sums


def test_new_data_like_the_training_data(adata):
    old = pp.contrast_types(adata, "cell_type", **KEYS, genes=np.array(["g3", "g0", "g1"]), scale=1e5)
    new = adata[:, ::-1].copy()
    again = pp.contrast_types(new, "cell_type", **KEYS, like=old)
    assert list(again.var_names) == ["g3", "g0", "g1"]
    np.testing.assert_allclose(again.X, old.X)
    with pytest.raises(ValueError, match=r"1 of the 3 genes of like are absent from adata.var_names \(e.g. 'g0'\)"):
        pp.contrast_types(adata[:, 1:].copy(), "cell_type", **KEYS, like=old)


def test_new_data_under_other_names(adata, caplog):
    adata.var["gene_ids"] = [f"ENSG0000000000{i}" for i in range(5)]
    old = pp.contrast_types(adata, "cell_type", **KEYS)
    new = adata[:, ::-1].copy()
    new.var = pd.DataFrame(index=[f"{e}.3" for e in new.var["gene_ids"]])
    with caplog.at_level("INFO", logger="agevi"):
        again = pp.contrast_types(new, "cell_type", **KEYS, like=old)
    np.testing.assert_allclose(again.X, old.X)
    assert list(again.var_names) == [f"ENSG0000000000{i}.3" for i in range(5)]
    assert "like has symbols and adata.var_names holds Ensembl ids; 5 of 5 genes are matched through" in caplog.text
    with pytest.raises(ValueError, match="1 of the 5 genes of like are absent .*; 4 are found through its Ensembl ids"):
        pp.contrast_types(new[:, 1:].copy(), "cell_type", **KEYS, like=old)


def test_samples_and_what_they_lack(adata):
    adata.obs["visit"] = adata.obs["donor"] + "_" + (np.arange(24) % 2).astype(str)
    adata.obs["cell_type"] = adata.obs["cell_type"].where(adata.obs["visit"] != "d2_0", "B")
    with pytest.warns(UserWarning, match=r"1 of 8 samples have fewer than min_counts=1 counts .* \('d2_0'\)"):
        out = pp.contrast_types(adata, "cell_type", **KEYS, sample_key="visit")
    assert out.n_obs == 7
    assert out.obs.loc["d2_1", "donor"] == "d2"


def test_files_hold_it(adata, tmp_path):
    out = pp.contrast_types(adata, "cell_type", **KEYS)
    out.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad")
    np.testing.assert_array_equal(pp.contrast_types(adata, "cell_type", **KEYS, like=again).X, out.X)


@pytest.mark.slow
def test_it_is_read_by_a_clock():
    adata = agevi.datasets.simulate_cohort(
        40, 60, 60, n_cell_types=2, ageing_rates=[1, -1], effect_range=(0.1, 0.3), batch_sd=0.5, rng=1
    )
    types = {"target": "type0", "reference": "type1", "subject_key": "donor"}
    contrast = pp.contrast_types(adata, "cell_type", **types)
    agevi.tl.cross_validate(
        contrast, agevi.model.PLSClock, age_key="age", subject_key="donor", setup_kwargs={"normalize": "none"}
    )
    error = (contrast.obs["agevi_predicted"] - contrast.obs["age"]).abs().mean()
    assert error < 0.6 * (contrast.obs["age"] - contrast.obs["age"].median()).abs().mean()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": "CD4"}, ValueError, r"target='CD4' is not among the types in adata.obs\['cell_type'\]"),
        ({"reference": []}, ValueError, "reference=no type"),
        ({"reference": ["R", "T"]}, ValueError, "both hold 'T'"),
        ({"genes": "g1"}, TypeError, "genes is a str"),
        ({"genes": ["g1", "h1"]}, ValueError, "1 of the 2 genes of genes are absent"),
        ({"min_counts": 10**6}, ValueError, "no sample has min_counts=1000000"),
        ({"scale": 0}, ValueError, "scale=0 is not a number above 0"),
        ({"subject_key": "person"}, KeyError, "subject_key='person' is not a column"),
        ({"layer": "counts"}, KeyError, "layer='counts'"),
        ({"like": "clock"}, KeyError, "like has no uns"),
    ],
)
def test_bad_calls(adata, change, error, message):
    with pytest.raises(error, match=message):
        pp.contrast_types(adata, "cell_type", **KEYS | change)


def test_values_that_are_no_counts(adata):
    adata.X = np.log1p(adata.X)
    with pytest.raises(ValueError, match="pp.contrast_types compares raw counts"):
        pp.contrast_types(adata, "cell_type", **KEYS)
