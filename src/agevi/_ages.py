"""Units and scales of age, and what cannot be an age in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

YEAR = {"years": 1.0, "months": 12.0, "weeks": 365.25 / 7, "days": 365.25}
"""Length of a year in each unit of ages."""
OLDEST = 150.0
"""Years that no person and no animal of the laboratory reaches."""
ADULT = 20.0
"""Age in years from which the scale of Horvath (2013) is linear."""
_BIRTH = (1900, 2100)
_SMALLEST = 1e-3  # of the argument of Horvath's logarithm, which is 0 a year before birth


@dataclass(frozen=True)
class AgeTransform:
    """Scale T ("none", "log", "horvath") of a clock's ages; :class:`agevi.nn.heads.TargetScale` has the formulas."""

    name: str = "none"
    min_age: float = -1.0
    year: float = 1.0

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> AgeTransform:
        """The scale that ``adata.uns[key_added]`` records, the identity where an earlier version recorded none."""
        year = YEAR.get(str(record.get("age_unit") or "years"), 1.0)
        return cls(str(record.get("age_transform") or "none"), float(record.get("min_age", -1.0)), year)

    def forward(self, age: np.ndarray) -> np.ndarray:
        """T(age); ages below ``min_age`` count as that."""
        known = np.maximum(np.asarray(age, dtype=np.float64), self.min_age)
        if self.name == "horvath":
            beyond = (known / self.year - ADULT) / (ADULT + 1)
            return np.where(beyond > 0, beyond, np.log1p(np.clip(beyond, _SMALLEST - 1, 0)))
        return np.log(known - self.min_age + 1) if self.name == "log" else known

    def back(self, t: np.ndarray) -> np.ndarray:
        """The age at a value of the scale, ``min_age`` at least."""
        age = np.asarray(t, dtype=np.float64)
        if self.name == "horvath":
            age = (np.where(age > 0, age, np.expm1(np.minimum(age, 0))) * (ADULT + 1) + ADULT) * self.year
        elif self.name == "log":
            age = np.exp(age) + self.min_age - 1
        return np.maximum(age, self.min_age)


def check(age: np.ndarray, age_key: str, unit: str | None, recorded: str = "") -> None:
    """Refuse years of birth, codes for unknown ages, and ages (n_cells,) in a finer unit than ``unit``."""
    # Without a unit, years of birth alone are refused; ``recorded`` says where a unit is that the tool was not given.
    known = age[~np.isnan(age)]
    low, high = float(known.min()), float(known.max())
    born = (known >= _BIRTH[0]) & (known <= _BIRTH[1])
    if unit in (None, "years") and born.mean() > 0.5:
        first, last = known[born].min(), known[born].max()
        raise ValueError(
            f"adata.obs[{age_key!r}] holds numbers from {first:.0f} to {last:.0f} in {born.sum():,} of {len(known):,} "
            "cells, as "
            f"years of birth do; turn them into ages: adata.obs['age'] = collection_year - adata.obs[{age_key!r}]."
        )
    if unit not in YEAR or high <= OLDEST * YEAR[unit]:
        return
    beyond = known > OLDEST * YEAR[unit]
    if beyond.mean() <= 0.5:
        raise ValueError(
            f"adata.obs[{age_key!r}] has an age of {high:g} {unit}, which nobody reaches, in {beyond.sum():,} of "
            f"{len(known):,} cells; if it is a code for an unknown age, set it to NaN, else correct it."
        )
    possible = [name for name in YEAR if YEAR[name] > YEAR[unit] and high <= OLDEST * YEAR[name]]
    named = [f"age_unit={name!r}" for name in reversed(possible)]
    advice = f"name their unit: {' or '.join(named)}" if named else "correct them"
    if recorded:
        advice = f"the clock's ages are in {unit} ({recorded}), so pass a column with ages in {unit}"
    raise ValueError(
        f"adata.obs[{age_key!r}] has ages from {low:g} to {high:g} {unit}, which nobody reaches; {advice}."
    )
