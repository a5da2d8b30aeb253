from __future__ import annotations

import multiprocessing
import os
import signal

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.tl.full_study import _folder
from agevi.tl.full_study._verdict import verdict
from tests.test_gates import set_obs

KEYS = {"age_key": "age", "subject_key": "donor"}
ALL = KEYS | {"cell_type_key": "cell_type", "condition_key": "condition", "reference": "control", "covariates": "sex"}
TABLES = ("agevi_subjects", "agevi_metrics", "agevi_calibration", "agevi_by_group")


def made(**changes):
    """60 donors of two types, two fifths of them cases; names that are text in HTML and formulas in spreadsheets."""
    options = {"n_subjects": 60, "n_cells": 16, "n_genes": 60, "effect_range": (0.1, 0.3), "case_fraction": 0.4}
    options |= {"acceleration": 12.0, "n_cell_types": 2, "rng": 4}
    adata = agevi.datasets.simulate_cohort(**options | changes)
    del adata.uns["truth"]
    names = {"d00": "<script>alert(1)</script>", "d01": "=1+1", "d02": "\"quoted\", 'too'"}
    adata.obs["donor"] = adata.obs["donor"].astype(str).replace(names)
    return adata


@pytest.fixture(scope="module")
def cohort():
    return made()


@pytest.fixture(scope="module")
def gmt(tmp_path_factory, cohort):
    """Sets of genes in the place of Reactome."""
    path = tmp_path_factory.mktemp("sets") / "sets.gmt"
    path.write_text("".join(f"set {i}\t-\t" + "\t".join(cohort.var_names[i : i + 12]) + "\n" for i in range(0, 40, 8)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGEVI_REACTOME", str(path))
        yield path


@pytest.fixture(scope="module")
def studied(cohort, gmt, tmp_path_factory):
    """The whole of it, once: the AnnData, the result and the folder."""
    adata, out = cohort.copy(), tmp_path_factory.mktemp("study") / "out"
    return adata, agevi.tl.study(adata, **ALL, out=out), out


@pytest.mark.slow
def test_every_step_is_a_public_call_that_gives_the_same_by_hand(studied, cohort, tmp_path):
    adata, found, out = studied
    assert found.steps["status"].tolist() == ["done"] * 11
    here = {"agevi": agevi, "np": np, "adata": cohort.copy()}
    for call in found.steps["call"]:
        exec(call.replace(str(out), str(tmp_path)), here)
    by_hand = here["adata"]
    for name in TABLES:
        pd.testing.assert_frame_equal(by_hand.uns[name], adata.uns[name])
    for name in ("groups", "samples"):
        pd.testing.assert_frame_equal(by_hand.uns["agevi_acceleration"][name], adata.uns["agevi_acceleration"][name])
        pd.testing.assert_frame_equal(by_hand.uns["agevi_explanation"][name], adata.uns["agevi_explanation"][name])
    np.testing.assert_array_equal(by_hand.varm["agevi_attribution"], adata.varm["agevi_attribution"])
    pd.testing.assert_frame_equal(by_hand.uns["agevi_enrichment"], adata.uns["agevi_enrichment"])
    np.testing.assert_array_equal(here["clock"].predict_age(cohort), found.clock.predict_age(cohort))
    dropped = ["seconds", "peak_memory"]
    pd.testing.assert_frame_equal(
        by_hand.uns["agevi_leaderboard"].drop(columns=dropped), adata.uns["agevi_leaderboard"].drop(columns=dropped)
    )


def test_the_result_says_first_whether_the_clock_beats_the_median(studied):
    adata, found, out = studied
    text = repr(found)
    assert text.startswith(f"{found.verdict[:60]}")
    assert str(found) == text
    assert found.beats_median is True
    assert adata.uns["agevi_study_params"]["verdict"] == found.verdict
    row = found.accuracy.iloc[0]
    assert f"MAE {row['mae']:.1f} against {row['mae_median']:.1f} years" in found.verdict
    assert f"{row['n']:.0f} held-out subjects" in found.verdict
    assert agevi.get.acceleration_df(adata)["sentence"].iloc[0][:40] in text
    of_control = found.accuracy.set_index("group").loc["control"]
    assert f"MAE by group: control {of_control['mae']:.1f} [" in text
    assert f"rise by {of_control['slope']:.2f} years per year of age." in " ".join(text.split())
    assert text.endswith(f"Folder: {out}")
    pd.testing.assert_frame_equal(agevi.get.study_df(adata), found.steps)


def test_the_clock_is_one_of_the_reference_with_intervals_and_its_error(studied):
    adata, found, _ = studied
    clock = found.clock
    roles = pd.Series(clock.split_)
    cases = set(adata.obs["donor"][adata.obs["condition"] == "case"])
    assert set(roles.index[roles == "test"]) == cases
    assert set(roles[~roles.index.isin(cases)]) == {"train"}
    assert clock.calibration["level"] == 0.9
    assert clock.evaluation["train_on"] == "condition == 'control'"


def test_the_folder_holds_the_clock_the_tables_and_the_slots(studied):
    adata, found, out = studied
    assert {p.name for p in out.iterdir()} == {".checkpoint", "clock", "study.h5ad", "study.json", "tables"}
    assert {p.stem for p in (out / "tables").iterdir()} == set(found.tables)
    assert len(found.tables) == 11
    table = pd.read_csv(out / "tables" / "subjects.csv", keep_default_na=False)
    assert {"'=1+1", "<script>alert(1)</script>", "\"quoted\", 'too'"} <= set(table["subject"])
    back = ad.read_h5ad(out / "study.h5ad")
    assert back.X is None
    for reader in ("subjects_df", "metrics_by_df", "calibration_df", "acceleration_df", "attribution_df", "study_df"):
        one, other = getattr(agevi.get, reader)(back), getattr(agevi.get, reader)(adata)
        pd.testing.assert_frame_equal(one, other, check_dtype=False)  # of text
    np.testing.assert_array_equal(agevi.io.load_clock(out / "clock").predict_age(adata), found.clock.predict_age(adata))


def test_the_same_call_fits_nothing_again(studied, cohort, monkeypatch):
    _, found, out = studied
    monkeypatch.setattr("agevi.tl.validate._run_jobs.run_fold", None)
    monkeypatch.setattr("agevi.model.celltype._training.fit_type", None)
    again = agevi.tl.study(cohort.copy(), **ALL, out=out)
    assert set(again.tables) == set(found.tables)
    for name, table in again.tables.items():
        dropped = ["seconds", "peak_memory"]
        one, other = (t.drop(columns=dropped, errors="ignore") for t in (table, found.tables[name]))
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        pytest.param(set_obs("age", lambda a: a.obs["age"] + 1), {}, r"adata.obs\['age'\] differs", id="ages"),
        pytest.param(lambda a: a.X.data.__setitem__(0, 99), {}, "values differs", id="values"),
        pytest.param(lambda a: None, {"rng": 1}, "rng was 0 and is 1", id="seed"),
        pytest.param(lambda a: None, {"quick": True}, "quick was false and is true", id="quick"),
    ],
)
def test_another_study_is_refused(studied, cohort, change, arguments, message):
    adata = cohort.copy()
    change(adata)
    with pytest.raises(ValueError, match=rf"^out='.*' holds results of another study: .*{message}"):
        agevi.tl.study(adata, **ALL, **arguments, out=studied[2])


def test_a_folder_with_other_files_is_refused(cohort, tmp_path):
    (tmp_path / "thesis.docx").write_text("")
    with pytest.raises(ValueError, match=r"^out='.*' holds other files \('thesis.docx'\)"):
        agevi.tl.study(cohort, **KEYS, out=tmp_path)
    with pytest.raises(ValueError, match="thesis"):
        _folder.remove_study(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.docx"]


def few(**changes):
    """Twelve donors of few cells."""
    return made(n_subjects=12, n_cells=8, n_genes=40, **changes)


def test_twelve_donors(tmp_path):
    found = agevi.tl.study(few(), **ALL | {"covariates": ()}, quick=True, out=tmp_path / "out")
    left = dict(found.steps.loc[found.steps["status"] == "left out", ["step", "reason"]].to_numpy())
    assert left["types"].startswith("too few cells: fewer than 80% of the samples have 5 cells in half of the 2 types")
    assert "few_subjects" in found.acceleration["flags"].iloc[0]
    assert type(found.clock).__name__ == "PLSClock"
    assert "beat" in found.verdict.split(":")[0]


def test_eight_donors_have_no_intervals_and_no_verdict():
    found = agevi.tl.study(made(n_subjects=8, n_cells=6, n_genes=40), **KEYS, quick=True)
    assert found.verdict.startswith("Whether the clock beats the median age cannot be known from 8 held-out subjects")
    assert found.beats_median is None
    left = dict(found.steps.loc[found.steps["status"] == "left out", ["step", "reason"]].to_numpy())
    assert left["intervals"] == "intervals at 90% need 10 held-out subjects with an age, and there are 8"
    assert left["types"] == "cell_type_key was not given"
    assert left["acceleration"] == "condition_key was not given"
    assert left["genes"] == "the clock is not shown to beat the median age, and genes of such a clock are noise"
    assert found.calibration is None
    assert found.clock.calibration is None


@pytest.mark.slow
def test_ages_in_months():
    adata = made(n_subjects=40, acceleration=0.0)
    adata.obs["age"] *= 12
    found = agevi.tl.study(adata, **ALL, age_unit="months")
    assert found.steps.loc[found.steps["status"] == "left out", "step"].isin(["genes", "pathways"]).all()
    assert "months" in found.verdict and found.clock.setup_args["age_unit"] == "months"
    assert found.subjects["predicted"].between(240, 1080).all()
    assert "months" in found.acceleration["sentence"].iloc[0]
    assert adata.uns["agevi_leaderboard_params"]["age_unit"] == "months"
    with pytest.raises(ValueError, match="age_unit='decades'"):
        agevi.tl.study(made(n_subjects=8), **KEYS, age_unit="decades")


def test_ages_that_were_shuffled_are_not_predicted():
    adata = made(n_cells=10)
    donors = adata.obs["donor"].unique()
    ages = adata.obs.groupby("donor", observed=True)["age"].first()
    shuffled = pd.Series(np.random.default_rng(0).permutation(ages.to_numpy()), ages.index)
    adata.obs["age"] = adata.obs["donor"].map(shuffled).astype(float)
    found = agevi.tl.study(adata, **KEYS, quick=True)
    assert repr(found).startswith("The clock does not beat the median age")
    assert found.beats_median is False
    assert found.genes is None
    assert len(donors) == 60


def test_columns_of_any_name(tmp_path):
    adata = made(n_subjects=40, n_cells=12)
    names = {"donor": "a 'donor' <b>", "age": "age (years)", "condition": "is case?", "cell_type": "class"}
    adata.obs = adata.obs.rename(columns=names)
    adata.obs["is case?"] = (adata.obs["is case?"] == "case").to_numpy()
    adata.layers["raw"], adata.X = adata.X, adata.X * 0.5
    found = agevi.tl.study(
        adata,
        age_key="age (years)",
        subject_key="a 'donor' <b>",
        condition_key="is case?",
        reference=False,
        layer="raw",
        quick=True,
        out=tmp_path / "out",
    )
    assert found.acceleration["group"].tolist() == ["True"]
    here = {"agevi": agevi, "np": np, "adata": adata.copy()}
    exec(found.steps["call"][1], here)
    roles = here["adata"].obs["agevi_study_role"]
    assert (roles == adata.obs["agevi_study_role"].astype(str)).all()


def normalised(adata):
    adata.X = adata.X.log1p()


REFUSED = [
    pytest.param(None, {"age_key": "agee"}, KeyError, "^age_key='agee' is not a column .*closest: 'age'", id="age"),
    pytest.param(None, {"subject_key": "donr"}, KeyError, "^subject_key='donr'", id="subject"),
    pytest.param(None, {"cell_type_key": "typ"}, KeyError, "^cell_type_key='typ'", id="type"),
    pytest.param(None, {"condition_key": "cond"}, KeyError, "^condition_key='cond'", id="condition"),
    pytest.param(
        None, {"reference": "healthy"}, ValueError, "^reference='healthy' is not a group of condition_key=.*'control'",
        id="reference",
    ),
    pytest.param(None, {"reference": None}, ValueError, "^reference=None is not a group of condition_key", id="none"),
    pytest.param(
        None, {"condition_key": None}, ValueError, "^reference='control' without condition_key", id="no condition"
    ),
    pytest.param(None, {"covariates": ["bmi"]}, KeyError, "^covariates='bmi' is not a column", id="covariate"),
    pytest.param(None, {"covariates": ["condition"]}, ValueError, "has condition_key='condition'", id="the groups"),
    pytest.param(None, {"condition_key": "cell_type"}, ValueError, "one value per sample", id="types as groups"),
    pytest.param(None, {"layer": "cnts"}, KeyError, "cnts", id="layer"),
    pytest.param(None, {"obsm_key": "X_scVI"}, KeyError, "X_scVI", id="obsm"),
    pytest.param(normalised, {}, ValueError, "non-integer values", id="normalised"),
    pytest.param(set_obs("age", lambda a: ["old"] * a.n_obs), {}, TypeError, "parse_age", id="text"),
    pytest.param(set_obs("age", lambda a: 50.0), {}, ValueError, "50 for every subject", id="one age"),
    pytest.param(
        set_obs("age", lambda a: a.obs["age"].where(a.obs["donor"].isin(a.obs["donor"].unique()[-3:]))),
        {}, ValueError, "^only 3 subjects have an age .*tl.study holds subjects out and needs at least 4", id="few ages",
    ),
    pytest.param(None, {"key_added": ""}, ValueError, "^key_added='' is empty", id="key"),
    pytest.param(None, {"rng": "zero"}, TypeError, "rng='zero'", id="seed"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "arguments", "kind", "message"), REFUSED)
def test_bad_input_is_refused_before_anything_is_made(cohort, tmp_path, monkeypatch, change, arguments, kind, message):
    adata = cohort.copy()
    if change is not None:
        change(adata)
    before = set(adata.obs), set(adata.uns)
    monkeypatch.setattr("agevi.tl.full_study._steps.Run.all", None)
    with pytest.raises(kind, match=message.replace("^", "^['\"]?")):
        agevi.tl.study(adata, **ALL | {"out": tmp_path / "out"} | arguments)
    assert (set(adata.obs), set(adata.uns)) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "said", "beats"),
    [
        pytest.param(1.0, "The clock beats the median age: MAE 1.0 against", True, id="beats"),
        pytest.param(60.0, "The clock does not beat the median age: MAE 60.0", False, id="worse"),
        pytest.param(14.0, "The clock does not beat the median age by more than chance would", False, id="no better"),
    ],
)
def test_verdicts(error, said, beats):
    age = np.linspace(20, 80, 30)
    table = pd.DataFrame({"subject": [f"d{i}" for i in range(30)], "age": age})
    table["predicted"] = age + error * np.where(np.arange(30) % 2, 1, -1)
    found = verdict(table, np.full(30, 50.0), "years")
    assert found.text.startswith(said)
    assert found.beats_median is beats


def killed(adata, out, moment):
    """A study that is killed as it puts its ``moment``-th file in place."""
    count, replace = [0], os.replace

    def counted(*args, **kwargs):
        count[0] += 1
        if count[0] == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*args, **kwargs)

    os.replace = counted
    agevi.tl.study(adata, **ALL, quick=True, out=out)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [3, 8, 14])
def test_a_study_that_was_killed_goes_on(tmp_path, moment):
    adata, out = made(n_subjects=40, n_cells=20, n_genes=40), tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(target=killed, args=(adata.copy(), out, moment))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    for path in out.glob("tables/[!.]*.csv"):
        pd.read_csv(path)
    found = agevi.tl.study(adata.copy(), **ALL, quick=True, out=out)
    whole = agevi.tl.study(adata.copy(), **ALL, quick=True)
    for name, table in whole.tables.items():
        if name != "steps":
            pd.testing.assert_frame_equal(found.tables[name], table)
    assert not list(out.rglob("*.tmp"))
