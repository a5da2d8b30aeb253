"""Which subjects train, validate and test: whole subjects, spread over ages and strata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.optimize import linear_sum_assignment

from agevi import _checks, _keys, _names

MAX_MATCHED = 1500
"""Held-out subjects up to which strata are matched exactly (the matching takes the cube of this number)."""


def subject_ages(age_by_sample: pd.Series, subject_of: pd.Series) -> pd.Series:
    """Mean age of every subject's labelled samples, (n_subjects,), from ages and subjects indexed by sample."""
    return age_by_sample.groupby(subject_of.loc[age_by_sample.index].to_numpy(), sort=True).mean()


def subject_strata(adata: AnnData, columns: Sequence[str], subject: pd.Series) -> pd.Series | None:
    """Stratum of every subject: its most common value in each column, joined; None without columns."""
    if not columns:
        return None
    parts = [_most_common(_checks.column(adata, key, "stratify_by"), subject, key) for key in columns]
    return pd.concat(parts, axis=1).agg("\x1f".join, axis=1)  # a separator that no label has


def _most_common(values: pd.Series, subject: pd.Series, key: str) -> pd.Series:
    """Most common value of every subject as text; equally common ones joined, as of a sample in each of two tissues."""
    text = _names.names(values, f"adata.obs[{key!r}]").fillna("")
    frame = pd.DataFrame({"subject": subject.to_numpy(), "value": text.to_numpy()})
    counts = frame.value_counts().rename("n").reset_index()
    most = counts[counts["n"] == counts.groupby("subject")["n"].transform("max")].sort_values(["subject", "value"])
    return most.groupby("subject")["value"].agg("\x1e".join)


def role_counts(n_labelled: int, test_size: float, validation_size: float) -> tuple[int, int]:
    """Numbers of test and validation subjects, from shares of the labelled ones (rounded half up, at least 1)."""
    n_test = _count(n_labelled, test_size, "test_size")
    n_validation = _count(n_labelled, validation_size, "validation_size")
    if n_test + n_validation >= n_labelled:
        raise ValueError(
            f"test_size={test_size!r} and validation_size={validation_size!r} of {n_labelled} labelled subjects hold "
            f"out {n_test} + {n_validation} and leave none to train on; lower them."
        )
    return n_test, n_validation


def _count(n_labelled: int, size: Any, argument: str) -> int:
    """``size`` as a number of subjects."""
    if isinstance(size, (bool, np.bool_)) or not isinstance(size, (int, float, np.integer, np.floating)):
        raise TypeError(
            f"{argument}={size!r} is a {type(size).__name__}; pass a share (0.15) or a number of subjects (3)."
        )
    if isinstance(size, (int, np.integer)):
        if size < 0:
            raise ValueError(f"{argument}={size!r} is negative; pass a share (0.15) or a number of subjects (3).")
        return int(size)
    if not 0 <= size < 1:
        raise ValueError(f"{argument}={size!r} is not a share in [0, 1); for a number of subjects pass an integer.")
    return max(1, int(np.floor(size * n_labelled + 0.5))) if size > 0 else 0


def assign_roles(
    age: np.ndarray,
    strata: np.ndarray | None,
    n_test: int,
    n_validation: int,
    rng: int | np.random.Generator | None = 0,
) -> np.ndarray:
    """Role of every subject, (n_subjects,), in the order of names: ``n_test`` and ``n_validation`` are held out."""
    rng = np.random.default_rng(rng)
    age = np.asarray(age, dtype=np.float64)
    codes = np.zeros(len(age), dtype=np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
    labelled = np.flatnonzero(~np.isnan(age))
    if n_test + n_validation >= len(labelled):
        raise ValueError(
            f"{n_test} + {n_validation} of {len(labelled)} labelled subjects leave none to train on; hold out fewer."
        )
    # Ties in age are ordered at random, then by age.
    order = rng.permutation(labelled)
    order = order[np.argsort(age[order], kind="stable")]
    # One of each block of neighbours in age: held-out ages span the range of all ages at any cohort size.
    held = _spread(order, codes, n_test + n_validation, rng)
    held = _keep_two_ages(order, held, age, rng)
    test = _spread(held, codes, n_test, rng)
    roles = np.full(len(age), _keys.TRAIN, dtype=object)
    roles[held] = _keys.VALIDATION
    roles[test] = _keys.TEST
    return roles


def _spread(order: np.ndarray, codes: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """``k`` of the subjects in ``order`` of age, one from each of ``k`` consecutive blocks, in proportion to strata."""
    if k == 0:
        return order[:0]
    edges = np.floor(np.arange(k + 1) * (len(order) / k) + rng.random()).astype(np.int64)
    blocks = np.split(order, edges[1:-1])
    wanted = _wanted_strata(blocks, codes[order], codes, rng)
    picked = []
    for block, stratum in zip(blocks, wanted, strict=True):
        of_stratum = block[codes[block] == stratum]
        picked.append(rng.choice(of_stratum if len(of_stratum) else block))
    return np.asarray(picked, dtype=order.dtype)


def _wanted_strata(
    blocks: list[np.ndarray], present: np.ndarray, codes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Stratum to pick from each block, (k,), so that the picks are in proportion to the strata."""
    k = len(blocks)
    names, counts = np.unique(present, return_counts=True)
    if len(names) == 1:
        return np.full(k, names[0])
    # Systematic rounding: stratum s gets the floor or the ceiling of k n_s / n, with that expectation.
    shuffled = rng.permutation(len(names))
    edges = np.cumsum(counts[shuffled]) * (k / counts.sum())
    upto = np.floor(np.r_[0.0, edges[:-1], k] + rng.random()).astype(np.int64)
    slots = rng.permutation(np.repeat(names[shuffled], np.diff(upto)))  # (k,)
    if k > MAX_MATCHED:  # blocks are many: a random member of each is in proportion well enough
        return np.asarray([codes[rng.choice(block)] for block in blocks])
    has = np.zeros((k, codes.max() + 1), dtype=bool)
    for i, block in enumerate(blocks):
        has[i, codes[block]] = True
    # The jitter is below 1 in total, so it chooses among the best matchings and never against one.
    cost = ~has[:, slots] + rng.random((k, k)) / (2 * k)
    return slots[linear_sum_assignment(cost)[1]]


def _keep_two_ages(order: np.ndarray, held: np.ndarray, age: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``held`` with one subject exchanged where the others would all be of one age, if that can be helped."""
    train = np.setdiff1d(order, held)
    if len(train) < 2 or np.ptp(age[train]) > 0:
        return held
    other = np.flatnonzero(age[held] != age[train[0]])
    if len(other) == 0:
        return held
    held = held.copy()
    held[rng.choice(other)] = rng.choice(train)
    return held[np.argsort(age[held], kind="stable")]
