from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

import agevi
from agevi.dataloaders._query import match_genes, query_shell
from tests.test_gates import check_message

GENES = np.array([f"g{i}" for i in range(10)])
X = np.random.default_rng(0).poisson(1.0, (5, 10)).astype(np.float32)


def make(x, names=GENES) -> AnnData:
    return AnnData(x, obs=pd.DataFrame(index=[f"c{i}" for i in range(5)]), var=pd.DataFrame(index=names))


def shell_of(adata, **kwargs):
    match = match_genes(GENES, adata.var_names, min_coverage=0.5)
    return match, query_shell(
        adata,
        match,
        GENES,
        obs=pd.DataFrame(index=adata.obs_names),
        **{"layer": None, "read": kwargs.get("layer")} | kwargs,
    )


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(sp.csr_matrix, id="csr"),
        pytest.param(sp.csr_array, id="csr_array"),
        pytest.param(sp.csc_matrix, id="csc"),
        pytest.param(np.asarray, id="dense"),
    ],
)
@pytest.mark.parametrize(
    "columns",
    [
        pytest.param(np.arange(10), id="same"),
        pytest.param(np.arange(10)[::-1], id="reversed"),
        pytest.param(np.array([7, 1, 3, 9, 0, 2]), id="missing and shuffled"),
    ],
)
def test_genes_come_back_in_order_with_zeros_for_absent_ones(convert, columns):
    match, shell = shell_of(make(convert(X[:, columns]), GENES[columns]))
    got = shell.X.toarray() if sp.issparse(shell.X) else shell.X
    np.testing.assert_array_equal(got, np.where(np.isin(np.arange(10), columns), X, 0))
    assert list(shell.var_names) == list(GENES)
    np.testing.assert_array_equal(match.present, np.isin(np.arange(10), columns))
    assert match.coverage == len(columns) / 10


@pytest.mark.parametrize("convert", [sp.csr_matrix, sp.csr_array, np.asarray], ids=["csr", "csr_array", "dense"])
def test_matching_data_share_memory(convert):
    adata = make(convert(X))
    shell = shell_of(adata)[1]
    first, second = (x.data if sp.issparse(x) else x for x in (adata.X, shell.X))
    assert np.shares_memory(first, second)


def test_layer_is_read(cohort):
    adata = make(np.zeros_like(X))
    adata.layers["counts"] = X
    shell = shell_of(adata, layer="counts")[1]
    np.testing.assert_array_equal(shell.layers["counts"], X)


@pytest.mark.parametrize(
    ("genes", "names", "hint"),
    [
        pytest.param(
            ["CD3E", "LEF1", "TCF7"],
            [f"ENSG{i:011d}" for i in range(3)],
            "the data use Ensembl ids, the clock uses symbols. Rename var_names or run pp.align_genes",
            id="ensembl data",
        ),
        pytest.param(
            [f"ENSMUSG{i:011d}" for i in range(3)], ["A", "B", "C"], "the data use symbols, the clock uses Ensembl",
            id="symbol data",
        ),
        pytest.param(["CD3E", "LEF1", "TCF7"], ["Cd3e", "Lef1", "Tcf7"], "mouse and human symbols", id="mouse data"),
        pytest.param(
            [f"ENSG{i:011d}" for i in range(3)], [f"ENSG{i:011d}.{i}" for i in range(3)],
            'with. Cut it off, adata.var_names = adata.var_names.str.split(".").str[0]. A clock needs', id="versions in the data",
        ),
        pytest.param(
            [f"ENSG{i:011d}.{i}" for i in range(3)], [f"ENSG{i:011d}" for i in range(3)],
            '.str[0], and run pp.align_genes(adata, clock, mapping={gene.split(".")[0]: gene for gene in clock.genes})',
            id="versions in the clock",
        ),
        pytest.param(
            [f"ENSG{i:011d}" for i in range(3)], [f"ENSG{i:011d}.{i}" for i in range(3, 6)], "same gene annotation",
            id="versions of other genes",
        ),
        pytest.param(["CD3E", "LEF1", "TCF7"], ["A", "B", "C"], "same gene annotation", id="other genes"),
    ],
)  # fmt: skip
def test_too_few_genes_are_refused_with_a_hint(genes, names, hint):
    with pytest.raises(ValueError, match="3 of the clock's 3 genes are absent from adata.var_names") as error:
        match_genes(np.array(genes), pd.Index(names), min_coverage=0.8)
    check_message(error, hint)
    assert genes[0] in str(error.value)


@pytest.mark.parametrize("suffix", ["", ".7", ".7_PAR_Y"])
def test_the_remedies_for_versions_work(suffix):
    """What the messages say, for a clock without versions and for one that kept them."""
    plain = [f"ENSG{i:011d}" for i in range(10)]
    adata = make(X, [name + suffix for name in plain])
    adata.var_names = adata.var_names.str.split(".").str[0]
    assert match_genes(np.array(plain), adata.var_names, min_coverage=1).identical
    genes = np.array([f"{name}.{i}" for i, name in enumerate(plain)])
    aligned = agevi.pp.align_genes(adata, genes, mapping={gene.split(".")[0]: gene for gene in genes})
    assert match_genes(genes, aligned.var_names, min_coverage=1).identical
