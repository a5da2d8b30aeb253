"""Whether held-out subjects are predicted better than by the median age, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _keys, _names, _subjects
from agevi.metrics._rows import error_ratio
from agevi.tl.full_study._plan import Plan
from agevi.tl.predict._judged import FEW_SUBJECTS, references

FEW_FOR_A_CLOCK = 20
"""Subjects below which no clock of their own should be trusted, as the user guide says."""


@dataclass(frozen=True)
class Verdict:
    """The sentence, and what it says: True, False, or None where it cannot be known."""

    text: str
    beats_median: bool | None


def judged(adata: AnnData, plan: Plan) -> Verdict:
    """The verdict on held-out samples: of the reference, where it alone trains, else of all."""
    keys = _keys.Keys(plan.given.key_added)
    table: pd.DataFrame = adata.uns[keys.subjects]
    use = _subjects.held_out(table)
    whose = ""
    if plan.comparison.trains_reference:
        sample = _names.names(adata.obs[plan.given.sample_key or plan.given.subject_key])
        group = _names.names(adata.obs[str(plan.given.condition_key)]).groupby(sample.to_numpy()).first()
        use = use & (group.reindex(table.index) == plan.comparison.reference).to_numpy()
        whose = f" of {plan.comparison.reference!r}"
    used = table[use]
    reference = references(adata, table, keys)[use]
    unit = str(adata.uns[keys.uns]["age_unit"])
    return verdict(used, reference, unit, whose)


def verdict(table: pd.DataFrame, reference: np.ndarray, unit: str, whose: str = "") -> Verdict:
    """The verdict on samples with the columns ``subject``, ``age``, ``predicted``, beside the ages of the median."""
    age = table["age"].to_numpy(dtype=np.float64)
    reference = np.where(np.isnan(reference), np.median(age), reference)
    error, baseline = np.abs(table["predicted"].to_numpy(dtype=np.float64) - age), np.abs(reference - age)
    n = table["subject"].nunique()
    figures = f"MAE {error.mean():.1f} against {baseline.mean():.1f} {unit}"
    if n < FEW_SUBJECTS:
        return Verdict(
            f"Whether the clock beats the median age cannot be known from {n} held-out subjects{whose} ({figures}).",
            None,
        )
    ratio, low, high = error_ratio(error, baseline, table["subject"].to_numpy())
    figures = f"{figures}, ratio {ratio:.2f} [{low:.2f}, {high:.2f}] over {n} held-out subjects{whose}"
    if ratio >= 1:
        return Verdict(f"The clock does not beat the median age: {figures}.", False)
    if high >= 1:
        return Verdict(f"The clock does not beat the median age by more than chance would: {figures}.", False)
    few = (
        f" With fewer than {FEW_FOR_A_CLOCK} subjects much of it is chance; a clock that others trained is safer."
        if n < FEW_FOR_A_CLOCK
        else ""
    )
    return Verdict(f"The clock beats the median age: {figures}.{few}", True)
