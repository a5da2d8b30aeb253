"""The linear path around the network: one ridge regression per tissue and modality, with or without a shared part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agevi.model.transformer._ridge import Ridge, fit_ridge, folds_of

MIN_SUBJECTS = 10
"""Training subjects from which a group of samples has a regression, and moments, of its own."""
MAX_ROWS = 2000
"""Rows that one regression is fitted to; its cost goes with the cube of their number."""
MAX_SHARED = 1600
"""The same for regressions on several groups, which only support those of the groups."""
_BLOCK = 512
_GAIN = 0.98  # squared error, as a share of that of a group's own regression, below which the shared part is used

Values = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Rows:
    """Labelled training rows."""

    position: np.ndarray  # (n,) in the data
    target: np.ndarray  # (n,) standardised age
    subject: np.ndarray  # (n,) code
    group: np.ndarray  # (n,) group of its tissue and modality
    fallback: np.ndarray  # (n,) group of its modality alone

    def __getitem__(self, chosen: np.ndarray) -> Rows:
        return Rows(**{name: value[chosen] for name, value in vars(self).items()})


def fit_skip(
    values: Values, rows: Rows, *, n_groups: int, n_tissues: int, n_features: int, share: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Linear ages, (n_groups, n_features) and (n_groups,): of each group with enough subjects, else of its modality."""
    # Beside them, (n, 2), the prediction of every row by subjects other than its own: of its group, of its modality.
    coef, intercept = np.zeros((n_groups, n_features), np.float32), np.zeros(n_groups)
    held_out = np.zeros((len(rows.target), 2))
    common = None
    if share:  # a regression on all groups, of ages around the mean of their group
        code = np.unique(rows.group, return_inverse=True)[1]
        centre = (np.bincount(code, rows.target) / np.bincount(code))[code]
        around = Rows(**(vars(rows) | {"target": rows.target - centre}))
        common = _fit(values, around, rows.group, rng, MAX_SHARED)
    for modality in np.unique(rows.fallback):
        of = np.flatnonzero(rows.fallback == modality)
        groups = np.unique(rows.group[of])
        one = _fit(values, rows[of], rows.fallback[of], rng, MAX_SHARED) if len(groups) > 1 else None
        for group in groups:
            own = np.flatnonzero(rows.group == group)
            fit = _own(values, rows[own], common, own, rng)
            if fit is None:
                fit = one or _constant(rows.target[own], n_features)
                fit = Ridge(fit.coef, fit.intercept, fit.held_out[np.searchsorted(of, own)])
            coef[group], intercept[group], held_out[own, 0] = fit.coef, fit.intercept, fit.held_out
        if one is None:
            one = Ridge(coef[groups[0]], float(intercept[groups[0]]), held_out[of, 0])
        coef[modality], intercept[modality], held_out[of, 1] = one.coef, one.intercept, one.held_out
        unseen = np.setdiff1d(np.arange(modality, modality + n_tissues + 1), groups)
        coef[unseen], intercept[unseen] = one.coef, one.intercept
    return coef, intercept, held_out


def _constant(y: np.ndarray, n_features: int) -> Ridge:
    """The mean age."""
    return Ridge(np.zeros(n_features), float(y.mean()), np.full(len(y), y.mean()))


def _own(values: Values, rows: Rows, common: Ridge | None, place: np.ndarray, rng: np.random.Generator) -> Ridge | None:
    """The regression of one group; None where it has too few subjects."""
    if len(np.unique(rows.subject)) < MIN_SUBJECTS:
        return None
    own = _fit(values, rows, rows.group, rng)
    if common is None:
        return own
    start = common.held_out[place]
    rest = _fit(values, Rows(**(vars(rows) | {"target": rows.target - start})), rows.group, rng)
    error, joint = (np.mean((p - rows.target) ** 2) for p in (own.held_out, start + rest.held_out))
    if joint > _GAIN * error:
        return own
    return Ridge(common.coef + rest.coef, common.intercept + rest.intercept, start + rest.held_out)


def _fit(values: Values, rows: Rows, group: np.ndarray, rng: np.random.Generator, max_rows: int = MAX_ROWS) -> Ridge:
    """Ridge on the rows of some subjects; the other rows are predicted."""
    n = len(rows.target)
    if n < 2 or len(np.unique(rows.subject)) < MIN_SUBJECTS:
        return _constant(rows.target, values(rows.position[:1], group[:1]).shape[1])
    chosen = np.arange(n)
    if n > max_rows:
        code = np.unique(rows.subject, return_inverse=True)[1]
        order = rng.permutation(code.max() + 1)
        size = np.cumsum(np.bincount(code)[order])
        kept = order[: max(2, int(np.searchsorted(size, max_rows, side="right")))]
        chosen = np.flatnonzero(np.isin(code, kept))
    y = rows.target[chosen]
    fit = fit_ridge(values(rows.position[chosen], group[chosen]), y, folds_of(rows.subject[chosen], y, rng))
    held_out = np.empty(n)
    held_out[chosen] = fit.held_out
    others = np.setdiff1d(np.arange(n), chosen)
    for start in range(0, len(others), _BLOCK):
        block = others[start : start + _BLOCK]
        held_out[block] = fit.predict(values(rows.position[block], group[block]))
    return Ridge(fit.coef, fit.intercept, held_out)
