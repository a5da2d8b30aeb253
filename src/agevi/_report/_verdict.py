"""Whether the clock beats the median age, said first."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from agevi import _keys, get
from agevi._report._blocks import Block, Callout, Fact, Facts, Section, Text
from agevi._report._cohort import Cohort, held
from agevi._report._numbers import (
    Column,
    counted,
    digits_of,
    interval,
    number,
    p,
    p_words,
    percent,
    rounded,
    table,
    whole,
)
from agevi.metrics._rows import error_ratio
from agevi.tl.predict._judged import FEW_SUBJECTS, references, verdict
from agevi.tl.validate._null import LEVEL

TITLE = "Does the clock beat the median age?"
Headline = tuple[Literal["good", "warn", "bad"], str]
GOOD: Headline = ("good", "Yes: it predicts age better than the median age does.")
WORSE: Headline = ("bad", "No: it does not predict age better than the median age does.")
CHANCE: Headline = ("warn", "Not shown: the difference from the median age can be chance.")
HOW = {
    _keys.OUT_OF_FOLD: "each predicted out of fold, by a clock that never saw it",
    _keys.TEST: "held out for testing, which the clock never saw",
    _keys.NEW: "which the clock never saw",
}
"""How the subjects of a role were kept from the clock."""
_NOT_KNOWN = "No held-out subject has both an age and a prediction."


def verdict_section(cohort: Cohort) -> Section:
    """The verdict in words, with its numbers."""
    samples = cohort.subjects()
    role = cohort.judged_role(samples)
    blocks: list[Block]
    if not cohort.has("subjects"):
        blocks = [
            Callout("plain", "Not known yet"),
            cohort.absent("Predicted ages of subjects are not tabulated.", "subjects"),
        ]
    elif role is None:
        shaped = samples["role"].isin(_keys.SHAPED_ROLES).any()
        why = " The samples here shaped the clock, and their errors say nothing about new ones." if shaped else ""
        blocks = [Callout("plain", "Not known", _NOT_KNOWN + why)]
    else:
        blocks = _judged(cohort, held(samples, role), role)
    if cohort.has("leaderboard"):
        blocks += _compared(cohort)
    return Section("verdict", TITLE, "Verdict", blocks)


DOUBT = "This clock is not shown to predict better than the median age, so what follows may say nothing about age."


def doubt(cohort: Cohort) -> list[Block]:
    """What is said before results of a clock that is not shown to beat the median age; nothing of one that is."""
    if cohort.once("doubt", lambda: not _shown(cohort)):
        return [Callout("warn", "Read with care", DOUBT)]
    return []


def _shown(cohort: Cohort) -> bool:
    """Whether the clock is shown to beat the median age."""
    samples = cohort.subjects()
    role = cohort.judged_role(samples)
    if role is None:
        return False
    own = held(samples, role)
    return not verdict(own, references(cohort.adata, own, cohort.keys), cohort.unit)


def _judged(cohort: Cohort, own: pd.DataFrame, role: str) -> list[Block]:
    """Verdict on the samples of a role."""
    unit, digits = cohort.unit, digits_of(own["age"])
    row = cohort.accuracy(role)
    reference = references(cohort.adata, own, cohort.keys)
    caution = verdict(own, reference, unit)
    n = own["subject"].nunique()
    level, title = _title(caution, n, row)
    blocks: list[Block] = [Callout(level, title, _words(row, own, role, unit, digits))]
    facts = [
        Fact("Error of the clock", f"{number(row['mae'], digits)} {unit}",
             f"mean absolute error, 95 % interval {interval(row['mae_low'], row['mae_high'], digits)}"),
        Fact("Error of the median age", f"{number(row['mae_median'], digits)} {unit}", "predicted for everyone"),
    ]  # fmt: skip
    if len(own) > 1 and np.isfinite(row["mae_median"]):
        age = own["age"].to_numpy(dtype=np.float64)
        error, baseline = (np.abs(given - age) for given in (own["predicted"].to_numpy(dtype=np.float64), reference))
        ratio, low, high = error_ratio(error, baseline, own["subject"].to_numpy())
        facts.append(
            Fact("Ratio of the two", number(ratio, 2), f"95 % interval {interval(low, high, 2)}; below 1 is better")
        )
    slope = f"predictions rise by {number(row['slope'], 2)} {unit} per {unit.removesuffix('s')} of age"
    facts.append(Fact("Pearson\N{RIGHT SINGLE QUOTATION MARK}s r", number(row["pearson"], 2), slope))
    blocks.append(Facts(facts, large=True))
    if cohort.record.get("recalibrated_from"):
        blocks.append(Text(
            f"These predictions were recalibrated from those under {cohort.record['recalibrated_from']!r}. Subjects "
            "whose ages moved them (role recalibration) are not counted here."
        ))  # fmt: skip
    return blocks


def few(n: int) -> Headline:
    """Headline of a clock that too few subjects judge."""
    return "warn", f"Too few to tell: {counted(n, 'held-out subject')} with an age, and {FEW_SUBJECTS} are needed."


def _title(caution: str, n: int, row: Any) -> Headline:
    """Colour and headline."""
    if n < FEW_SUBJECTS:
        return few(n)
    if not caution:
        return GOOD
    return WORSE if row["mae"] >= row["mae_median"] else CHANCE


def _words(row: Any, own: pd.DataFrame, role: str, unit: str, digits: int) -> str:
    """The numbers as a sentence."""
    n, n_samples = own["subject"].nunique(), len(own)
    who = counted(n, "subject") + (f" ({counted(n_samples, 'sample')})" if n_samples != n else "")
    said = (
        f"Over {who}, {HOW[role]}, predicted ages are off by {number(row['mae'], digits)} {unit} on average"
        f" (95 % interval {interval(row['mae_low'], row['mae_high'], digits)})."
    )
    if not np.isfinite(row["mae_median"]):
        return f"{said} What the median age of the training subjects would give is not known, since their ages are not."
    less = 1 - row["mae"] / row["mae_median"]
    told = f"{percent(abs(less))} {'less' if less >= 0 else 'more'}"
    return (
        f"{said} Predicting the median age for everyone is off by {number(row['mae_median'], digits)} {unit}: the "
        f"error of the clock is {told}."
    )


_LEADERBOARD = {
    "model": Column("Model"),
    "n_subjects": Column("Subjects", whole),
    "mae": Column("Error ({unit})", rounded(2), "Mean absolute error, out of fold"),
    "mae_low": Column("from", rounded(2), "95 % interval of the error"),
    "mae_high": Column("to", rounded(2)),
    "pearson": Column("Pearson\N{RIGHT SINGLE QUOTATION MARK}s r", rounded(2)),
    "slope": Column("Slope", rounded(2)),
    "difference": Column("Difference ({unit})", rounded(2, sign=True), "From the linear model with the smallest error"),
    "difference_low": Column("from", rounded(2, sign=True)),
    "difference_high": Column("to", rounded(2, sign=True)),
    "null_p": Column(
        "p with shuffled ages", p, "Small where ages that were shuffled between subjects are predicted, a leak"
    ),
    "error": Column("What went wrong"),
}


def with_unit(columns: dict[str, Column], unit: str) -> dict[str, Column]:
    """Columns with the unit of age in their labels."""
    return {name: column._replace(label=column.label.format(unit=unit)) for name, column in columns.items()}


def _compared(cohort: Cohort) -> list[Block]:
    """The models that were compared, and what they make of shuffled ages."""
    found = get.leaderboard_df(cohort.adata, key_added=cohort.key)
    columns = dict(_LEADERBOARD)
    if not found.get("error", pd.Series([], dtype=object)).astype(str).str.strip().any():
        columns.pop("error")
    shown = table(
        found, with_unit(columns, cohort.unit), name="leaderboard",
        caption="Models compared on the same subjects, each predicted out of fold",
    )  # fmt: skip
    tried = found[found["null_p"].notna()] if "null_p" in found else found[:0]
    if tried.empty:
        return [shown]
    least = tried["null_p"].min()
    name = tried["model"].iloc[int(tried["null_p"].argmin())]
    leak = least <= LEVEL / len(tried)
    text = (
        f"Ages that were shuffled between subjects were {'' if leak else 'not '}predicted ({p_words(least)} for {name}"
        f"{f', the smallest of {len(tried)} models' if len(tried) > 1 else ''}; a leak is suspected below "
        f"{LEVEL / len(tried):.2g})"
    )
    end = ": cells of one subject may be on both sides of a fold." if leak else ", as it should be without a leak."
    return [shown, Text(text + end)]
