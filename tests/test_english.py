"""Words and turns that read as translated do not come back into what users read; each entry names the plain term."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TERMS = {
    r"\bby heart\b": "memorised",
    r"counts? that gets? lost": "zero-inflated counts",
    r"behind \S+ back\b": "say what is copied or registered",
    r"\bgravest\b": "most severe",
    r"check that \w+(?: \w+)? are some\b": "a check that the values really are ...",
}
NEGATION = r"(?<!there )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|better\b|worse\b|other\b|larger\b|smaller\b)"
"""``is no number``: a native writer says ``is not a number``, ``is not numeric``. ``There is no ...`` is fine."""
BASELINE = r"\b(?:a|an? \w+) guess\b|\bguessing the median\b"
REPEATS = r"\bdivisions?\b"

EXCEPTIONS: tuple[str, ...] = ()
"""Parts of lines in which a term means what it says."""

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [path for path in PAGES if "developer" not in path.parts and "_build" not in path.parts]  # lists the terms
SOURCES = sorted((ROOT / "src/agevi").rglob("*.py"))


def found(path: Path, pattern: str) -> list[str]:
    """Lines with the pattern, sentences that go on in the next line included."""
    lines = path.read_text(encoding="utf-8").splitlines()
    out = []
    for number, (line, after) in enumerate(zip(lines, [*lines[1:], ""], strict=True), start=1):
        joined = f"{line.rstrip()} {after.lstrip()}" if after else line
        match = re.search(pattern, joined, flags=re.IGNORECASE)
        if match and match.start() < len(line) and not any(text in joined for text in EXCEPTIONS):
            out.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    return out


@pytest.mark.parametrize("pattern, plain", TERMS.items(), ids=TERMS.values())
def test_terms_of_the_field_are_used(pattern: str, plain: str) -> None:
    lines = [line for path in (*PAGES, *SOURCES) for line in found(path, pattern)]
    assert not lines, f"write {plain!r} in " + "\n".join(lines)


@pytest.mark.parametrize(
    "pattern, plain",
    [
        pytest.param(NEGATION, "is not a ...", id="negation"),
        pytest.param(BASELINE, "the baseline", id="baseline"),
        pytest.param(REPEATS, "repeats", id="repeats"),
    ],
)
def test_sentences_read_as_written_in_english(pattern: str, plain: str) -> None:
    lines = [line for path in (*PAGES, *SOURCES) for line in found(path, pattern)]
    assert not lines, f"write {plain!r} in " + "\n".join(lines)


def test_headings_of_docstrings_stand_on_a_line_of_their_own() -> None:
    assert not [line for path in SOURCES for line in found(path, r"[A-Z][a-z]+ -{4,} \w")]


def test_a_sentence_over_two_lines_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("Values that are\nno numbers.\nThere are no epochs.\nIt is no longer there.\n")
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    assert found(page, NEGATION) == ["page.md:1: Values that are"]
