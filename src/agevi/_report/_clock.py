"""The page of a clock: its card, its settings and its versions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from agevi._report._blocks import Block, Callout, Cell, Code, Fact, Facts, Head, Section, Table, Text
from agevi._report._made import _flat, version_table
from agevi._report._numbers import Column, counted, interval, number, percent, table, whole
from agevi._report._verdict import CHANCE, GOOD, TITLE, WORSE, few
from agevi.tl.predict._judged import FEW_SUBJECTS

_BOLD = re.compile(r"\*\*(.+?)\*\*")


def clock_sections(meta: Mapping[str, Any], card: str) -> list[Section]:
    """Whether it beats the median, its card, and what it was made with."""
    return [
        Section("verdict", TITLE, "Verdict", _verdict(meta)),
        Section("card", "What the clock is", "Card", list(_blocks(card))),
        Section("made", "How this was made", "Methods", _made(meta)),
    ]


def _verdict(meta: Mapping[str, Any]) -> list[Block]:
    """What the clock reports on its error on held-out subjects."""
    found = meta.get("evaluation")
    if not found:
        text = "The clock does not tell how well held-out subjects are predicted."
        call = "clock.set_evaluation(adata)  # after tl.cross_validate and tl.aggregate_subjects; then save the clock"
        trained = "n_subjects" in meta.get("age", {})
        return [Callout("plain", "Not known", text), *([Code(call, "Call")] if trained else [])]
    unit, mae, median = found["age_unit"], found["mae"], found["mae_median"]
    low, high = found["mae_low"], found["mae_high"]
    n = found["n_subjects"]
    who = f"Over {counted(n, 'subject')} that it never saw"
    if "out_of_fold" in found["roles"]:
        who = f"Over {counted(n, 'subject')}, each predicted by a clock of the same recipe that never saw it"
    text = (
        f"{who}, ages are off by {number(mae)} {unit} on average (95 % interval {interval(low, high)}). Predicting the "
        f"median age for everyone is off by {number(median)} {unit}."
    )
    level, title = GOOD
    if n < FEW_SUBJECTS:
        level, title = few(n)
    elif mae >= median:
        level, title = WORSE
    elif high is None or high >= median:
        level, title = CHANCE
    facts = [
        Fact("Error of the clock", f"{number(mae)} {unit}", f"95 % interval {interval(low, high)}"),
        Fact("Error of the median age", f"{number(median)} {unit}"),
        Fact(
            "Slope",
            number(found["slope"], 2),
            f"Pearson\N{RIGHT SINGLE QUOTATION MARK}s r {number(found['pearson'], 2)}",
        ),
    ]
    if "intervals" in found:
        own = found["intervals"]
        facts.append(
            Fact(
                "Ages inside intervals",
                percent(own["coverage"]),
                f"at a level of {percent(own['level'])}, {number(own['width'])} {unit} wide",
            )
        )
    return [Callout(level, title, text), Facts(facts, large=True)]


def _blocks(card: str) -> Iterator[Block]:
    """A card, whose Markdown is that of agevi: paragraphs, tables and code. Everything in it is text."""
    lines = card.splitlines()
    while lines:
        line = lines.pop(0)
        if line.startswith("```"):
            inside = []
            while lines and not lines[0].startswith("```"):
                inside.append(lines.pop(0))
            lines[:1] = []
            yield Code("\n".join(inside))
        elif line.startswith("|"):
            rows = [line]
            while lines and lines[0].startswith("|"):
                rows.append(lines.pop(0))
            yield _table(rows)
        elif line.strip() and not line.startswith("#"):
            while lines and lines[0].strip() and not lines[0].startswith(("|", "```", "#")):
                line += " " + lines.pop(0)
            if line != "**Use it**":
                yield Text(_BOLD.sub(r"\1", line).replace("`", ""))


def _table(rows: list[str]) -> Table:
    """A table of a card."""
    cells = [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows]
    head, body = cells[0], [row for row in cells[1:] if set("".join(row)) - set("- :")]
    width = len(head)
    return Table("members", "Parts of the clock", [Head(name.capitalize()) for name in head],
                 [[Cell(text) for text in (row + [""] * width)[:width]] for row in body])  # fmt: skip


def _made(meta: Mapping[str, Any]) -> list[Block]:
    """Settings and versions of a clock."""
    rows = [
        {"part": part, "setting": name, "value": value}
        for part in ("init", "setup", "age")
        for name, value in _flat({k: v for k, v in meta.get(part, {}).items() if v is not None})
    ]
    names = {"init": "Model", "setup": "Data", "age": "Training ages"}
    frame = pd.DataFrame(rows, columns=["part", "setting", "value"])
    columns = {"part": Column("Part"), "setting": Column("Setting"), "value": Column("Value")}
    settings = table(
        frame.assign(part=frame["part"].map(names)), columns, name="settings", caption="Settings of the clock"
    )
    packages = [{"package": str(k), "version": str(v)} for k, v in meta.get("versions", {}).items()]
    out: list[Block] = [settings]
    if packages:
        out.append(version_table(packages, "These are the versions that it was trained with."))
    return out


def facts_of(meta: Mapping[str, Any]) -> str:
    """One line below the title."""
    age = meta.get("age", {})
    parts = [str(meta.get("class", "")), f"{whole(len(meta['genes']))} features" if meta.get("genes") else ""]
    if "n_subjects" in age:
        parts.append(f"trained on {counted(int(age['n_subjects']), 'subject')}")
    return ", ".join(part for part in parts if part)
