"""Table of a learning curve from the errors of held-out samples, and what it says in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agevi.metrics._bootstrap import interval
from agevi.metrics._rows import error_ratio
from agevi.tl.curves._levels import CELLS, Level
from agevi.tl.curves._power_law import can_fit, change_at_twice, fit_power_law

COVERAGE = 0.95
_EARLY = 2 / 3
"""Share of the median age's error above which a clock knows so little that its errors may still fall ever faster."""


@dataclass(frozen=True)
class Point:
    """One level: predictions of every repeat, (n_repeats, n_samples), and what trained the clocks."""

    level: Level
    n: int  # subjects or cells
    predicted: np.ndarray
    reference: np.ndarray  # median age of the training samples, (n_repeats, n_samples)
    n_train: int
    n_cells: int  # of a sample

    def errors(self, age: np.ndarray) -> np.ndarray:
        """Absolute errors, (n_repeats, n_samples)."""
        return np.abs(self.predicted - age)


@dataclass(frozen=True)
class Resampler:
    """Draws of whole subjects, the same at all levels, and of repeats."""

    subject: np.ndarray  # (n_samples,) code
    drawn: np.ndarray  # (n_draws, n_subjects) times that a subject was drawn
    seed: np.random.SeedSequence

    @classmethod
    def of(cls, subject: np.ndarray, n_boot: int, seed: np.random.SeedSequence) -> Resampler:
        """Draws for samples of these subjects."""
        own, of_repeats = seed.spawn(2)
        codes = np.unique(subject, return_inverse=True)[1]
        n = int(codes.max()) + 1
        return cls(codes, np.random.default_rng(own).multinomial(n, np.full(n, 1 / n), size=n_boot), of_repeats)

    def means(self, errors: np.ndarray, number: int) -> np.ndarray:
        """Mean error of every draw, (n_draws,), from (n_repeats, n_samples); the level's ``number`` chooses repeats."""
        n_repeats = len(errors)
        sums = np.stack([np.bincount(self.subject, weights=e) for e in errors])
        of_draw = self.drawn @ sums.T / (self.drawn @ np.bincount(self.subject))[:, None]  # n_draws x n_repeats
        rng = np.random.default_rng(np.random.SeedSequence(self.seed.entropy, spawn_key=(*self.seed.spawn_key, number)))
        weight = rng.multinomial(n_repeats, np.full(n_repeats, 1 / n_repeats), size=len(self.drawn)) / n_repeats
        return np.asarray((of_draw * weight).sum(axis=1))


def curve_table(
    curves: Mapping[str, Sequence[Point]], age: np.ndarray, subject: np.ndarray, resampler: Resampler
) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """One row per axis and level, and the law of each axis."""
    rows, fits = [], {}
    for axis, points in curves.items():
        errors = [point.errors(age) for point in points]
        mean = np.array([e.mean() for e in errors])
        numbers = [2 * i + (axis == CELLS) for i in range(len(errors))]
        draws = np.stack([resampler.means(e, k) for e, k in zip(errors, numbers, strict=True)], axis=1)
        n = np.array([point.n for point in points], dtype=np.float64)
        early = bool(mean[-1] > _EARLY * np.abs(points[-1].reference - age).mean())
        fits[axis] = {"n": int(n[-1]), **change_at_twice(n, mean, draws, COVERAGE, early=early)}
        fitted = fit_power_law(n, mean[None]).at(n)[0] if can_fit(n) else np.full(len(n), np.nan)
        for point, e, value, drawn, line in zip(points, errors, mean, draws.T, fitted, strict=True):
            low, high = interval(drawn, 0.5 + COVERAGE / 2)
            rows.append(
                {
                    "axis": axis,
                    "n": point.n,
                    "n_train": point.n_train,
                    "n_cells": point.n_cells,
                    "n_repeats": len(e),
                    "mae": float(value),
                    "mae_low": low,
                    "mae_high": high,
                    "mae_median": float(np.abs(point.reference - age).mean()),
                    "pearson": float(np.mean([_correlation(age, p) for p in point.predicted])),
                    "fitted": float(line),
                    "n_samples": len(age),
                    "n_subjects": len(np.unique(subject)),
                }
            )
    return pd.DataFrame(rows), fits


def _correlation(age: np.ndarray, predicted: np.ndarray) -> float:
    """Pearson's correlation, NaN where predictions are all alike."""
    if np.ptp(predicted) == 0 or np.ptp(age) == 0:
        return float("nan")
    return float(np.corrcoef(age, predicted)[0, 1])


def verdict(
    points: Sequence[Point], fits: dict[str, dict[str, float]], age: np.ndarray, subject: np.ndarray, unit: str
) -> tuple[str, bool]:
    """The sentence, and whether it promises anything."""
    error, baseline = points[-1].errors(age).mean(axis=0), np.abs(points[-1].reference - age).mean(axis=0)
    ratio, low, high = error_ratio(error, baseline, subject)
    if not high < 1:
        return (
            "No gain can be shown, of more subjects or of more cells: with all data the clock is not shown to predict "
            f"better than the median age (MAE {error.mean():.2f} against {baseline.mean():.2f} {unit}, "
            f"ratio {ratio:.2f} [{low:.2f}, {high:.2f}])."
        ), False
    parts = [_part(axis, fit, unit) for axis, fit in fits.items()]
    if CELLS not in fits:
        parts.append("cells: not varied, since a sample is one row")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}.", any(shows_gain(fit) for fit in fits.values())


def shows_gain(fit: dict[str, Any]) -> bool:
    """Whether twice the data is shown to lower the error."""
    return bool(fit["change_high"] < 0 and fit["change"] < 0)


def _part(axis: str, fit: dict[str, Any], unit: str) -> str:
    """What is to be said of one axis."""
    n = int(fit["n"])
    each = " per sample" if axis == CELLS else " in training"
    name = f"twice the {axis} ({2 * n:,} instead of {n:,}{each})"
    if not np.isfinite(fit["change"]):
        return f"{name}: no gain can be shown, since there are too few levels for a curve"
    if not shows_gain(fit):
        return f"{name}: no gain can be shown ({figures(fit, unit)})"
    measured = {"change": fit["last_change"], "change_low": fit["last_low"], "change_high": fit["last_high"]}
    return f"{name}: {figures(fit, unit)}, after {figures(measured, unit)} from {n // 2:,} to {n:,}"


def figures(fit: Mapping[str, Any], unit: str) -> str:
    """A change with its interval, in tenths, or in hundredths where a tenth says nothing."""
    change, low, high = (float(fit[name]) for name in ("change", "change_low", "change_high"))
    digits = 2 if max(abs(change), abs(low), abs(high)) < 0.095 or -0.05 < high < 0 else 1
    return f"{change:+.{digits}f} {unit} [{low:+.{digits}f}, {high:+.{digits}f}]"
