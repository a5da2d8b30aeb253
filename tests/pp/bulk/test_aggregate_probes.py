from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from agevi import pp
from agevi.pp.bulk import _values
from tests.test_gates import check_message, snapshot

REGIONS = ["TSS200", "TSS1500", "Body"]


@pytest.fixture
def adata():
    """12 samples x 60 probes, a few of them not measured in a sample."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (12, 60)).astype(np.float32)
    probes = pd.DataFrame(index=[f"cg{i:03d}" for i in range(60)])
    obs = pd.DataFrame({"age": np.arange(12.0)}, index=[f"s{i}" for i in range(12)])
    return ad.AnnData(x, obs=obs, var=probes)


@pytest.fixture
def mapping():
    """Probes of 10 genes and of none, half of them in the data, some at two genes or given twice."""
    rng = np.random.default_rng(1)
    probe = [f"cg{i:03d}" for i in rng.choice(120, 150)]
    symbol = rng.choice([f"G{i}" for i in range(10)] + [""], 150)
    return pd.DataFrame({"probe": probe, "symbol": symbol, "region": rng.choice(REGIONS, 150)})


def by_pandas(x, adata, mapping):
    """The mean over probes by a groupby, genes in order of name."""
    pairs = mapping.loc[mapping["symbol"] != "", ["probe", "symbol"]].drop_duplicates()
    values = pd.DataFrame(x.T.astype(float), index=adata.var_names)
    return pairs.join(values, on="probe", how="inner").drop(columns="probe").groupby("symbol").mean().T


@pytest.mark.parametrize("region", ["TSS200", ["TSS200", "Body"], None], ids=["one", "two", "all"])
@pytest.mark.parametrize("missing", [False, True], ids=["complete", "with NaN"])
def test_equals_a_groupby_mean(adata, mapping, region, missing, monkeypatch):
    monkeypatch.setattr(_values, "_BLOCK", 200)  # several blocks
    if missing:
        adata.X[np.random.default_rng(2).random(adata.shape) < 0.4] = np.nan
    before = snapshot(adata)
    out = pp.aggregate_probes(adata, mapping, region)
    rows = (
        mapping if region is None else mapping[mapping["region"].isin([region] if isinstance(region, str) else region)]
    )
    expected = by_pandas(adata.X, adata, rows)
    assert out.var_names.tolist() == expected.columns.tolist()
    np.testing.assert_allclose(out.X, expected, atol=1e-6)
    if region == "TSS200":  # genes of one probe
        assert np.isnan(out.X).any() == missing
    assert out.X.dtype == np.float32
    pd.testing.assert_frame_equal(out.obs, adata.obs)
    inside = rows[rows["probe"].isin(adata.var_names) & (rows["symbol"] != "")]
    assert out.var["n_probes"].to_dict() == inside.groupby("symbol")["probe"].nunique().to_dict()
    assert snapshot(adata) == before


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_a_file_is_read_as_text(adata, mapping, tmp_path, suffix):
    mapping.loc[0, ["probe", "symbol", "region"]] = ["cg000", "NAN", "TSS200"]  # a gene, not a missing value
    mapping.to_csv(tmp_path / f"map.{suffix}", index=False)
    out = pp.aggregate_probes(adata, tmp_path / f"map.{suffix}")
    expected = pp.aggregate_probes(adata, mapping)
    assert "NAN" in out.var_names
    np.testing.assert_array_equal(out.to_df()[expected.var_names], expected.to_df())


def test_other_columns_and_joined_genes(adata):
    manifest = pd.DataFrame(
        {
            "Name": ["cg000", "cg001", "cg002"],
            "genes": ["A;B;A", "B", None],
            "groups": ["TSS200;Body;Body", "TSS200", None],
        }
    )
    columns = ("Name", "genes", "groups")
    out = pp.aggregate_probes(adata, manifest, columns=columns).to_df()
    np.testing.assert_allclose(out["A"], adata.X[:, 0])
    np.testing.assert_allclose(out["B"], adata.X[:, 1])
    every = pp.aggregate_probes(adata, manifest, None, columns=columns)
    np.testing.assert_allclose(every.to_df()["B"], adata.X[:, :2].mean(1))
    assert every.var["n_probes"].to_dict() == {"A": 1, "B": 2}


def test_m_values_become_betas_first(adata, mapping):
    pp.beta_to_m(adata)
    np.testing.assert_allclose(
        pp.aggregate_probes(adata, mapping, layer="m", values="m").X, pp.aggregate_probes(adata, mapping).X, atol=1e-5
    )


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix])
def test_sparse(adata, mapping, form):
    expected = pp.aggregate_probes(adata, mapping).X
    adata.X = form(adata.X)
    np.testing.assert_allclose(pp.aggregate_probes(adata, mapping).X, expected, atol=1e-6)


CASES = {
    "no probe in common": (lambda a, m: setattr(a, "var_names", a.var_names + "_TC"), {}, ValueError, "name the probes as the array does"),
    "M values": (lambda a, m: setattr(a, "X", a.X * 6 - 3), {}, ValueError, "as M values do; pass values='m'"),
    "betas as M values": (None, {"values": "m"}, ValueError, "as betas do; leave values='beta'"),
    "unknown scale": (None, {"values": "percent"}, ValueError, "values='percent' is not known"),
    "unknown region": (None, {"region": "TSS20"}, ValueError, "Available: 'Body', 'TSS1500', 'TSS200'"),
    "unknown column": (None, {"columns": ("probe", "gene", "region")}, KeyError, "mapping has no column 'gene'"),
    "no file": (None, {"mapping": "no.csv"}, FileNotFoundError, "mapping='no.csv' is not a file"),
    "no table": (None, {"mapping": {"cg000": "A"}}, TypeError, "mapping is a dict"),
    "uneven": (lambda a, m: m.__setitem__("symbol", "A;B"), {}, ValueError, "give one region for each gene"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_errors(adata, mapping, case):
    change, arguments, error, words = CASES[case]
    if change:
        change(adata, mapping)
    before = snapshot(adata)
    with pytest.raises(error) as raised:
        pp.aggregate_probes(adata, **({"mapping": mapping} | arguments))
    check_message(raised, words)
    assert snapshot(adata) == before


@pytest.mark.realdata
@pytest.mark.parametrize("table", ["TSS200", "promoter"])
def test_real_tables(data_dir, table):
    adata = ad.read_h5ad(data_dir / "dnam_carpentries_37" / "dnam_carpentries_37.h5ad")
    path = data_dir / "reference" / f"illumina450k_{table}_probe_gene.csv.gz"
    out = pp.aggregate_probes(adata, path, layer="beta")
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows = rows[rows["region"] == "TSS200"] if "region" in rows else rows
    expected = by_pandas(adata.layers["beta"], adata, rows)
    assert out.var_names.tolist() == expected.columns.tolist()
    np.testing.assert_allclose(out.X, expected, atol=1e-6)
    np.testing.assert_allclose(pp.aggregate_probes(adata, path, values="m").X, out.X, atol=1e-5)
    np.testing.assert_allclose(
        pp.m_to_beta(adata, key_added="again", copy=True).layers["again"], adata.layers["beta"], atol=1e-5
    )
