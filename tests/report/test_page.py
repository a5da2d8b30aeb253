"""The page against the tables that it shows, and what must not be in it."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

import agevi
from tests.report.conftest import HOSTILE
from tests.report.pages import ADDRESS, SECTIONS, ids, parsed, section, table, words

pytestmark = pytest.mark.slow  # whole studies


@pytest.fixture(scope="module")
def text(study, tmp_path_factory):
    return agevi.report(study, tmp_path_factory.mktemp("page") / "study.html", title="Cohort A").read_text("utf-8")


@pytest.fixture(scope="module")
def page(text):
    return parsed(text)


def numbers(shown: pd.Series) -> np.ndarray:
    return pd.to_numeric(shown, errors="coerce").to_numpy(dtype=np.float64)


def test_sections_stand_in_order_below_one_heading(page):
    assert [e.get("id") for e in page.iter("section")] == SECTIONS
    assert [words(e) for e in page.iter("h1")] == ["Cohort A"] and page.get("lang") == "en"
    levels = [int(e.tag[1]) for e in page.iter() if isinstance(e.tag, str) and re.fullmatch("h[1-6]", e.tag)]
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert {"header", "main", "footer", "nav"} <= {e.tag for e in page.iter()}


def test_names_of_places_are_those_of_one_place(page):
    found = ids(page)
    assert len(found) == len(set(found))
    wanted = {e.get("href")[1:] for e in page.iter("a")} | {
        name for e in page.iter() for value in e.attrib.values() for name in re.findall(r"url\(#([^)]+)\)", value)
    }
    assert wanted <= set(found)


def test_the_verdict_comes_first_with_the_errors_of_the_clock_and_of_the_median(study, page):
    row = agevi.get.metrics_df(study, roles="out_of_fold").loc["out_of_fold"]
    said = words(section(page, "verdict"))
    assert f"off by {row['mae']:.1f} years on average" in said
    assert f"off by {row['mae_median']:.1f} years" in said
    assert f"{row['mae_low']:.1f} to {row['mae_high']:.1f}" in said


def test_subjects_have_the_values_of_the_table(study, page):
    wanted = agevi.get.subjects_df(study).sort_values("age", kind="stable")
    shown = table(page, "subjects")
    assert shown["Subject"].tolist() == wanted["subject"].tolist()
    for column, head in {"age": "Age (years)", "predicted": "Predicted", "lower": "from", "upper": "to"}.items():
        np.testing.assert_allclose(numbers(shown[head]), wanted[column], rtol=1e-4)
    gaps = agevi.get.acceleration_df(study, "samples").query("type == 'overall'").set_index("sample")["acceleration"]
    np.testing.assert_allclose(numbers(shown["Acceleration"]), gaps[wanted["sample"]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "read", "columns"),
    [
        pytest.param("differences", agevi.get.acceleration_df, {"difference": "Difference (years)", "p": "p"}, id="acceleration"),
        pytest.param("coverage", agevi.get.calibration_df, {"coverage": "Inside", "width": "Width (years)"}, id="intervals"),
        pytest.param("genes", agevi.get.attribution_df, {"attribution": "Attribution (years)", "rank_low": "Rank from"}, id="genes"),
        pytest.param("sets", agevi.get.enrichment_df, {"p": "p", "padj": "p adjusted"}, id="sets"),
    ],
)  # fmt: skip
def test_tables_hold_what_get_returns(study, page, name, read, columns):
    wanted, shown = read(study), table(page, name)
    assert len(shown) == len(wanted)
    for column, head in columns.items():
        np.testing.assert_allclose(numbers(shown[head]), wanted[column], rtol=1e-4)


def test_types_have_the_accuracy_of_their_own_clocks(study, page):
    wanted, shown = agevi.get.metrics_df(study, groupby="cell_type"), table(page, "types")
    assert shown["Type"].tolist() == wanted.index.tolist()
    np.testing.assert_allclose(numbers(shown["Error (years)"]), wanted["mae"], rtol=1e-4)


def test_the_sentence_for_the_paper_and_its_caveats_are_there(study, page):
    said = words(section(page, "acceleration"))
    assert " ".join(agevi.get.acceleration_df(study)["sentence"].iloc[0].split()) in said
    assert "A difference is an association." in said


def test_the_findings_of_the_audit_are_there(study, page):
    shown = table(page, "audit")
    assert set(shown["Finding"].str.lower()) == {
        " ".join(str(f).lower().split()) for f in study.uns["agevi_study_audit"]["finding"]
    }


def test_calls_settings_seeds_and_versions_are_there(page):
    said, settings = words(section(page, "made")), table(page, "settings")
    assert "agevi.tl.cross_validate(adata, 'PLSClock')" in said and "quick=True leaves networks out" in said
    assert "agevi.tl.cross_validate(adata, 'PoissonVAE')" in table(page, "left-out")["Call"].iloc[0]
    assert {"seed", "rng"} & set(settings["Setting"]) and "tl.age_acceleration" in set(settings["Tool"])
    versions = table(page, "versions").set_index("Package")["Version"]
    assert versions["agevi"] == agevi.__version__


def test_figures_say_what_is_seen(page):
    drawn = list(page.iter("svg"))
    assert len(drawn) >= 8
    assert all(e.get("role") == "img" and len(e.get("aria-label", "")) > 60 for e in drawn)


def test_no_address_leads_out_of_the_page(text):
    assert not ADDRESS.search(text)
    assert len(text) < 3_000_000


def test_the_same_data_give_the_same_page_and_stay_as_they_are(study, text, tmp_path):
    before = (list(study.obs), list(study.var), sorted(study.uns), sorted(study.varm))
    again = agevi.report(study, tmp_path / "again.html", title="Cohort A").read_text("utf-8")
    assert again == text
    assert before == (list(study.obs), list(study.var), sorted(study.uns), sorted(study.varm))


def test_names_stay_text_everywhere(hostile, tmp_path):
    text = agevi.report(hostile, tmp_path / "page.html", title=HOSTILE[3]).read_text("utf-8")
    page = parsed(text)
    assert len(list(page.iter("script"))) == 1 and not list(page.iter("img")) and len(list(page.iter("style"))) == 1
    assert [e.get("id") for e in page.iter("section")] == SECTIONS
    assert not any(name.startswith("on") for e in page.iter() for name in e.attrib)
    shown = table(page, "subjects")
    assert set(HOSTILE[:5]) <= set(shown["Subject"])
    assert HOSTILE[3] in words(next(page.iter("h1")))
    assert {HOSTILE[0], HOSTILE[1]} <= set(table(page, "types")["Type"])
    in_figures = {words(e) for svg in page.iter("svg") for e in svg.iter("text")}
    assert {HOSTILE[1], HOSTILE[4]} <= in_figures and "\x1b" not in text


def test_a_study_says_why_a_step_was_left_out(study, tmp_path):
    adata = study.copy()
    del adata.uns["agevi_enrichment"]
    reason = "Reactome is not on this machine"
    step = {
        "step": "sets",
        "call": "agevi.tl.enrich(adata, 'reactome')",
        "status": "left out",
        "reason": reason,
        "seconds": 0.0,
    }
    adata.uns["agevi_study"] = pd.concat([adata.uns["agevi_study"], pd.DataFrame([step])], ignore_index=True)
    said = words(section(parsed(agevi.report(adata, tmp_path / "page.html").read_text("utf-8")), "sets"))
    assert f"Why: {reason}." in said and "agevi.tl.enrich(adata, 'reactome')" in said


def test_a_clock_and_the_folder_it_is_saved_in_have_the_same_page(saved_clock, tmp_path):
    path, clock = saved_clock
    texts = [
        agevi.report(source, tmp_path / f"{i}.html").read_text("utf-8")
        for i, source in enumerate((path, clock, str(path)))
    ]
    assert texts[0] == texts[1] == texts[2]
    page = parsed(texts[0])
    found = clock.evaluation
    said = words(section(page, "verdict"))
    assert f"off by {found['mae']:.1f} years" in said and f"off by {found['mae_median']:.1f} years" in said
    assert "not a diagnosis" in words(section(page, "card")) and not ADDRESS.search(texts[0])
    assert table(page, "versions").set_index("Package")["Version"]["agevi"] == agevi.__version__
