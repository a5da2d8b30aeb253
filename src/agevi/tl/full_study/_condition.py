"""Which groups a study compares, who trains its clocks, and whether the comparison can be made at all."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _names, _units
from agevi._settings import quieter
from agevi.tl.acceleration import age_acceleration
from agevi.tl.predict._aggregate_subjects import aggregate_subjects

ENOUGH = 30
"""Subjects of the reference from which they alone train."""
FEW = 10
"""The same where the groups differ in age, so that genes of a disease could pass for genes of age."""
APART = 0.25
"""Difference of mean ages in standard deviations from which groups differ in age, as in ``tl.age_acceleration``."""


@dataclass(frozen=True)
class Comparison:
    """The reference among the groups, and what follows from it."""

    left_out: str  # why nothing is compared; "" where something is
    reference: str = ""
    reference_values: tuple[Any, ...] = ()  # of the reference in the column
    n_reference: int = 0  # subjects with an age
    trains_reference: bool = False  # whether the reference alone trains
    paired: bool = False
    why: str = ""  # who trains, in words


def compared(
    adata: AnnData, given: Any, subject: pd.Series, sample: pd.Series, age: pd.Series, owner: pd.Series
) -> Comparison:
    """The comparison that ``given`` asks for; ``age`` and ``owner`` are of samples, the others of cells."""
    key = given.condition_key
    if key is None:
        for name, value in (("reference", given.reference), ("covariates", given.covariates)):
            if value not in (None, ()):
                raise ValueError(f"{name}={value!r} without condition_key; name the column with the groups to compare.")
        return Comparison("condition_key was not given")
    values = _checks.column(adata, key, "condition_key")
    for name in given.covariates:
        _checks.column(adata, name, "covariates")
    advice = "condition_key takes a column with one value per sample."
    group = _names.names(_units.one_per_unit(values, sample, key, advice))
    reference = _reference(given.reference, _names.levels(values), key)
    known = age.dropna().index
    n = owner.loc[known].groupby(group.loc[known].to_numpy()).nunique()
    n_reference = int(n.get(reference, 0))
    of_reference = group.loc[known] == reference
    shared = set(owner.loc[known][of_reference]) & set(owner.loc[known][~of_reference & group.loc[known].notna()])
    raw = pd.unique(values[_names.names(values).to_numpy() == reference])
    found: dict[str, Any] = {
        "reference": reference,
        "reference_values": tuple(v.item() if isinstance(v, np.generic) else v for v in raw),
        "n_reference": n_reference,
        "paired": bool(shared),
    }
    counts = ", ".join(f"{name!r}: {k}" for name, k in n.items())
    least = _units.MIN_LABELLED_SUBJECTS
    if n_reference < least or n.drop(reference, errors="ignore").max() < least:
        why = f"a comparison needs {least} subjects with an age in each of two groups, and there are {counts or 'none'}"
        return Comparison(why, **found)
    left_out = _rehearse(adata, given, reference, bool(shared))
    trains, why = _who_trains(age.loc[known], of_reference, n_reference, bool(shared), reference)
    return Comparison(left_out, trains_reference=trains, why=why, **found)


def _reference(reference: Any, levels: list[str], key: str) -> str:
    """Name of the reference, which is one of the groups."""
    name = None if reference is None else _names.name(reference)
    if name in levels:
        return str(name)
    hint = "" if reference is None else _checks.closest(reference, levels)
    there = f"one of {_checks.listed(levels, 9)}" if levels else "but the column has no values"
    raise ValueError(
        f"reference={reference!r} is not a group of condition_key={key!r}{hint}. Pass the group that others are "
        f"compared with, {there}."
    )


def _who_trains(age: pd.Series, of_reference: pd.Series, n: int, paired: bool, reference: str) -> tuple[bool, str]:
    """Whether the reference alone trains, and why, in words."""
    if paired:
        return False, "everybody, since subjects have samples in both groups"
    ages = age[of_reference], age[~of_reference]
    spread = float(age.std())
    apart = abs(ages[0].mean() - ages[1].mean()) > APART * spread if spread else False
    if n >= ENOUGH:
        return True, f"{reference!r} alone ({n} subjects), so that genes of a disease cannot pass for genes of age"
    if apart and n >= FEW:
        return True, f"{reference!r} alone ({n} subjects), since the groups differ in age"
    return False, f"everybody, since {reference!r} has only {n} subjects"


def _rehearse(adata: AnnData, given: Any, reference: str, paired: bool) -> str:
    """Why the samples cannot be compared, "" where they can; an argument that cannot be used is an error."""
    columns = {given.subject_key, given.sample_key, given.age_key, given.condition_key, *given.covariates} - {None}
    obs = adata.obs[[column for column in adata.obs if column in columns]].copy()
    codes = pd.factorize(adata.obs[given.sample_key or given.subject_key])[0]
    noise = np.random.default_rng(0).normal(size=codes.max() + 1)[codes]
    age = obs[given.age_key].to_numpy(dtype=np.float64, na_value=np.nan)
    shell = AnnData(np.zeros((len(obs), 1), np.float32), obs=obs)
    keys = _keys.Keys()
    shell.obs[keys.predicted] = shell.obs[keys.predicted_sample] = np.nan_to_num(age) + noise
    shell.obs[keys.role] = _keys.OUT_OF_FOLD
    shell.uns[keys.uns] = given.units | given.unit | {"sample_key": given.sample_key or given.subject_key}
    options = {"groupby": given.condition_key, "reference": reference, "paired": paired, "n_permutations": 0}
    # Nothing is said about predictions that stand for those to come.
    with quieter(logging.CRITICAL, "agevi.tl.acceleration", "agevi.tl.predict"):
        aggregate_subjects(shell)
        try:
            age_acceleration(shell, **options)
        except ValueError as error:
            return str(error).replace("groupby=", "condition_key=")
        try:
            age_acceleration(shell, covariates=given.covariates, **options)
        except (KeyError, TypeError, ValueError) as error:
            raise type(error)(str(error.args[0]).replace("groupby=", "condition_key=")) from None
    return ""
