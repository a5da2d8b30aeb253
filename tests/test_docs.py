from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import tomllib
from pathlib import Path

import pytest

import agevi
from agevi._docs import _PLACE, shared

ROOT = Path(__file__).parents[1]
PUBLIC = [
    pytest.param(getattr(module, name), id=f"{module.__name__}.{name}")
    for module in (
        agevi.clocks,
        agevi.datasets,
        agevi.get,
        agevi.io,
        agevi.metrics,
        agevi.model,
        agevi.pl,
        agevi.pp,
        agevi.tl,
    )
    for name in module.__all__
    if callable(getattr(module, name))
]


def documented():
    """A function.

    Parameters
    ----------
    %(first)s
    other
        Not shared.
    %(second)s
    """


def test_entries_stand_in_place_of_their_lines_with_the_indent_of_these():
    entries = {
        "first": "\n        first\n            One line,\n\n            and a paragraph.\n",
        "second": "\n        second\n            Of it.\n",
    }
    found = inspect.getdoc(shared(documented, entries))
    assert found.split("----------\n")[1] == (
        "first\n    One line,\n\n    and a paragraph.\nother\n    Not shared.\nsecond\n    Of it."
    )


def test_an_unknown_entry_is_an_error():
    def function():
        """Function.

        %(nothing)s
        """

    with pytest.raises(KeyError, match="nothing"):
        shared(function)


@pytest.mark.parametrize("obj", PUBLIC)
def test_no_place_is_left_open(obj):
    members = [inspect.getattr_static(obj, name) for name in dir(obj) if not name.startswith("_")]
    own = [m for m in (obj, *members) if (getattr(m, "__module__", None) or "").startswith("agevi")]
    assert own and not any(_PLACE.search(m.__doc__ or "") for m in own)


def test_the_version_of_the_package_is_that_of_the_citation_and_of_the_newest_changes():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert agevi.__version__ == version
    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), flags=re.MULTILINE)[1] == version
    assert re.search(r"^## \[(\d.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1] == version


def tool(name):
    """A module of the folder of the site."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_links_that_lead_nowhere_are_found(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text('<a href="sub/page.html#here">1</a> <a href="https://elsewhere.org/x">2</a>')
    (tmp_path / "sub" / "page.html").write_text(
        '<h1 id="here">x</h1><a href="#here">3</a><a href="../index.html">4</a>'
    )
    find = tool("check_links").dead_links
    assert find(tmp_path) == []
    (tmp_path / "sub" / "page.html").write_text('<h1 id="there">x</h1><img src="none.png">')
    assert find(tmp_path) == ["index.html: sub/page.html#here", "sub/page.html: none.png"]
    (tmp_path / "index.html").write_text('<a href="/etc/passwd">1</a> <a href="../..">2</a> <a href="#top">3</a>')
    assert find(tmp_path)[:2] == ["index.html: /etc/passwd", "index.html: ../.."]


def test_no_page_of_the_site_has_more_than_1500_words():
    pages = [
        page for page in (ROOT / "docs").rglob("*.md") if not {"generated", "_build", "tutorials"} & set(page.parts)
    ]
    words = {page.name: len(page.read_text().split()) for page in pages if page.name not in ("gallery.md", "slots.md")}
    assert len(words) > 50 and {name: n for name, n in words.items() if n > 1500} == {}


def test_every_model_has_a_page():
    titles = {page.read_text().splitlines()[0] for page in (ROOT / "docs" / "models").glob("*.md")}
    assert {f"# {cls.__name__}" for cls in agevi.model.MODELS} <= titles


def test_the_gallery_has_every_figure_once_and_its_code_draws_it():
    found = tool("make_gallery")
    assert sorted(entry.name for entry in found.ENTRIES) == sorted(agevi.pl.__all__)
    for entry in found.ENTRIES:
        assert f"agevi.pl.{entry.name}(" in found.plain(entry.code).splitlines()[-1], entry.name
        assert f"_static/gallery/{entry.name}.png\n:alt: {entry.seen}" in found.page()


def test_every_page_of_the_guide_is_in_a_list_of_contents():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = [page.stem for page in (ROOT / "docs" / "user_guide").glob("*.md")]
    assert len(pages) > 20 and [page for page in pages if f"\nuser_guide/{page}\n" not in index] == []


NAMED = re.compile(r"`(?:agevi\.)?((?:tl|pp|pl|get|io|model|clocks|datasets)\.\w+)")


@pytest.mark.parametrize("page", ["README.md", "docs/user_guide/tasks.md", "docs/index.md"])
def test_functions_that_a_page_names_exist(page):
    names = set(NAMED.findall((ROOT / page).read_text())) - {"model.train", "model.save"}
    missing = [name for name in names if not hasattr(getattr(agevi, name.split(".")[0]), name.split(".")[1])]
    assert [name for name in missing if not hasattr(agevi.model.PLSClock, name.split(".")[1])] == []


@pytest.mark.slow  # a study and a comparison of groups
def test_the_code_of_the_readme_runs_from_the_first_line_to_the_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of_all, compare = agevi.datasets.tcells, agevi.tl.compare_models
    monkeypatch.setattr(agevi.datasets, "tcells", lambda: of_all(60, 10))
    monkeypatch.setattr(agevi.tl, "compare_models", lambda adata, _, **key: compare(adata, ["PLSClock"], **key))
    code = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(code) >= 4
    known = {}
    for block in code:
        exec(block, known)
    assert "older" in known["agevi"].get.acceleration_df(known["adata"])["sentence"][0]
    assert (tmp_path / "report.html").exists() and type(agevi.io.load_clock("clock")).__name__ == "PLSClock"
