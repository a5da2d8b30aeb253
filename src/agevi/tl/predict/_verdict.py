"""What can be said of a clock's predictions in a cohort before they are made: the rules, and their sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

VERDICTS = ("genes missing", "shifted", "shrunk", "unproven", "supported")
"""The first that holds is the verdict."""
MIN_COVERAGE = 0.9
"""Share of the clock's genes, by their importance, that must be there."""
MIN_OUTSIDE = 0.5
"""Share of samples outside of how training samples vary from which a cohort is shifted."""
MAX_SHIFT = 6.0
"""Years between the level of predictions and that of an anchor, or the levels of training cohorts left out."""
MAX_SHRUNK = 3.0
"""Years by which a level may be drawn to the mean of training before the verdict says so."""
MIN_SLOPE = 0.5
MIN_SUBJECTS, MIN_COHORTS, MIN_LEFT_OUT, MIN_ANCHORED = 60, 2, 5, 5
_SET = "run model.set_cohorts(training_data, by='<cohort>') once"
_LABELS = "give its mean_age, or label 5 to 10 controls"


@dataclass(frozen=True)
class Found:
    """What was measured in a cohort, in the unit of age, NaN where it could not be; the clock's figures beside it."""

    n_subjects: int
    gene_coverage: float  # share of the clock's genes, by importance
    outside: float  # share of samples outside
    level: float  # mean prediction
    level_anchor: float  # the same after the shift by an anchor
    n_anchored: int  # subjects with an anchor
    n_cohorts: int  # of training, 0 where they are not known
    n_trained: int
    mean_age: float  # of training
    slope: float  # of predictions on age, held out
    left_out: float  # root mean square of the levels of training cohorts left out
    n_left_out: int
    year: float  # one year in the unit of age
    anchor: str = "..."  # how it is passed on

    @property
    def shrunk_by(self) -> float:
        """How much nearer to the mean of training the level lies than it should, for its slope."""
        if not 0 < self.slope < 1:
            return 0.0 if self.slope >= 1 else np.nan
        return (1 - self.slope) / self.slope * (self.level - self.mean_age)


def judge(found: Found, name: str, unit: str, call: str) -> dict[str, Any]:
    """The verdict on a cohort and its sentence; ``call`` is how to recalibrate it."""
    tests = {
        "genes missing": _genes_missing(found),
        "shifted": _shifted(found, unit, call),
        "shrunk": _shrunk(found, unit),
        "unproven": _unproven(found, unit),
    }
    verdict, why = next(((v, text) for v, text in tests.items() if text), ("supported", _supported(found, unit)))
    return {"verdict": verdict, "message": f"{name}: {verdict}: {why}"}


def _genes_missing(found: Found) -> str:
    if not found.gene_coverage < MIN_COVERAGE:
        return ""
    return (
        f"the genes that are there carry {found.gene_coverage:.0%} of what the clock reads of age, under "
        f"{MIN_COVERAGE:.0%}; train a clock on the genes that both have."
    )


def _shifted(found: Found, unit: str, call: str) -> str:
    if found.n_anchored >= MIN_ANCHORED:
        gap = found.level - found.level_anchor
        if not abs(gap) > MAX_SHIFT * found.year:
            return ""
        return (
            f"predictions lie {gap:+.1f} {unit} from the anchor ({found.n_anchored} subjects); use {call}, "
            f"anchor={found.anchor})."
        )
    if not found.outside >= MIN_OUTSIDE:
        return ""
    return (
        f"{found.outside:.0%} of samples lie outside of how training samples vary, so that all ages may be off by a "
        f"constant that nothing tells; {_LABELS}, or anchor it on a second cell type, with {call}, ...). Order and "
        "differences within the cohort stand."
    )


def _shrunk(found: Found, unit: str) -> str:
    if not (found.slope < MIN_SLOPE or abs(found.shrunk_by) > MAX_SHRUNK * found.year):
        return ""
    said = f"predictions rise by {found.slope:.2f} {unit} per {unit.removesuffix('s')} of age"
    if not abs(found.shrunk_by) > found.year:  # NaN where predictions do not rise
        return f"{said}, so that the young look older than they are, and the old younger."
    way = "young" if found.shrunk_by > 0 else "old"
    return (
        f"{said}, and their mean of {found.level:.1f} is likely too {way} by about {abs(found.shrunk_by):.1f} {unit} "
        f"(training: {found.mean_age:.1f})."
    )


def _unproven(found: Found, unit: str) -> str:
    if found.n_cohorts == 0:
        return f"the clock does not say on which cohorts it was trained; {_SET}."
    if found.n_cohorts < MIN_COHORTS or found.n_trained < MIN_SUBJECTS:
        return (
            f"the clock was trained on {found.n_trained} subjects of {found.n_cohorts} "
            f"cohort{'s' * (found.n_cohorts > 1)}, under {MIN_SUBJECTS} of {MIN_COHORTS}, so that nothing shows how it "
            "does elsewhere."
        )
    if found.n_left_out >= MIN_LEFT_OUT and found.left_out > MAX_SHIFT * found.year:
        return (
            f"each of its {found.n_left_out} training cohorts, left out, was off by {found.left_out:.1f} {unit} (root "
            "mean square); expect as much here."
        )
    if found.outside >= MIN_OUTSIDE:  # and an anchor agrees, which is drawn to the mean of training itself
        return (
            f"{found.outside:.0%} of samples lie outside of how training samples vary, but predictions lie only "
            f"{found.level - found.level_anchor:+.1f} {unit} from the anchor ({found.n_anchored} subjects). Their "
            f"level holds for healthy subjects about as old as those of training (mean {found.mean_age:.1f}); of "
            "patients, or at another age, it may be off, which the ages of 5 to 10 controls show."
        )
    return ""


def _supported(found: Found, unit: str) -> str:
    said = "" if np.isnan(found.slope) else f", predictions rise by {found.slope:.2f} {unit} per year of age"
    return f"samples vary as those of the {found.n_cohorts} training cohorts do{said}."
