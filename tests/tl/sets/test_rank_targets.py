from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.stats

import agevi
from agevi.tl.sets._rank_targets import at_least, overlap_p, rank_targets
from tests.test_gates import check_message

GENES = [f"gene{i:03d}" for i in range(100)]
PLANTED = GENES[:10]


def series(seed=0, genes=GENES):
    """Signed values of genes."""
    return pd.Series(np.random.default_rng(seed).normal(size=len(genes)), genes)


def simulated_disease(seed):
    """A clock of a cohort whose ten strongest age genes are called PLANTED, all others by chance, and its attributions."""
    adata = agevi.datasets.simulate_cohort(
        n_subjects=60, n_cells=20, n_genes=300, n_age_genes=30, effect_range=(0.1, 0.5), composition_shift=0, rng=seed
    )
    strength = adata.var["effect"].abs() * np.sqrt(adata.var["baseline_mean"])
    strength[(adata.var["kind"] == "cell_type").to_numpy()] = 0
    order = np.argsort(-strength.to_numpy())
    names = np.empty(300, dtype=object)
    names[order[:10]] = PLANTED
    names[order[10:]] = np.random.default_rng(seed).permutation([f"gene{i:03d}" for i in range(10, 300)])
    adata.var_names = names
    agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
    model = agevi.model.PLSClock(adata)
    model.train()
    agevi.tl.attribute_genes(adata, model)
    return adata


@pytest.fixture(scope="module")
def diseases():
    """Three simulated cohorts that share ten age genes and, but for chance, no others."""
    return {name: simulated_disease(seed) for seed, name in enumerate(["Parkinson", "diabetes", "COPD"])}


@pytest.mark.slow
def test_targets_that_three_simulated_diseases_share_are_found(diseases):
    targets = rank_targets(diseases, druggable=PLANTED + [f"gene{i:03d}" for i in range(11, 300, 2)])
    in_all = targets.shared[targets.shared["n_diseases"] == 3]
    assert len(in_all) >= 6
    assert set(in_all["gene"]) <= set(PLANTED)
    assert (in_all["padj"] < 0.05).all()
    assert len(set(targets.shared["gene"]) & set(PLANTED)) >= 8
    overlap = targets.overlap.set_index("diseases")
    assert len(overlap) == 4
    assert (overlap["p"] < 0.01).all()
    assert overlap.loc["Parkinson;diabetes;COPD", "genes"] == ";".join(sorted(in_all["gene"]))


@pytest.mark.slow
def test_unrelated_diseases_share_what_chance_gives():
    """Permuting the names of one list breaks the link; p values of overlaps are then never too small."""
    rng = np.random.default_rng(0)
    p = []
    for _ in range(150):
        tables = {name: pd.Series(rng.normal(size=60), GENES[:60]) for name in "abc"}
        p.append(rank_targets(tables, n_shared=15).overlap["p"].to_numpy())
    for level in (0.05, 0.2, 0.5):
        assert (np.mean(np.asarray(p) <= level, axis=0) <= level + 3 * np.sqrt(level * (1 - level) / 150)).all()


def test_ranks_by_hand():
    first = pd.Series({"A": -5.0, "B": 3.0, "C": 0.5, "D": np.nan, "E": 0.0})
    second = pd.Series({"B": 1.0, "C": -2.0, "A": 0.1, "E": 4.0})
    targets = rank_targets({"x": first, "y": second}, druggable={"B", "C", "E"}, n_shared=2, n_top=2)
    assert targets.genes[["disease", "gene", "rank", "rank_all"]].values.tolist() == [
        ["x", "B", 1, 2], ["x", "C", 2, 3], ["y", "E", 1, 1], ["y", "C", 2, 2],
    ]  # fmt: skip
    assert targets.genes["attribution"].tolist() == [3.0, 0.5, 4.0, 2.0]
    assert targets.genes["signed"].tolist() == [3.0, 0.5, 4.0, -2.0]
    assert targets.genes["n_diseases"].tolist() == [1, 2, 1, 2]
    assert targets.genes["in_top"].all()
    (shared,) = targets.shared.to_dict("records")
    assert (shared["gene"], shared["diseases"], shared["mean_rank"]) == ("C", "x;y", 2.0)
    assert shared["p"] == pytest.approx((2 / 3) ** 2)
    (overlap,) = targets.overlap.to_dict("records")
    assert (overlap["overlap"], overlap["n_listed"], overlap["n_background"], overlap["genes"]) == (1, "2;2", 3, "C")
    assert overlap["expected"] == pytest.approx(4 / 3)
    assert targets.params["n_genes"] == {"x": 3, "y": 3}
    assert repr(targets) == "TargetRanking('x', 'y': 4 rows of genes, 1 shared genes)"


def test_overlap_of_two_is_scipys_hypergeometric():
    tables = {"x": series(0), "y": series(0) + 0.7 * series(1)}
    targets = rank_targets(tables, n_shared=20)
    (row,) = targets.overlap.to_dict("records")
    top = [set(table.abs().nlargest(20).index) for table in tables.values()]
    assert row["overlap"] == len(top[0] & top[1]) > 5
    assert row["p"] == pytest.approx(scipy.stats.hypergeom(100, 20, 20).sf(row["overlap"] - 1))
    square = [[row["overlap"], 20 - row["overlap"]], [20 - row["overlap"], 60 + row["overlap"]]]
    assert row["p"] == pytest.approx(scipy.stats.fisher_exact(square, alternative="greater").pvalue)


@pytest.mark.parametrize(
    ("sizes", "n"), [((5, 5, 5), 12), ((9, 8, 2), 12), ((2, 8, 9), 12), ((4, 5, 6, 7), 10)], ids=str
)
def test_overlap_of_several_lists_equals_drawing_them(sizes, n):
    rng = np.random.default_rng(0)
    draws = 40_000
    inside = np.ones((draws, n), dtype=bool)
    for size in sizes:
        inside &= rng.permuted(np.tile(np.arange(n) < size, (draws, 1)), axis=1)
    found = inside.sum(axis=1)
    for k in range(min(sizes) + 1):
        expected = (found >= k).mean()
        assert overlap_p(k, sizes, n) == pytest.approx(
            expected, abs=4 * np.sqrt(expected * (1 - expected) / draws) + 1e-4
        )


def test_at_least_is_binomial_for_equal_chances_and_counts_else():
    np.testing.assert_allclose(at_least([0.2] * 4), scipy.stats.binom.sf(np.arange(5) - 1, 4, 0.2))
    np.testing.assert_allclose(at_least([0.1, 0.5]), [1, 1 - 0.9 * 0.5, 0.1 * 0.5])


@pytest.mark.slow
def test_anndata_tables_and_series_agree(diseases):
    adata = diseases["COPD"]
    frame = agevi.get.attribution_df(adata)
    assert frame["gene"].iloc[0] in PLANTED
    values = pd.Series(adata.varm["agevi_attribution"][:, 0], adata.var_names)
    ways = [rank_targets({"x": table}).genes for table in (adata, frame, values)]
    pd.testing.assert_frame_equal(ways[0], ways[1])
    pd.testing.assert_frame_equal(ways[0].drop(columns="signed"), ways[2].drop(columns="signed"))
    signed = pd.Series(adata.varm["agevi_attribution_signed"][:, 0], adata.var_names)
    np.testing.assert_allclose(ways[0]["signed"], signed[ways[0]["gene"]])


def test_one_disease_has_nothing_to_share():
    targets = rank_targets({"x": series()}, n_shared=500)
    assert len(targets.genes) == 100
    assert targets.shared.empty
    assert targets.overlap.empty
    assert targets.enrichment.empty
    assert targets.genes["in_top"].all()


def test_a_compared_gene_is_listed_however_far_down_its_own_list():
    """D is fourth in x, but first of the genes that y has too."""
    first, second = pd.Series({"A": 4.0, "B": 3.0, "C": 2.0, "D": 1.0, "E": 0.5}), pd.Series({"D": 1.0, "E": 0.5})
    genes = rank_targets({"x": first, "y": second}, n_top=1, n_shared=1).genes
    assert genes[["disease", "gene", "rank", "in_top", "n_diseases"]].values.tolist() == [
        ["x", "A", 1, False, 0], ["x", "D", 4, True, 2], ["y", "D", 1, True, 2],
    ]  # fmt: skip


def test_a_group_of_a_table_and_of_anndata():
    frame = pd.DataFrame(
        {"gene": ["A", "B"] * 2, "group": ["all", "all", "T", "T"], "attribution": [2.0, 1.0, 1.0, 3.0]}
    )
    assert rank_targets({"x": frame}).genes["gene"].tolist() == ["A", "B"]
    assert rank_targets({"x": frame}, group="T").genes["gene"].tolist() == ["B", "A"]
    assert rank_targets({"x": frame[2:]}).genes["gene"].tolist() == ["B", "A"]
    adata = ad.AnnData(np.ones((1, 2), np.float32), var=pd.DataFrame(index=["A", "B"]))
    adata.varm["pd_attribution"] = np.array([[2.0, 1.0], [1.0, 3.0]])
    adata.uns["pd_attribution"] = {"groups": ["all", "T"]}
    genes = rank_targets({"x": adata}, group="T", key_added="pd").genes
    assert genes["gene"].tolist() == ["B", "A"]
    assert genes["signed"].isna().all()


def test_sets_are_tested_among_druggable_genes_as_by_enrich():
    tables = {"x": series(0), "y": series(1)}
    sets = {"first": GENES[:20], "last": GENES[80:], "small": GENES[:3]}
    druggable = GENES[:90]
    found = rank_targets(tables, druggable=druggable, sets=sets, n_top=15).enrichment
    assert found["group"].tolist() == ["x", "x", "y", "y"]
    row = found[(found["group"] == "y") & (found["term"] == "last")].iloc[0]
    top = set(tables["y"][druggable].abs().nlargest(15).index)
    overlap = len(top & set(GENES[80:90]))
    assert (row["overlap"], row["set_size"], row["n_background"]) == (overlap, 10, 90)
    assert row["p"] == pytest.approx(scipy.stats.hypergeom(90, 10, 15).sf(overlap - 1))


def test_clocks_of_few_genes_are_compared_on_those():
    sparse = series(0)
    sparse.iloc[6:] = 0
    with pytest.warns(UserWarning, match="'x': only 6 of the common genes have an attribution") as caught:
        targets = rank_targets({"x": sparse, "y": series(1)})
    check_row(str(caught[0].message))
    assert caught[0].filename == __file__
    assert targets.overlap["n_listed"].item() == "6;20"
    assert (targets.genes["disease"] == "x").sum() == 6


def tied(seed, n=500):
    """Values of 1 in a random half of genes."""
    return pd.Series(np.random.default_rng(seed).permutation(np.arange(n) % 2.0), [f"gene{i:03d}" for i in range(n)])


@pytest.mark.slow
def test_ties_are_not_broken_alike_for_all_diseases():
    """Half of the genes share the first rank; with ties in one order, 92 % of these p values were below .05."""
    p = [
        rank_targets({f"first {i}": tied(2 * i), f"second {i}": tied(2 * i + 1)}).overlap["p"].item() for i in range(80)
    ]
    assert np.mean(np.asarray(p) < 0.05) < 0.08
    assert np.mean(p) > 0.5  # p of a discrete test lie above uniform ones


def test_ties_are_ranked_the_same_in_any_order_of_rows_and_in_all_columns():
    tables = {"x": tied(0), "y": tied(1)[:400], "z": tied(2)[100:]}
    shuffled = {name: table.sample(frac=1, random_state=3) for name, table in tables.items()}
    targets = rank_targets(tables, n_top=500)
    for ours, theirs in zip(vars(targets).values(), vars(rank_targets(shuffled, n_top=500)).values(), strict=True):
        assert ours.equals(theirs) if isinstance(ours, pd.DataFrame) else ours == theirs
    for name, rows in targets.genes.groupby("disease"):
        assert (rows["rank"] == rows["rank_all"]).all()
        assert rows["rank"].tolist() == list(range(1, int(tables[name].sum()) + 1))
        common = rows[rows["gene"].isin(tables["y"].index[100:])]
        assert common["in_top"].tolist() == [True] * 20 + [False] * (len(common) - 20)
        assert rows["in_top"].sum() == 20
    fewer = rank_targets(tables, n_top=500, druggable=tied(0).index[::2]).genes
    for _, rows in fewer.groupby("disease"):
        assert rows["rank_all"].is_monotonic_increasing


def test_numbers_of_any_type_are_read():
    values = {"A": 3, "B": -2, "C": None}
    expected = rank_targets({"x": pd.Series(values, dtype=float)}).genes
    for dtype in ("Int64", "Float64", object):
        pd.testing.assert_frame_equal(rank_targets({"x": pd.Series(values, dtype=dtype)}).genes, expected)
    frame = pd.DataFrame({"gene": ["A", "B"], "attribution": [3, 2], "signed": [None, None]})
    assert rank_targets({"x": frame}).genes["signed"].isna().all()


def check_row(message):
    from tests.test_gates import check_style

    check_style(message)


ENSEMBL = [f"ENSG{i:011d}" for i in range(100)]
CPG = [f"cg{i:08d}" for i in range(100)]
TEXT = pd.Series(["a"]).dtype  # object, or str since pandas 3
CASES = {
    "no mapping": ({"tables": series()}, TypeError, "tables is a Series; pass attributions by the name of the disease"),
    "no tables": ({"tables": {}}, ValueError, "tables is empty"),
    "a list of values": ({"tables": {"x": [1.0]}}, TypeError, "tables['x'] is a list; pass an AnnData"),
    "no attributions": (
        {"tables": {"x": ad.AnnData(np.ones((1, 2), np.float32))}}, KeyError, "run agevi.tl.attribute_genes(adata, model",
    ),
    "no column": ({"tables": {"x": pd.DataFrame({"gene": ["A"]})}}, KeyError, "tables['x'] has no column 'attribution'"),
    "an unknown group": (
        {"tables": {"x": pd.DataFrame({"gene": ["A", "A"], "group": ["T", "B"], "attribution": 1.0})}}, ValueError,
        "group='all' is not in tables['x']['group']",
    ),
    "a gene twice": ({"tables": {"x": series(0, ["A", "A", "B"])}}, ValueError, "tables['x'] has 1 genes twice (e.g. 'A')"),
    "a disease twice": ({"tables": {1: series(), "1": series(1)}}, ValueError, "tables has two diseases whose name is '1' as text"),
    "text": ({"tables": {"x": series().astype(str)}}, TypeError, f"tables['x'] holds {TEXT} values (e.g. '0.1"),
    "text in a table": (
        {"tables": {"x": pd.DataFrame({"gene": ["A"], "attribution": ["0.5"]})}}, TypeError,
        f"tables['x']['attribution'] holds {TEXT} values (e.g. '0.5'), not numbers; convert them with pd.to_numeric.",
    ),
    "signs as text": (
        {"tables": {"x": pd.DataFrame({"gene": ["A"], "attribution": [0.5], "signed": ["-"]})}}, TypeError,
        f"tables['x']['signed'] holds {TEXT} values (e.g. '-')",
    ),
    "no name of a gene": (
        {"tables": {"x": series(0, ["A", np.nan, None])}}, ValueError, "tables['x'] has 2 rows without a gene (first: row 2)",
    ),
    "no name of a gene in a table": (
        {"tables": {"x": pd.DataFrame({"gene": [None, "B"], "attribution": 1.0})}}, ValueError, "tables['x'] has 1 rows without",
    ),
    "another group than the one": (
        {"tables": {"x": pd.DataFrame({"gene": ["A", "B"], "group": "T", "attribution": 1.0})}, "group": "zz"}, ValueError,
        "group='zz' is not in tables['x']['group']. Available: 'T'.",
    ),
    "versions of Ensembl ids in the list": (
        {"tables": {"x": series(0, [f"ENSG{i:011d}" for i in range(100)])}, "druggable": ["ENSG00000000007.4"]}, ValueError,
        'end with. Cut it off both: adata.var_names = adata.var_names.str.split(".").str[0] (the attributions stay), and',
    ),
    "versions of Ensembl ids in the attributions": (
        {"tables": {"x": series(0, [f"ENSG{i:011d}.1" for i in range(100)])}, "druggable": ["ENSG00000000007"]}, ValueError,
        "the names differ in the version that Ensembl ids end with",
    ),
    "only zeros": ({"tables": {"x": 0 * series()}}, ValueError, "no gene with an attribution other than zero"),
    "no file": ({"druggable": "nowhere.txt"}, FileNotFoundError, "druggable='nowhere.txt' is not a file"),
    "a number": ({"druggable": 3}, TypeError, "druggable is a int"),
    "no genes": ({"druggable": [" ", None]}, ValueError, "druggable holds no genes"),
    "no column of genes": ({"druggable": pd.DataFrame({"drug": ["x"]})}, KeyError, "druggable has no column of genes ('gene',"),
    "Ensembl ids and symbols": (
        {"tables": {"x": series(0, ENSEMBL)}, "druggable": ["EGFR", "KDR"]}, ValueError,
        "the attributions use Ensembl ids, the list uses symbols",
    ),
    "symbols and Ensembl ids": ({"druggable": ENSEMBL}, ValueError, "the attributions use symbols, the list uses Ensembl ids"),
    "CpG sites": ({"tables": {"x": series(0, CPG)}, "druggable": ["EGFR"]}, ValueError, "the attributions use CpG sites, the list uses symbols"),
    "mouse and human": ({"druggable": ["GENE001"]}, ValueError, "the names differ in case"),
    "other names": ({"druggable": ["EGFR"]}, ValueError, "Pass the gene names that the clock was trained with"),
    "druggable genes without attribution": (
        {"tables": {"x": series().where(lambda s: s.index != "gene003", 0)}, "druggable": ["gene003"]}, ValueError,
        "all 1 genes of druggable that tables['x'] has (e.g. 'gene003') have an attribution of zero",
    ),
    "few genes in common": (
        {"tables": {"x": series(), "y": series(0, GENES[95:] + ENSEMBL)}}, ValueError,
        "n_shared=20, but the tables have 5 genes in common ('x' 100, 'y' 105)",
    ),
    "no number": ({"n_shared": 0}, ValueError, "n_shared=0 is out of range"),
    "sets of other names": ({"sets": {"a": ["EGFR"] * 5}}, ValueError, "none of the 1 genes of the sets"),
    "more than all genes at the top": ({"sets": {"a": GENES[:9]}}, ValueError, "n_top=200, but the background has 100 genes"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refuses(case):
    arguments, error, words = CASES[case]
    with pytest.raises(error) as raised:
        rank_targets(**({"tables": {"x": series()}} | arguments))
    check_message(raised, words)
