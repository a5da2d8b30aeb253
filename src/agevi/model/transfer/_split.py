"""Roles of subjects in the training of a classifier."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys
from agevi.dataloaders._assign import assign_roles, role_counts
from agevi.dataloaders._splitter import roles_from_column

logger = logging.getLogger(__name__)


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
