"""Predicted and actual ages, their intervals, and the table of subjects."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from agevi import _keys, get, pl
from agevi._report._blocks import Block, Fact, Facts, Heading, Section, Side, Table, Text
from agevi._report._cohort import Cohort, held, spread
from agevi._report._numbers import Column, counted, digits_of, interval, number, percent, rounded, table, whole
from agevi._report._verdict import with_unit
from agevi.pl._base import role_name

APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
_SHRUNK = 0.9  # slope below which predictions are said to be drawn to the mean
_ROWS = {
    "role": Column("Role"),
    "group": Column("Group"),
    "n_subjects": Column("Subjects", whole),
    "n": Column("Samples", whole),
    "mae": Column("Error ({unit})", rounded(2), "Mean absolute error"),
    "mae_low": Column("from", rounded(2), "95 % interval of the error, bootstrap over subjects"),
    "mae_high": Column("to", rounded(2)),
    "mae_median": Column(
        "Of the median age", rounded(2), "Error where the median training age is predicted for everyone"
    ),
    "pearson": Column(f"Pearson{APOSTROPHE}s r", rounded(2)),
    "slope": Column("Slope", rounded(2), "Of predicted on actual age; below 1 predictions are drawn to the mean"),
}


def ages_section(cohort: Cohort) -> Section:
    """Predicted against actual age, accuracy by group, and intervals."""
    title = "Predicted and actual age"
    samples = cohort.subjects()
    role = cohort.judged_role(samples)
    if samples.empty or role is None and not (samples["age"].notna() & samples["predicted"].notna()).any():
        return Section(
            "ages", title, "Ages", [cohort.absent("There are no samples with age and prediction.", "subjects")]
        )
    blocks: list[Block] = [Side(_scatter(cohort, samples, role), _reading(cohort, role)), *_by_role(cohort, samples)]
    if cohort.has("metrics"):
        blocks.append(_by_group(cohort))
    return Section("ages", title, "Ages", [*blocks, Heading("Intervals"), *_intervals(cohort, samples)])


def _scatter(cohort: Cohort, samples: pd.DataFrame, role: str | None) -> Any:
    """The figure of all samples."""
    own = held(samples, role) if role else samples[samples["age"].notna() & samples["predicted"].notna()]
    digits, unit = digits_of(own["age"]), cohort.unit
    ages, predicted = (interval(*spread(own[name]), digits) for name in ("age", "predicted"))
    alt = (
        f"Scatter plot of predicted against actual age of {counted(len(own), 'sample')}"
        f"{f' ({role_name(role)})' if role else ''}. Actual ages are {ages} {unit}, predicted ones {predicted} {unit}"
    )
    if role:
        row = cohort.accuracy(role)
        alt += (
            f"; the fitted line has slope {number(row['slope'], 2)}, and the correlation is {number(row['pearson'], 2)}"
        )
    hollow = " Hollow points shaped the clock." if samples["role"].isin(_keys.SHAPED_ROLES).any() else ""
    caption = (
        "One point is one sample. On the dashed line predictions are exact; the solid line is the fit to held-out "
        f"samples.{hollow}"
    )
    return cohort.figures.draw(
        pl.predicted_vs_actual, cohort.adata, key_added=cohort.key, alt=f"{alt}.", caption=caption
    )


def _reading(cohort: Cohort, role: str | None) -> list[Block]:
    """How to read the figure."""
    slope = np.nan
    if role:
        slope = float(cohort.accuracy(role)["slope"])
    if not np.isfinite(slope):
        return []
    shows = Text(
        f"A difference of 10 {cohort.unit} in age shows as {number(10 * slope, 1)} in the predictions (slope "
        f"{number(slope, 2)})."
    )
    shrunk = Text(
        "Predictions are drawn towards the mean age: the young look older than they are, and the old younger. So "
        "compare groups at equal age, and never by predicted minus actual age."
    )
    return [shows, shrunk] if slope < _SHRUNK else [shows]


def _by_role(cohort: Cohort, samples: pd.DataFrame) -> list[Block]:
    """Accuracy by role, where there are several."""
    known = samples[samples["age"].notna() & samples["predicted"].notna()]
    roles = [role for role in ("", *_keys.ROLES) if (known["role"] == role).any() and role != _keys.RECALIBRATION]
    if len(roles) < 2:
        return []
    rows = get.metrics_df(cohort.adata, key_added=cohort.key).rename_axis("role").reset_index()
    judged = rows["role"].isin(_keys.HELD_OUT_ROLES)
    rows["role"] = rows["role"].map(lambda name: role_name(name).capitalize()) + np.where(judged, "", " (not accuracy)")
    caption = "Error by what subjects were to the clock"
    return [table(rows, with_unit(_ROWS, cohort.unit), name="accuracy", caption=caption)]


def _by_group(cohort: Cohort) -> Table:
    """Accuracy of groups of samples, as ``tl.evaluate_by`` left it."""
    rows = get.metrics_by_df(cohort.adata, key_added=cohort.key)
    overall = rows["groupby"] == "overall"
    name = (rows["groupby"] + ": " + rows["group"].astype(str)).where(~overall, "All")
    return table(rows.assign(group=name), with_unit(_ROWS, cohort.unit), name="by-group",
                 caption="Error by group of held-out samples")  # fmt: skip


def _intervals(cohort: Cohort, samples: pd.DataFrame) -> list[Block]:
    """Intervals of samples, and how often they hold."""
    there = {"lower", "upper"} <= set(samples) and samples[["predicted", "lower", "upper"]].notna().all(axis=1)
    if not np.any(there):
        return [cohort.absent("Predicted ages have no intervals.", "calibration")]
    own = samples[there]
    digits, unit = digits_of(own["age"]), cohort.unit
    known = own[own["age"].notna()]
    inside = int(known["age"].between(known["lower"], known["upper"]).sum())
    level = (cohort.params("calibration") or cohort.params("recalibration")).get("level")
    at = "" if level is None else f" at {percent(float(level))}"
    alt = (
        f"Intervals of age{at} of {counted(len(own), 'sample')}, one row each, ordered by predicted age. "
        + (f"{inside} of {len(known)} known ages lie inside. " if len(known) else "")
        + f"Intervals are {number((own['upper'] - own['lower']).mean(), digits)} {unit} wide on average."
    )
    figure = cohort.figures.draw(
        pl.subject_intervals, cohort.adata, key_added=cohort.key, alt=alt,
        caption="The line is the interval, the point the predicted age, the stroke the actual age, red if outside.",
    )  # fmt: skip
    blocks: list[Block] = []
    if cohort.has("calibration"):
        blocks += _held(cohort, digits)
    elif len(known):
        blocks.append(Text(f"{inside} of {len(known)} known ages lie inside their interval{at}."))
    blocks.append(Text(
        "An interval is for the age of a subject like those that calibrated it, not for a biological age. A subject "
        "outside is unusual for the clock, or was mixed up; it need not be ill.", small=True,
    ))  # fmt: skip
    return [Side(figure, blocks)]


def _held(cohort: Cohort, digits: int) -> list[Block]:
    """How often intervals hold, overall and by group."""
    rows = get.calibration_df(cohort.adata, key_added=cohort.key)
    named = {"predicted": "predicted age", "age": "actual age", "n_cells": "cells"}
    by = rows["groupby"].map(lambda name: named.get(name, name))
    rows["group"] = (by + " " + rows["group"].astype(str)).where(rows["groupby"] != "overall", "all")
    first = rows.iloc[0]
    facts = Facts([
        Fact("Ages inside", percent(first["coverage"]),
             f"at a level of {percent(first['level'])}; 95 % interval {percent(first['coverage_low'])} to "
             f"{percent(first['coverage_high'])}"),
        Fact("Mean width", f"{number(first['width'], digits)} {cohort.unit}",
             f"{number(first['width_trivial'], digits)} from the ages alone, without a clock"),
    ])  # fmt: skip
    columns = {
        "group": Column("Samples"),
        "n": Column("n", whole),
        "coverage": Column("Inside", percent, "Share of ages inside their interval, judged by subjects of other folds"),
        "width": Column(f"Width ({cohort.unit})", rounded(digits)),
        "width_trivial": Column("Without a clock", rounded(digits), "Width of intervals from the ages alone"),
    }
    return [facts, table(rows, columns, name="coverage", caption="How often intervals hold the age")]


def subjects_section(cohort: Cohort) -> Section:
    """One row per sample with all that is known of it."""
    title, rows = "Subjects", cohort.subjects()
    if rows.empty:
        return Section("subjects", title, title, [cohort.absent("There is no table of subjects.", "subjects")])
    digits, unit = digits_of(rows["age"]), cohort.unit
    if (rows["sample"] == rows["subject"]).all():
        rows = rows.drop(columns="sample")
    rows = _with_others(cohort, rows)
    rows["role"] = rows["role"].map(role_name)
    if {"lower", "upper"} <= set(rows):
        inside = rows["age"].between(rows["lower"], rows["upper"])
        rows["inside"] = np.where(rows[["age", "lower", "upper"]].isna().any(axis=1), "", np.where(inside, "yes", "no"))
        if not (rows["inside"] != "").any():
            rows = rows.drop(columns=["lower", "upper", "inside"])
    if rows["role"].nunique() == 1 and "fold" in rows:
        rows = rows.drop(columns="role")
    columns = {
        "sample": Column("Sample"),
        "subject": Column("Subject"),
        "group": Column("Group"),
        "age": Column(f"Age ({unit})", rounded(digits)),
        "predicted": Column("Predicted", rounded(digits), f"Predicted age, {unit}"),
        "lower": Column("from", rounded(digits), "Interval of the age"),
        "upper": Column("to", rounded(digits)),
        "inside": Column("Age inside"),
        "acceleration": Column(
            "Acceleration", rounded(digits, sign=True), "Prediction minus what reference subjects of the same age get"
        ),
        "centile": Column(
            "Centile", whole, "Share of reference samples of the same age that look younger, in per cent"
        ),
        "n_cells": Column("Cells", whole),
        "role": Column("Role"),
        "fold": Column("Fold"),
    }
    note = (
        "Acceleration is relative to reference subjects of the same age, and says nothing about accuracy."
        if "acceleration" in rows
        else ""
    )
    shown = table(
        rows.sort_values("age", kind="stable"),
        columns,
        name="subjects",
        caption="Every sample, by age" if "sample" in rows else "Every subject, by age",
        note=note,
    )
    return Section("subjects", title, title, [shown])


def _with_others(cohort: Cohort, rows: pd.DataFrame) -> pd.DataFrame:
    """The table with the group, the acceleration and the centile of each sample, where these are known."""
    own = "sample" if "sample" in rows else "subject"
    parts: list[pd.DataFrame] = []
    if cohort.has("acceleration"):
        found = get.acceleration_df(cohort.adata, "samples", key_added=cohort.key)
        parts.append(found[found["type"] == "overall"][["sample", "group", "acceleration"]])
    if cohort.has("normative"):
        found = get.normative_df(cohort.adata, key_added=cohort.key)
        parts.append(found[["sample", "centile"]].drop_duplicates("sample"))
    parts = [part.rename(columns={"sample": own}) for part in parts]
    return reduce(lambda left, right: left.merge(right, on=own, how="left"), parts, rows)
