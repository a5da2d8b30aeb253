"""One row per model from predictions of held-out samples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from agevi.metrics import bootstrap_interval
from agevi.metrics._register import COMPARED
from agevi.metrics._rows import metrics_row
from agevi.tl.validate import _null
from agevi.tl.validate._baselines import Units
from agevi.tl.validate._cohort import Cohort

logger = logging.getLogger(__name__)

MEDIAN = "median age"
RIDGE = "pseudobulk ridge"
DIFFERENCE = ["difference", "difference_low", "difference_high"]
COLUMNS = ["linear", *COMPARED, *DIFFERENCE, *_null.COLUMNS, "seconds", "peak_memory", "error"]


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


def leaderboard(entries: Sequence[Entry], cohort: Cohort, units: Units, *, rng: int) -> pd.DataFrame:
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
        if entry.predicted is not None and not entry.error:
            predicted = entry.predicted[judged]
            row |= metrics_row(age, predicted, subject=subject, reference=predicted, rng=rng)
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
    return table.sort_values("mae", kind="stable").rename_axis("model")


def _difference(
    age: np.ndarray, predicted: np.ndarray, reference: np.ndarray, subject: np.ndarray, rng: int
) -> tuple[float, float, float]:
    """Mean absolute error of a model minus that of the reference, on the same samples, with its interval."""
    of_model, of_reference = np.abs(predicted - age), np.abs(reference - age)
    low, high = bootstrap_interval(_mean_difference, of_reference, of_model, groups=subject, rng=rng)
    return _mean_difference(of_reference, of_model), low, high


def _mean_difference(reference: np.ndarray, error: np.ndarray) -> float:
    return float((error - reference).mean())


def predictions_table(entries: Sequence[Entry], cohort: Cohort, units: Units) -> pd.DataFrame:
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
    parts = [
        frame.assign(model=entry.name, predicted=entry.predicted)[np.isfinite(entry.predicted)]
        for entry in entries
        if entry.predicted is not None
    ]
    columns = ["sample", "model", "fold", "subject", "age", "predicted", "trains"]
    return pd.concat(parts, ignore_index=True)[columns]
