"""Turns that read as translated do not come back into what users read; docs/developer/words.toml lists them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORDS = tomllib.loads((ROOT / "docs/developer/words.toml").read_text(encoding="utf-8"))["word"]
RULES = [pytest.param(word, id=re.sub(r"\W+", "-", word["instance"])) for word in WORDS]

PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
PAGES = [path for path in PAGES if not {"_build", "generated", "tutorials"} & set(path.parts)]
SOURCES = sorted((ROOT / "src/agevi").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))


def text(path: Path) -> str:
    """What a reader sees: of a notebook its cells of text."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return content
    return "\n\n".join("".join(c["source"]) for c in json.loads(content)["cells"] if c["cell_type"] == "markdown")


TEXTS = {path: text(path) for path in (*PAGES, *SOURCES, *NOTEBOOKS)}


def found(content: str, pattern: str) -> list[str]:
    """Lines with the pattern, sentences that continue in the next line included."""
    lines = content.splitlines() or [""]
    out = []
    for number, (line, after) in enumerate(zip(lines, [*lines[1:], ""], strict=True), start=1):
        joined = f"{line.rstrip()} {after.lstrip()}" if after else line
        match = re.search(pattern, joined, flags=re.IGNORECASE)
        if match and match.start() < len(line):
            out.append(f"{number}: {line.strip()}")
    return out


@pytest.mark.parametrize("word", RULES)
def test_texts_read_as_written_in_english(word: dict[str, str]) -> None:
    lines = [f"{path.relative_to(ROOT)}:{row}" for path, c in TEXTS.items() for row in found(c, word["pattern"])]
    assert not lines, f"write {word['better']!r} ({word['why']}) in\n" + "\n".join(lines)


@pytest.mark.parametrize("word", RULES)
def test_a_rule_finds_its_own_instance(word: dict[str, str]) -> None:
    assert found(word["instance"], word["pattern"]) and not found(word.get("fine", ""), word["pattern"])
    assert word["better"] and word["why"]


def test_headings_of_docstrings_stand_on_a_line_of_their_own() -> None:
    assert not [line for path in SOURCES for line in found(TEXTS[path], r"[A-Z][a-z]+ -{4,} \w")]


def test_a_sentence_over_two_lines_is_found() -> None:
    (negation,) = [word["pattern"] for word in WORDS if word["instance"] == "Such ages are no numbers."]
    page = "Values that are\nno numbers.\nThere are no epochs.\nIt is no longer there.\n"
    assert found(page, negation) == ["1: Values that are"]


def test_cells_of_text_of_a_notebook_are_read(tmp_path: Path) -> None:
    cells = [{"cell_type": "markdown", "source": ["One\n", "two"]}, {"cell_type": "code", "source": ["three"]}]
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    assert text(path) == "One\ntwo"
