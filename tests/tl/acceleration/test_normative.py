from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi import get
from agevi.tl.acceleration import _norms
from agevi.tl.acceleration._normative import normative_scores
from tests.files import stored
from tests.test_gates import check_message, snapshot


def planted(n=60, n_cases=20, shift=6.0, seed=0, visits=1):
    """Held-out samples of controls, and of cases that look older by ``shift``, as the tools leave them."""
    rng = np.random.default_rng(seed)
    subject = np.repeat([f"d{i:03d}" for i in range(n + n_cases)], visits)
    case = np.repeat(np.arange(n + n_cases) >= n, visits)
    age = np.repeat(rng.uniform(25, 80, n + n_cases), visits) + np.tile(np.arange(visits), n + n_cases)
    predicted = 20 + 0.6 * age + shift * case + rng.normal(0, 4, len(age))
    sample = np.array([f"{name}-{i % visits}" for i, name in enumerate(subject)])
    obs = pd.DataFrame({"donor": subject, "sample": sample, "age": age})
    obs["condition"] = pd.Categorical(np.where(case, "case", "control"))
    adata = ad.AnnData(
        np.ones((len(obs), 2), dtype=np.float32), obs=obs.set_axis([f"cell{i}" for i in range(len(obs))])
    )
    adata.uns["agevi"] = {"subject_key": "donor", "sample_key": "sample", "age_key": "age", "age_unit": "years"}
    adata.uns["agevi_subjects"] = pd.DataFrame(
        {"subject": subject, "age": age, "predicted": predicted, "n_cells": 1, "sd_cells": np.nan, "role": "out_of_fold"},
        index=pd.Index(sample, name="sample", dtype=object),
    )  # fmt: skip
    return adata


AGAINST = {"groupby": "condition", "reference": "control"}


def table_of(adata, **arguments):
    normative_scores(adata, **(AGAINST | arguments))
    return get.normative_df(adata)


def test_cases_are_scored_against_all_controls_and_controls_against_the_others():
    adata = planted()
    out = table_of(adata, age_df=1)
    assert out.columns.tolist() == [
        "sample", "subject", "group", "age", "predicted", "expected", "sd", "z", "centile", "role", "reference", "outside",
    ]  # fmt: skip
    controls = out[out["reference"]]
    age, predicted = controls["age"].to_numpy(), controls["predicted"].to_numpy()
    norms = _norms.fit(age, predicted, np.asarray(60), degree=1)
    cases = out[~out["reference"]]
    expected, sd = norms.expected(cases["age"].to_numpy())
    np.testing.assert_allclose(cases["z"], (cases["predicted"] - expected) / sd)
    assert cases["z"].mean() == pytest.approx(6 / 4, abs=0.5)
    rest = np.arange(60) != 7
    without = _norms.fit(age[rest], predicted[rest], np.asarray(59), degree=1)
    assert controls["expected"].iloc[7] == pytest.approx(without.expected(age[[7]])[0][0])
    assert abs(np.corrcoef(age, controls["z"])[0, 1]) < 0.05
    params = adata.uns["agevi_normative_params"]
    assert (params["n_subjects"], params["n_samples"], params["degree"]) == (60, 60, 1)


def test_without_groups_all_samples_are_the_reference():
    out = table_of(planted(n_cases=0), groupby=None, reference=None)
    assert out["reference"].all()
    assert set(out["group"]) == {""}
    assert 40 < out["centile"].median() < 60


def test_several_groups_make_a_reference():
    adata = planted()
    assert table_of(adata, reference=["control", "case"])["reference"].all()
    assert adata.uns["agevi_normative_params"]["reference"].tolist() == ["control", "case"]


@pytest.mark.parametrize(("n", "degree"), [(20, 1), (24, 1), (25, 3)])
def test_the_curve_is_cubic_from_25_subjects(n, degree):
    adata = planted(n=n)
    table_of(adata)
    assert adata.uns["agevi_normative_params"]["degree"] == degree


def test_ages_that_the_reference_lacks_are_marked():
    adata = planted()
    table = adata.uns["agevi_subjects"]
    table.loc[["d060-0", "d061-0"], "age"] = [19.0, 88.0]
    out = table_of(adata).set_index("sample")
    control = out[out["reference"]]["age"]
    assert out["outside"].equals((out["age"] < control.min()) | (out["age"] > control.max()))
    assert out.loc[["d060-0", "d061-0"], "outside"].all()
    assert not out.loc[out["reference"], "outside"].any()


def test_visits_count_as_samples_and_subjects_as_evidence():
    adata = planted(n=30, visits=2)
    out = table_of(adata)
    params = adata.uns["agevi_normative_params"]
    assert (params["n_subjects"], params["n_samples"]) == (30, 60)
    assert params["norms"]["df"] == 26  # 30 subjects, 4 coefficients
    assert len(out) == 100


def test_samples_without_age_prediction_or_group():
    adata = planted()
    table = adata.uns["agevi_subjects"]
    table.loc["d000-0", "age"], table.loc["d001-0", "predicted"], table.loc["d002-0", "role"] = np.nan, np.nan, ""
    adata.obs.loc[adata.obs["donor"] == "d003", "condition"] = np.nan
    out = table_of(adata).set_index("sample")
    assert not out.index.isin(["d000-0", "d001-0", "d002-0"]).any()
    assert (out.loc["d003-0", "group"], bool(out.loc["d003-0", "reference"])) == ("", False)
    assert adata.uns["agevi_normative_params"]["n_left_out"] == 3


def test_a_clock_without_age_signal_is_named(caplog):
    adata = planted()
    table = adata.uns["agevi_subjects"]
    table["predicted"] = np.random.default_rng(1).normal(50, 4, len(table))
    with caplog.at_level(logging.WARNING):
        table_of(adata)
    assert "the clock has no age signal there" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        table_of(planted())
    assert not caplog.text


@pytest.mark.slow
def test_copy_and_files(tmp_path):
    adata = planted()
    before = snapshot(adata)
    out = normative_scores(adata, **AGAINST, copy=True)
    assert snapshot(adata) == before
    for form in ("h5ad", "zarr"):
        read = stored(out, form, tmp_path)
        pd.testing.assert_frame_equal(get.normative_df(read), get.normative_df(out), check_dtype=False)
        agevi.pl.normative(read)


def few_ages(adata):
    adata.uns["agevi_subjects"]["age"] = np.resize([30.0, 50.0], adata.n_obs)


CASES = {
    "few subjects": (lambda a: a.uns["agevi_subjects"].__setitem__("predicted", np.where(np.arange(80) < 50, np.nan, 1.0)), {},
                     ValueError, "has 10 held-out subjects with age and prediction; centiles by age need 20"),
    "no reference": (None, {"reference": None}, ValueError, "reference=None with groupby='condition'"),
    "reference without groups": (None, {"groupby": None}, ValueError, "without groupby; pass the column"),
    "unknown reference": (None, {"reference": "controlx"}, ValueError, "is not a group of groupby='condition'; closest: 'control'"),
    "empty reference": (None, {"reference": []}, ValueError, "reference=[] is not a group"),
    "column": (None, {"groupby": "condition_"}, KeyError, "closest: 'condition'"),
    "fitted samples": (lambda a: a.uns["agevi_subjects"].__setitem__("role", ["train"] * 40 + ["out_of_fold"] * 40), {},
                       ValueError, "agevi.tl.cross_validate(adata, ..., train_on="),
    "no table": (lambda a: a.uns.pop("agevi_subjects"), {}, KeyError, "run agevi.tl.aggregate_subjects(adata)"),
    "age_df": (None, {"age_df": 2}, ValueError, "age_df=2 is not known"),
    "few ages": (few_ages, {}, ValueError, "the reference has 2 different ages; a curve of age_df='auto' needs 3"),
    "few ages for a cubic": (few_ages, {"age_df": 3}, ValueError, "a curve of age_df=3 needs 5"),
    "equal predictions": (lambda a: a.uns["agevi_subjects"].__setitem__("predicted", 50.0), {}, ValueError,
                          "have the prediction 50; a clock that predicts one age for all has no centiles"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refuses(case):
    change, arguments, error, words = CASES[case]
    adata = planted()
    if change:
        change(adata)
    before = snapshot(adata)
    with pytest.raises(error) as raised:
        normative_scores(adata, **(AGAINST | arguments))
    check_message(raised, words)
    assert snapshot(adata) == before


def test_get_before_the_scores():
    with pytest.raises(KeyError) as raised:
        get.normative_df(planted())
    check_message(raised, "run agevi.tl.normative_scores(adata)")
