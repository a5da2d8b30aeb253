"""Clocks that know their genes by more than one name, on data that use another."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import agevi
from tests.conftest import QUIET
from tests.test_gates import check_message

KEYS = {"age_key": "age", "subject_key": "donor"}
IDS = np.array([f"ENSG{i:011d}" for i in range(40)])
SYMBOLS = np.array([f"{stem}{i}" for i in range(10) for stem in ("CD", "IL", "TCF", "GAPDH")])


@pytest.fixture(scope="module")
def _named():
    adata = agevi.datasets.simulate_cohort(n_subjects=16, n_cells=12, n_genes=40, rng=2)
    adata.var = pd.DataFrame({"gene_ids": [f"{e}.{i}" for i, e in enumerate(IDS)], "length": 1.0}, index=SYMBOLS)
    adata.obs["everybody"] = "train"
    return adata


@pytest.fixture
def named(_named):
    """Genes under symbols, with Ensembl ids of many versions in ``adata.var["gene_ids"]``."""
    return _named.copy()


@pytest.fixture(scope="module")
def _clock(_named):
    return fit(_named.copy())


@pytest.fixture
def clock(_clock):
    """A clock of symbols that keeps Ensembl ids; tests must not change it."""
    return _clock


def fit(adata, cls=agevi.model.PLSClock, **init):
    cls.setup_anndata(adata, **KEYS)
    model = cls(adata, **init)
    model.train(split_key="everybody")
    return model


def by_ids(adata, keep=slice(None), version=""):
    """The same cells with other columns in another order, under Ensembl ids alone."""
    order = np.random.default_rng(3).permutation(adata.n_vars)[keep]
    out = adata[:, order].copy()
    out.var = pd.DataFrame(index=[f"{e}{version}" for e in IDS[order]])
    return out


@pytest.mark.parametrize(
    ("column", "values", "kept"),
    [
        pytest.param("gene_ids", IDS, "gene_ids", id="10x"),
        pytest.param("whatever", [f"{e}.7" for e in IDS], "gene_ids", id="ids under any name"),
        pytest.param("Ensembl_ID", pd.Categorical(IDS), "gene_ids", id="categories"),
        pytest.param("gene_ids", np.arange(40), None, id="numbers"),
        pytest.param("feature_name", SYMBOLS, None, id="the same again"),
        pytest.param("note", [f"note {i}" for i in range(40)], None, id="other text"),
        pytest.param("human_ortholog", IDS, None, id="orthologs"),
        pytest.param("symbols", [["a", str(i)] for i in range(40)], "gene_symbols", id="lists"),
        pytest.param("gene_ids", ["ENSG00000000001"] * 40, None, id="one id for all"),
    ],
)
def test_certain_columns_are_remembered(named, column, values, kept):
    named.var = pd.DataFrame({column: values}, index=SYMBOLS)
    agevi.model.PLSClock.setup_anndata(named, **KEYS)
    names = agevi.model.PLSClock(named).gene_names
    assert list(names) == ([kept] if kept else [])
    if kept == "gene_ids":
        assert names[kept].to_dict() == dict(zip(SYMBOLS, IDS, strict=True))
    assert list(named.var) == [column]


def test_missing_names_stay_empty_and_symbols_are_remembered_for_ids(named):
    named.var = pd.DataFrame({"feature_name": [None, *SYMBOLS[1:]], "ensembl_id": IDS}, index=IDS)
    agevi.model.PLSClock.setup_anndata(named, **KEYS, features=IDS[:20])
    assert agevi.model.PLSClock(named).gene_names.to_dict("list") == {"gene_symbols": ["", *SYMBOLS[1:20]]}


@pytest.mark.parametrize("version", ["", ".12"])
def test_a_saved_clock_predicts_data_under_other_names(named, clock, tmp_path, version):
    clock.save(tmp_path / "clock")
    loaded = agevi.io.load_clock(tmp_path / "clock")
    pd.testing.assert_frame_equal(loaded.gene_names, clock.gene_names)
    expected, other = clock.predict_age(named, level="sample"), by_ids(named, version=version)
    np.testing.assert_allclose(loaded.predict_age(other, level="sample"), expected, rtol=1e-5)
    agevi.tl.predict_age(other, loaded)
    np.testing.assert_allclose(other.obs["agevi_predicted"], expected, rtol=1e-5)
    assert other.uns["agevi"]["gene_coverage"] == 1
    assert list(other.var) == []
    assert "Ensembl ids too, which are in `clock.gene_names`" in (tmp_path / "clock" / "README.md").read_text()


def test_one_line_tells_how_in_each_call(named, clock, caplog):
    ensemble = agevi.model.EnsembleClock([clock, clock])
    other = by_ids(named, slice(0, 36))
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("INFO", logger="agevi"):
            agevi.tl.predict_age(other, ensemble)
        assert [r.getMessage() for r in caplog.records if "matched" in r.getMessage()] == [
            "The clock has symbols and adata.var_names holds Ensembl ids; 36 of 40 genes are matched through its "
            "Ensembl ids and adata.var_names; absent ones enter at their training mean."
        ]


def test_half_missing_is_refused_and_predicted_on_request(named, clock):
    other = by_ids(named, slice(0, 20))
    with pytest.raises(ValueError, match="40 of the clock's 40 genes are absent from adata.var_names") as error:
        agevi.tl.predict_age(other, clock)
    check_message(error, "; 20 are found through its Ensembl ids and adata.var_names")
    agevi.tl.predict_age(other, clock, min_gene_coverage=0.5)
    renamed = other.copy()
    renamed.var_names = pd.Series(SYMBOLS, index=IDS)[other.var_names].to_numpy()
    agevi.tl.predict_age(renamed, clock, min_gene_coverage=0.5)
    np.testing.assert_array_equal(other.obs["agevi_predicted"], renamed.obs["agevi_predicted"])


def test_mice_are_refused(named, clock):
    other = by_ids(named)
    other.var = pd.DataFrame(
        {"gene_symbols": [s.upper() for s in SYMBOLS]}, index=other.var_names.str.replace("G", "MUSG")
    )
    with pytest.raises(ValueError, match="absent") as error:
        agevi.tl.predict_age(other, clock)
    check_message(
        error,
        "the clock's genes are human (e.g. 'ENSG00000000000') and those of the data are mouse (e.g. "
        f"{other.var_names[0]!r}). A clock fits the species it was trained on.",
    )
    with pytest.raises(ValueError, match="none of the clock's 40 genes .* and those of the data are mouse"):
        agevi.pp.align_genes(other, clock)


@pytest.mark.parametrize("cls", ["EnsembleClock", "CellTypeClock", "CaseControlClassifier", "LinearClock"])
def test_clocks_of_every_kind_keep_names(cls, named, clock, tmp_path):
    named.obs["condition"] = np.where(named.obs["donor"].isin(named.obs["donor"].unique()[:8]), "case", "control")
    if cls == "EnsembleClock":
        model = agevi.model.EnsembleClock([clock, fit(named, method="ridge")])
    elif cls == "CellTypeClock":
        agevi.model.CellTypeClock.setup_anndata(named, **KEYS, cell_type_key="cell_type")
        model = agevi.model.CellTypeClock(named, min_cells=2, combine="mean")
        model.train(split_key="everybody")
    elif cls == "LinearClock":
        model = agevi.model.LinearClock.from_coefficients(pd.Series(0.1, index=SYMBOLS), 3.0)
        model.set_gene_names(named, gene_ids="gene_ids")
    else:
        agevi.model.MLPClock.setup_anndata(named, **KEYS)
        network = agevi.model.MLPClock(named, n_hidden=[4])
        network.train(max_epochs=1, split_key="everybody", **QUIET)
        model = agevi.model.CaseControlClassifier.from_clock(
            network, named, condition_key="condition", control="control"
        )
        model.train(max_epochs=1)
    model.save(tmp_path / "clock")
    loaded = agevi.io.load_clock(tmp_path / "clock")
    assert loaded.gene_names["gene_ids"].to_dict() == dict(zip(SYMBOLS, IDS, strict=True))
    predict = "predict_proba" if cls == "CaseControlClassifier" else "predict_age"
    expected = getattr(model, predict)(named, level="sample")
    np.testing.assert_allclose(getattr(loaded, predict)(by_ids(named), level="sample"), expected, rtol=1e-5)
    assert (tmp_path / "clock" / "clock.json").read_text().count(IDS[3]) == (2 if cls == "EnsembleClock" else 1)


def test_attributions_and_perturbations_find_the_same_genes(named, clock):
    other = by_ids(named)
    for adata in (named, other):
        agevi.tl.attribute_genes(adata, clock, cells=[adata.obs_names[0]])
        agevi.tl.perturb_genes(adata, clock, n_exact=5)
    place = pd.Index(IDS).get_indexer(other.var_names)
    for slot in ("agevi_attribution", "agevi_attribution_signed"):
        np.testing.assert_allclose(other.varm[slot], named.varm[slot][place], rtol=1e-4, atol=1e-6)
    layers = [adata.layers["agevi_attribution"][0].toarray()[0] for adata in (named, other)]
    np.testing.assert_allclose(layers[1], layers[0][place], rtol=1e-4, atol=1e-5)
    tables = [agevi.get.perturbation_df(adata) for adata in (named, other)]
    assert tables[1]["gene"].tolist() == pd.Series(IDS, index=SYMBOLS)[tables[0]["gene"]].tolist()
    np.testing.assert_allclose(tables[1]["change"], tables[0]["change"], rtol=1e-4, atol=1e-6)
    agevi.tl.perturb_genes(other, clock, [IDS[0], SYMBOLS[1]])  # the data's name, and the clock's
    assert set(agevi.get.perturbation_df(other)["gene"]) == {IDS[0], SYMBOLS[1]}


def test_names_are_set_by_hand(named, clock):
    model = fit(named)
    named.var["mine"] = [f"x{i}" for i in range(40)]
    model.set_gene_names(named[:, ::-1].copy(), gene_symbols="mine")
    assert model.gene_names["gene_symbols"].tolist() == named.var["mine"].tolist()
    assert model.gene_names["gene_ids"].tolist() == IDS.tolist()
    model.train(split_key="everybody")
    assert list(model.gene_names) == ["gene_ids", "gene_symbols"]
    assert list(clock.gene_names) == ["gene_ids"]
    with pytest.raises(KeyError, match="gene_ids='mines' is not a column of adata.var; closest: 'mine'"):
        model.set_gene_names(named, gene_ids="mines")
    with pytest.raises(ValueError, match="neither gene_symbols nor gene_ids is given"):
        model.set_gene_names(named)
    foreign = by_ids(named)
    foreign.var["mine"] = "x"
    with pytest.raises(ValueError, match="none of the clock's 40 genes .* is in adata.var_names"):
        model.set_gene_names(foreign, gene_ids="mine")


def test_attached_data_need_the_names_of_the_clock(named, clock, tmp_path):
    clock.save(tmp_path / "clock")
    with pytest.raises(ValueError, match="or other names than the clock; pass agevi.pp.align_genes"):
        agevi.io.load_clock(tmp_path / "clock", by_ids(named))
    bare = named.copy()
    bare.var = pd.DataFrame(index=SYMBOLS)
    assert list(agevi.io.load_clock(tmp_path / "clock", bare).gene_names) == ["gene_ids"]


def test_bundles_without_names_load(named, tmp_path):
    bare = named.copy()
    bare.var = pd.DataFrame(index=SYMBOLS)
    fit(bare).save(tmp_path / "clock")
    assert "gene_names" not in json.loads((tmp_path / "clock" / "clock.json").read_text())
    assert agevi.io.load_clock(tmp_path / "clock").gene_names.shape == (40, 0)
