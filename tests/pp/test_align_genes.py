from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

import agevi

X = np.random.default_rng(0).poisson(2.0, (4, 5)).astype(np.float32)
SYMBOLS = ["CD3E", "LEF1", "TCF7", "LEF1", None]
ENSEMBL = [f"ENSG{i:011d}" for i in range(5)]


def make(names=ENSEMBL, convert=sp.csr_matrix, **var) -> AnnData:
    obs = pd.DataFrame({"age": 1.0}, index=list("abcd"))
    return AnnData(convert(X), obs=obs, var=pd.DataFrame(var, index=list(names)), layers={"more": convert(2 * X)})


@pytest.mark.parametrize("convert", [sp.csr_matrix, sp.csc_matrix, np.asarray], ids=["csr", "csc", "dense"])
def test_symbols_are_found_in_var_and_doubles_are_summed(convert):
    adata = make(convert=convert, symbol=SYMBOLS)
    out = agevi.pp.align_genes(adata, ["TCF7", "LEF1", "ABSENT"])
    expected = np.column_stack([X[:, 2], X[:, 1] + X[:, 3]])
    for factor, got in ((1, out.X), (2, out.layers["more"])):
        np.testing.assert_array_equal(got.toarray() if sp.issparse(got) else got, factor * expected)
    assert out.X.dtype == np.float32
    assert list(out.var_names) == ["TCF7", "LEF1"]
    assert list(out.var["original_name"]) == [ENSEMBL[2], f"{ENSEMBL[1]};{ENSEMBL[3]}"]
    assert out.obs.equals(adata.obs)
    assert list(adata.var_names) == ENSEMBL


@pytest.mark.parametrize(
    ("adata", "mapping"),
    [
        pytest.param(make(symbol=["x"] * 5), None, id="names as they are"),
        pytest.param(make([f"{e}.7" for e in ENSEMBL]), None, id="versions"),
        pytest.param(make(list("vwxyz")), dict(zip("vwxyz", ENSEMBL, strict=True)), id="dict"),
        pytest.param(make(list("vwxyz")), pd.Series(ENSEMBL, index=list("vwxyz")), id="Series"),
        pytest.param(make(list("vwxyz"), other=ENSEMBL), "other", id="column"),
    ],
)
def test_namings(adata, mapping):
    out = agevi.pp.align_genes(adata, ENSEMBL[::-1], mapping=mapping)
    assert list(out.var_names) == ENSEMBL[::-1]
    np.testing.assert_array_equal(out.X.toarray(), X[:, ::-1])


def test_a_clock_says_its_genes(cohort, trained):
    expected = trained.predict_age(cohort)
    cohort.var["symbol"] = cohort.var_names
    cohort.var_names = [f"ENSG{i:011d}" for i in range(cohort.n_vars)]
    np.testing.assert_allclose(trained.predict_age(cohort), expected, rtol=1e-6)
    cohort.var = cohort.var.rename(columns={"symbol": "my names"})
    with pytest.raises(ValueError, match="run pp.align_genes"):
        trained.predict_age(cohort)
    cohort.var = cohort.var.rename(columns={"my names": "symbol"})
    np.testing.assert_allclose(trained.predict_age(agevi.pp.align_genes(cohort, trained)), expected, rtol=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match="none of the clock's 2 genes .'A', 'B'. is found in adata.*pass mapping="):
        agevi.pp.align_genes(make(), ["A", "B"])
    with pytest.raises(KeyError, match="mapping='symbols' is not a column of adata.var. Available: 'symbol'"):
        agevi.pp.align_genes(make(symbol=SYMBOLS), ["A"], mapping="symbols")
