"""Who is a case and who a control."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _names
from agevi._units import PerUnit

_TRUTH = {"0": "False", "1": "True", "False": "0", "True": "1"}
"""What else a control may be called."""


def levels(adata: AnnData, condition_key: str, control: str) -> tuple[str, str]:
    """Names of the controls and of the cases in a column that has these two; missing values are unlabelled."""
    text = _names.names(_checks.column(adata, condition_key, "condition_key"), f"adata.obs[{condition_key!r}]")
    found = sorted(text.dropna().unique())
    if len(found) != 2:
        pairs = _names.twins(found)
        alike = f", of which only zeros, spaces, case or '.0' differ in {_names.shown(pairs)}" if pairs else ""
        raise ValueError(
            f"adata.obs[{condition_key!r}] has {len(found)} level{'s' * (len(found) != 1)} "
            f"({_checks.listed(found) or 'none'}){alike}; a classifier tells two apart. Pass a subset of adata with "
            "two, or set others to missing, which means unlabelled."
        )
    name = _names.name(control)
    if name not in found:
        name = _TRUTH.get(name, name)
    if name not in found:
        hint = _checks.closest(name, found)
        raise ValueError(
            f"control={control!r} is not in adata.obs[{condition_key!r}]{hint}. Available: {_checks.listed(found)}."
        )
    return name, next(level for level in found if level != name)


def case_by_subject(adata: AnnData, condition_key: str, names: tuple[str, str], subject: pd.Series) -> pd.Series:
    """1.0 for cases, 0.0 for controls, NaN for others, by subject by name; ``names`` are (controls, cases)."""
    values = _checks.column(adata, condition_key, "condition_key")
    text = _names.names(values, f"adata.obs[{condition_key!r}]")
    _checks.warn_of_spelling(text.dropna(), names, condition_key, "are unlabelled to the classifier")
    code = text.map({names[0]: 0.0, names[1]: 1.0}).astype(np.float64)
    found = PerUnit(code.to_numpy(), subject)
    if len(found.several):
        others = f", as are {len(found.several) - 1} others" if len(found.several) > 1 else ""
        raise ValueError(
            f"subject {found.several[0]!r} is both {names[1]!r} and {names[0]!r} in "
            f"adata.obs[{condition_key!r}]{others}; a "
            "subject is held out as a whole and has one condition. Correct it, or drop the subject."
        )
    if len(found.part):
        own = found.cells(found.part[0])
        raise ValueError(
            f"subject {found.part[0]!r} has a condition in {own.count():,} of its {len(own):,} cells in "
            f"adata.obs[{condition_key!r}]; give all its cells the condition, or none."
        )
    return found.values


def check_both(case: pd.Series, what: str, names: tuple[str, str], least: int = 1) -> None:
    """Refuse subjects among whom there are too few cases or controls."""
    n = [int((case == code).sum()) for code in (0.0, 1.0)]
    if min(n) < least:
        raise ValueError(
            f"{what}: {n[1]} of {names[1]!r} and {n[0]} of {names[0]!r}; {least} or more of each are needed. Label "
            "more subjects, or hold fewer out."
        )
