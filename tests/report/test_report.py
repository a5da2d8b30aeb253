"""What a report takes, refuses and says where little is known."""

from __future__ import annotations

import re
import stat

import pytest

import agevi
from tests.report.pages import SECTIONS, has_table, parsed, section, table, words


def test_what_is_not_there_is_said_with_the_call(plain_predictions, tmp_path):
    page = parsed(agevi.report(plain_predictions, tmp_path / "page.html").read_text("utf-8"))
    said = {name: words(section(page, name)) for name in SECTIONS}
    assert "Too few to tell" in said["verdict"]
    assert "agevi.tl.age_acceleration(adata" in said["acceleration"]
    assert "agevi.tl.attribute_genes(adata, model)" in said["genes"]
    assert "agevi.tl.enrich(adata" in said["sets"] and "agevi.tl.calibrate(adata" in said["ages"]
    assert "agevi.pp.audit_leakage(adata" in said["data"] and not has_table(page, "differences")


@pytest.mark.parametrize(
    ("error", "title"),
    [
        pytest.param(3.0, "Yes: it predicts age better", id="better"),
        pytest.param(60.0, "No: it does not predict age better", id="worse"),
    ],
)
def test_the_verdict_follows_the_errors(cohort, tmp_path, error, title):
    cohort.obs["agevi_predicted"] = cohort.obs["age"] + error
    donors = sorted(set(cohort.obs["donor"]))
    cohort.obs["agevi_role"] = ["test" if d in donors[:12] else "train" for d in cohort.obs["donor"]]
    agevi.tl.aggregate_subjects(cohort, subject_key="donor", age_key="age")
    agevi.tl.evaluate_by(cohort)
    page = parsed(agevi.report(cohort, tmp_path / "page.html").read_text("utf-8"))
    assert title in words(section(page, "verdict"))
    assert table(page, "by-group")["Error (years)"].iloc[0] == pytest.approx(error, rel=1e-4)
    assert "Train (not accuracy)" in table(page, "accuracy")["Role"].tolist()


def test_an_earlier_report_is_replaced_on_request_alone(plain_predictions, tmp_path):
    path = agevi.report(plain_predictions, tmp_path / "page.html", title="first")
    with pytest.raises(FileExistsError, match="already exists; pass overwrite=True"):
        agevi.report(plain_predictions, path)
    agevi.report(plain_predictions, path, title="second", overwrite=True)
    assert "second" in path.read_text("utf-8") and list(tmp_path.iterdir()) == [path]
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_what_is_not_a_report_is_never_replaced(plain_predictions, tmp_path):
    other = tmp_path / "other.html"
    other.write_text("<p>mine</p>")
    with pytest.raises(FileExistsError, match="is not a report of agevi, which replaces nothing that it did not write"):
        agevi.report(plain_predictions, other, overwrite=True)
    assert other.read_text() == "<p>mine</p>"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"path": "page.pdf"}, ValueError, "does not end with .html", id="no page"),
        pytest.param({"path": 3}, TypeError, "path=3 is a int; pass the path", id="no path"),
        pytest.param({"path": "absent/page.html"}, FileNotFoundError, "is not a directory", id="no folder"),
        pytest.param({"key_added": "agevii"}, KeyError, "nothing stands under it", id="another key"),
        pytest.param({"title": 3}, TypeError, "title=3 is a int; pass text", id="title"),
        pytest.param(
            {"audit": [1]}, TypeError, "audit is a list; pass the table that agevi.pp.audit_leakage", id="audit"
        ),
        pytest.param(
            {"gene_symbols": "symbol"}, KeyError, "gene_symbols='symbol' is not a column of adata.var", id="symbols"
        ),
        pytest.param({"source": 3}, TypeError, "source is a int; pass an AnnData, a trained clock", id="source"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(plain_predictions, tmp_path, arguments, error, message):
    given = {"source": plain_predictions, "path": "page.html"} | arguments
    path = tmp_path / given.pop("path") if isinstance(given["path"], str) else given.pop("path")
    with pytest.raises(error, match=re.escape(message)):
        agevi.report(given.pop("source"), path, **given)
    assert not list(tmp_path.iterdir())


def test_a_table_of_cells_that_are_gone_is_refused(plain_predictions, tmp_path):
    part = plain_predictions[plain_predictions.obs["donor"] != "d1"].copy()
    part.uns["agevi"] = {"subject_key": "donor", "sample_key": "donor"}
    with pytest.raises(ValueError, match="have no cells"):
        agevi.report(part, tmp_path / "page.html")
