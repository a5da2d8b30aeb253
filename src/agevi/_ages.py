"""Units of age, and what cannot be an age in them."""

from __future__ import annotations

import numpy as np

YEAR = {"years": 1.0, "months": 12.0, "weeks": 365.25 / 7, "days": 365.25}
"""Length of a year in each unit of ages."""
OLDEST = 150.0
"""Years that no person and no animal of the laboratory reaches."""
_BIRTH = (1900, 2100)


def check(age: np.ndarray, age_key: str, unit: str | None) -> None:
    """Refuse years of birth, ages in a finer unit than ``unit`` and codes for unknown ages.

    Parameters
    ----------
    age
        Ages, (n_cells,), NaN where unlabelled; at least one is not.
    age_key
        Their column, for messages.
    unit
        One of :data:`YEAR`; None where the tool is not told: then years of birth alone are refused.
    """
    known = age[~np.isnan(age)]
    low, high = float(known.min()), float(known.max())
    born = (known >= _BIRTH[0]) & (known <= _BIRTH[1])
    if unit in (None, "years") and born.mean() > 0.5:
        first, last = known[born].min(), known[born].max()
        raise ValueError(
            f"adata.obs[{age_key!r}] holds numbers from {first:.0f} to {last:.0f} in {born.sum():,} of {len(known):,} cells, as "
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
    finer = [repr(name) for name in YEAR if YEAR[name] > YEAR[unit]]
    advice = f"name their unit, age_unit={' or '.join(reversed(finer))}" if finer else "correct them"
    raise ValueError(
        f"adata.obs[{age_key!r}] has ages from {low:g} to {high:g} {unit}, which nobody reaches; {advice}."
    )
