"""How the results were made: calls, settings, seeds and versions."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from agevi import _compat, _keys
from agevi._report._blocks import Block, Code, Heading, Section, Table, Text
from agevi._report._cohort import DONE, Cohort
from agevi._report._numbers import Column, number, table
from agevi._report._page import printable

PACKAGES = ("agevi", "scvi-tools", "torch", "anndata", "scanpy", "numpy", "scipy", "pandas", "matplotlib")
_LONGEST = 8
"""Values of a setting that are listed."""
_NUMBERS = ("scores", "residuals", "coefficients", "features", "origin", "shift_var", "degree")
"""What parameters hold beside arguments."""


def made_section(cohort: Cohort) -> Section:
    """How to make the results again."""
    blocks: list[Block] = []
    steps = cohort.study()
    if steps is not None:
        blocks += _steps(steps)
    blocks += [_settings(cohort), Heading("Versions"), _versions(cohort)]
    return Section("made", "How this was made", "Methods", blocks)


def _steps(steps: pd.DataFrame) -> list[Block]:
    """The calls of a study, and what it left out."""
    done = steps["status"].astype(str) == DONE
    blocks: list[Block] = [
        Text("Every step is a public call, so that you can go on by hand."),
        Code("\n".join([*_imports(steps.loc[done, "call"]), "", *steps.loc[done, "call"].astype(str)]), "Calls"),
    ]
    if not done.all():
        columns = {"step": Column("Step"), "reason": Column("Why"), "call": Column("Call")}
        blocks.append(table(steps[~done], columns, name="left-out", caption="What was left out, and why"))
    if "seconds" in steps:
        seconds = pd.to_numeric(steps["seconds"], errors="coerce")
        if seconds.notna().any():
            blocks.append(Text(f"It took {number(seconds.sum(), 0)} seconds.", small=True))
    return blocks


def _imports(calls: pd.Series) -> list[str]:
    """What the calls need."""
    return ["import agevi", *(["import numpy as np"] if calls.astype(str).str.contains(r"\bnp\.").any() else [])]


def _settings(cohort: Cohort) -> Table:
    """Arguments and seeds of every tool, as they were recorded."""
    rows = [
        {"tool": writer, "setting": name, "value": value}
        for writer, params in _recorded(cohort)
        for name, value in _flat(params)
    ]
    frame = pd.DataFrame(rows, columns=["tool", "setting", "value"])
    columns = {"tool": Column("Tool"), "setting": Column("Setting"), "value": Column("Value")}
    seeds = frame[frame["setting"].isin(["rng", "seed"])]
    note = "" if seeds.empty else "Seeds are the rows rng and seed."
    return table(frame, columns, name="settings", caption="Settings and seeds, as they were recorded", note=note)


def _recorded(cohort: Cohort) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Arguments by the tool that recorded them."""
    record = cohort.record
    own = record.get("params", {})
    if record:
        writer = "tl.cross_validate" if "n_folds" in own else "tl.predict_age"
        about = (
            "model",
            "members",
            "subject_key",
            "sample_key",
            "age_key",
            "age_unit",
            "age_transform",
            "recalibrated_from",
        )
        yield writer, {**{k: record[k] for k in about if k in record}, **own}
    for noun, slot in _keys.SLOTS.items():
        if noun.endswith("_params") and noun != "by_group_params" and cohort.has(noun):
            found = getattr(cohort.adata, slot.where)[cohort.keys.table(noun)]
            if isinstance(found, Mapping):
                yield slot.writers.split(",")[0], {k: v for k, v in found.items() if k not in _NUMBERS}
    if cohort.has("attribution"):
        yield "tl.attribute_genes", cohort.adata.uns[cohort.keys.attribution_groups].get("params", {})


def _flat(params: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names and values, those of dictionaries with a point between, without what was left at nothing."""
    for name, value in sorted(params.items()):  # files have an order of their own
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif isinstance(value, pd.DataFrame):
            continue
        else:
            text = _shown(value)
            if text:
                yield f"{before}{name}", text


def _shown(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, np.ndarray | list | tuple):
        found = [str(v) for v in np.ravel(np.asarray(value, dtype=object))]
        return ", ".join(found[:_LONGEST]) + (f", ... ({len(found):,})" if len(found) > _LONGEST else "")
    if isinstance(value, float | np.floating):
        return f"{float(value):.6g}"
    text = printable(str(value))
    return text if len(text) <= 400 else f"{text[:400]}..."


def _versions(cohort: Cohort) -> Table:
    """What is installed now, and what made the predictions."""
    rows = [{"package": name, "version": _compat.version(name)} for name in PACKAGES]
    rows.append({"package": "Python", "version": platform.python_version()})
    made = str(cohort.record.get("version") or "")
    note = f"The predictions were made with agevi {made}." if made else ""
    return version_table(rows, note)


def version_table(rows: list[dict[str, str]], note: str = "") -> Table:
    """Packages with their versions, those that are installed."""
    frame = pd.DataFrame([row for row in rows if row["version"]])
    return table(frame, {"package": Column("Package"), "version": Column("Version")}, name="versions",
                 caption="Versions of what this page was made with", note=note)  # fmt: skip
