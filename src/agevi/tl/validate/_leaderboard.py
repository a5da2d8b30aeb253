"""One row per model from predictions of held-out samples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from agevi.metrics import bootstrap_interval, mae
from agevi.metrics._register import COMPARED
from agevi.metrics._rows import metrics_row
from agevi.tl.validate import _null
from agevi.tl.validate._baselines import Units
from agevi.tl.validate._cohort import Cohort

logger = logging.getLogger(__name__)

MEDIAN = "median age"
RIDGE = "pseudobulk ridge"
DIFFERENCE = ["difference", "difference_low", "difference_high"]
OF_COHORTS = ["mae_cohorts", "mae_cohorts_low", "mae_cohorts_high", "level_cohorts"]
_AT = COMPARED.index("mae_high") + 1
COLUMNS = [
    "linear",
    *COMPARED[:_AT],
    *OF_COHORTS,
    *COMPARED[_AT:],
    *DIFFERENCE,
    *_null.COLUMNS,
    "seconds",
    "peak_memory",
    "error",
]


@dataclass
class Entry:
    """What is known of one model."""

    name: str
    linear: bool = False
    predicted: np.ndarray | None = None  # (n_units,)
    shuffled: list[tuple[np.ndarray, np.ndarray]] = field(
        default_factory=list
    )  # (n_samples,) ages, (n_units,) predicted
    seconds: float = np.nan
    peak_memory: float = np.nan  # MiB
    error: str = ""


@dataclass
class HeldOut:
    """The same models with whole cohorts held out, in the same order."""

    entries: Sequence[Entry]
    cohort: Cohort
    units: Units

    @property
    def names(self) -> np.ndarray:
        """Cohort of every unit, (n_units,)."""
        return np.asarray(self.cohort.folds, dtype=object)[self.units.fold]


def leaderboard(
    entries: Sequence[Entry], cohort: Cohort, units: Units, held_out: HeldOut | None = None, *, rng: int
) -> pd.DataFrame:
    """One row per model in the order of their errors, as :func:`agevi.tl.compare_models` documents it."""
    known = np.isfinite(cohort.age[units.sample])
    judged = np.flatnonzero(units.trains & known)
    if len(judged) < len(known):
        logger.info(
            "%d of %d samples are not judged: %d without an age, %d that may not train.",
            len(known) - len(judged), len(known), (~known).sum(), (known & ~units.trains).sum(),
        )  # fmt: skip
    age, subject = cohort.age[units.sample[judged]], cohort.owner[units.sample[judged]]
    rows: dict[str, dict[str, Any]] = {}
    of_null: dict[str, dict[str, float]] = {}
    for entry in entries:
        row: dict[str, Any] = {"linear": entry.linear, "seconds": entry.seconds, "peak_memory": entry.peak_memory}
        elsewhere = Entry(entry.name) if held_out is None else held_out.entries[len(rows)]
        entry.error = entry.error or elsewhere.error
        if entry.predicted is not None and not entry.error:
            predicted = entry.predicted[judged]
            row |= metrics_row(age, predicted, subject=subject, reference=predicted, rng=rng)
            if held_out is not None and elsewhere.predicted is not None:
                row |= _in_cohorts(age, elsewhere.predicted[judged], subject, held_out.units.fold[judged], rng)
        of_null[entry.name] = _null.null_summary(entry.shuffled, cohort, units, np.random.default_rng(rng))
        rows[entry.name] = row | of_null[entry.name] | {"error": entry.error}
    _null.tell(of_null)
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=COLUMNS)
    best = str(table.loc[table["linear"].astype(bool), "mae"].idxmin())
    by_name = {entry.name: entry for entry in entries}
    reference = by_name[best].predicted
    for entry in entries:
        if entry.predicted is not None and not entry.error and reference is not None:
            found = _difference(age, entry.predicted[judged], reference[judged], subject, rng)
            table.loc[entry.name, DIFFERENCE] = found
    counts = ["n", "n_subjects", "n_null"]
    table[counts] = table[counts].fillna(0).astype(np.int64)
    table["linear"] = table["linear"].astype(bool)
    return table.sort_values("mae" if held_out is None else "mae_cohorts", kind="stable").rename_axis("model")


def _in_cohorts(
    age: np.ndarray, predicted: np.ndarray, subject: np.ndarray, cohort: np.ndarray, rng: int
) -> dict[str, float]:
    """Error of samples whose whole cohort was held out, with its interval, and the levels of cohorts."""
    low, high = bootstrap_interval(mae, age, predicted, groups=subject, rng=rng)
    levels = pd.Series(predicted - age).groupby(cohort).mean()
    figures = (mae(age, predicted), low, high, float(np.sqrt((levels**2).mean())))
    return dict(zip(OF_COHORTS, figures, strict=True))


def _difference(
    age: np.ndarray, predicted: np.ndarray, reference: np.ndarray, subject: np.ndarray, rng: int
) -> tuple[float, float, float]:
    """Mean absolute error of a model minus that of the reference, on the same samples, with its interval."""
    of_model, of_reference = np.abs(predicted - age), np.abs(reference - age)
    low, high = bootstrap_interval(_mean_difference, of_reference, of_model, groups=subject, rng=rng)
    return _mean_difference(of_reference, of_model), low, high


def _mean_difference(reference: np.ndarray, error: np.ndarray) -> float:
    return float((error - reference).mean())


def predictions_table(
    entries: Sequence[Entry], cohort: Cohort, units: Units, held_out: HeldOut | None = None
) -> pd.DataFrame:
    """One row per sample and model that predicted it."""
    frame = pd.DataFrame(
        {
            "sample": cohort.samples[units.sample],
            "subject": cohort.subjects[cohort.owner[units.sample]],
            "fold": np.asarray(cohort.folds, dtype=object)[units.fold],
            "age": cohort.age[units.sample],
            "trains": units.trains,
        }
    )
    columns = ["sample", "model", "fold", "subject", "age", "predicted", "trains"]
    parts = []
    for i, entry in enumerate(entries):
        if entry.predicted is None:
            continue
        own = frame.assign(model=entry.name, predicted=entry.predicted)
        if held_out is not None:
            other = held_out.entries[i].predicted
            own = own.assign(cohort=held_out.names, predicted_cohorts=np.nan if other is None else other)
        parts.append(own[np.isfinite(entry.predicted)])
    columns += [] if held_out is None else ["cohort", "predicted_cohorts"]
    return pd.concat(parts, ignore_index=True)[columns]
