from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.pp import audit_leakage
from agevi.pp.audit._design import design_findings
from tests.test_gates import snapshot

KEYS = {"subject_key": "donor", "age_key": "age"}


@pytest.fixture(scope="module")
def _simulated():
    return agevi.datasets.simulate_cohort(n_subjects=40, n_cells=25, n_genes=150, rng=3)


@pytest.fixture
def adata(_simulated):
    """40 subjects x 25 cells x 150 genes."""
    return _simulated.copy()


def audit(adata, **arguments):
    return audit_leakage(adata, **(KEYS | arguments))


def row(table, check):
    """The row of a check, which has one."""
    found = table[table["check"] == check]
    assert len(found) == 1, table["check"].tolist()
    return found.iloc[0]


def with_leak(adata, p=1.0, n_subjects=4):
    """Cells of held-out subjects once more, under new names and ages among the training subjects."""
    agevi.pp.split_subjects(adata, **KEYS)
    test = adata.obs.loc[adata.obs["agevi_split"] == "test", "donor"].unique()[:n_subjects]
    stolen = adata[adata.obs["donor"].isin(test)].copy()
    rng = np.random.default_rng(0)
    stolen.X.data = rng.binomial(stolen.X.data.astype(int), p).astype(np.float32)
    stolen.X.eliminate_zeros()
    stolen.obs["age"] = stolen.obs["age"] + 7
    stolen.obs["donor"] = "x" + stolen.obs["donor"].astype(str)
    stolen.obs["agevi_split"] = "train"
    return ad.concat([adata, stolen], index_unique="-"), test


@pytest.mark.slow
@pytest.mark.parametrize(
    ("p", "check"), [pytest.param(1.0, "exact copies", id="copied"), pytest.param(0.85, "near copies", id="thinned")]
)
def test_cells_of_test_subjects_in_training_are_found(adata, p, check):
    leaky, test = with_leak(adata, p)
    found = row(audit(leaky, columns=[], key_added="copy_of"), check)
    assert found["severity"] == "high"
    assert found["value"] == pytest.approx(2 * 25 * len(test), rel=0.02)
    assert f"{test[0]} and x{test[0]} (" in found["finding"]
    marked = leaky.obs["copy_of"] != ""
    partner = leaky.obs.loc[leaky.obs.loc[marked, "copy_of"], "donor"].astype(str).to_numpy()
    own = leaky.obs.loc[marked, "donor"].astype(str).to_numpy()
    assert marked.sum() == found["value"]
    assert [a.strip("x") for a in own] == [b.strip("x") for b in partner]
    assert (own != partner).all()


@pytest.mark.slow
def test_a_table_of_obsm_is_audited_as_the_same_values(adata):
    """As X of an AnnData of its own, and copies in it are found, whatever the genes are."""
    leaky, test = with_leak(adata)
    rng = np.random.default_rng(1)
    origin = leaky.obs_names.str.split("-").str[0]
    of_cell = pd.DataFrame(rng.normal(size=(adata.n_obs, 20)), adata.obs_names)
    leaky.obsm["X_rep"] = of_cell.loc[origin].to_numpy()
    leaky.X = rng.poisson(1.0, leaky.shape).astype(np.float32)
    arguments = {"columns": ["sex"], "random_split": True}
    assert row(audit(leaky, **arguments), "exact copies")["value"] == 0
    found = audit(leaky, obsm_key="X_rep", key_added="copy_of", **arguments)
    assert row(found, "exact copies")["value"] == 2 * 25 * len(test)
    assert (leaky.obs.loc[leaky.obs["donor"].str.startswith("x"), "copy_of"] != "").all()
    alone = ad.AnnData(leaky.obsm["X_rep"], obs=leaky.obs.drop(columns="copy_of"))
    pd.testing.assert_frame_equal(found, audit(alone, **arguments))
    leaky.obsm["X_pos"] = np.abs(leaky.obsm["X_rep"]) * (
        leaky.obsm["X_rep"] > 0
    )  # zeros are no counts that were missed
    of_dimensions = audit(leaky, obsm_key="X_pos", columns=[])
    assert not of_dimensions["finding"].str.contains("number of genes|library size").any()
    with pytest.raises(KeyError, match="obsm_key='X_rap' is not in adata.obsm; closest: 'X_rep'"):
        audit(leaky, obsm_key="X_rap")
    with pytest.raises(ValueError, match="layer='counts' with obsm_key='X_rep'"):
        audit(leaky, obsm_key="X_rep", layer="counts")


def test_a_clean_cohort_has_no_finding_of_weight(adata):
    found = audit(adata, columns=["sex", "batch"])
    assert set(found["severity"]) == {"none"}
    assert found["check"].tolist() == ["exact copies", "near copies", "subjects", "age bins", "age from other columns"]
    assert list(found) == ["check", "finding", "value", "severity", "advice"]
    assert found["value"].dtype == np.float64


@pytest.mark.slow
def test_nothing_is_written_unless_asked(adata):
    before = snapshot(adata)
    audit(adata, batch_key="batch", random_split=True)
    assert snapshot(adata) == before


@pytest.mark.slow
def test_the_order_of_cells_does_not_matter(adata):
    leaky, _ = with_leak(adata)
    shuffled = leaky[np.random.default_rng(0).permutation(leaky.n_obs)].copy()
    for check in ("exact copies", "split", "subjects", "age bins"):
        assert row(audit(leaky), check)["finding"] == row(audit(shuffled), check)["finding"]


def test_a_batch_that_tells_the_age_is_found():
    adata = agevi.datasets.simulate_cohort(n_subjects=60, n_cells=5, n_genes=60, batch_age_correlation=0.8)
    found = row(audit(adata, batch_key="batch", columns=["sex"]), "age from 'batch'")
    assert found["severity"] == "high"
    assert "Hold out whole levels" in found["advice"]
    ages = adata.obs.drop_duplicates("donor").set_index("donor")
    within = ages["age"] - ages.groupby("batch", observed=True)["age"].transform("median")
    assert found["value"] == pytest.approx(within.abs().mean(), rel=0.15)  # the error of knowing the batch


@pytest.mark.parametrize(
    ("make", "check", "severity", "advice"),
    [
        pytest.param(
            lambda a: a.obs["age"] * 12, "age from 'column'", "high", "the age in another form", id="months"
        ),
        pytest.param(
            lambda a: np.where(np.random.default_rng(0).random(a.n_obs) < a.obs["age"] / 100, "B", "T"),
            "age from 'column'", "low", "composition or quality", id="composition",
        ),
        pytest.param(
            lambda a: a.obs["age"] + a.obs["donor"].cat.codes % 7 * 8, "age from 'column'", "medium",
            "A clock must beat this error", id="number",
        ),
        pytest.param(lambda a: pd.cut(a.obs["age"], 6).astype(str), "age from 'column'", "high", "Hold out", id="bins"),
    ],
)  # fmt: skip
def test_columns_that_tell_the_age(adata, make, check, severity, advice):
    adata.obs["column"] = make(adata)
    found = row(audit(adata, columns="column"), check)
    assert found["severity"] == severity
    assert advice in found["advice"]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda age: age * 12, id="months"),
        pytest.param(lambda age: 2026 - age, id="year of birth"),
        pytest.param(lambda age: (2026 - age).round().astype(int).astype(str), id="year of birth as text"),
        pytest.param(lambda age: pd.Timestamp("2026-01-01") - pd.to_timedelta(age * 365, unit="D"), id="dates"),
        pytest.param(lambda age: age.round().astype(int).astype(str) + " years", id="text"),
        pytest.param(lambda age: pd.Categorical((age * 12).round().astype(int).astype(str) + " months"), id="category"),
        pytest.param(lambda age: (age // 10 * 10).astype(int).map(lambda low: f"{low}-{low + 9}"), id="decades"),
        pytest.param(lambda age: pd.cut(age, 8), id="intervals"),
    ],
)  # fmt: skip
def test_the_age_in_another_form_is_an_alarm_where_it_is_named(adata, make):
    adata.obs["column"] = make(adata.obs["age"])
    for columns, severity in ((None, "medium"), ("column", "high")):
        found = row(audit(adata, columns=columns), "age from 'column'")
        assert found["severity"] == severity and "the age in another form" in found["advice"]


@pytest.mark.parametrize("codes", [(1, 2, 3), ("1", "2", "3"), (2016, 2017, 2018), ("A", "B", "C")], ids=str)
def test_codes_of_batches_that_go_with_age_are_batches(adata, codes):
    thirds = pd.qcut(adata.obs["age"], 3, labels=False)
    adata.obs["site"] = [codes[i] for i in thirds]
    found = row(audit(adata), "age from 'site'")
    assert found["severity"] == "high" and "Hold out whole levels" in found["advice"]


def test_labels_that_are_no_ages_are_held_out(adata):
    adata.obs["column"] = pd.cut(adata.obs["age"], 6, labels=list("abcdef")).astype(str)
    found = row(audit(adata), "age from 'column'")
    assert found["severity"] == "high" and "Hold out whole levels" in found["advice"]


def test_depth_that_tells_the_age(adata):
    keep = 0.2 + 0.8 * (adata.obs["age"] - adata.obs["age"].min()) / np.ptp(adata.obs["age"])
    counts = adata.X.tocsr()
    share = np.repeat(keep.to_numpy(), np.diff(counts.indptr))
    counts.data = np.random.default_rng(0).binomial(counts.data.astype(int), share).astype(np.float32)
    adata.X = counts
    found = row(audit(adata, columns=[]), "age from library size")
    assert found["severity"] == "medium"
    assert found["advice"].startswith("Normalise for depth")


def test_all_columns_but_the_keys_and_our_own_are_examined(adata):
    adata.obs["agevi_predicted"] = adata.obs["age"]
    adata.obs["_scvi_age"] = adata.obs["age"]
    adata.obs["visit"] = adata.obs["donor"].astype(str) + "_1"
    checks = audit(adata, sample_key="visit").to_string()
    for name in ("'agevi_predicted'", "'_scvi_age'", "'donor'", "'visit'"):
        assert name not in checks
    for name in ("'biological_age'", "'sex'", "'cell_type'"):
        assert name in checks


def test_cells_without_age_are_compared_but_not_judged(adata):
    stolen = adata[:25].copy()
    stolen.obs["donor"], stolen.obs["age"] = "unknown", np.nan
    found = audit(ad.concat([adata, stolen], index_unique="-"), columns=["sex"])
    assert row(found, "exact copies")["value"] == 50
    assert row(found, "subjects")["value"] == 40


def test_copies_within_a_subject_are_no_leak(adata):
    twice = ad.concat([adata, adata[:10]], index_unique="-")
    found = audit(twice, columns=[])
    assert row(found, "exact copies")["severity"] == "none"
    within = row(found, "copies in a subject")
    assert (within["value"], within["severity"]) == (10, "low")


def test_near_copies_of_profiles_are_less_certain():
    rng = np.random.default_rng(0)
    profiles = rng.normal(8, 1, size=(120, 200))
    profiles = np.vstack([profiles, profiles[:2] + rng.normal(0, 0.2, (2, 200))])
    obs = pd.DataFrame({"donor": [f"d{i}" for i in range(122)], "age": rng.uniform(20, 90, 122)})
    found = audit(ad.AnnData(profiles, obs=obs.set_index("donor", drop=False).rename_axis(None)))
    near = row(found, "near copies")
    assert (near["value"], near["severity"]) == (4, "medium")
    assert near["advice"].startswith("Compare sex and age")
    assert near["finding"].startswith("4 samples")
    assert "library size" not in found.to_string()


@pytest.mark.slow
def test_random_split_of_recognisable_subjects():
    adata = agevi.datasets.simulate_cohort(n_subjects=30, n_cells=40, n_genes=200, subject_sd=0.5)
    found = row(audit(adata, columns=[], random_split=True), "random split")
    assert found["severity"] == "high"
    assert found["value"] > 0
    assert "agevi.pp.split_subjects" in found["advice"]


def test_random_split_needs_cells():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"donor": [f"d{i}" for i in range(40)], "age": rng.uniform(20, 90, 40)}, index=map(str, range(40))
    )
    found = row(audit(ad.AnnData(rng.normal(size=(40, 30)), obs=obs), random_split=True), "random split")
    assert found["severity"] == "none"


def test_findings_are_logged(adata, caplog):
    leaky, _ = with_leak(adata)
    with caplog.at_level(logging.INFO, logger="agevi"):
        found = audit(leaky, columns=["sex"])
    warned = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert warned == [
        f"{r.check} (high): {r.finding}. {r.advice}" for r in found[found["severity"] == "high"].itertuples()
    ]
    assert found["severity"].tolist() == sorted(found["severity"], key=["high", "medium", "low", "none"].index)
    assert caplog.records[-1].message.startswith("Audit: 1 high")


def design(n=40, **change):
    """Findings on a cohort of ``n`` subjects with 25 cells each."""
    names = pd.Series(np.repeat([f"d{i:02d}" for i in range(n)], 25))
    age = pd.Series(np.linspace(20, 90, n), index=sorted(names.unique()))
    given = {"subject": names, "n_genes": np.full(len(names), 100), "batch": None, "split": None} | change
    owner = pd.Series(age.index, index=age.index)
    return pd.DataFrame(list(design_findings(age=age, owner=owner, **given)))


CELLS = pd.Series(np.repeat([f"d{i:02d}" for i in range(40)], 25))
NUMBER = CELLS.str[1:].astype(int)


@pytest.mark.parametrize(
    ("change", "check", "value", "severity", "words"),
    [
        pytest.param({"n": 12}, "subjects", 12, "medium", "only 12 subjects", id="few subjects"),
        pytest.param({}, "subjects", 40, "none", "40 subjects have an age", id="enough subjects"),
        pytest.param({"n": 10}, "age bins", 2, "medium", "5 of 5 age bins hold fewer than 3", id="thin bins"),
        pytest.param({}, "age bins", 8, "none", "20 to 34: 8", id="full bins"),
        pytest.param(
            {"n_genes": np.r_[0, 0, np.full(998, 9)]}, "empty cells", 2, "low", "all values of 2 cells are zero", id="empty"
        ),
        pytest.param(
            {"subject": CELLS.where(NUMBER != 3, "d04")}, "cells per subject", None, None, "", id="even enough"
        ),
        pytest.param(
            {"subject": CELLS.where(CELLS.index >= 15, "d39")}, "cells per subject", 1, "low",
            "1 subjects have fewer than 20 cells ('d00')", id="few cells",
        ),
        pytest.param(
            {"subject": CELLS.where(NUMBER % 2 == 0, "d00")}, "cells per subject", 21, "low", "from 25 to 525", id="uneven"
        ),
        pytest.param(
            {"subject": CELLS.replace({"d01": "D-00"})}, "names", 2, "medium", "'d00', 'D-00'", id="names alike"
        ),
        pytest.param({"batch": CELLS}, "batches", 40, "medium", "40 of 40 batches hold one subject", id="batch is subject"),
        pytest.param({"batch": NUMBER % 2}, "batches", 40, "low", "40 of 40 subjects are in a single", id="single batch"),
        pytest.param({"batch": CELLS.index % 2}, "batches", 0, "none", "0 of 40 subjects", id="crossed"),
        pytest.param({"batch": CELLS.str[:1]}, "batches", 1, "none", "all cells are of one batch", id="one batch"),
        pytest.param(
            {"split": np.where(CELLS.index < 10, "test", "train")}, "split", 1, "high", "in two roles", id="torn"
        ),
        pytest.param({"split": np.where(NUMBER < 9, "test", "train")}, "split", 0, "none", "one role", id="whole"),
    ],
)  # fmt: skip
def test_design(change, check, value, severity, words):
    change = {k: pd.Series(v) if k in ("batch", "split") else v for k, v in change.items()}
    found = design(**change)
    if severity is None:
        assert check not in set(found["check"])
        return
    found = row(found, check)
    assert (found["value"], found["severity"]) == (value, severity)
    assert words in found["finding"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"subject_key": "donr"}, KeyError, "subject_key='donr' is not a column.*'donor'", id="subject"),
        pytest.param({"batch_key": "btch"}, KeyError, "batch_key='btch' is not a column.*'batch'", id="batch"),
        pytest.param({"columns": ["sx"]}, KeyError, "columns='sx' is not a column.*'sex'", id="columns"),
        pytest.param({"layer": "counts"}, KeyError, "layer='counts' is not in adata.layers", id="layer"),
        pytest.param({"age_key": "sex"}, TypeError, "agevi.pp.parse_age", id="ages"),
        pytest.param({"sample_key": "batch"}, ValueError, "belongs to .* subjects", id="sample"),
    ],
)
def test_refuses(adata, arguments, error, message):
    with pytest.raises(error, match=message):
        audit(adata, **arguments)


def test_refuses_missing_values(adata):
    adata.X.data[3] = np.nan
    with pytest.raises(ValueError, match=r"adata.X has missing or infinite values \(first: nan\)"):
        audit(adata)
