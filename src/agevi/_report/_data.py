"""What the data are, and what the gates found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from agevi import _keys, pl
from agevi._report._blocks import Absent, Block, Callout, Fact, Facts, Heading, Section, Side, Table, Text
from agevi._report._cohort import Cohort, spread
from agevi._report._numbers import Column, counted, digits_of, interval, number, percent, table, whole
from agevi.pl._base import role_name

SEVERITIES = {
    "high": "trust no score before it is settled",
    "medium": "read a score beside it",
    "low": "good to know",
    "none": "nothing was found",
}
"""What a severity of an audit asks for."""
AUDIT = ("check", "finding", "severity", "advice")
_ROLES = {
    _keys.TRAIN: "The clock was fitted to their ages; their errors do not count as accuracy.",
    _keys.VALIDATION: "They chose the epoch, or were watched; their errors do not count as accuracy.",
    _keys.TEST: "Held out for testing; these errors are the accuracy.",
    _keys.OUT_OF_FOLD: "Predicted by a clock that never saw them; these errors are the accuracy.",
    _keys.NEW: "Unknown to the clock; where ages are known, these errors are the accuracy.",
    _keys.RECALIBRATION: "Their ages moved the predictions of their cohort; their errors do not count as accuracy.",
    "": "How the clock used them was not recorded.",
}


def data_section(cohort: Cohort) -> Section:
    """Numbers of cells, genes and subjects, ages and roles, and the audit."""
    samples = cohort.subjects()
    blocks: list[Block] = [_facts(cohort, samples)]
    figure = _ages(cohort, samples)
    if len(samples):
        roles = _roles(samples)
        blocks.append(Side(figure, [roles]) if figure else roles)
        blocks += _lacking(samples)
    coverage = cohort.record.get("gene_coverage")
    if coverage is not None and float(coverage) < 0.9:
        title = f"Of the genes of the clock, {percent(float(coverage))} are there"
        blocks.append(Callout("warn", title, "Absent genes enter at their training mean."))
    return Section("data", "The data, and what the checks found", "Data", [*blocks, *_audit(cohort)])


def _facts(cohort: Cohort, samples: pd.DataFrame) -> Facts:
    """Sizes and ages."""
    adata, record = cohort.adata, cohort.record
    facts = [Fact("Cells", whole(adata.n_obs)), Fact("Genes", whole(adata.n_vars))]
    if len(samples):
        n = samples["subject"].nunique()
        facts.append(Fact("Subjects", whole(n), f"column {record['subject_key']}" if record.get("subject_key") else ""))
        if len(samples) != n:
            facts.append(Fact("Samples", whole(len(samples)), f"column {record.get('sample_key') or ''}"))
        low, high = spread(samples["age"])
        digits = digits_of(samples["age"])
        facts.append(Fact(f"Ages ({cohort.unit})", interval(low, high, digits),
                          f"median {number(samples['age'].median(), digits)}"))  # fmt: skip
    if record.get("model"):
        facts.append(Fact("Clock", str(record["model"]), str(record.get("members") or "").replace(";", ", ")))
    return Facts(facts)


def _ages(cohort: Cohort, samples: pd.DataFrame) -> Any:
    """How many subjects there are of each age."""
    record, adata = cohort.record, cohort.adata
    age_key, subject_key = record.get("age_key"), record.get("subject_key")
    if age_key not in adata.obs or subject_key not in adata.obs or not samples["age"].notna().any():
        return None
    palette = cohort.palette()
    group = cohort.params("acceleration").get("groupby") if palette else None
    low, high = spread(samples["age"])
    digits = digits_of(samples["age"])
    n = samples["subject"].nunique()
    of_groups = f", by {group}" if group else ""
    return cohort.figures.draw(
        pl.age_distribution, adata, age_key=age_key, subject_key=subject_key, groupby=group, age_unit=cohort.unit,
        palette=palette,
        alt=(
            f"Histogram of the ages of {counted(n, 'subject')}{of_groups}: from {number(low, digits)} to "
            f"{number(high, digits)} {cohort.unit}, half of them below {number(samples['age'].median(), digits)}."
        ),
        caption=f"Subjects by age{of_groups}.",
    )  # fmt: skip


def _roles(samples: pd.DataFrame) -> Table:
    """How many samples have each role, and what that means."""
    rows = []
    for role in ("", *_keys.ROLES):
        own = samples[samples["role"] == role]
        if len(own):
            name = role_name(role)
            rows.append({"role": name[0].upper() + name[1:], "subjects": own["subject"].nunique(), "samples": len(own),
                         "meaning": _ROLES[role]})  # fmt: skip
    columns = {"role": Column("Role"), "subjects": Column("Subjects", whole), "meaning": Column("What it means")}
    return table(pd.DataFrame(rows), columns, name="roles", caption="What subjects were to the clock")


def _lacking(samples: pd.DataFrame) -> list[Block]:
    """Samples without age or prediction."""
    lacks = {"an age": samples["age"].isna().sum(), "a prediction": samples["predicted"].isna().sum()}
    said = [f"{counted(int(n), 'sample')} without {what}" for what, n in lacks.items() if n]
    return [Text(f"Left out of the accuracy: {', '.join(said)}.")] if said else []


def stored_audit(cohort: Cohort) -> pd.DataFrame | None:
    """The findings that were passed or are kept with the data."""
    found = cohort.audit if cohort.audit is not None else cohort.adata.uns.get(f"{cohort.key}_study_audit")
    return found if isinstance(found, pd.DataFrame) and set(AUDIT) <= set(found) else None


def _audit(cohort: Cohort) -> list[Block]:
    """The findings, the most severe first, and how many there are of each severity."""
    found = stored_audit(cohort)
    heading = Heading("What the checks found")
    if found is None:
        call = "agevi.report(adata, path, audit=agevi.pp.audit_leakage(adata, subject_key=..., age_key=...))"
        return [heading, Absent("The data were not examined for leaks, or the findings were not kept.", call)]
    severity = found["severity"].astype(str)
    n = severity.value_counts()
    counts = ", ".join(f"{n[s]} {s} ({meaning})" for s, meaning in SEVERITIES.items() if n.get(s) and s != "none")
    level: Any = "bad" if n.get("high") else "warn" if n.get("medium") else "good"
    title = {
        "bad": f"{counted(int(n.get('high', 0)), 'finding')} of high severity: settle before trusting any score",
        "warn": "Nothing of high severity; some findings have to be read beside the error",
        "good": "The checks found nothing that makes the error look better than it is",
    }[level]
    order = severity.map(list(SEVERITIES).index).to_numpy()
    shown = found.iloc[np.argsort(order, kind="stable")]
    shown = shown.assign(**{name: shown[name].map(_sentence) for name in ("check", "finding")})
    columns = {"check": Column("Check"), "severity": Column("Severity"), "finding": Column("Finding"),
               "advice": Column("What to do")}  # fmt: skip
    return [
        heading,
        Callout(level, title, f"{counts}." if counts else ""),
        table(shown, columns, name="audit", caption="Findings of the audit for leaks, the most severe first"),
    ]


def _sentence(text: Any) -> str:
    """A text that begins with a capital."""
    return str(text)[:1].upper() + str(text)[1:]
