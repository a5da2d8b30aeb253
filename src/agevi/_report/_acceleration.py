"""Differences between groups at equal age."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from agevi import get, pl
from agevi._report._blocks import Block, Callout, Figure, Heading, Points, Quote, Section, Side, Table, Text
from agevi._report._cohort import Cohort
from agevi._report._numbers import Column, counted, interval, listing, number, p, p_words, rounded, table, whole
from agevi._report._verdict import doubt, with_unit
from agevi.tl.predict._evaluate_by import OVERALL

FLAGS = {
    "no_age_signal": (
        "The clock has no age signal in these samples, so the difference says nothing about ageing, whatever its p "
        "value."
    ),
    "weak_age_signal": "The age signal is weak: read the difference as a direction at best.",
    "ages_do_not_overlap": (
        "Less than half of the group has an age within those of the reference, so the difference rests on the shape of "
        "the curve."
    ),
    "confounded": "Covariates, or clocks that differ, tell the groups apart, so little is left to compare.",
    "trained_on_group": (
        "The clocks were trained on both groups, whose ages differ, and can take genes of the disease for genes of age."
    ),
    "few_subjects": "A group has fewer than 10 subjects: print the detectable difference.",
}
"""What a flag of ``tl.age_acceleration`` means for who reads the row."""
CAVEATS = (
    "A difference is an association. Batch, composition of the sample, drugs and who came to the clinic make one, too.",
    "It is on the scale of the clock: one whose predictions rise by 0.6 years per year of age shows 3.6 of 6 years.",
    "Groups are compared at equal age. Raw gaps (predicted minus actual age) differ wherever ages do, and are never "
    "tested.",
    "The clock was trained on age, not on health: older on it is no more than that.",
)
_MOST_NOTES, SIGNIFICANT = 6, 0.05
_GROUPS = {
    "type": Column("Cells"),
    "group": Column("Group"),
    "n": Column("n", whole),
    "n_reference": Column("n reference", whole),
    "difference": Column(
        "Difference ({unit})", rounded(1, sign=True), "In predicted age at equal age, on the clock's scale"
    ),
    "low": Column("from", rounded(1, sign=True), "Interval of the difference"),
    "high": Column("to", rounded(1, sign=True)),
    "p": Column("p", p),
    "p_permutation": Column("p by permutation", p),
    "p_adjusted": Column("p adjusted", p, "Benjamini and Hochberg"),
    "slope": Column("Slope", rounded(2), "Change of the prediction per unit of age"),
    "scaled": Column("Scaled", rounded(1, sign=True), "Difference divided by the slope"),
    "detectable": Column("Detectable", rounded(1), "True difference that would be found four times in five"),
    "flags": Column("Flags"),
}


def acceleration_section(cohort: Cohort) -> Section:
    """Whether groups look older at equal age."""
    name, title, short = "acceleration", "Age acceleration", "Acceleration"
    if not cohort.has(name):
        return Section(name, title, short, [cohort.absent("Groups were not compared.", name)])
    rows = get.acceleration_df(cohort.adata, key_added=cohort.key)
    params = cohort.params(name)
    overall = rows[rows["type"] == OVERALL]
    blocks: list[Block] = [*doubt(cohort), *(_answer(row, params, len(overall)) for _, row in overall.iterrows())]
    for_paper: list[Block] = [
        Heading("The sentence for the paper"),
        *(Quote(str(text)) for text in overall["sentence"]),
        Heading("Before you print it"),
        Points(CAVEATS),
    ]
    blocks.append(Side(_lines(cohort, overall, params), for_paper))
    of_types = rows[rows["type"] != OVERALL]
    if len(of_types):
        notes = _notes(of_types)
        blocks.append(Side(_forest(cohort, of_types), [Heading("By type"), Points(notes)] if notes else []))
    return Section(name, title, short, [*blocks, _table(cohort, rows, params)])


def _table(cohort: Cohort, rows: pd.DataFrame, params: dict[str, Any]) -> Table:
    """All differences."""
    shown = rows.assign(
        type=rows["type"].replace(OVERALL, "all cells"),
        flags=rows["flags"].str.replace("_", " ").str.replace(";", ", "),
    )
    if (rows["type"] == OVERALL).all():
        shown = shown.drop(columns="type")
    if not shown["flags"].str.strip().any():
        shown = shown.drop(columns="flags")
    caption = f"Differences from {params['reference']} at equal age, with {100 * params['level']:g} % intervals"
    unit = str(params.get("age_unit", cohort.unit))
    return table(shown, with_unit(_GROUPS, unit), name="differences", caption=caption)


def _answer(row: pd.Series, params: dict[str, Any], n_groups: int) -> Callout:
    """One comparison in a line; that of several groups counts by its adjusted p value."""
    group, reference, unit = row["group"], params["reference"], params["age_unit"]
    if np.isnan(row["difference"]):
        return Callout("warn", f"{group} and {reference} cannot be compared", _flags(row))
    digits = 1 if row["se"] >= 0.2 else 2
    adjusted = f", {p(row['p_adjusted'])} corrected for {n_groups} groups" if n_groups > 1 else ""
    size = (
        f"{number(row['difference'], digits, sign=True)} {unit} ({100 * params['level']:g} % interval "
        f"{interval(row['low'], row['high'], digits)}; {p_words(row['p'])}{adjusted})."
    )
    flags = _flags(row)
    if "no_age_signal" in row["flags"]:
        return Callout("warn", f"{group} against {reference}: nothing can be said", f"{size} {flags}")
    if row["p_adjusted"] < 1 - params["level"]:
        title = f"{group} looks {'older' if row['difference'] > 0 else 'younger'} than {reference} at equal age"
    else:
        title = f"No difference between {group} and {reference} is shown"
        size += f" A true difference of {number(row['detectable'], digits)} {unit} would be found four times in five."
    return Callout("warn" if flags else "plain", title, f"{size} {flags}".strip())


def _flags(row: pd.Series) -> str:
    """Flags of a row as sentences."""
    return " ".join(FLAGS.get(flag, f"{flag.replace('_', ' ')}.") for flag in str(row["flags"]).split(";") if flag)


def _notes(rows: pd.DataFrame) -> list[str]:
    """What flags say of the rows of types."""
    flagged = rows[rows["flags"] != ""]
    own = [f"{row['type']}, {row['group']}: {_flags(row)}" for _, row in flagged.head(_MOST_NOTES).iterrows()]
    more = len(flagged) - _MOST_NOTES
    return [*own, f"{more} more rows have flags; see the table."] if more > 0 else own


def _lines(cohort: Cohort, rows: pd.DataFrame, params: dict[str, Any]) -> Figure | Text:
    """Predicted age against age by group."""
    said = "; ".join(
        f"{row['group']} lies {number(row['difference'], 1, sign=True)} {params['age_unit']} from {params['reference']}"
        f" (interval {interval(row['low'], row['high'])})"
        for _, row in rows.iterrows()
    )
    return cohort.figures.draw(
        pl.acceleration, cohort.adata, key_added=cohort.key, palette=cohort.palette(),
        alt=f"Predicted against actual age of samples by {params['groupby']}, with parallel lines of groups: {said}.",
        caption="One point is one held-out sample. The bar is the difference at equal age.",
    )  # fmt: skip


def _forest(cohort: Cohort, types: pd.DataFrame) -> Figure | Text:
    """Differences of all types."""
    found = types[types["p_adjusted"] < SIGNIFICANT]
    names = listing(f"{row['type']} ({number(row['difference'], 1, sign=True)})" for _, row in found.iterrows())
    return cohort.figures.draw(
        pl.acceleration_forest, cohort.adata, key_added=cohort.key, palette=cohort.palette(),
        alt=f"Differences at equal age with intervals, {counted(len(types), 'row')} of types below that of all cells. "
        + (f"With an adjusted p below {SIGNIFICANT:g}: {names}." if names else "No adjusted p is below 0.05."),
        caption="A type with a star beside one without is not a difference between types: compare their intervals.",
    )  # fmt: skip
