"""What every notebook of the tutorials keeps to: executed, quiet, one story from the data on, small, with links that lead somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 500_000  # bytes
SET_UP = r"\blogging\b|set_option|filterwarnings|simplefilter|verbosity|basicConfig"
FORK = r"os\.environ|\.exists\(\)|^\s*if real\b"
PLACE = r"(?<![\w.~/])/(?:tmp|home|root|work|Users|private|opt|usr)/\w"


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def texts(output: dict[str, Any]) -> Iterator[str]:
    """What a reader sees of an output as text or HTML."""
    yield "".join(output.get("text", ()))
    yield from ("".join(value) for kind, value in output.get("data", {}).items() if kind.startswith("text/"))


def problems(notebook: dict[str, Any]) -> list[str]:
    """What is wrong with a notebook, in the order of its cells."""
    out = [] if notebook["metadata"].get("kernelspec", {}).get("name") == "python3" else ["kernel is not python3"]
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    if not source(notebook["cells"][0]).startswith("# "):
        out.append("no title in the first cell")
    if [cell["execution_count"] for cell in code] != list(range(1, len(code) + 1)):
        out.append("not executed from the first cell to the last")
    if re.search(SET_UP, source(code[0])):
        out.append("the first cell sets things up")
    for number, cell in enumerate(code, start=1):
        if re.search(FORK, source(cell), flags=re.MULTILINE):
            out.append(f"cell {number} depends on the machine")
        for output in cell["outputs"]:
            if output["output_type"] == "error" or output.get("name") == "stderr":
                out.append(f"cell {number} has an error or a warning")
            if any(re.search(PLACE, text) for text in texts(output)):
                out.append(f"cell {number} shows a path of the machine")
    return out


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_executed_quiet_and_the_same_on_every_machine(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    assert problems(json.loads(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_a_figure_and_links_that_lead_somewhere(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    links = {link for cell in cells for link in re.findall(r"\]\((?!https?:)([^)#]+)", source(cell))}
    assert [link for link in links if not (FOLDER / link).is_file()] == []


def test_notebooks_are_numbered_without_gaps() -> None:
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{number:02d}_" for number in range(1, len(NOTEBOOKS) + 1)]


def page(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": [text]}


def ran(code: str, number: int = 1, **output: Any) -> dict[str, Any]:
    outputs = [{"output_type": "stream", "name": "stdout"} | output] if output else []
    return {"cell_type": "code", "source": [code], "execution_count": number, "outputs": outputs}


@pytest.mark.parametrize(
    "cells, wrong",
    [
        pytest.param([page("# A"), ran("1", text=["7.5 of /var/x"])], [], id="nothing"),
        pytest.param([page("A"), ran("1")], ["no title in the first cell"], id="title"),
        pytest.param([page("# A"), ran("1", 2)], ["not executed from the first cell to the last"], id="order"),
        pytest.param([page("# A"), ran("pd.set_option(1)")], ["the first cell sets things up"], id="set up"),
        pytest.param([page("# A"), ran("1"), ran("if real:", 2)], ["cell 2 depends on the machine"], id="fork"),
        pytest.param([page("# A"), ran("1", name="stderr")], ["cell 1 has an error or a warning"], id="warning"),
        pytest.param([page("# A"), ran("1", text=["in /tmp/x"])], ["cell 1 shows a path of the machine"], id="path"),
    ],
)
def test_what_is_wrong_with_a_notebook_is_found(cells: list[dict[str, Any]], wrong: list[str]) -> None:
    assert problems({"metadata": {"kernelspec": {"name": "python3"}}, "cells": cells}) == wrong
