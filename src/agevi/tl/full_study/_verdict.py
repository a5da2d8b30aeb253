"""Whether held-out subjects are predicted better than by the median age, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _keys, _subjects
from agevi.metrics._rows import error_ratio
from agevi.tl.predict._judged import FEW_SUBJECTS, references

FEW_FOR_A_CLOCK = 20
"""Subjects below which no clock of their own should be trusted, as the user guide says."""


@dataclass(frozen=True)
class Verdict:
    """The sentence, and what it says: True, False, or None where it cannot be known."""

    text: str
    beats_median: bool | None


def judged(adata: AnnData, key_added: str) -> Verdict:
    """The verdict on held-out samples, as :func:`agevi.get.metrics_df` and the card of the clock judge them."""
    keys = _keys.Keys(key_added)
    table: pd.DataFrame = adata.uns[keys.subjects]
    held_out = _subjects.held_out(table)
    unit = str(adata.uns[keys.uns]["age_unit"])
    return verdict(table[held_out], references(adata, table, keys)[held_out], unit)


def verdict(table: pd.DataFrame, reference: np.ndarray, unit: str) -> Verdict:
    """The verdict on samples with the columns ``subject``, ``age``, ``predicted``, beside the ages of the median."""
    age = table["age"].to_numpy(dtype=np.float64)
    reference = np.where(np.isnan(reference), np.median(age), reference)
    error, baseline = np.abs(table["predicted"].to_numpy(dtype=np.float64) - age), np.abs(reference - age)
    n = table["subject"].nunique()
    figures = f"MAE {error.mean():.1f} against {baseline.mean():.1f} {unit}"
    if n < FEW_SUBJECTS:
        return Verdict(
            f"Whether the clock beats the median age cannot be known from {n} held-out subjects ({figures}).",
            None,
        )
    ratio, low, high = error_ratio(error, baseline, table["subject"].to_numpy())
    figures = f"{figures}, ratio {ratio:.2f} [{low:.2f}, {high:.2f}] over {n} held-out subjects"
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
