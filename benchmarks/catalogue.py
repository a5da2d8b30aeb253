"""The catalogue of results: lists the figures of the README and the site, runs some of them again, and compares.

usage: python benchmarks/catalogue.py             # the list
       python benchmarks/catalogue.py ID ...      # run these; "quick" stands for all that need less than a CPU minute

Entries are in ``figures.toml``, which explains its fields. A run prints each number that differs by more than its tolerance from the one
on the pages, and ends with exit code 1 if there is any.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


@dataclass(frozen=True)
class Number:
    """One printed number: where it stands on the pages, and how it is found in what the script prints."""

    printed: str
    line: str
    pages: tuple[str, ...]
    read: str = ""
    tolerance: float = 0.0

    @property
    def value(self) -> float:
        return float(self.printed.rstrip("%").replace(",", ""))

    def missing(self, root: Path = ROOT) -> list[str]:
        """Pages without the number in a row of a table, or in a paragraph, that contains ``line``."""
        token = re.compile(rf"(?<![\d.])(?<!\d,)(?<!e-){re.escape(self.printed)}(?!\d|[.,]\d)")
        return [page for page in self.pages if not any(token.search(row) for row in self._rows(root / page))]

    def _rows(self, page: Path) -> list[str]:
        rows = []
        for paragraph in page.read_text(encoding="utf-8").split("\n\n"):
            lines = paragraph.splitlines()
            text = " ".join(line.strip() for line in lines if not line.startswith("|"))
            rows += [row for row in (text, *(line for line in lines if line.startswith("|"))) if self.line in row]
        return rows

    def problem(self, output: str) -> str:
        """What is wrong with the number in the output of the script; empty if it agrees."""
        match = re.search(self.read, output, flags=re.MULTILINE)
        if match is None:
            return f"nothing in the output matches {self.read!r}"
        try:
            found = float(match[1].rstrip("%").replace(",", ""))
        except ValueError:
            return f"{self.line!r}: the script prints {match[1]!r}, which is not a number"
        if abs(found - self.value) <= self.tolerance + 1e-9:
            return ""
        return f"{self.line!r}: the pages say {self.printed}, the script {match[1]} (tolerance {self.tolerance:g})"


@dataclass(frozen=True)
class Figure:
    """One entry of the catalogue."""

    id: str
    title: str
    command: str
    seed: str
    data: str
    pages: tuple[str, ...]
    numbers: tuple[Number, ...] = ()
    cpu: float | None = None
    memory: float | None = None
    quick: bool = False

    @property
    def script(self) -> str:
        return shlex.split(self.command)[0]

    @property
    def cost(self) -> str:
        known = [f"{self.cpu:g} CPU min" if self.cpu else "", f"{self.memory:g} GB" if self.memory else ""]
        return ", ".join(filter(None, known)) or "not measured"

    def problems(self, output: str) -> list[str]:
        """Numbers that the output does not confirm."""
        return [text for number in self.numbers if number.read and (text := number.problem(output))]


def entry(fields: dict[str, Any]) -> Figure:
    """A figure from a table of the TOML file."""
    pages = tuple(fields["pages"])
    numbers = tuple(Number(**{**n, "pages": tuple(n.get("pages", pages))}) for n in fields.get("numbers", ()))
    return Figure(**{**fields, "pages": pages, "numbers": numbers})


def load(path: Path = HERE / "figures.toml") -> tuple[list[Figure], list[str]]:
    """All figures, and the files of this folder that are parts of other scripts."""
    found = tomllib.loads(path.read_text(encoding="utf-8"))
    return [entry(fields) for fields in found["figure"]], list(found["modules"])


def listing(figures: list[Figure]) -> str:
    """The list that ``make benchmarks`` prints."""
    lines = []
    for figure in figures:
        lines.append(f"{figure.id}{' (quick)' if figure.quick else ''}: {figure.title}")
        lines.append(f"    python benchmarks/{figure.command.replace('{tmp}', 'FOLDER')}")
        lines.append(f"    seed {figure.seed}; data: {figure.data}; cost: {figure.cost}; on {', '.join(figure.pages)}")
    return "\n".join([*lines, f"{len(figures)} figures, {sum(f.quick for f in figures)} of them quick"])


def chosen(figures: list[Figure], names: list[str]) -> list[Figure]:
    """The figures with these ids; ``quick`` stands for all quick ones."""
    known = {figure.id: [figure] for figure in figures} | {"quick": [f for f in figures if f.quick]}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"no figure is called {unknown[0]!r}; `make benchmarks` lists them")
    return list(dict.fromkeys(figure for name in names for figure in known[name]))


def run(figure: Figure) -> list[str]:
    """Problems of a figure after its script has run."""
    start, before = time.perf_counter(), os.times()
    with tempfile.TemporaryDirectory() as folder:
        arguments = [part.replace("{tmp}", folder) for part in shlex.split(figure.command)]
        environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MPLBACKEND": "Agg"} | os.environ
        command = [sys.executable, str(HERE / arguments[0]), *arguments[1:]]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    problems = figure.problems(done.stdout) if done.returncode == 0 else [f"exit code {done.returncode}", done.stderr]
    compared = sum(bool(number.read) for number in figure.numbers)
    verdict = f"{compared} numbers agree" if not problems else "DIFFERS" if done.returncode == 0 else "FAILED"
    print(f"{figure.id}: {verdict} ({time.perf_counter() - start:.0f} s, {cpu:.0f} CPU s)", flush=True)
    if not compared:
        print(done.stdout)
    for problem in problems:
        print(f"    {problem}", flush=True)
    return problems


def main() -> None:
    """Print the list, or run and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", help='figures to run; "quick" for all quick ones')
    names = parser.parse_args().ids
    figures, _ = load()
    if not names:
        print(listing(figures))
        return
    problems = [run(figure) for figure in chosen(figures, names)]
    if any(problems):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
