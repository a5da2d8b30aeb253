"""Whether a cohort can show what a clock is worth: its size, ages, batches, names and split."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from agevi import _checks, _keys, _names

HIGH, MEDIUM, LOW, NONE = SEVERITIES = ("high", "medium", "low", "none")


class Finding(NamedTuple):
    """What was looked at, what was seen, and what to do."""

    check: str
    finding: str
    value: float
    severity: str
    advice: str


_FEW_SUBJECTS = 30
_N_BINS = 5
_FEW_IN_BIN = 3
_FEW_CELLS = 20
_UNEVEN = 10.0


def design_findings(
    subject: pd.Series,
    age: pd.Series,
    owner: pd.Series,
    n_genes: np.ndarray,
    batch: pd.Series | None,
    split: pd.Series | None,
) -> Iterator[Finding]:
    """Findings on subjects, ages, batches, names and the split; ``age`` and ``owner`` are by sample, others by cell."""
    known = age.dropna()
    ages = known.groupby(owner.loc[known.index].to_numpy()).mean()
    yield _subjects(ages)
    yield _age_bins(ages)
    yield from _cells(subject, n_genes)
    yield from _alike(subject)
    if batch is not None:
        yield from _batches(subject, batch)
    if split is not None:
        yield _split(subject, split)


def _subjects(ages: pd.Series) -> Finding:
    n = len(ages)
    if n >= _FEW_SUBJECTS:
        return Finding("subjects", f"{n:,} subjects have an age", n, NONE, "")
    advice = "Cross-validate, and read the interval of the error: it will be wide."
    return Finding("subjects", f"only {n} subjects have an age", n, MEDIUM, advice)


def _age_bins(ages: pd.Series) -> Finding:
    """Subjects in five bins between the lowest and the highest age."""
    edges = np.linspace(ages.min(), ages.max(), _N_BINS + 1)
    counts = np.histogram(ages, edges)[0]
    shown = ", ".join(
        f"{low:.3g} to {high:.3g}: {n}" for low, high, n in zip(edges[:-1], edges[1:], counts, strict=True)
    )
    few = int((counts < _FEW_IN_BIN).sum())
    if not few:
        return Finding("age bins", f"subjects by age: {shown}", counts.min(), NONE, "")
    advice = "Say for which ages the error holds; tl.evaluate_by(age_bins=...) shows it per age."
    return Finding("age bins", f"{few} of {_N_BINS} age bins hold fewer than {_FEW_IN_BIN} subjects ({shown})",
                   counts.min(), MEDIUM, advice)  # fmt: skip


def _cells(subject: pd.Series, n_genes: np.ndarray) -> Iterator[Finding]:
    """Empty cells, subjects of few cells, uneven numbers."""
    empty = int((n_genes == 0).sum())
    if empty:
        yield Finding("empty cells", f"all values of {empty:,} cells are zero", empty, LOW, "Filter them out.")
    counts = subject.value_counts()
    if counts.max() == 1:
        return  # bulk: a row is a sample
    few = counts[counts < _FEW_CELLS]
    if len(few):
        finding = f"{len(few)} subjects have fewer than {_FEW_CELLS} cells ({_checks.listed(few.index, 3)})"
        yield Finding("cells per subject", finding, len(few), LOW, "Their predicted ages are noisy; see n_cells.")
    ratio = counts.max() / counts.min()
    if ratio > _UNEVEN:
        advice = "Errors over cells are those of a few subjects: judge samples, and keep subject_weight='equal'."
        yield Finding(
            "cells per subject", f"from {counts.min():,} to {counts.max():,} cells per subject", ratio, LOW, advice
        )


def _alike(subject: pd.Series) -> Iterator[Finding]:
    """Subjects whose names differ in case and punctuation only."""
    names = pd.Series(subject.unique(), dtype=object)
    plain = names.map(lambda name: re.sub(r"[\W_]+", "", name).casefold())
    alike = names[plain.duplicated(keep=False) & (plain != "")]
    if len(alike):
        first = names[plain == plain[alike.index[0]]]
        finding = (
            f"{len(alike)} subjects have names that differ in case or punctuation only ({_checks.listed(first, 3)})"
        )
        yield Finding("names", finding, len(alike), MEDIUM, "Make sure that they are different people.")


def _batches(subject: pd.Series, batch: pd.Series) -> Iterator[Finding]:
    """How subjects and batches are crossed."""
    text = _names.names(batch).fillna("")
    pairs = pd.DataFrame({"subject": subject.to_numpy(), "batch": text.to_numpy()}).drop_duplicates()
    per_batch, per_subject = pairs.groupby("batch").size(), pairs.groupby("subject").size()
    alone, single = int((per_batch == 1).sum()), int((per_subject == 1).sum())
    if len(per_batch) == 1:
        yield Finding("batches", "all cells are of one batch", 1, NONE, "")
    elif alone:
        advice = "There, batch and subject cannot be told apart: correcting for batch removes age as well."
        yield Finding("batches", f"{alone} of {len(per_batch)} batches hold one subject", alone, MEDIUM, advice)
    else:
        finding = f"{single:,} of {len(per_subject):,} subjects are in a single batch, of {len(per_batch)}"
        yield Finding("batches", finding, single, LOW if single == len(per_subject) else NONE,
                      "Hold out whole batches as well, to see what is left in a new one.")  # fmt: skip


def _split(subject: pd.Series, split: pd.Series) -> Finding:
    """Subjects in two roles."""
    pairs = pd.DataFrame({"subject": subject.to_numpy(), "role": _names.names(split).to_numpy()}).drop_duplicates()
    torn = pairs.loc[pairs["subject"].duplicated(), "subject"].unique()
    if not len(torn):
        return Finding("split", f"every subject has one role in obs[{_keys.SPLIT!r}]", 0, NONE, "")
    finding = f"{len(torn)} subjects are in two roles of obs[{_keys.SPLIT!r}] ({_checks.listed(torn, 3)})"
    return Finding("split", finding, len(torn), HIGH, "Make the split with agevi.pp.split_subjects.")
