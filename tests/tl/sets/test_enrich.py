from __future__ import annotations

import gzip
import math

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, fisher_exact, linregress

import agevi
from agevi.tl.sets._enrich import combined_score, fisher
from tests.conftest import QUIET
from tests.files import stored
from tests.test_gates import check_message, snapshot

N_GENES = 60


def attributed(groups=("all",), n_genes=N_GENES, seed=0):
    """Attributions of random genes, as tl.attribute_genes leaves them."""
    rng = np.random.default_rng(seed)
    signed = rng.normal(size=(n_genes, len(groups))).astype(np.float32)
    adata = ad.AnnData(np.ones((3, n_genes), np.float32), var=pd.DataFrame(index=[f"G{i}" for i in range(n_genes)]))
    adata.varm["agevi_attribution"] = np.abs(signed) * 2  # the mean of absolute values is above that of signed ones
    adata.varm["agevi_attribution_signed"] = signed
    adata.uns["agevi_attribution"] = {"groups": list(groups)}
    return adata


def some_sets(n=12, n_genes=N_GENES, seed=1):
    rng = np.random.default_rng(seed)
    return {f"set {i}": [f"G{j}" for j in rng.choice(n_genes, rng.integers(5, 30), replace=False)] for i in range(n)}


def tops(adata, n_top, column=0):
    """Names of the top genes, the most important first."""
    values = pd.Series(adata.varm["agevi_attribution"][:, column], index=adata.var_names)
    return values.sort_values(ascending=False).index[:n_top].tolist()


def test_numbers_equal_scipy():
    adata, sets = attributed(), some_sets()
    agevi.tl.enrich(adata, sets, n_top=15)
    table = adata.uns["agevi_enrichment"].set_index("term")
    top = set(tops(adata, 15))
    assert set(table.index) == set(sets)
    for name, genes in sets.items():
        row, inside = table.loc[name], set(genes)
        both = len(top & inside)
        counts = [[both, len(inside) - both], [15 - both, N_GENES - len(inside) - 15 + both]]
        odds, p = fisher_exact(counts, alternative="greater")
        assert (row["overlap"], row["set_size"], row["n_top"], row["n_background"]) == (both, len(inside), 15, N_GENES)
        assert row["p"] == pytest.approx(p, rel=1e-10, abs=0)
        assert row["odds_ratio"] == pytest.approx(odds, rel=1e-12)
        assert row["combined_score"] == pytest.approx(-math.log(p) * odds, rel=1e-9, abs=1e-12)
        assert row["genes"].split(";") == [gene for gene in tops(adata, 15) if gene in inside] or both == 0
    np.testing.assert_allclose(table["padj"], false_discovery_control(table["p"]), rtol=1e-12)
    assert table["p"].is_monotonic_increasing


def test_p_equals_scipy_far_in_the_tail():
    overlap, size = np.array([0, 1, 3, 20, 60, 90]), np.array([10, 5, 40, 30, 60, 500])
    p, _, _ = fisher(overlap, size, 100, 20_000)
    expected = [
        fisher_exact([[a, k - a], [100 - a, 20_000 - k - 100 + a]], alternative="greater")[1]
        for a, k in zip(overlap, size, strict=True)
    ]
    np.testing.assert_allclose(p, expected, rtol=1e-10, atol=0)
    assert p[-2] < 1e-100


def test_the_worked_example_of_enrichr():
    # One of 147 genes in a set of 5, against Enrichr's 20,000: a published row has p .036, odds ratio 33.99, score 113.
    p, odds, combined = fisher(np.array([1]), np.array([5]), 147, 20_000)
    assert (round(p[0], 3), round(odds[0], 2), round(combined[0])) == (0.036, 33.99, 113)
    assert combined_score(np.log([0.036]), np.array([33.99]))[0] == pytest.approx(113, abs=0.05)


@pytest.mark.parametrize(
    ("overlap", "size", "n_top", "odds"),
    [
        pytest.param(5, 5, 10, 5 * 90, id="the whole set is on top"),
        pytest.param(10, 20, 10, 10 * 80, id="all top genes are in the set"),
        pytest.param(0, 20, 10, 0, id="no overlap"),
    ],
)
def test_odds_ratio_stays_finite(overlap, size, n_top, odds):
    p, found, combined = fisher(np.array([overlap]), np.array([size]), n_top, 100)
    assert found[0] == odds
    assert np.isfinite(combined[0])
    assert combined[0] == pytest.approx(-math.log(p[0]) * odds)
    assert math.copysign(1, combined[0]) == 1


def test_score_where_p_is_below_the_smallest_float():
    p, odds, combined = fisher(np.array([400]), np.array([400]), 400, 20_000)
    log_p = -(math.lgamma(20_001) - math.lgamma(401) - math.lgamma(19_601))  # one draw of all
    assert p[0] == 0
    assert combined[0] == pytest.approx(-log_p * odds[0], rel=1e-6)


def test_background_is_what_the_model_saw():
    adata, sets = attributed(), some_sets()
    unseen = [f"G{i}" for i in range(0, N_GENES, 3)]
    for name in ("agevi_attribution", "agevi_attribution_signed"):
        adata.varm[name][::3] = np.nan
    seen = [gene for gene in adata.var_names if gene not in unseen]
    agevi.tl.enrich(adata, sets, n_top=10)
    model = agevi.get.enrichment_df(adata).set_index("term")
    same = agevi.tl.enrich(adata[:, seen].copy(), sets, n_top=10, background="all", copy=True).uns["agevi_enrichment"]
    pd.testing.assert_frame_equal(model.reset_index()[same.columns], same.reset_index(drop=True))
    assert (model["n_background"] == len(seen)).all()
    agevi.tl.enrich(adata, sets, n_top=10, background="all")
    whole = agevi.get.enrichment_df(adata).set_index("term")
    assert (whole["n_background"] == N_GENES).all()
    assert (whole["set_size"] == [len(sets[name]) for name in whole.index]).all()
    shared = model.index.intersection(whole.index)
    assert (model.loc[shared, "overlap"] == whole.loc[shared, "overlap"]).all()  # the top genes are the same


def test_background_as_a_list():
    adata, sets = attributed(), some_sets()
    listed = [f"G{i}" for i in range(40)] + [f"elsewhere {i}" for i in range(30)]
    agevi.tl.enrich(adata, sets | {"new": listed[-10:]}, n_top=10, background=listed)
    table = agevi.get.enrichment_df(adata).set_index("term")
    top = [gene for gene in tops(adata, N_GENES) if gene in set(listed)][:10]
    assert (table["n_background"] == 70).all()
    assert table.loc["new", ["overlap", "set_size"]].tolist() == [0, 10]
    for name in table.index.drop("new"):
        assert table.loc[name, "set_size"] == len(set(sets[name]) & set(listed))
        assert table.loc[name, "overlap"] == len(set(sets[name]) & set(top))
    assert adata.uns["agevi_enrichment_params"]["background"] == "list"


GROUPS = ("all", "CD4/CD8", "", "a b", "3")


def test_every_group_on_its_own():
    adata, sets = attributed(GROUPS), some_sets()
    agevi.tl.enrich(adata, sets, n_top=15)
    table = agevi.get.enrichment_df(adata)
    assert table["group"].unique().tolist() == list(GROUPS)
    for i, group in enumerate(GROUPS):
        alone = attributed()
        alone.varm["agevi_attribution"] = adata.varm["agevi_attribution"][:, [i]]
        agevi.tl.enrich(alone, sets, n_top=15)
        part = agevi.get.enrichment_df(adata, groups=group).drop(columns="group")
        pd.testing.assert_frame_equal(part, agevi.get.enrichment_df(alone).drop(columns="group"))
    agevi.tl.enrich(adata, sets, n_top=15, groups=["3", "all"], background=(f"G{i}" for i in range(50)))
    assert set(agevi.get.enrichment_df(adata)["n_background"]) == {50}
    agevi.tl.enrich(adata, sets, n_top=15, groups=3)
    assert agevi.get.enrichment_df(adata)["group"].unique().tolist() == ["3"]
    agevi.tl.enrich(adata, sets, n_top=15, groups=["3", "all"])
    assert agevi.get.enrichment_df(adata)["group"].unique().tolist() == ["3", "all"]


def test_set_sizes_are_counted_in_the_background():
    sets = {"four": ["G0", "G1", "G2", "G3", "x", "y"], "five": ["G0", "G1", "G2", "G3", "G4", "G4"]}
    sets |= {"six": [f"G{i}" for i in range(6)], "everything": [f"G{i}" for i in range(N_GENES)], "empty": []}
    adata = attributed()
    agevi.tl.enrich(adata, sets, n_top=10, size_range=(5, 5))
    assert agevi.get.enrichment_df(adata)["term"].tolist() == ["five"]
    agevi.tl.enrich(adata, sets, n_top=10, size_range=(1, None))
    assert set(agevi.get.enrichment_df(adata)["term"]) == {"four", "five", "six"}
    assert adata.uns["agevi_enrichment_params"]["n_tested"].tolist() == [3]


def gmt(path, sets, squeeze=False):
    text = "\n".join("\t".join([name, "from here", *genes]) for name, genes in sets.items()) + "\n\n"
    path.write_bytes(gzip.compress(text.encode()) if squeeze else text.encode())
    return path


@pytest.mark.parametrize("kind", ["gmt", "gz", "path as text", "frame", "weights of Enrichr"])
def test_sets_come_in_many_forms(tmp_path, kind):
    adata, sets = attributed(), some_sets()
    expected = agevi.tl.enrich(adata, sets, n_top=15, copy=True).uns["agevi_enrichment"]
    assert "agevi_enrichment" not in adata.uns
    frame = pd.DataFrame([(name, gene) for name, genes in sets.items() for gene in genes], columns=["source", "target"])
    given = {
        "gmt": lambda: gmt(tmp_path / "a.gmt", sets),
        "gz": lambda: gmt(tmp_path / "a.gmt.gz", sets, squeeze=True),
        "path as text": lambda: str(gmt(tmp_path / "a.gmt", sets)),
        "frame": lambda: pd.concat([frame, frame.iloc[:4]]).astype("category"),
        "weights of Enrichr": lambda: gmt(tmp_path / "a.txt", {k: [f"{g},1.0" for g in v] for k, v in sets.items()}),
    }[kind]()
    agevi.tl.enrich(adata, given, n_top=15)
    pd.testing.assert_frame_equal(adata.uns["agevi_enrichment"], expected)


def test_ulm_equals_a_regression():
    adata, sets = attributed(), some_sets()
    weights = np.random.default_rng(3).normal(size=sum(map(len, sets.values())))
    net = pd.DataFrame([(name, gene) for name, genes in sets.items() for gene in genes], columns=["source", "target"])
    for given, weight in ((sets, np.ones(len(net))), (net.assign(weight=weights), weights)):
        agevi.tl.enrich(adata, given, method="ulm")
        table = agevi.get.enrichment_df(adata).set_index("term")
        for name in sets:
            x = pd.Series(weight, index=net["target"])[(net["source"] == name).to_numpy()].reindex(adata.var_names)
            fit = linregress(x.fillna(0), adata.varm["agevi_attribution_signed"][:, 0].astype(float))
            assert table.loc[name, "score"] == pytest.approx(fit.slope / fit.stderr, rel=1e-6)
            assert table.loc[name, "p"] == pytest.approx(fit.pvalue, rel=1e-6)
        np.testing.assert_allclose(table["padj"], false_discovery_control(table["p"]), rtol=1e-12)


def enrichment_score(values, inside):
    """The running sum of Subramanian et al. (2005) with weight 1, by numpy alone."""
    order = np.argsort(-values)
    hit = inside[order]
    steps = np.where(hit, np.abs(values[order]) / np.abs(values[inside]).sum(), -1 / (~inside).sum())
    walk = np.cumsum(steps)
    return walk[np.abs(walk).argmax()]


@pytest.mark.slow  # numba compiles for ten seconds
def test_gsea_finds_the_shifted_sets_with_their_signs():
    rng = np.random.default_rng(4)
    adata = attributed(n_genes=400)
    values = rng.normal(size=400)
    values[:20] += 2
    values[20:40] -= 2
    adata.varm["agevi_attribution_signed"] = values[:, None].astype(np.float32)
    sets = {"up": adata.var_names[:20], "down": adata.var_names[20:40]}
    sets |= {f"random {i}": adata.var_names[rng.choice(np.arange(40, 400), 20, replace=False)] for i in range(20)}
    agevi.tl.enrich(adata, sets, method="gsea", rng=0)
    table = agevi.get.enrichment_df(adata).set_index("term")
    assert table.index[:2].isin(["up", "down"]).all()
    assert table.loc["up", "score"] > 1.5
    assert table.loc["down", "score"] < -1.5
    assert (table["p"].iloc[:2] <= 3 / 1000).all()
    assert table["p"].min() >= 1 / 1001
    assert (table["p"].iloc[2:] < 0.05).sum() <= 5
    null = np.stack([enrichment_score(values, rng.permutation(np.arange(400) < 20)) for _ in range(2000)])
    for name in ("up", "down", "random 0"):
        observed = enrichment_score(values, adata.var_names.isin(sets[name]))
        same = null[np.sign(null) == np.sign(observed)]
        assert table.loc[name, "score"] == pytest.approx(observed / np.abs(same).mean(), rel=0.06)
    again = agevi.tl.enrich(adata, sets, method="gsea", rng=0, copy=True).uns["agevi_enrichment"]
    pd.testing.assert_frame_equal(again, adata.uns["agevi_enrichment"])


def test_few_genes_with_an_attribution():
    adata, sets = attributed(), some_sets()
    adata.varm["agevi_attribution"][4:] = 0
    with pytest.warns(UserWarning) as raised:
        agevi.tl.enrich(adata, sets, n_top=15)
    check_message_of(str(raised[0].message), "only 4 genes have an attribution other than zero in group 'all'")
    assert raised[0].filename == __file__
    table = agevi.get.enrichment_df(adata)
    assert (table["n_top"] == 4).all()
    named = {gene for genes in table["genes"] for gene in genes.split(";") if gene}
    assert named <= {"G0", "G1", "G2", "G3"}


def check_message_of(message, words):
    """The check of an error, for a warning."""

    class Raised:
        value = Exception(message)

    check_message(Raised, words)


@pytest.mark.slow
@pytest.mark.parametrize("store", ["h5ad", "zarr"])
@pytest.mark.parametrize("method", ["ora", "ulm"])
def test_slots_survive_a_file(tmp_path, store, method):
    adata = attributed(GROUPS)
    agevi.tl.enrich(adata, some_sets(), n_top=15, method=method, key_added="agevi")
    back = stored(adata, store, tmp_path)
    pd.testing.assert_frame_equal(
        agevi.get.enrichment_df(back), agevi.get.enrichment_df(adata), check_dtype=False, check_column_type=False
    )
    agevi.tl.enrich(back, some_sets(), n_top=15, method=method)  # the groups come back as an array
    assert agevi.get.enrichment_df(back)["group"].unique().tolist() == list(GROUPS)


def test_another_key():
    adata = attributed()
    for name in ("agevi_attribution", "agevi_attribution_signed"):
        adata.varm[name.replace("agevi", "mine")] = adata.varm.pop(name)
    adata.uns["mine_attribution"] = adata.uns.pop("agevi_attribution")
    agevi.tl.enrich(adata, some_sets(), n_top=15, key_added="mine")
    assert {"mine_enrichment", "mine_enrichment_params"} <= set(adata.uns)
    assert len(agevi.get.enrichment_df(adata, key_added="mine", max_padj=0.5)) < 12


def ensembl(a):
    a.var["symbol"] = a.var_names.to_numpy()
    a.var["length"] = 7
    a.var_names = [f"ENSG{i:011d}" for i in range(a.n_vars)]


def ensembl_alone(a):
    a.var_names = [f"ENSG{i:011d}" for i in range(a.n_vars)]


def unseen(a):
    a.varm["agevi_attribution_signed"][0] = np.nan


def set_all(value, rows=slice(None)):
    def change(a):
        for name in ("agevi_attribution", "agevi_attribution_signed"):
            a.varm[name][rows] = value

    return change


def drop(where, key):
    def change(a):
        del getattr(a, where)[key]

    return change


FRAME = pd.DataFrame({"source": ["a"] * 6, "target": [f"G{i}" for i in range(6)], "weight": list("123456")})
CASES = {
    "no attribution": (drop("varm", "agevi_attribution"), None, {}, KeyError, "run agevi.tl.attribute_genes"),
    "no groups": (drop("uns", "agevi_attribution"), None, {}, KeyError, "run agevi.tl.attribute_genes"),
    "no signed attribution": (
        drop("varm", "agevi_attribution_signed"), None, {"method": "ulm"}, KeyError, "run agevi.tl.attribute_genes",
    ),
    "other groups": (
        lambda a: a.uns.__setitem__("agevi_attribution", {"groups": ["all", "B"]}), None, {}, ValueError,
        "one of them was replaced",
    ),
    "unknown group": (None, None, {"groups": ["all", "CD5"]}, KeyError, "'CD5' is absent. Available: 'all'."),
    "no group": (None, None, {"groups": []}, KeyError, "names no group"),
    "unknown method": (None, None, {"method": "fry"}, ValueError, "choose one of 'ora', 'gsea', 'ulm'"),
    "unknown background": (None, None, {"background": "genome"}, ValueError, "choose one of 'model', 'all'"),
    "background of others": (None, None, {"background": ["TP53", "B2M"]}, ValueError, "none of the 60 genes that the model saw"),
    "background of another kind": (None, None, {"background": 5}, TypeError, "background is a int; pass 'model', 'all'"),
    "background empty": (None, None, {"background": []}, ValueError, "background holds 0 genes"),
    "background without ranks": (unseen, None, {"background": "all", "method": "ulm"}, ValueError, "1 genes without an attribution"),
    "n_top too large": (None, None, {"n_top": 61}, ValueError, "n_top=61, but the background has 60 genes, 60 of them"),
    "n_top all genes": (None, None, {"n_top": 60}, ValueError, "pass a smaller n_top"),
    "n_top beyond what was seen": (
        set_all(np.nan, slice(10, None)), None, {"background": "all", "n_top": 11}, ValueError, "10 of them with an attribution",
    ),
    "n_top of nothing": (None, None, {"n_top": 0}, ValueError, "pass a whole number, 1 or more"),
    "no attribution at all": (set_all(np.nan), None, {}, ValueError, "has no gene with an attribution"),
    "attributions zero": (set_all(0), None, {"n_top": 5}, ValueError, "all attributions of group 'all' are zero"),
    "too few for a ranking": (set_all(0, slice(5, None)), None, {"method": "ulm"}, ValueError, "use method='ora'"),
    "sets of another kind": (None, 5, {}, TypeError, "sets is a int; pass the path of a GMT file"),
    "no file": (None, "no-such.gmt", {}, FileNotFoundError, "sets='no-such.gmt' is not a file"),
    "no sets": (None, {}, {}, ValueError, "hold no genes"),
    "empty sets": (None, {"a": [], "b": [""]}, {}, ValueError, "hold no genes"),
    "genes as text": (None, {"a": "TP53"}, {}, TypeError, "pass the genes as a list of names"),
    "columns called otherwise": (None, FRAME.rename(columns={"source": "geneset"}), {}, KeyError, "'geneset', 'target'"),
    "weights as text": (None, FRAME.assign(weight="high"), {}, ValueError, "weights that are not numeric"),
    "no overlap": (None, {"a": ["TP53"]}, {}, ValueError, "Pass sets with the gene names of adata.var_names"),
    "Ensembl ids, symbols in var": (
        ensembl, None, {}, ValueError,
        "the data use Ensembl ids, the sets use symbols. Pass gene_symbols='symbol'.",
    ),
    "Ensembl ids": (ensembl_alone, None, {}, ValueError, "or run agevi.pp.align_genes before the clock is trained"),
    "another species": (None, {"a": [f"g{i}" for i in range(9)]}, {}, ValueError, "as mouse and human symbols do"),
    "all too small": (None, None, {"size_range": (40, 50)}, ValueError, "none of the 12 sets has between 40 and 50 genes"),
    "no pair of sizes": (None, None, {"size_range": 5}, ValueError, "pass the fewest and the most genes"),
    "sizes in the wrong order": (None, None, {"size_range": (9, 5)}, ValueError, "pass a whole number, 9 or more"),
    "bad seed": (None, None, {"rng": "x"}, TypeError, "pass a non-negative integer seed"),
    "gene names repeated": (lambda a: setattr(a, "var_names", ["g"] * 60), None, {}, ValueError, "var_names_make_unique()"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:.* names are not unique")
def test_refuses(case):
    change, sets, arguments, error, words = CASES[case]
    adata = attributed()
    if change:
        change(adata)
    before = snapshot(adata)
    with pytest.raises(error) as raised:
        agevi.tl.enrich(adata, some_sets() if sets is None else sets, **({"n_top": 15} | arguments))
    check_message(raised, words)
    assert snapshot(adata) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("TP53\nB2M\n", "line 1 ('TP53') has no tabs", id="a list of genes"),
        pytest.param("a\t-\tG1\na\t-\tG2\n", "two sets called 'a' (line 2)", id="a name twice"),
    ],
)
def test_refuses_a_file(tmp_path, text, words):
    (tmp_path / "a.gmt").write_text(text)
    with pytest.raises(ValueError) as raised:
        agevi.tl.enrich(attributed(), tmp_path / "a.gmt")
    check_message(raised, words)


def test_table_refuses():
    with pytest.raises(KeyError) as raised:
        agevi.get.enrichment_df(attributed())
    check_message(raised, "run agevi.tl.enrich(adata, sets, key_added='agevi') first")
    adata = attributed()
    agevi.tl.enrich(adata, some_sets(), n_top=15)
    with pytest.raises(KeyError) as raised:
        agevi.get.enrichment_df(adata, groups=["all", "B"])
    check_message(raised, "'B' is not in the table of agevi.tl.enrich. Available: 'all'.")


@pytest.mark.realdata
@pytest.mark.parametrize("cls", [agevi.model.PLSClock, agevi.model.MLPClock], ids=lambda cls: cls.__name__)
def test_reactome_on_brain(data_dir, monkeypatch, cls):
    adata = ad.read_h5ad(data_dir / "bulk_ba11_brain_146" / "bulk_ba11_brain_146.h5ad")
    monkeypatch.setenv("AGEVI_REACTOME", str(data_dir / "reference" / "ReactomePathways_human.gmt.gz"))
    adata.obs["donor"] = adata.obs_names.astype(str)
    adata.obs["agevi_split"] = "train"
    cls.setup_anndata(adata, subject_key="donor", age_key="age", normalize="none")
    model = cls(adata)
    model.train(max_epochs=5, **QUIET)
    agevi.tl.attribute_genes(adata, model)
    agevi.tl.enrich(adata, "reactome")
    table = agevi.get.enrichment_df(adata)
    assert adata.uns["agevi_enrichment_params"]["n_sets"] == 2504
    assert 1000 < len(table) < 1300
    assert (table["n_background"] == adata.n_vars).all()
    row = table.iloc[0]
    a, k = row["overlap"], row["set_size"]
    expected = fisher_exact([[a, k - a], [100 - a, adata.n_vars - k - 100 + a]], alternative="greater")
    assert row["p"] == pytest.approx(expected[1], rel=1e-10)
    assert row["odds_ratio"] == pytest.approx(expected[0], rel=1e-12)
