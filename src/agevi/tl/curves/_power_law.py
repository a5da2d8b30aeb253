"""Error as a power law of the amount of data, and what twice as much would change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agevi.metrics._bootstrap import interval

EXPONENTS = np.geomspace(0.02, 2.0, 160)
"""Exponents b of error = c + a n^-b among which least squares choose."""
LEAST, MOST, MOST_EARLY = 0.25, 1.0, 2.0
"""What the next doubling may bring, as a share of the last: 2^-b of a falling law, b up to 2, and up to twice as much
before the curve bends (1.7 at most in benchmarks/learning_curve_intervals.py)."""
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
    """Least squares of relative errors with c >= 0 and b in (0, 2]; a may be negative, for errors that rise with n."""
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


def last_doubling(n: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Change of the error from half of the largest amount, interpolated over its logarithm, to it, (n_curves,)."""
    x = np.log2(n / np.max(n))  # rising up to 0
    right = int(np.searchsorted(x, -1.0)) or len(x) - 1  # all levels where the smallest is half or just above
    left = right - 1 if x[0] < -1 else 0
    weight = (-1.0 - x[left]) / (x[right] - x[left])
    return np.asarray(error[:, -1] - (1 - weight) * error[:, left] - weight * error[:, right])


def change_at_twice(
    n: np.ndarray, error: np.ndarray, draws: np.ndarray, level: float, *, early: bool = False
) -> dict[str, float]:
    """Coefficients, and the changes of the error at the last doubling and at the next, with their intervals."""
    if not can_fit(n):
        names = ("a", "b", "c", "change", "change_low", "change_high", "last_change", "last_low", "last_high")
        return dict.fromkeys(names, float("nan"))
    fit, largest = fit_power_law(n, error[None]), float(np.max(n))
    starts = [k for k in range(len(n)) if can_fit(n[k:])]
    # fitted to all levels, to all but the smallest, and so on down to the three largest
    changes = [fit_power_law(n[k:], draws[i :: len(starts), k:]).change(largest) for i, k in enumerate(starts)]
    of_law = interval(np.concatenate(changes), 0.5 + level / 2)
    last_low, last_high = interval(last_doubling(n, draws), 0.5 + level / 2)
    # The next doubling of any falling law with b up to 2 brings between a quarter of the last and all of it, and up to
    # twice as much while errors still fall ever faster, as they do before a clock knows much.
    most, least = (MOST_EARLY if early else MOST), LEAST
    change = float(fit.change(largest)[0])
    low = last_low * (most if last_low < 0 else least)
    high = last_high * (least if last_high < 0 else most)
    coefficients = {"a": float(fit.a[0]), "b": float(fit.b[0]), "c": float(fit.c[0])}
    ends = {"change_low": min(low, of_law[0], change), "change_high": max(high, of_law[1], change)}
    last = {"last_change": float(last_doubling(n, error[None])[0]), "last_low": last_low, "last_high": last_high}
    return coefficients | {"change": change} | ends | last
