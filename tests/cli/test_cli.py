from __future__ import annotations

import gzip
import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from click.testing import CliRunner

import agevi
from agevi.cli import _demo, _main, _predict
from agevi.cli._errors import OPTIONS, in_options

COLUMNS = ["--age", "age", "--subject", "donor"]


@pytest.fixture(autouse=True)
def _a_page_that_takes_no_time(monkeypatch):
    """The report has tests of its own."""
    monkeypatch.setattr(
        agevi, "report", lambda what, path, overwrite: path.write_text(f"<p>{type(what).__name__}</p>") and path
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with cells, a clock, and files that cannot be used."""
    folder = tmp_path_factory.mktemp("place")
    adata = agevi.datasets.simulate_cohort(24, 20, 60, n_age_genes=20, effect_range=(0.1, 0.3), rng=1)
    del adata.uns["truth"]
    adata.obs["donor"] = adata.obs["donor"].astype(str).replace({"d00": "=1+1", "d01": "<script>alert(1)</script>"})
    adata.write_h5ad(folder / "cohort.h5ad")
    agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
    clock = agevi.model.PLSClock(adata)
    clock.train()
    clock.save(folder / "clock")
    logged = adata.copy()
    logged.X = logged.X.log1p()
    logged.write_h5ad(folder / "logged.h5ad")
    adata.obs["age"] = [f"{age:.0f} years" for age in adata.obs["age"]]
    adata.write_h5ad(folder / "text.h5ad")
    foreign = adata.copy()
    foreign.var_names = [f"ENSG{i:011d}" for i in range(adata.n_vars)]
    foreign.write_h5ad(folder / "foreign.h5ad")
    adata[:0].copy().write_h5ad(folder / "empty.h5ad")
    content = (folder / "cohort.h5ad").read_bytes()
    (folder / "cut.h5ad").write_bytes(content[: len(content) // 2])
    (folder / "words.h5ad").write_text("not an h5ad file")
    with h5py.File(folder / "other.h5", "w") as file:
        file["numbers"] = np.ones(3)
    (folder / "nothing").mkdir()
    (folder / "thesis").mkdir()
    (folder / "thesis" / "thesis.docx").write_text("words")
    (folder / "ages.csv").write_text("sample,age\n")
    (folder / "one.csv").write_text("donor\nd02\n")
    (folder / "twice.csv").write_text("donor,bmi\nd02,1\nd02,2\n")
    (folder / "others.csv").write_text("donor,bmi\nx1,1\nx2,2\n")
    (folder / "there.csv").write_text("donor,age\nd02,1\n")
    return folder


def run(place, *args):
    """The result of a command line in the folder, in which ``args`` name files."""
    before = os.getcwd()
    os.chdir(place)
    try:
        return CliRunner().invoke(_main.cli, list(args), prog_name="agevi")
    finally:
        os.chdir(before)


def contents(place):
    """Every file with the time of its last change."""
    return {str(path): path.stat().st_mtime_ns for path in place.rglob("*")}


STUDY = ["study", "cohort.h5ad", *COLUMNS, "--out", "out"]
BAD = [
    pytest.param(["fit"], 2, "No such command 'fit'", id="command"),
    pytest.param(["study"], 2, "Missing argument 'DATA'", id="no data"),
    pytest.param(["study", "cohort.h5ad", *COLUMNS], 2, "Missing option '--out'", id="no out"),
    pytest.param(["study", "cohort.h5ad", "--age", "age", "--out", "out"], 2, "Missing option '--subject'", id="subject"),
    pytest.param([*STUDY, "--celltype", "x"], 2, "No such option", id="option"),
    pytest.param([*STUDY, "--seed", "-1"], 2, "--seed", id="seed"),
    pytest.param(["study", "cohrt.h5ad", *STUDY[2:]], 2, "'cohrt.h5ad' does not exist", id="no such file"),
    pytest.param([*STUDY[:-1], "no/where/out"], 2, "does not exist", id="no such folder"),
    pytest.param([*STUDY[:-1], "cohort.h5ad"], 2, "--out='cohort.h5ad' is", id="the input"),
    pytest.param([*STUDY[:-1], "thesis"], 1, "--out='thesis' holds other files ('thesis.docx')", id="other files"),
    pytest.param([*STUDY[:-1], "thesis", "--force"], 1, "'thesis.docx'", id="other files with force"),
    pytest.param(
        ["study", "cohort.h5ad", "--age", "agee", "--subject", "donor", "--out", "out"], 1,
        "agevi: --age='agee' is not a column of adata.obs; closest: 'age'.", id="no such column",
    ),
    pytest.param([*STUDY, "--cell-type", "typ"], 1, "--cell-type='typ' is not a column", id="no such types"),
    pytest.param([*STUDY, "--condition", "condition"], 1, "--reference=None is not a group of --condition", id="groups"),
    pytest.param([*STUDY, "--reference", "control"], 1, "--reference='control' without --condition", id="reference"),
    pytest.param([*STUDY, "--layer", "cnts"], 1, "cnts", id="layer"),
    pytest.param([*STUDY, "--obsm", "X_pca"], 1, "X_pca", id="obsm"),
    pytest.param(["study", "logged.h5ad", *STUDY[2:]], 1, "non-integer values", id="normalised"),
    pytest.param(["study", "text.h5ad", *STUDY[2:]], 1, "into numbers with --parse-ages midpoint.", id="ages as text"),
    pytest.param(
        ["study", "text.h5ad", "--age", "donor", *STUDY[4:], "--parse-ages", "drop"], 1,
        "write them as '41', '41 years', '18 weeks', '60-69', '>89' or '<1', or leave them empty.", id="no ages in text",
    ),
    pytest.param(["study", "empty.h5ad", *STUDY[2:]], 1, "empty", id="no cells"),
    pytest.param(["study", "cut.h5ad", *STUDY[2:]], 1, "cut short", id="half a file"),
    pytest.param(["study", "words.h5ad", *STUDY[2:]], 1, "'words.h5ad' is not HDF5", id="no HDF5"),
    pytest.param(["study", "other.h5", *STUDY[2:]], 1, "HDF5 file with 'numbers'", id="other HDF5"),
    pytest.param(["study", "nothing", *STUDY[2:]], 1, "is a folder with nothing in it", id="empty folder"),
    pytest.param([*STUDY, "--obs", "one.csv"], 1, "it needs two columns", id="obs of one column"),
    pytest.param([*STUDY, "--obs", "twice.csv"], 1, "names 'd02' twice", id="obs with a name twice"),
    pytest.param([*STUDY, "--obs", "others.csv"], 1, "none of its 2 names in 'donor'", id="obs of others"),
    pytest.param([*STUDY, "--obs", "there.csv"], 1, "has the column 'age', which the data have", id="obs with a column"),
    pytest.param(["predict", "cohort.h5ad"], 2, "Missing option '--clock'", id="no clock"),
    pytest.param(["predict", "cohort.h5ad", "--clock", "clok"], 1, "clok", id="no such clock"),
    pytest.param(["predict", "cohort.h5ad", "--clock", "thesis"], 1, "is not a clock", id="folder without a clock"),
    pytest.param(["predict", "cohort.h5ad", "--clock", "clock", "--out", "ages.csv"], 2, "--force", id="there already"),
    pytest.param(["predict", "cohort.h5ad", "--clock", "clock", "--out", "thesis"], 2, "is a folder", id="a folder"),
    pytest.param(["predict", "cohort.h5ad", "--clock", "clock", "--out", "clock/a.csv"], 2, "which is read", id="in it"),
    pytest.param(["predict", "foreign.h5ad", "--clock", "clock"], 1, "genes are absent", id="genes"),
    pytest.param(["predict", "logged.h5ad", "--clock", "clock"], 1, "non-integer", id="logged to a clock"),
    pytest.param(
        ["predict", "cohort.h5ad", "--clock", "clock", "--sample", "visit"], 1, "--sample='visit' is not a column",
        id="no such sample",
    ),
    pytest.param(["train", "cohort.h5ad", *COLUMNS, "--out", "clock"], 2, "--out='clock' exists", id="a clock there"),
    pytest.param(
        ["train", "cohort.h5ad", *COLUMNS, "--model", "CellTypeClock", "--out", "new"], 2, "needs --cell-type", id="types"
    ),
    pytest.param(["report", "thesis", "--out", "r.html"], 1, "is not a clock", id="report on nothing"),
    pytest.param(["info", "cohort.h5ad", "--age", "age"], 2, "--age and --subject go together", id="info"),
    pytest.param(["info", "nowhere"], 1, "nowhere", id="info on nothing"),
    pytest.param(["demo", "--out", "thesis"], 2, "holds other files", id="demo"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "code", "words"), BAD)
def test_what_cannot_be_done_is_one_line_and_nothing_is_written(place, args, code, words):
    before = contents(place)
    result = run(place, *args)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert contents(place) == before
    if code == 2:
        assert result.stderr.startswith("agevi ") or result.stderr.startswith("agevi:")
        assert "--help" in result.stderr


def test_debug_shows_where_an_error_comes_from(place):
    result = run(place, *STUDY, "--layer", "cnts", "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "Traceback" not in run(place, *STUDY, "--layer", "cnts").stderr


def test_messages_name_options():
    text = "age_key='a' is not there; pass sample_key='b', subject_key, obs['age_key'], layer=None; my_layer=1"
    expected = "--age='a' is not there; pass --sample='b', --subject, obs['age_key'], --layer=None; my_layer=1"
    assert in_options(text) == expected
    options = {option for command in _main.cli.commands.values() for p in command.params for option in p.opts}
    assert set(OPTIONS.values()) <= options


@pytest.mark.parametrize("command", ["", *_main.cli.commands])
def test_help_has_an_example(command):
    result = CliRunner().invoke(_main.cli, [command, "--help"] if command else ["--help"], prog_name="agevi")
    assert result.exit_code == 0
    assert "agevi " in result.stdout.partition("Options:")[2]


def test_help_needs_no_library():
    code = (
        "import sys, agevi.cli._main as m\ntry: m.cli.main(['study', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'scvi', 'pandas', 'numpy', 'anndata'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_without_a_command_it_is_the_help_and_as_a_module():
    assert "Commands:" in CliRunner().invoke(_main.cli, []).stdout
    out = subprocess.run([sys.executable, "-m", "agevi", "--version"], check=True, capture_output=True, text=True)
    assert out.stdout == f"agevi {agevi.__version__}\n"


@pytest.fixture(scope="module")
def studied(place):
    """A study by the command line, whose second line of arguments is that of a user who hurries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agevi, "report", lambda what, path, overwrite: path.write_text("<p></p>") and path)
        result = run(place, "study", "cohort.h5ad", *COLUMNS, "--quick", "--out", "results")
    assert result.exit_code == 0, result.stderr
    return result


def test_a_study_of_a_file_is_that_of_the_function(place, studied):
    found = agevi.tl.study(ad.read_h5ad(place / "cohort.h5ad"), age_key="age", subject_key="donor", quick=True)
    assert studied.stdout.startswith(found.verdict[:60])
    assert studied.stdout.endswith("Report: results/report.html\n")
    assert "step 1 of 11: audit" in studied.stderr
    assert "Left out, acceleration: --condition was not given." in studied.stdout
    table = pd.read_csv(place / "results/tables/subjects.csv", keep_default_na=False)
    np.testing.assert_allclose(table["predicted"], found.subjects["predicted"])
    assert {"'=1+1", "<script>alert(1)</script>"} <= set(table["subject"])
    assert (place / "results/clock/README.md").exists()


def test_a_study_goes_on_and_is_replaced_only_when_asked(place, studied, monkeypatch):
    args = ["study", "cohort.h5ad", *COLUMNS, "--out", "results"]
    other = run(place, *args, "--quick", "--seed", "1")
    assert other.exit_code == 1
    assert "--out='results' holds results of another study: --seed was 0 and is 1" in other.stderr
    assert (
        run(place, "study", "cohort.h5ad", "--age", "agee", *COLUMNS[2:], "--out", "results", "--force").exit_code == 1
    )
    assert (place / "results/report.html").exists()
    with monkeypatch.context() as patch:
        patch.setattr("agevi.tl.validate._run_jobs.run_fold", None)
        again = run(place, *args, "--quick", "--json")
    assert again.exit_code == 0
    said = json.loads(again.stdout)
    assert said["verdict"] in " ".join(studied.stdout.split())
    assert "=1+1" in {row["subject"] for row in said["subjects"]}
    assert said["report"] == "results/report.html"


def test_ages_of_new_cells(place, tmp_path):
    before = contents(place)
    result = run(place, "predict", "cohort.h5ad", "--clock", "clock", "--out", str(tmp_path / "a.csv"))
    assert (result.exit_code, result.stdout) == (0, f"24 samples in {tmp_path / 'a.csv'}\n")
    assert contents(place) == before
    adata = ad.read_h5ad(place / "cohort.h5ad")
    agevi.tl.predict_age(adata, agevi.io.load_clock(place / "clock"))
    agevi.tl.aggregate_subjects(adata)
    table = pd.read_csv(tmp_path / "a.csv")
    np.testing.assert_allclose(table["predicted"], agevi.get.subjects_df(adata)["predicted"], atol=1e-4)
    printed = run(place, "predict", "cohort.h5ad", "--clock", "clock")
    assert printed.stdout.splitlines()[0].startswith("sample,subject,age,predicted")
    said = json.loads(run(place, "predict", "cohort.h5ad", "--clock", "clock", "--json").stdout)
    assert said["unit"] == "years"
    assert "<script>alert(1)</script>" in {row["sample"] for row in said["samples"]}


@pytest.mark.parametrize("ages", ["as text", "no ages"])
def test_ages_that_are_text_do_not_stand_in_the_way_of_a_prediction(place, tmp_path, ages):
    adata = ad.read_h5ad(place / "text.h5ad")
    if ages == "no ages":
        adata.obs["age"] = "old"
    adata.write_h5ad(tmp_path / "new.h5ad")
    result = run(tmp_path, "predict", "new.h5ad", "--clock", str(place / "clock"))
    assert result.exit_code == 0, result.stderr
    assert ("age" in result.stdout.splitlines()[0].split(",")) and "values of 'age'" in result.stderr
    table = pd.read_csv(io.StringIO(result.stdout))
    assert table["age"].notna().all() == (ages == "as text")


def test_published_clocks_predict_rows(tmp_path):
    genes = agevi.io.load_clock("horvath_2013").genes
    ad.AnnData(np.full((3, len(genes)), 0.5, np.float32), var=pd.DataFrame(index=genes)).write_h5ad(tmp_path / "m.h5ad")
    result = run(tmp_path, "predict", "m.h5ad", "--clock", "horvath_2013")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == "sample,predicted"
    assert len(result.stdout.splitlines()) == 4


def test_cells_of_zarr_and_10x_with_a_table_of_donors(place, tmp_path):
    adata = ad.read_h5ad(place / "cohort.h5ad")
    expected = _predict.predicted(adata.copy(), agevi.io.load_clock(place / "clock"), None, None)
    adata.write_zarr(tmp_path / "cohort.zarr")
    folder = tmp_path / "10x"
    folder.mkdir()
    with gzip.open(folder / "matrix.mtx.gz", "wb") as file:
        scipy.io.mmwrite(file, adata.X.T.astype(int))
    rows = {
        "barcodes": [[c] for c in adata.obs_names],
        "features": [[g, g, "Gene Expression"] for g in adata.var_names],
    }
    for name, lines in rows.items():
        text = "".join("\t".join(line) + "\n" for line in lines)
        (folder / f"{name}.tsv.gz").write_bytes(gzip.compress(text.encode()))
    adata.obs[["donor"]].to_csv(tmp_path / "cells.csv")
    for args in (["cohort.zarr"], ["10x", "--obs", "cells.csv"]):
        result = run(tmp_path, "predict", *args, "--clock", str(place / "clock"), "--json")
        assert result.exit_code == 0, result.stderr
        found = pd.DataFrame(json.loads(result.stdout)["samples"])
        np.testing.assert_allclose(found["predicted"], expected["predicted"], atol=1e-4)
    donors = adata.obs.drop_duplicates("donor")[["donor"]].assign(weight=range(24))
    donors.to_csv(tmp_path / "donors.csv", index=False)
    said = json.loads(run(tmp_path, "info", str(place / "cohort.h5ad"), "--obs", "donors.csv", "--json").stdout)
    assert said["columns"]["weight"] == {"kind": "numbers", "different": 24, "range": [0.0, 23.0]}


def test_a_clock_is_trained_and_tells_its_error(place, tmp_path):
    result = run(place, "train", "cohort.h5ad", *COLUMNS, "--out", str(tmp_path / "new"), "--json")
    assert result.exit_code == 0, result.stderr
    said, clock = json.loads(result.stdout), agevi.io.load_clock(tmp_path / "new")
    assert said["class"] == type(clock).__name__ == "PLSClock"
    assert clock.evaluation["mae"] == pytest.approx(said["accuracy"][0]["mae"])
    assert clock.calibration["n"] == 24
    assert set(clock.split_.values()) == {"train"}


def test_ages_are_read_from_text_where_that_is_asked_for(place, tmp_path):
    args = ["train", "text.h5ad", *COLUMNS, "--out", str(tmp_path / "new")]
    result = run(place, *args, "--parse-ages", "midpoint")
    assert result.exit_code == 0, result.stderr
    cells = ad.read_h5ad(place / "cohort.h5ad").obs.drop_duplicates("donor")
    assert agevi.io.load_clock(tmp_path / "new").age_summary_["max"] == cells["age"].max().round()


def test_reports_on_a_study_and_on_a_clock(place, studied, tmp_path):
    for what, page in (("results", "AnnData"), ("results/clock", "PLSClock"), ("horvath_2013", "LinearClock")):
        result = run(place, "report", what, "--out", str(tmp_path / "r.html"), "--force")
        assert result.exit_code == 0, result.stderr
        assert (tmp_path / "r.html").read_text() == f"<p>{page}</p>"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        pytest.param(["cohort.h5ad"], "h5ad: 480 cells x 60 genes", id="cells"),
        pytest.param(["cohort.h5ad", *COLUMNS], "agevi study would take it (clock: PLSClock", id="taken"),
        pytest.param(["text.h5ad", *COLUMNS, "--parse-ages", "lower"], "agevi study would take it", id="ages in text"),
        pytest.param(
            ["cohort.h5ad", "--age", "donor", "--subject", "donor"], "agevi study would refuse it: adata.obs['donor']",
            id="refused",
        ),
        pytest.param(["cohort.h5ad", "--clock", "clock"], "agevi predict would take it (features found: 100%)", id="clock"),
        pytest.param(["foreign.h5ad", "--clock", "clock"], "agevi predict would refuse it: 60 of the clock's 60", id="genes"),
        pytest.param(["clock"], "# Ageing clock: PLSClock", id="a clock"),
        pytest.param(["horvath_2013"], "# Ageing clock: LinearClock", id="ready-made"),
    ],
)  # fmt: skip
def test_what_is_in_a_file(place, args, words):
    result = run(place, "info", *args)
    assert result.exit_code == 0, result.stderr
    assert words in result.stdout
    json.loads(run(place, "info", *args, "--json").stdout)


def test_the_ready_made_clocks():
    assert "horvath_2013" in CliRunner().invoke(_main.cli, ["clocks"]).stdout
    names = {row["name"] for row in json.loads(CliRunner().invoke(_main.cli, ["clocks", "--json"]).stdout)}
    assert names == set(agevi.clocks.list().index)
    helps = [CliRunner().invoke(_main.cli, [name, "--help"]).stdout for name in _main.cli.commands]
    named = {clock for text in helps for clock in re.findall(r"--clock (\w+)(?: |$)", text, flags=re.MULTILINE)}
    assert "tcells_cd4" in named and named - names <= {"CLOCK", "clock"}


def test_an_unknown_clock_names_the_command_that_lists_them(place):
    result = CliRunner().invoke(_main.cli, ["predict", str(place / "cohort.h5ad"), "--clock", "nosuch"])
    assert result.exit_code == 1
    assert "`agevi clocks`" in result.stderr and "agevi.clocks" not in result.stderr


@pytest.mark.slow
def test_the_demo_ends_with_the_path_of_its_report(tmp_path, monkeypatch):
    monkeypatch.setattr(_demo, "N_NEW", 4)
    for _ in range(2):  # the second one over the first
        result = run(tmp_path, "demo", "--quick")
        assert result.exit_code == 0, result.stderr
        assert result.stdout.splitlines()[-1] == "Report: demo_output/results/report.html"
    assert len(pd.read_csv(tmp_path / "demo_output/ages.csv")) == 4


def killed(place, out, moment):
    """A prediction that is killed as it puts its file in place, or before."""

    def kill(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, moment, kill)
    run(place, "predict", "cohort.h5ad", "--clock", "clock", "--out", str(out))


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["replace", "fsync"])
def test_a_prediction_that_was_killed_leaves_nothing(place, tmp_path, moment):
    out = tmp_path / "a.csv"
    process = multiprocessing.get_context("fork").Process(target=killed, args=(place, out, moment))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not out.exists()
    assert run(place, "predict", "cohort.h5ad", "--clock", "clock", "--out", str(out)).exit_code == 0
    assert len(pd.read_csv(out)) == 24
