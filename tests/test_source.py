from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import agevi
from agevi._source import READERS, log_ratios, read, resolved

KEY = {"obsm_key": "X_rep", "normalize": "none"}


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"donor": list("aabbcc")}, index=[f"c{i}" for i in range(6)])
    out = ad.AnnData(np.ones((6, 2), dtype=np.float32), obs=obs)
    out.obsm["X_rep"] = rng.normal(size=(6, 3)).astype(np.float32)
    out.obsm["protein"] = pd.DataFrame(rng.poisson(3, (6, 4)), index=obs.index, columns=["CD3", "CD4", "CD8", "CD19"])
    return out


def test_an_array_is_shared_and_its_dimensions_are_numbered(adata):
    found = read(adata, KEY)
    assert np.shares_memory(found.X, adata.obsm["X_rep"])
    assert found.var_names.tolist() == ["X_rep_0", "X_rep_1", "X_rep_2"]
    assert read(found, KEY, found.var_names) is found
    assert read(adata, {"obsm_key": None}) is adata


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, sp.csr_array], ids=lambda kind: kind.__name__)
def test_sparse_tables(adata, kind):
    values = adata.obsm["X_rep"]
    adata.obsm["X_rep"] = kind(values)
    found = read(adata, KEY).X
    assert sp.issparse(found)
    np.testing.assert_array_equal(found.toarray(), values)


def test_columns_of_a_table_are_found_by_name(adata):
    setup = {"obsm_key": "protein", "normalize": "none"}
    found = read(adata, setup, ["CD19", "CD3"])
    assert found.var_names.tolist() == ["CD19", "CD3"]
    np.testing.assert_array_equal(found.X, adata.obsm["protein"][["CD19", "CD3"]].to_numpy())
    np.testing.assert_array_equal(read(read(adata, setup), setup, ["CD19", "CD3"]).X, found.X)


def test_log_ratios_are_those_of_a_cell_alone(adata):
    counts = adata.obsm["protein"].to_numpy()
    expected = [[np.log1p(v / np.exp(np.mean([np.log1p(w) for w in cell]))) for v in cell] for cell in counts]
    np.testing.assert_allclose(log_ratios(counts), expected, rtol=1e-6)
    np.testing.assert_array_equal(log_ratios(sp.csr_matrix(counts)), log_ratios(counts))
    np.testing.assert_array_equal(log_ratios(np.zeros((2, 3))), 0)
    setup = {"obsm_key": "protein", "normalize": "clr"}
    found = read(adata, setup)
    np.testing.assert_allclose(found.X, expected, rtol=1e-6)
    assert read(found, setup) is found
    some = read(adata, setup, ["CD8", "CD4"])  # of which alone the ratios are
    np.testing.assert_array_equal(some.X, log_ratios(counts[:, [2, 1]]))


def bad(**changes):
    def change(adata):
        for key, value in changes.items():
            adata.obsm[key] = value(adata.obsm[key]) if callable(value) else value

    return change


REFUSED = {
    "another name": (
        {"obsm_key": "X_reps"},
        None,
        bad(),
        KeyError,
        "obsm_key='X_reps' is not in adata.obsm; closest: 'X_rep'",
    ),
    "another name for a clock": (
        {"obsm_key": "X_reps"},
        ["X_reps_0"],
        bad(),
        KeyError,
        "Available: 'X_rep', 'protein'. The clock reads 1 dimensions",
    ),
    "NaN": (
        {},
        None,
        bad(X_rep=lambda x: np.where(x == x.max(), np.nan, x)),
        ValueError,
        "adata.obsm['X_rep'] has missing",
    ),
    "text": (
        {"obsm_key": "protein"},
        None,
        bad(protein=lambda x: x.astype(str)),
        TypeError,
        "adata.obsm['protein'] holds",
    ),
    "columns twice": (
        {"obsm_key": "protein"},
        None,
        bad(protein=lambda x: x.set_axis(["a", "b", "b", "c"], axis=1)),
        ValueError,
        "repeat 'b'",
    ),
    "another width": ({}, ["X_rep_0", "X_rep_1"], bad(), ValueError, "has 3 dimensions, and the clock reads 2"),
    "a narrower one": (
        {},
        [f"X_rep_{i}" for i in range(4)],
        bad(),
        ValueError,
        "has 3 dimensions, and the clock reads 4",
    ),
    "a column absent": ({"obsm_key": "protein"}, ["CD3", "CD56"], bad(), ValueError, "1 are absent (e.g. 'CD56')"),
    "no names": ({}, ["CD3", "CD4", "CD8"], bad(), ValueError, "the table is an array without names; pass a DataFrame"),
    "negative counts": (
        {"normalize": "clr"},
        None,
        bad(),
        ValueError,
        "adata.obsm['X_rep'] has negative values (lowest: -",
    ),
}


@pytest.mark.parametrize(("setup", "names", "change", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_tables_that_cannot_be_read(adata, setup, names, change, error, message):
    change(adata)
    with pytest.raises(error) as raised:
        read(adata, KEY | setup, names)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        pytest.param(
            {"layer": "counts"}, "layer='counts' with obsm_key='X_rep'; a clock reads one matrix", id="layer too"
        ),
        pytest.param(
            {"normalize": "log1p_cp10k"}, "are not counts of genes.*Leave normalize out", id="shares of counts"
        ),
        pytest.param(
            {"obsm_key": None, "normalize": "clr"}, "normalize='clr' is for tables.*pass obsm_key", id="clr of genes"
        ),
    ],
)
def test_arguments_that_exclude_each_other(setup, message):
    with pytest.raises(ValueError, match=message):
        resolved({"layer": None, "obsm_key": "X_rep", "normalize": None} | setup)


def test_the_default_of_normalize():
    assert resolved({"obsm_key": "X_rep", "normalize": None})["normalize"] == "none"
    assert resolved({"normalize": None})["normalize"] == "log1p_cp10k"


def test_the_message_for_clocks_of_counts_names_all_others():
    named = {
        cls.__name__ for cls in agevi.model.MODELS if cls.trainable and cls.expects != "counts" and not cls.of_types
    }
    assert {name for name in named if name in READERS} == named


def test_an_anndata_of_dimensions(adata):
    found = agevi.pp.from_obsm(adata, "protein")
    assert found.shape == (6, 4)
    found.obs["new"] = 1
    assert "new" not in adata.obs
