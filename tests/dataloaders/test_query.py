from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

import agevi
from agevi.dataloaders._measured import FeatureSets, match_sets
from agevi.dataloaders._query import match_genes, query_shell
from tests.test_gates import check_message

GENES = np.array([f"g{i}" for i in range(10)])
X = np.random.default_rng(0).poisson(1.0, (5, 10)).astype(np.float32)


def make(x, names=GENES) -> AnnData:
    return AnnData(x, obs=pd.DataFrame(index=[f"c{i}" for i in range(5)]), var=pd.DataFrame(index=names))


def shell_of(adata, **kwargs):
    match = match_genes(GENES, adata, min_coverage=0.5)
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


def test_layer_is_read():
    adata = make(np.zeros_like(X))
    adata.layers["counts"] = X
    shell = shell_of(adata, layer="counts")[1]
    np.testing.assert_array_equal(shell.layers["counts"], X)


def of_genes(names, **var) -> AnnData:
    """Data with these genes, and no counts worth a look."""
    return AnnData(np.zeros((2, len(names)), np.float32), var=pd.DataFrame(var, index=pd.Index(names, dtype=object)))


HUMAN, MOUSE = ([f"{prefix}{i:011d}" for i in range(10)] for prefix in ("ENSG", "ENSMUSG"))
SYMBOLS = ["CD3E", "LEF1", "TCF7", "GAPDH", "ACTB", "MALAT1", "B2M", "FOXO3", "IL7R", "CCR7"]


@pytest.mark.parametrize(
    ("genes", "names", "hint"),
    [
        pytest.param(
            SYMBOLS, HUMAN,
            "the data use Ensembl ids, the clock uses symbols. Put symbols into adata.var['gene_symbols'], rename "
            "var_names, or run pp.align_genes with mapping=",
            id="ensembl data",
        ),
        pytest.param(HUMAN, SYMBOLS, "uses Ensembl ids. Put Ensembl ids into adata.var['gene_ids']", id="symbol data"),
        pytest.param(
            SYMBOLS, [s.capitalize() for s in SYMBOLS],
            "the clock's genes are spelled as human symbols (e.g. 'CD3E') and those of the data are spelled as mouse "
            "symbols (e.g. 'Cd3e'). A clock fits the species it was trained on.",
            id="mouse symbols",
        ),
        pytest.param(
            ["gapdh1", "gapdh2"], ["GAPDH1", "GAPDH2"], "the names differ in case, as mouse and human symbols do",
            id="another case",
        ),
        pytest.param(
            HUMAN, MOUSE,
            "the clock's genes are human (e.g. 'ENSG00000000000') and those of the data are mouse (e.g. "
            "'ENSMUSG00000000000'). A clock fits the species",
            id="mouse ids",
        ),
        pytest.param(
            SYMBOLS, MOUSE, "genes are spelled as human symbols (e.g. 'CD3E') and those of the data are mouse",
            id="mouse ids for symbols",
        ),
        pytest.param(HUMAN, [f"{e}9" for e in HUMAN], "same gene annotation", id="other ids"),
        pytest.param(["cg00000029"] * 2, ["CD3E", "B2M"], "the modality it was trained on", id="another modality"),
        pytest.param(SYMBOLS, list("ABCD"), "same gene annotation", id="other genes"),
    ],
)  # fmt: skip
def test_too_few_genes_are_refused_with_a_hint(genes, names, hint):
    with pytest.raises(ValueError, match="of the clock's .* genes are absent from adata.var_names") as error:
        match_genes(np.array(genes), of_genes(names), min_coverage=0.8)
    check_message(error, hint)
    assert genes[0] in str(error.value)


def known(**names) -> pd.DataFrame:
    return pd.DataFrame(names, index=HUMAN)


@pytest.mark.parametrize(
    ("genes", "also", "names", "var", "how"),
    [
        pytest.param(HUMAN, {}, [f"{e}.{i}" for i, e in enumerate(HUMAN)], {}, "without the versions", id="versions"),
        pytest.param(
            [f"{e}.{i}" for i, e in enumerate(HUMAN)], {}, HUMAN, {}, "without the versions", id="versions of the clock"
        ),
        pytest.param(
            SYMBOLS, {}, HUMAN, {"feature_name": SYMBOLS}, "through adata.var['feature_name']", id="column of symbols"
        ),
        pytest.param(
            HUMAN, {}, SYMBOLS, {"gene_ids": [f"{e}.2" for e in HUMAN]}, "through adata.var['gene_ids']",
            id="column of ids",
        ),
        pytest.param(
            HUMAN, {}, SYMBOLS, {"strange": pd.Categorical(HUMAN)}, "through adata.var['strange']",
            id="column that holds ids",
        ),
        pytest.param(
            SYMBOLS, {"gene_ids": HUMAN}, HUMAN, {}, "through its Ensembl ids and adata.var_names",
            id="ids of the clock",
        ),
        pytest.param(
            HUMAN, {"gene_symbols": SYMBOLS}, SYMBOLS, {}, "through its symbols and adata.var_names",
            id="symbols of the clock",
        ),
        pytest.param(
            SYMBOLS, {"gene_ids": HUMAN}, [f"row{i}" for i in range(10)], {"gene_ids": HUMAN},
            "through its Ensembl ids and adata.var['gene_ids']", id="ids of both",
        ),
    ],
)  # fmt: skip
def test_genes_are_found_by_their_other_names(genes, also, names, var, how, caplog):
    caplog.set_level("INFO", logger="agevi")
    order = np.random.default_rng(1).permutation(10)
    adata = of_genes(names, **var)[:, order].copy()
    adata = make(X[:, order], adata.var_names) if not var else AnnData(X[:, order], var=adata.var)
    match = match_genes(np.array(genes), adata, min_coverage=0.8, known=known(**also))
    np.testing.assert_array_equal(adata.X[:, match.columns], X)
    assert match.coverage == 1
    line = [record.getMessage() for record in caplog.records]
    assert len(line) == 1
    assert how in line[0]
    assert "10 of 10 genes" in line[0]
    match_genes(np.array(genes), adata, min_coverage=0.8, known=known(**also))
    assert len(caplog.records) == 1  # once for these data


def test_names_as_they_are_come_first():
    """Other columns, whatever they say, change nothing where names are found."""
    adata = of_genes([*SYMBOLS[:8], "x", "y"], gene_ids=HUMAN[::-1], gene_symbols=SYMBOLS[::-1])
    match = match_genes(np.array(SYMBOLS), adata, min_coverage=0.8, known=known(gene_ids=HUMAN))
    assert match.columns.tolist() == [*range(8), -1, -1]


def test_names_of_several_genes_are_left_out(caplog):
    caplog.set_level("INFO", logger="agevi")
    symbols = [*SYMBOLS[:9], "CD3E"]  # CD3E stands for two genes of the data
    match = match_genes(np.array(SYMBOLS), of_genes(HUMAN, symbol=symbols), min_coverage=0.8)
    assert match.columns.tolist() == [-1, *range(1, 9), -1]
    assert "8 of 10 genes" in caplog.text
    assert (
        "1 are left out, since their name stands for several genes or for one with another id (e.g. 'CD3E')"
        in caplog.text
    )
    unique = np.array([*SYMBOLS[:9], "CD3E-1"])  # as scanpy makes names unique: which of the two is which is not known
    match = match_genes(unique, of_genes(HUMAN, symbol=SYMBOLS), min_coverage=0.8)
    assert match.columns.tolist() == [-1, *range(1, 9), -1]
    par = [*HUMAN[:9], f"{HUMAN[0]}.3_PAR_Y"]  # another gene than that on the X chromosome
    match = match_genes(np.array(HUMAN), of_genes([f"{e}.3" for e in par[:9]] + par[9:]), min_coverage=0.8)
    assert match.columns.tolist() == [*range(9), -1]


def test_symbols_whose_ids_differ_are_other_genes():
    """A symbol that moved to another gene between annotations."""
    ids = [*HUMAN[:8], "ENSG00000000098", ""]
    rows = [f"row{i}" for i in range(10)]
    match = match_genes(
        np.array(rows[::-1]), of_genes(SYMBOLS, gene_ids=ids), min_coverage=0.5,
        known=pd.DataFrame({"gene_symbols": SYMBOLS, "gene_ids": ["", "", "", *HUMAN[3:]]}, index=rows[::-1]),
    )  # fmt: skip
    assert match.columns.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, -1, 9]


@pytest.mark.parametrize(
    ("genes", "also", "names", "var"),
    [
        pytest.param(SYMBOLS, {}, MOUSE, {"gene_symbols": SYMBOLS}, id="mouse symbols in upper case"),
        pytest.param(SYMBOLS, {}, [s.capitalize() for s in SYMBOLS], {"gene_symbols": SYMBOLS}, id="orthologs"),
        pytest.param(HUMAN, {}, [s.capitalize() for s in SYMBOLS], {"gene_ids": HUMAN}, id="ids of orthologs"),
        pytest.param(HUMAN, {}, MOUSE, {"human_id": HUMAN}, id="another column of orthologs"),
        pytest.param(MOUSE, {"gene_symbols": SYMBOLS}, SYMBOLS, {"gene_ids": HUMAN}, id="clock of mice"),
    ],
)
def test_genes_of_another_species_are_refused(genes, also, names, var):
    with pytest.raises(ValueError, match="are absent from adata.var_names") as error:
        match_genes(np.array(genes), of_genes(names, **var), min_coverage=0.1, known=known(**also))
    check_message(error, "A clock fits the species it was trained on.")


def test_a_column_of_unknown_names_is_pointed_at():
    adata = of_genes([f"m{i}" for i in range(10)], mine=SYMBOLS)
    with pytest.raises(ValueError, match="10 of the clock's 10 genes are absent") as error:
        match_genes(np.array(SYMBOLS), adata, min_coverage=0.8)
    check_message(
        error,
        "adata.var['mine'] holds such names; if they are names of the same genes, run pp.align_genes(adata, clock, "
        "mapping='mine').",
    )
    assert agevi.pp.align_genes(adata, SYMBOLS, mapping="mine").var_names.tolist() == SYMBOLS


def test_half_of_the_genes_are_not_enough():
    adata = of_genes([f"{e}.1" for e in HUMAN[:5]])
    with pytest.raises(ValueError, match="10 of the clock's 10 genes are absent") as error:
        match_genes(np.array(SYMBOLS), adata, min_coverage=0.8, known=known(gene_ids=HUMAN))
    check_message(error, "; 5 are found through its Ensembl ids and adata.var_names. Pass data of")
    assert match_genes(np.array(SYMBOLS), adata, min_coverage=0.5, known=known(gene_ids=HUMAN)).coverage == 0.5


@pytest.mark.parametrize("least", [0.0, 0.5, 0.8])
def test_ids_among_symbols_do_not_hide_the_others(least):
    mixed = of_genes([*HUMAN[:5], *SYMBOLS[5:]], gene_ids=HUMAN)
    assert match_genes(np.array(HUMAN), mixed, min_coverage=least).coverage == 1


def test_feature_sets_are_found_by_other_names():
    masks = np.zeros((2, 10), dtype=bool)
    masks[0, :6], masks[1, 5:] = True, True
    sets, adata = FeatureSets(["a", "b"], masks, np.zeros(0, dtype=int)), of_genes([f"{e}.1" for e in HUMAN[5::-1]])
    found = {"min_coverage": 0.8, "names": known(gene_ids=HUMAN)}
    match = match_sets(np.array(SYMBOLS), sets, adata, **found)
    assert match.columns.tolist() == [5, 4, 3, 2, 1, 0, -1, -1, -1, -1]
    assert match.coverage == 1
    with pytest.raises(ValueError, match="67% of the 6 features of 'a'"):
        match_sets(np.array(SYMBOLS), sets, adata[:, 2:].copy(), **found)
