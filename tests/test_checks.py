from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from agevi import _checks, _values

N_CELLS = 12


@pytest.fixture
def adata(twelve_cells):
    return twelve_cells


def test_listed_shortens():
    assert _checks.listed(["a", 2]) == "'a', '2'"
    assert _checks.listed(range(9), 3) == "'0', '1', '2', ..."


def test_choice():
    assert _checks.choice("a", ("a", "b"), "level") == "a"
    with pytest.raises(ValueError, match=r"^level='c' is not known; choose one of 'a', 'b'\.$"):
        _checks.choice("c", ("a", "b"), "level")


@pytest.mark.parametrize(
    ("name", "names", "hint"),
    [
        pytest.param("MPLClock", ["PLSClock", "MLPClock"], "; closest: 'MLPClock'", id="letters that changed places"),
        pytest.param("MPLClock", ["MLPClock", "PLSClock"], "; closest: 'MLPClock'", id="in any order"),
        pytest.param("plsclok", ["PLSClock", "MLPClock"], "; closest: 'PLSClock'", id="a missing letter"),
        pytest.param("donro", ["donors", "donor"], "; closest: 'donor'", id="the same letters first"),
        pytest.param("zzz", ["PLSClock"], "", id="nothing like it"),
        pytest.param("a", [], "", id="no names"),
    ],
)
def test_closest(name, names, hint):
    assert _checks.closest(name, names) == hint


def test_anndata_passes_through(adata):
    assert _checks.anndata(adata) is adata


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        pytest.param(lambda a: a.X, TypeError, "adata is a ndarray; pass an anndata.AnnData", id="array"),
        pytest.param(lambda a: a[:0], ValueError, r"adata is empty \(0 cells x 4 genes\)", id="no cells"),
        pytest.param(lambda a: a[:, :0], ValueError, r"adata is empty \(12 cells x 0 genes\)", id="no genes"),
    ],
)
def test_anndata_refuses(adata, make, error, message):
    with pytest.raises(error, match=message):
        _checks.anndata(make(adata))


def test_unique_names(adata):
    assert _checks.unique_names(adata) is None
    adata.var_names = ["a", "a", "b", "c"]
    with pytest.raises(
        ValueError, match=r"adata.var_names has 1 repeated names \(e.g. 'a'\); call adata.var_names_make"
    ):
        _checks.unique_names(adata)
    adata.var_names = list("abcd")
    adata.obs_names = ["x"] * N_CELLS
    with pytest.raises(ValueError, match=r"adata.obs_names has 1 repeated names.*obs_names_make_unique"):
        _checks.unique_names(adata)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        pytest.param("donr", r"; closest: 'donor'. ", id="misspelt"),
        pytest.param("AGE", "; closest: 'age'. ", id="wrong case"),
        pytest.param("xyz", r"\. ", id="nothing close"),
    ],
)
def test_column_names_the_closest(adata, key, hint):
    adata.obs["_scvi_batch"] = 0
    with pytest.raises(KeyError, match=f"subject_key='{key}' is not a column of adata.obs{hint}") as error:
        _checks.column(adata, key, "subject_key")
    assert "Available: 'donor', 'age'." in str(error.value)
    assert "_scvi" not in str(error.value)


def test_column_without_columns():
    with pytest.raises(KeyError, match="adata.obs has no columns"):
        _checks.column(ad.AnnData(np.ones((2, 2), dtype=np.float32)), "age", "age_key")


def test_slot(adata):
    adata.uns["here"] = 1
    assert _checks.slot(adata, "here", "uns", "tl.f(adata)") == 1
    with pytest.raises(KeyError, match=r"adata.uns\['there'\] is absent; run tl.f\(adata\) first. Available: 'here'"):
        _checks.slot(adata, "there", "uns", "tl.f(adata)")


def test_labels_are_text(adata):
    adata.obs["n"] = pd.Categorical(np.repeat([1, 2], 6))
    assert _checks.labels(adata, "n", "subject_key").tolist() == ["1"] * 6 + ["2"] * 6


def test_labels_refuse_missing(adata):
    adata.obs["donor"] = adata.obs["donor"].astype(object).where(np.arange(N_CELLS) != 2, None)
    with pytest.raises(ValueError, match=r"adata.obs\['donor'\] is missing in 1 cells \(first: 'cell2'\); subject_key"):
        _checks.labels(adata, "donor", "subject_key")


def test_matrix(adata):
    adata.layers["counts"] = adata.X * 2
    assert _checks.matrix(adata, "counts")[0, 1] == 2
    assert _checks.matrix(adata, None)[0, 1] == 1


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        pytest.param(
            "cnts", KeyError, "layer='cnts' is not in adata.layers; closest: 'counts'. Available: 'counts'", id="layer"
        ),
        pytest.param(None, ValueError, r"adata.X is absent; pass layer=..., one of 'counts'", id="no X"),
    ],
)
def test_matrix_refuses(layer, error, message):
    adata = ad.AnnData(layers={"counts": np.ones((2, 2))}, shape=(2, 2))
    with pytest.raises(error, match=message):
        _checks.matrix(adata, layer)


def test_matrix_without_layers(adata):
    with pytest.raises(KeyError, match="Available: none"):
        _checks.matrix(adata, "counts")


FORMS = [
    pytest.param(np.asarray, id="dense"),
    pytest.param(sp.csr_matrix, id="csr"),
    pytest.param(sp.csc_matrix, id="csc"),
    pytest.param(sp.csr_array, id="csr_array"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(np.nan, r"adata.X has missing or infinite values \(first: nan\)", id="NaN"),
        pytest.param(np.inf, r"adata.X has missing or infinite values \(first: inf\)", id="infinite"),
        pytest.param(
            -2.0, r"adata.X has negative values \(lowest: -2\); PoissonVAE is fitted to raw counts", id="negative"
        ),
        pytest.param(
            0.694, r"adata.X has non-integer values \(first: 0.694\).*setup_anndata\(adata, layer=...\)", id="fraction"
        ),
    ],
)
def test_counts_refuse(adata, form, value, message):
    x = adata.X.copy()
    x[5, 2] = value
    with pytest.raises(ValueError, match=message):
        _checks.counts(
            form(x), "adata.X", "PoissonVAE is fitted to raw counts", advice="Pass setup_anndata(adata, layer=...)."
        )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64])
def test_counts_pass(adata, form, dtype):
    assert (
        _checks.counts(
            form(adata.X.astype(dtype)),
            "adata.X",
            "PoissonVAE is fitted to raw counts",
            advice="Pass setup_anndata(adata, layer=...).",
        )
        is None
    )


@pytest.mark.parametrize("form", FORMS)
def test_counts_refuse_zeros(form):
    with pytest.raises(ValueError, match="adata.X holds only zeros"):
        _checks.counts(
            form(np.zeros((3, 2))),
            "adata.X",
            "PoissonVAE is fitted to raw counts",
            advice="Pass setup_anndata(adata, layer=...).",
        )


def test_blocks_cover_every_value(adata, monkeypatch):
    monkeypatch.setattr(_values, "_BLOCK", 8)
    x = adata.X.copy()
    x[-1, -1] = 0.5
    for form in (np.asarray, sp.csr_matrix):
        with pytest.raises(ValueError, match="non-integer"):
            _checks.counts(
                form(x), "adata.X", "PoissonVAE is fitted to raw counts", advice="Pass setup_anndata(adata, layer=...)."
            )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(None, None, id="all"),
        pytest.param([2, 0], [2, 0], id="positions"),
        pytest.param(range(2), [0, 1], id="range"),
        pytest.param([-1], [2], id="from the end"),
        pytest.param([True, False, True], [0, 2], id="mask"),
        pytest.param(pd.Series([True, False, True], index=list("abc")), [0, 2], id="column"),
    ],
)
def test_positions(given, expected):
    found = _checks.positions(given, 3)
    assert found is None if expected is None else found.tolist() == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param([], "indices is float64 of shape (0,) with 3 cells; pass valid positions", id="none"),
        pytest.param([False] * 3, "indices is int64 of shape (0,) with 3 cells", id="empty mask"),
        pytest.param(
            [True, False], "indices is bool of shape (2,) with 3 cells; pass valid positions", id="short mask"
        ),
        pytest.param(["a"], "indices is <U1 of shape (1,)", id="names"),
        pytest.param([0.5], "indices is float64 of shape (1,)", id="numbers"),
        pytest.param(slice(2), "indices is object of shape ()", id="slice"),
        pytest.param([0, 3], "indices is from 0 to 3 with 3 cells", id="outside"),
        pytest.param([-4], "indices is from -4 to -4 with 3 cells", id="outside below"),
    ],
)
def test_bad_positions(given, words):
    with pytest.raises(IndexError) as raised:
        _checks.positions(given, 3)
    assert words in str(raised.value)


def test_a_list_is_no_column(adata):
    with pytest.raises(TypeError, match=r"groupby=\['a', 'b'\] is a list; pass the name of one column of adata.obs"):
        _checks.column(adata, ["a", "b"], "groupby")
