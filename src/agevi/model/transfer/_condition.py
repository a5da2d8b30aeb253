"""Who is a case and who a control, and who of them trains a classifier."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _names
from agevi._units import PerUnit
from agevi.dataloaders._assign import assign_roles, role_counts
from agevi.dataloaders._splitter import roles_from_column

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
    """1.0 for cases, 0.0 for controls, NaN for others, by subject in order; ``names`` are (controls, cases)."""
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


def roles_of(
    adata: AnnData, case: pd.Series, subject: pd.Series, *, split_key: str, train_roles: tuple[str, ...], rng: int
) -> pd.Series:
    """Role of every subject, indexed by subject in the order of their names, as is ``case`` (NaN where unlabelled)."""
    wanted = (train_roles,) if isinstance(train_roles, str) else tuple(train_roles)
    if not wanted:
        raise ValueError("train_roles is empty; pass the roles that train, such as ('train',).")
    for role in wanted:
        _checks.choice(role, _keys.SPLIT_ROLES, "train_roles")
    if split_key in adata.obs or split_key != _keys.SPLIT:
        roles = roles_from_column(adata, split_key, subject)
    else:
        roles = _own_split(case, rng)
    return roles.where(~roles.isin(wanted), _keys.TRAIN)


def _own_split(case: pd.Series, rng: int) -> pd.Series:
    """A 70/15/15 split within cases and within controls, the same in every call."""
    roles, generator = pd.Series(_keys.TRAIN, index=case.index, dtype=object), np.random.default_rng(rng)
    for label in (0.0, 1.0):
        names = case.index[case == label]
        n_test, n_validation = role_counts(len(names), 0.15, 0.15)
        zeros = np.zeros(len(names))
        roles[names] = assign_roles(zeros, zeros.astype(int), n_test, n_validation, generator)
    logger.info(
        "adata.obs has no %r; %d subjects train, %d validate and %d test (model.split_). Make your own split with "
        "agevi.pp.split_subjects.", _keys.SPLIT, *((roles == r).sum() for r in _keys.SPLIT_ROLES),
    )  # fmt: skip
    return roles


logger = logging.getLogger(__name__)
