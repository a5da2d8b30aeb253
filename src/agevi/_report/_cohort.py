"""What a report of an AnnData is made from: the data, the slots under a key, and how its numbers are written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _keys, _names, _subjects, get
from agevi._report._blocks import Absent
from agevi._report._figures import Figures
from agevi._settings import quieter
from agevi.get._read import call_of
from agevi.pl._base import MAX_GROUPS, group_colors, params_of, unit_of

SPEAK = ("agevi.get", "agevi.pl", "agevi.tl.predict._judged", "agevi._subjects")
"""Loggers of what reading and drawing say, which stands on the page."""
STUDY = ("step", "call", "status", "reason")
DONE = "done"


@dataclass(frozen=True)
class Cohort:
    """The data and the slots under a key."""

    adata: AnnData
    keys: _keys.Keys
    gene_symbols: str | None = None
    audit: pd.DataFrame | None = None
    figures: Figures = field(default_factory=Figures)
    kept: dict[str, Any] = field(default_factory=dict)  # what several sections read, taken once

    @property
    def key(self) -> str:
        """Prefix of the slots."""
        return self.keys.key_added

    @property
    def record(self) -> Mapping[str, Any]:
        """What made the predictions, empty where that was not recorded."""
        found = self.adata.uns.get(self.keys.uns, {})
        return found if isinstance(found, Mapping) else {}

    @property
    def unit(self) -> str:
        """Unit of the ages."""
        return unit_of(self.record)

    def has(self, noun: str) -> bool:
        """Whether a slot is there."""
        return self.keys.table(noun) in getattr(self.adata, _keys.SLOTS[noun].where)

    def params(self, noun: str) -> dict[str, Any]:
        """Arguments of the tool that left a table."""
        return params_of(self.adata, noun, self.key)

    def palette(self) -> dict[str, Any] | None:
        """Colour of every group that was compared, the same in all figures; None where none were, or too many."""
        groupby, reference = (self.params("acceleration").get(name) for name in ("groupby", "reference"))
        if not self.has("acceleration") or groupby not in self.adata.obs:
            return None
        levels = _names.levels(self.adata.obs[groupby])
        if len(levels) > MAX_GROUPS or reference not in levels:
            return None
        return group_colors(self.adata, str(groupby), [reference, *(level for level in levels if level != reference)])

    def study(self) -> pd.DataFrame | None:
        """The steps that ``tl.study`` took, None where a user made the calls."""
        found = self.adata.uns.get(f"{self.key}_study")
        return found if isinstance(found, pd.DataFrame) and set(STUDY) <= set(found) and len(found) else None

    def absent(self, what: str, noun: str) -> Absent:
        """A line on what is not there, why a study left it out, and the call that makes it."""
        call, steps = call_of(noun, self.key), self.study()
        if steps is not None:
            own = steps["call"].astype(str).str.contains(f"{call.split('(')[0]}(", regex=False)
            left = steps[own & (steps["status"] != DONE)]
            if len(left):
                return Absent(f"{what} Why: {left['reason'].iloc[0]}.", str(left["call"].iloc[0]))
        return Absent(what, call)

    def subjects(self) -> pd.DataFrame:
        """One row per sample; without rows where there is no such table."""
        if not self.has("subjects"):
            return pd.DataFrame(columns=["sample", "subject", "age", "predicted", "n_cells", "role"])
        _subjects.subject_table(self.adata, self.keys)  # refuses a table of cells that are gone
        return get.subjects_df(self.adata, key_added=self.key)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, made when a section first asks for it."""
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    def accuracy(self, role: str) -> pd.Series:
        """Errors of the held-out samples of a role."""
        found: pd.Series = self.once(
            f"accuracy of {role}", lambda: get.metrics_df(self.adata, key_added=self.key, roles=role).loc[role]
        )
        return found

    def judged_role(self, table: pd.DataFrame) -> str | None:
        """The role of held-out samples whose accuracy counts: out of fold, else test, else new; None without any."""
        own = set(table["role"][_subjects.held_out(table)])
        order = (_keys.OUT_OF_FOLD, _keys.TEST, _keys.NEW)
        return next((role for role in order if role in own), None)


@contextmanager
def unsaid() -> Iterator[None]:
    """Keep out of the log what the page says."""
    with quieter(logging.ERROR, *SPEAK):
        yield


def held(table: pd.DataFrame, role: str) -> pd.DataFrame:
    """Samples of a held-out role with age and prediction."""
    return table[_subjects.held_out(table, [role])].reset_index(drop=True)


def spread(values: Any) -> tuple[float, float]:
    """Least and largest of the known values, NaN without any."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    return (float(known.min()), float(known.max())) if len(known) else (np.nan, np.nan)
