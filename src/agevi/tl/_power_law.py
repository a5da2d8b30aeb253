"""Error as a power law of the amount of data, and what twice as much would change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agevi.metrics._bootstrap import interval

EXPONENTS = np.geomspace(0.02, 2.0, 160)
"""Exponents b of error = c + a n^-b among which least squares choose."""
MIN_LEVELS, MIN_RANGE = 3, 1.9
"""Levels, and ratio of the largest to the smallest (two, but for rounding), below which no law is fitted."""


@dataclass(frozen=True)
class PowerLaw:
    """error(n) = c + a n^-b of several curves at once, each an array of shape (n_curves,)."""

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray

    def at(self, n: np.ndarray | float) -> np.ndarray:
        """Fitted error, (n_curves, n_levels)."""
        n = np.atleast_1d(np.asarray(n, dtype=np.float64))
        return np.asarray(self.c[:, None] + self.a[:, None] * n ** -self.b[:, None])

    def change(self, n: float) -> np.ndarray:
        """Fitted error at 2n minus that at n, (n_curves,)."""
        return np.asarray(self.a * n**-self.b * (2.0**-self.b - 1))


def fit_power_law(n: np.ndarray, error: np.ndarray) -> PowerLaw:
    """Least squares of relative errors with c >= 0 and b in (0, 2]; a may be negative, for errors that rise with n.

    Parameters
    ----------
    n
        Amount of data, (n_levels,).
    error
        Errors, all above 0, (n_curves, n_levels).
    """
    error = np.atleast_2d(np.asarray(error, dtype=np.float64))
    largest = float(np.max(n))
    best = np.full(len(error), np.inf)
    a, b, c = (np.zeros(len(error)) for _ in range(3))
    weight = 1 / error
    s_one, s_ww = weight.sum(axis=1), (weight**2).sum(axis=1)
    for exponent in EXPONENTS:
        x = (np.asarray(n, dtype=np.float64) / largest) ** -exponent  # 1 at the largest level
        wx = weight * x
        s_x, s_xx, s_wx = wx.sum(axis=1), (wx**2).sum(axis=1), (wx * weight).sum(axis=1)
        slope = (s_ww * s_x - s_wx * s_one) / (s_ww * s_xx - s_wx**2)
        floor = (s_one - slope * s_wx) / s_ww
        through_zero = floor < 0
        floor, slope = np.where(through_zero, 0.0, floor), np.where(through_zero, s_x / s_xx, slope)
        loss = ((floor[:, None] * weight + slope[:, None] * wx - 1) ** 2).sum(axis=1)
        better = loss < best
        best = np.where(better, loss, best)
        a, c = np.where(better, slope * largest**exponent, a), np.where(better, floor, c)
        b = np.where(better, exponent, b)
    return PowerLaw(a, b, c)


def can_fit(n: np.ndarray) -> bool:
    """Whether the levels are enough for a law."""
    levels = np.unique(n)
    return len(levels) >= MIN_LEVELS and levels[-1] >= MIN_RANGE * levels[0]


def change_at_twice(n: np.ndarray, error: np.ndarray, draws: np.ndarray, level: float) -> dict[str, float]:
    """Coefficients, and the change of the error when the largest amount is doubled, with its interval.

    The draws are fitted to all levels, to all but the smallest, and so on down to the three largest, in turn: errors follow one
    law over a limited range, and the interval of fits to all levels alone is far too narrow.

    Parameters
    ----------
    n
        Amount of data, (n_levels,).
    error
        Errors, (n_levels,).
    draws
        Errors of resampled data, (n_draws, n_levels).
    level
        Coverage of the interval.
    """
    if not can_fit(n):
        return dict.fromkeys(("a", "b", "c", "change", "change_low", "change_high"), float("nan"))
    fit, largest = fit_power_law(n, error[None]), float(np.max(n))
    starts = [k for k in range(len(n)) if can_fit(n[k:])]
    changes = [fit_power_law(n[k:], draws[i :: len(starts), k:]).change(largest) for i, k in enumerate(starts)]
    low, high = interval(np.concatenate(changes), 0.5 + level / 2)
    return {
        "a": float(fit.a[0]),
        "b": float(fit.b[0]),
        "c": float(fit.c[0]),
        "change": float(fit.change(largest)[0]),
        "change_low": low,
        "change_high": high,
    }
