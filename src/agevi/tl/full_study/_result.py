"""What a study found, as tables and in words."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agevi.tl.full_study._calls import LEFT_OUT

_WIDTH = 100


@dataclass(frozen=True, repr=False)
class StudyResult:
    """What :func:`agevi.tl.study` found: tables, the clock, and whether it beats the median age.

    The tables are those of the functions of :mod:`agevi.get`; a step that was left out has None in the place of its
    table, and its reason is in ``steps``.
    """

    verdict: str
    """Whether held-out subjects are predicted better than by the median age, in words."""
    beats_median: bool | None
    """The same as True or False; None where there are too few subjects to know."""
    steps: pd.DataFrame
    """One row per step: ``step``, ``call`` (the calls as text, one a line), ``status`` ("done" or "left out"),
    ``reason`` and ``seconds``."""
    clock: Any
    """The clock that was trained on everybody, or on the reference alone, with its calibration."""
    subjects: pd.DataFrame
    """Age, predicted age and interval of every sample while it was held out."""
    accuracy: pd.DataFrame
    """Errors over all, per type of cells and per group, beside those of the median age."""
    calibration: pd.DataFrame | None = None
    """Coverage and width of the intervals."""
    leaderboard: pd.DataFrame | None = None
    """The clock beside other ones, the median age and shuffled ages."""
    types: pd.DataFrame | None = None
    """What each type of cells adds to predicted ages."""
    acceleration: pd.DataFrame | None = None
    """Differences between groups at equal age."""
    acceleration_samples: pd.DataFrame | None = None
    """Deviation of every sample from the line of the reference."""
    genes: pd.DataFrame | None = None
    """What each gene adds to predicted ages."""
    pathways: pd.DataFrame | None = None
    """Gene sets among the most important genes."""
    audit: pd.DataFrame | None = None
    """What could make a clock look better than it is."""
    path: Path | None = None
    """The folder ``out``, None without one."""
    unit: str = "years"
    """Unit of the ages."""

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table that there is, by its name."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, pd.DataFrame)}

    def __repr__(self) -> str:
        lines = [self.verdict, f"Clock: {type(self.clock).__name__}{self._intervals()}."]
        if self.acceleration is not None:
            overall = self.acceleration[self.acceleration["type"] == "overall"]
            lines += [*overall["sentence"], *self._errors(overall)]
        severe = 0 if self.audit is None else int(self.audit["severity"].isin(["high"]).sum())
        if severe:
            lines.append(f"Audit: {severe} severe finding{'s' * (severe > 1)}, to be settled first; see .audit.")
        if self.genes is not None:
            top = self.genes[self.genes["group"] == "all"]["gene"].head(5)
            lines.append(f"Genes that the clock uses most: {', '.join(map(str, top))}.")
        left = self.steps[self.steps["status"] == LEFT_OUT]
        lines += [f"Left out, {step}: {reason}." for step, reason in zip(left["step"], left["reason"], strict=True)]
        lines.append(f"Tables: {', '.join('.' + name for name in self.tables)}.")
        if self.path is not None:
            lines.append(f"Folder: {self.path}")
        wrapped = [textwrap.fill(line, _WIDTH, subsequent_indent="    ", break_on_hyphens=False) for line in lines]
        return "\n".join(wrapped)

    def _errors(self, compared: pd.DataFrame) -> list[str]:
        """Errors in the groups that are compared, in words."""
        names = [*compared["reference"].unique(), *compared["group"]]
        found = self.accuracy[self.accuracy["group"].isin(names)].drop_duplicates("group").set_index("group")
        rows = [(name, found.loc[name]) for name in names if name in found.index]
        errors = [f"{name} {row['mae']:.1f} [{row['mae_low']:.1f}, {row['mae_high']:.1f}]" for name, row in rows]
        if not rows or not np.isfinite(rows[0][1]["slope"]):
            return []
        rise = f"predictions rise by {rows[0][1]['slope']:.2f} {self.unit} per {self.unit.removesuffix('s')} of age"
        return [f"MAE by group: {', '.join(errors)} {self.unit}; in {rows[0][0]} {rise}."]

    def _intervals(self) -> str:
        """What its intervals hold, in words."""
        if self.calibration is None:
            return ", without intervals"
        row = self.calibration.iloc[0]
        if not np.isfinite(row["coverage"]):
            return ", with intervals whose coverage cannot be known from so few subjects"
        return (
            f", with intervals at {row['level']:.0%} that hold {row['coverage']:.0%} of held-out ages and are "
            f"{row['width']:.0f} {self.unit} wide"
        )
