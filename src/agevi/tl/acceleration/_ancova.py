"""Least squares without equal variances or independence; leading axes of ``x`` and ``y`` (..., n) are simulations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from agevi.tl.trends._permute import EQUAL, p_value

FULL = 1e-8
"""How far a leverage stays below 1 in a sample, or subject, that is not fitted exactly."""


@dataclass(frozen=True)
class Fit:
    """Coefficients of a regression, and what their intervals and tests need."""

    beta: np.ndarray  # (..., p)
    cov: np.ndarray  # (..., p, p): HC3, or CR3 where subjects have several samples
    residual: np.ndarray  # (..., n), observed minus fitted
    weight: np.ndarray  # (..., n, p): change of beta per residual when a sample, or with it its subject, is left out
    sd: np.ndarray  # (...), of the residuals
    df: int  # of Student's t

    def contrast(self, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A linear combination of coefficients, ``c`` (p,), and its standard error, (...)."""
        return self.beta @ c, np.sqrt(self.cov @ c @ c)

    def moves(self, c: np.ndarray, cluster: np.ndarray | None) -> np.ndarray:
        """Changes of a contrast when each sample, or subject, is left out; products of two sum to their covariance."""
        return jackknifed(self.weight @ c * self.residual, cluster)

    def quantile(self, level: float) -> float:
        """Standard errors on each side of an interval of this coverage."""
        return float(student.ppf((1 + level) / 2, self.df))


def fit(x: np.ndarray, y: np.ndarray, cluster: np.ndarray | None = None) -> Fit:
    """Ordinary least squares of ``y`` (..., n) on ``x`` (..., n, p) of full rank, with HC3 errors or a jackknife."""
    q, r = np.linalg.qr(x)
    rows = np.swapaxes(np.linalg.solve(r, np.swapaxes(q, -1, -2)), -1, -2)  # ..., n, p: rows of x (x'x)^-1
    along = np.swapaxes(q, -1, -2) @ y[..., None]  # ..., p, 1
    beta = np.linalg.solve(r, along)[..., 0]
    residual = y - (q @ along)[..., 0]
    n, p = x.shape[-2:]
    sd = np.sqrt(np.square(residual).sum(axis=-1) / max(n - p, 1))
    # HC3 of MacKinnon and White (1985); with clusters each subject is left out in turn (CR3, Bell and McCaffrey 2002).
    if cluster is None:
        with np.errstate(divide="ignore"):
            weight = rows / (1 - np.square(q).sum(axis=-1))[..., None]
    else:
        weight = np.empty_like(rows)
        for members in members_by_size(cluster):
            weight[..., members, :] = np.linalg.solve(blocks(q, members), rows[..., members, :])
    moved = np.swapaxes(weight * residual[..., None], -1, -2)  # ..., p, n
    moved = jackknifed(moved, cluster)
    df = n - p if cluster is None else int(cluster.max())
    return Fit(beta, moved @ np.swapaxes(moved, -1, -2), residual, weight, sd, df)


def members_by_size(cluster: np.ndarray) -> list[np.ndarray]:
    """Positions of the samples of each cluster, an array (n_clusters, size) for every size there is."""
    order = np.argsort(cluster, kind="stable")
    size = np.bincount(cluster)
    start = np.cumsum(size) - size
    return [order[start[size == m, None] + np.arange(m)] for m in np.unique(size[size > 0])]


def blocks(q: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Identity minus the part of the hat matrix of each cluster, (..., n_clusters, size, size); ``q`` (..., n, p)."""
    part = q[..., members, :]
    return np.eye(members.shape[1]) - part @ np.swapaxes(part, -1, -2)


def fitted_exactly(x: np.ndarray, cluster: np.ndarray | None = None) -> np.ndarray:
    """Which samples' subjects have a coefficient of their own, so that leaving them out leaves it undefined, (n,)."""
    q = np.linalg.qr(x)[0]
    if cluster is None:
        return np.asarray(1 - np.square(q).sum(axis=1) < FULL)
    out = np.zeros(len(x), dtype=bool)
    for members in members_by_size(cluster):
        out[members] = (np.linalg.eigvalsh(blocks(q, members))[:, 0] < FULL)[:, None]
    return out


def jackknifed(moved: np.ndarray, cluster: np.ndarray | None) -> np.ndarray:
    """Changes of coefficients, (..., n), summed by cluster, (..., n_clusters), so that squares sum to a variance."""
    if cluster is None:
        return moved
    order = np.argsort(cluster, kind="stable")
    starts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    sums = np.add.reduceat(moved[..., order], starts, axis=-1)
    g = len(starts)
    return np.asarray((sums - sums.mean(axis=-1, keepdims=True)) * np.sqrt((g - 1) / g))


def two_sided(t: Any, df: Any) -> np.ndarray:
    """Two-sided p value of Student's t."""
    return np.asarray(2 * student.sf(np.abs(t), df))


def permutation_p(
    x: np.ndarray,
    y: np.ndarray,
    column: int,
    n_permutations: int,
    rng: np.random.Generator,
    cluster: np.ndarray | None = None,
) -> float:
    """Two-sided p of one coefficient by permuting the residuals of the model without it (Freedman and Lane, 1983)."""
    n = len(y)
    order = np.arange(n) if cluster is None else np.argsort(cluster, kind="stable")
    cluster = None if cluster is None else cluster[order]
    x, y = x[order], y[order]
    q = np.linalg.qr(np.delete(x, column, axis=1))[0]
    reduced = y - q @ (q.T @ y)
    own = x[:, column] - q @ (q.T @ x[:, column])
    squares = own @ own
    weight = fit(x, y, cluster).weight[:, column]

    # HC3 or CR3 errors keep the size of the t where variances differ (DiCiccio and Romano, 2017).
    def statistic(e: np.ndarray) -> np.ndarray:
        """Absolute t for residuals of the reduced model, (n_draws, n)."""
        e = e - (e @ q) @ q.T
        estimate = e @ own / squares
        moved = jackknifed((e - estimate[:, None] * own) * weight, cluster)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.abs(estimate) / np.sqrt(np.square(moved).sum(axis=-1)))

    found = statistic(reduced[None])[0]
    if n_permutations == 0 or not np.isfinite(found) or np.ptp(y) <= EQUAL * np.abs(y).max():
        return np.nan
    codes = np.arange(n) if cluster is None else cluster
    return p_value(statistic, reduced, codes, found, n_permutations, rng)


def fieller(numerator: Any, denominator: Any, var_n: Any, var_d: Any, cov: Any, quantile: float) -> tuple[Any, Any]:
    """Interval of a ratio, ``quantile`` standard errors to each side (Fieller, 1954), NaN where it is unbounded."""
    a = np.square(denominator) - quantile**2 * var_d
    b = numerator * denominator - quantile**2 * cov
    c = np.square(numerator) - quantile**2 * var_n
    inside = b**2 - a * c
    bounded = (a > 0) & (inside >= 0)
    root, a = np.sqrt(np.where(bounded, inside, np.nan)), np.where(bounded, a, np.nan)
    return (b - root) / a, (b + root) / a


@dataclass(frozen=True)
class Deviations:
    """Where samples stand against what the reference of their age and covariates leads one to expect; all (n,)."""

    expected: np.ndarray
    spread: np.ndarray
    """Standard deviation of a reference sample around ``expected``, the uncertainty of the line included."""
    df: np.ndarray


def deviations(x: np.ndarray, y: np.ndarray, is_reference: np.ndarray, subject: np.ndarray) -> Deviations:
    """Expectation of every sample, (n,), from reference samples of other subjects; ``x`` (n, p) without the group."""
    centre = y[is_reference].mean()
    # Columns that do not vary in the reference have the coefficient 0 there.
    _, sizes, vt = np.linalg.svd(x[is_reference], full_matrices=False)
    basis = vt[sizes > 1e-9 * sizes[0]].T  # p x rank: orthonormal directions in which the reference varies
    estimable = np.abs(x - x @ basis @ basis.T).max(axis=1) < 1e-6 * np.maximum(1, np.abs(x).max(axis=1))
    z, y = x @ basis, y - centre
    zr, yr = z[is_reference], y[is_reference]
    own = np.unique(subject[is_reference])
    position = np.searchsorted(own, subject[is_reference])
    # The first entry is the whole reference; each other one lacks a subject.
    n, gram = np.array([len(yr)]), zr.T @ zr
    lost = np.zeros((len(own) + 1, *gram.shape))
    lost_y, lost_n, lost_yy = np.zeros((len(own) + 1, z.shape[1])), np.zeros(len(own) + 1), np.zeros(len(own) + 1)
    np.add.at(lost, position + 1, zr[:, :, None] * zr[:, None, :])
    np.add.at(lost_y, position + 1, zr * yr[:, None])
    np.add.at(lost_yy, position + 1, yr**2)
    np.add.at(lost_n, position + 1, 1)
    gram, right = gram - lost, zr.T @ yr - lost_y
    singular = np.linalg.eigvalsh(gram)[:, 0] < FULL * len(yr)
    inverse = np.linalg.inv(np.where(singular[:, None, None], np.eye(gram.shape[1]), gram))
    beta = np.einsum("gij,gj->gi", inverse, right)
    df = n - lost_n - z.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.maximum((yr @ yr - lost_yy) - np.einsum("gi,gi->g", beta, right), 0) / df
    variance[singular | (df < 1)] = np.nan
    beta[singular] = np.nan
    which = np.where(np.isin(subject, own), np.searchsorted(own, subject) + 1, 0)
    leverage = np.einsum("ni,nij,nj->n", z, inverse[which], z)
    expected = np.einsum("ni,ni->n", z, beta[which]) + centre
    spread = np.sqrt(variance[which] * (1 + leverage))
    return Deviations(np.where(estimable, expected, np.nan), np.where(estimable, spread, np.nan), df[which])
