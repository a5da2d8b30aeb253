"""Names of genes from a column of ``adata.var``."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from agevi import _symbols, get, pl, tl
from tests.test_gates import check_message


@pytest.fixture
def adata():
    var = pd.DataFrame({"symbol": ["CD3E", "CD8A", None, "CD8A", ""]}, index=[f"ENSG{i}" for i in range(5)])
    var["kind"] = pd.Categorical(["a", "b", "c", "d", "e"])
    return ad.AnnData(np.ones((2, 5), dtype=np.float32), var=var)


def test_genes_without_a_symbol_keep_their_names(adata):
    assert _symbols.names(adata, "symbol").tolist() == ["CD3E", "CD8A", "ENSG2", "CD8A", "ENSG4"]
    assert _symbols.names(adata, "kind").to_dict() == dict(zip(adata.var_names, "abcde", strict=True))
    assert _symbols.names(adata, None).tolist() == adata.var_names.tolist()


def test_labels_are_unique(adata):
    expected = ["CD3E", "CD8A (ENSG1)", "ENSG2", "CD8A (ENSG3)", "ENSG4"]
    assert _symbols.labels(adata, "symbol").tolist() == expected


def test_an_absent_column_is_refused(adata):
    with pytest.raises(KeyError) as raised:
        _symbols.names(adata, "symbols")
    check_message(
        raised,
        "gene_symbols='symbols' is not a column of adata.var; closest: 'symbol'. Available: 'symbol', 'kind'.",
    )


def attributed(n_genes=60):
    """Attributions of genes named by Ensembl, two of which share a symbol and one of which has none."""
    rng = np.random.default_rng(0)
    symbols = [f"G{i}" for i in range(n_genes)]
    symbols[1], symbols[2] = "G0", None
    var = pd.DataFrame({"symbol": symbols}, index=[f"ENSG{i:011d}" for i in range(n_genes)])
    adata = ad.AnnData(np.ones((3, n_genes), np.float32), var=var)
    signed = rng.normal(size=(n_genes, 1))
    signed[1] = 2 * abs(signed).max()  # the second of the two is the larger
    for part, values in {"": np.abs(signed), "_signed": signed, "_se": signed * 0, "_selected": signed * 0 + 1}.items():
        adata.varm[f"agevi_attribution{part}"] = values
    for part in ("_rank_low", "_rank_high"):
        adata.varm[f"agevi_attribution{part}"] = np.ones((n_genes, 1))
    adata.uns["agevi_attribution"] = {"groups": ["all"]}
    return adata


def renamed(adata):
    """The same with symbols for names, without the smaller of the two genes that share one."""
    out = adata[:, np.arange(adata.n_vars) != 0].copy()
    out.var_names = [s if isinstance(s, str) else name for name, s in out.var["symbol"].items()]
    return out


@pytest.mark.parametrize("method", ["ora", "ulm"])
def test_enrichment_by_symbols_is_that_of_renamed_genes(method):
    adata = attributed()
    sets = {"a": [f"G{i}" for i in range(12)], "b": [f"G{i}" for i in range(20, 40)]}
    arguments = {"method": method, "n_top": 10}
    tl.enrich(adata, sets, gene_symbols="symbol", **arguments)
    other = renamed(adata)
    tl.enrich(other, sets, **arguments)
    pd.testing.assert_frame_equal(adata.uns["agevi_enrichment"], other.uns["agevi_enrichment"])
    assert adata.uns["agevi_enrichment_params"]["gene_symbols"] == "symbol"


def test_targets_by_symbols_are_those_of_renamed_genes():
    adata = attributed()
    druggable = [f"G{i}" for i in range(0, 60, 2)]
    found = tl.rank_targets({"x": adata, "y": adata}, druggable=druggable, gene_symbols="symbol", n_shared=5)
    other = renamed(adata)
    expected = tl.rank_targets({"x": other, "y": other}, druggable=druggable, n_shared=5)
    pd.testing.assert_frame_equal(found.genes, expected.genes)
    assert found.genes["gene"][0] == "G0"


def test_tables_have_the_column_of_symbols_as_in_scanpy():
    adata = attributed()
    table = get.attribution_df(adata, gene_symbols="symbol")
    assert list(table)[:3] == ["gene", "symbol", "group"]
    assert table.loc[0, ["gene", "symbol"]].tolist() == ["ENSG00000000001", "G0"]
    assert table.set_index("gene").loc["ENSG00000000002", "symbol"] == "ENSG00000000002"
    pd.testing.assert_frame_equal(table.drop(columns="symbol"), get.attribution_df(adata))
    adata.var["rank"] = adata.var["symbol"]  # a name that the table has already
    assert list(get.attribution_df(adata, gene_symbols="rank"))[:4] == ["gene", "symbol", "group", "rank"]
    changes = pd.DataFrame({"gene": ["ENSG00000000003", "my set"], "group": "all", "change": [1.0, 2.0]})
    adata.uns["agevi_perturbation"] = changes
    assert get.perturbation_df(adata, gene_symbols="symbol")["symbol"].tolist() == ["G3", "my set"]
    assert list(adata.uns["agevi_perturbation"]) == list(changes)
    with pytest.raises(KeyError, match="gene_symbols='names' is not a column of adata.var"):
        get.attribution_df(adata, gene_symbols="names")


def test_figures_show_symbols_and_find_genes_by_them():
    adata = attributed()
    ax = pl.attribution(adata, n_top=2, gene_symbols="symbol")
    assert ax.get_yticklabels()[0].get_text() == "G0 (ENSG00000000001)"
    ax = pl.attribution(adata, genes=["G5", "ENSG00000000007", "G0"], gene_symbols="symbol")
    shown = [label.get_text() for label in ax.get_yticklabels()]
    assert shown == ["G5", "G7", "G0 (ENSG00000000000)", "G0 (ENSG00000000001)"]
    with pytest.raises(KeyError, match="genes holds 'G5', which have no attribution"):
        pl.attribution(adata, genes=["G5"])


def test_unknown_genes_are_answered_with_names_as_the_figure_shows_them():
    adata = attributed()
    adata.uns["agevi_attribution"] = {"groups": ["all", "a"]}
    for slot in [name for name in adata.varm if name.startswith("agevi_attribution")]:
        adata.varm[slot] = np.repeat(adata.varm[slot], 2, axis=1)
    for draw in (pl.attribution, pl.attribution_heatmap):
        with pytest.raises(
            KeyError, match="'g7', which have no attribution; closest: 'G7'; choose among 'G0', 'G"
        ) as raised:
            draw(adata, genes=["g7"], gene_symbols="symbol")
        assert "ENSG" not in str(raised.value).replace("ENSG00000000002", "")  # the one without a symbol
        with pytest.raises(KeyError, match="choose among 'ENSG00000000001', "):
            draw(adata, genes=["g7"])
        with pytest.raises(KeyError, match="genes is empty; choose among 'G0'"):
            draw(adata, genes=[], gene_symbols="symbol")
