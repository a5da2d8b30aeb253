"""Every printed result has an entry in benchmarks/figures.toml, stands on its pages as the entry says, and a change is found."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
LIMIT = 1500
"""Words of a page of results, tables included."""


def _catalogue():
    spec = importlib.util.spec_from_file_location("catalogue", BENCHMARKS / "catalogue.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["catalogue"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


catalogue = _catalogue()
FIGURES, MODULES = catalogue.load()
BY_ID = {figure.id: figure for figure in FIGURES}
CASES = [pytest.param(figure, id=figure.id) for figure in FIGURES]
QUICK = [pytest.param(figure, id=figure.id) for figure in FIGURES if figure.quick]
NAMED = re.compile(r"benchmarks/(\w+\.(?:py|md|toml))")
SITE = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SITE = [page for page in SITE if not {"_build", "generated", "tutorials"} & set(page.parts)]
OTHERS = [ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.md")]
OTHERS += sorted((ROOT / "tutorials").glob("*.ipynb"))
NAMING = [page for page in [*SITE, *OTHERS] if "benchmarks/" in page.read_text(encoding="utf-8")]


def test_every_script_is_catalogued_and_every_catalogued_script_exists():
    scripts = {path.name for path in BENCHMARKS.glob("*.py")}
    assert {figure.script for figure in FIGURES} | set(MODULES) == scripts
    assert len(BY_ID) == len(FIGURES)


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in NAMING])
def test_scripts_that_a_page_names_exist(path):
    missing = [name for name in NAMED.findall(path.read_text(encoding="utf-8")) if not (BENCHMARKS / name).exists()]
    assert missing == []


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in NAMING if path in SITE]
)
def test_a_page_that_names_a_script_is_in_the_entry_of_the_script(path):
    page = str(path.relative_to(ROOT))
    named = {name for name in NAMED.findall(path.read_text(encoding="utf-8")) if name.endswith(".py")} - set(MODULES)
    assert {name for name in named if not any(f.script == name and page in f.pages for f in FIGURES)} == set()


@pytest.mark.parametrize("figure", CASES)
def test_pages_exist_and_print_the_numbers(figure):
    assert [page for page in figure.pages if not (ROOT / page).exists()] == []
    assert figure.seed and figure.data and figure.pages
    assert [(number.printed, number.line, number.missing()) for number in figure.numbers if number.missing()] == []


@pytest.mark.parametrize("figure", CASES)
def test_numbers_can_be_read_as_the_entry_says(figure):
    for number in figure.numbers:
        assert number.value == number.value and set(number.pages) <= set(figure.pages)
        assert not number.read or (re.compile(number.read).groups == 1 and number.tolerance > 0)


@pytest.mark.parametrize("figure", QUICK)
def test_quick_figures_compare_numbers_and_need_no_other_data(figure):
    assert figure.data in {"bundled", "simulated"}
    assert sum(bool(number.read) for number in figure.numbers) >= 2


def test_there_are_quick_figures_of_several_topics():
    assert len({figure.script for figure in FIGURES if figure.quick}) >= 6


RIVALS = """
 two cohorts, 6 years apart, 70/30 and 30/70 cases                  0.544     0.046
             disease moves shares of 3 types alone                  0.784     0.041
residuals from the controls' line, cases 20 years older             0.216     0.046
"""


def test_output_that_agrees_passes_and_a_changed_number_is_found():
    figure = BY_ID["acceleration_rivals"]
    assert figure.problems(RIVALS) == []
    (problem,) = figure.problems(RIVALS.replace("0.784", "0.700"))
    assert "the pages say .784, the script 0.700" in problem
    assert len(figure.problems("")) == 4 and "nothing in the output" in figure.problems("")[0]


def test_a_change_within_the_tolerance_passes():
    assert BY_ID["acceleration_rivals"].problems(RIVALS.replace("0.784", "0.782")) == []


def test_a_changed_page_is_found(tmp_path):
    number = dataclasses.replace(BY_ID["normative"].numbers[0], pages=("page.md",))
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs/results/normative.md").read_text())
    assert number.missing(tmp_path) == []
    page.write_text(page.read_text().replace("| 10 | 1 | normal | 0.0 | 0.035", "| 10 | 1 | normal | 0.0 | 0.0351"))
    assert number.missing(tmp_path) == ["page.md"]


def test_the_list_has_every_figure_with_its_seed_cost_and_pages():
    text = catalogue.listing(FIGURES)
    for figure in FIGURES:
        assert f"{figure.id}{' (quick)' if figure.quick else ''}: {figure.title}\n" in text
    assert "seed 0; data: simulated; cost: 0.1 CPU min, 0.3 GB; on docs/results/normative.md" in text


def test_an_unknown_id_is_refused():
    with pytest.raises(SystemExit, match="no figure is called 'normativ'"):
        catalogue.chosen(FIGURES, ["normativ"])


@pytest.mark.parametrize(
    "wrong, code", [pytest.param(False, 0, id="as printed"), pytest.param(True, 1, id="changed number")]
)
def test_a_run_ends_with_the_verdict(tmp_path, wrong, code):
    # a copy of the runner with a catalogue of its own, whose only script prints a number
    (tmp_path / "benchmarks").mkdir()
    copy = tmp_path / "benchmarks" / "catalogue.py"
    copy.write_text((BENCHMARKS / "catalogue.py").read_text())
    (tmp_path / "benchmarks" / "one.py").write_text(f"print('error: {4.2 if wrong else 3.5} years')\n")
    (tmp_path / "benchmarks" / "figures.toml").write_text(
        'modules = ["catalogue.py"]\n[[figure]]\nid = "one"\ntitle = "T"\ncommand = "one.py"\nseed = "0"\n'
        'data = "simulated"\npages = ["p.md"]\nquick = true\n'
        'numbers = [{ line = "error", printed = "3.5", read = \'error: (\\S+) years\', tolerance = 0.1 }]\n'
    )
    done = subprocess.run([sys.executable, str(copy), "quick"], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert ("the pages say 3.5, the script 4.2" in done.stdout) == wrong


@pytest.mark.parametrize("figure", CASES)
def test_the_script_takes_the_options_of_the_entry(figure):
    # long options must be named in the script or in what it imports; the argument parsers are built there by name
    text = (BENCHMARKS / figure.script).read_text()
    assert [part for part in shlex.split(figure.command) if part.startswith("--") and f'"{part}"' not in text] == []


@pytest.mark.parametrize("page", [pytest.param(p, id=p.stem) for p in sorted((ROOT / "docs/results").glob("*.md"))])
def test_pages_of_results_are_short_and_in_a_list_of_contents(page):
    assert len(page.read_text(encoding="utf-8").split()) <= LIMIT
    assert page.stem == "index" or f"\n{page.stem}\n" in (ROOT / "docs/results/index.md").read_text()
