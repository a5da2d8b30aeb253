"""Conformal intervals of age from held-out predictions of labelled subjects: arrays in, arrays out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agevi.metrics._regression import check_level

Array = NDArray[np.float64]

SCALES = ("auto", "constant", "predicted", "log", "mondrian")
DIFFICULTY = ("n_cells",)
PER_FEATURE = 20
"""Calibration subjects for each feature of the scale; three features on 20 subjects cover .88 in place of .90."""
N_MONDRIAN = 150
"""Calibration subjects from which quantiles of their own in thirds of the predictions pay."""
_TINY = 1e-9  # of sums of weights
_LOWEST = 0.5  # distance of a prediction from the origin of the power law
_SHARE = 0.1  # of the median residual, added to residuals before their logarithm


@dataclass(frozen=True, eq=False)
class Calibration:
    """What is needed to give a prediction its interval: plus and minus its scale times a score."""

    scale: str  # "constant", "predicted" (power law in the features), "log" (of ages) or "mondrian" (thirds)
    features: tuple[str, ...]  # of the scale: "predicted", "n_cells"
    coefficients: Array  # (1 + n_features,): constant and slopes of the log scale
    ranges: Array  # (2 * n_features,): lowest and highest value of each feature, beyond which nothing is extrapolated
    scores: Array  # (n_samples,), rising
    weights: Array  # (n_samples,): 1 / samples of the subject
    strata: NDArray[np.int64]  # (n_samples,): third of the predictions of each score; 0 but for "mondrian"
    cuts: Array  # (2,) or (0,): predictions that part the thirds
    h: float  # what was added to residuals before their logarithm, in the unit of age
    n: int  # calibration subjects
    level: float  # coverage
    origin: float  # age at which the power law and the log scale begin, below all ages that are believed
    min_age: float  # lowest age that an interval may reach

    @classmethod
    def fit(
        cls,
        age: ArrayLike,
        predicted: ArrayLike,
        n_cells: ArrayLike | None = None,
        *,
        subject: ArrayLike | None = None,
        level: float = 0.9,
        scale: str = "auto",
        difficulty: Sequence[str] = DIFFICULTY,
        min_age: float = -1.0,
    ) -> Calibration:
        """Calibrate on true and predicted ages, (n_samples,), that the clock never saw."""
        y, p = np.asarray(age, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
        weight = subject_weights(subject, len(y))
        n = int(round(weight.sum()))
        check_level(level)
        if n < needed(level):
            highest = n / (n + 1)
            raise ValueError(
                f"{n} calibration subject{'s' * (n != 1)} cannot give level={level:g}, which needs {needed(level)} "
                "with an age and a held-out prediction; label more, or pass a level up to "
                f"{math.floor(100 * highest) / 100:g}."
            )
        scale = chosen_scale(scale, n, level)
        features = chosen_features(scale, n, n_cells, difficulty)
        lowest = float(min_age) if (y < 0).any() else max(float(min_age), 0.0)
        origin = min(float(min_age), -1.0)
        return cls.of(y, p, n_cells, weight, level=level, scale=scale, features=features, origin=origin, min_age=lowest)

    @classmethod
    def of(
        cls,
        y: Array,
        p: Array,
        n_cells: ArrayLike | None,
        weight: Array,
        *,
        level: float,
        scale: str,
        features: tuple[str, ...],
        origin: float = -1.0,
        min_age: float = 0.0,
    ) -> Calibration:
        """Calibrate with a scale and features that were chosen."""
        for name, values in (("age", y), ("predicted", p)):
            if not np.isfinite(values).all():
                raise ValueError(
                    f"{name} is missing or infinite in {(~np.isfinite(values)).sum()} samples; leave those out."
                )
        residual = np.abs(y - p)
        h = max(_SHARE * weighted_quantile(residual, weight, 0.5), _TINY)
        coefficients, ranges, cuts = np.zeros(1), np.zeros(0), np.zeros(0)
        if features:
            x = columns(features, p, n_cells, origin)
            root = np.sqrt(weight)
            design = np.column_stack([np.ones(len(y)), x])
            coefficients = np.linalg.lstsq(root[:, None] * design, root * np.log(residual + h), rcond=None)[0]
            ranges = np.stack([x.min(0), x.max(0)], axis=1).ravel()
        if scale == "mondrian":
            cuts = np.array([weighted_quantile(p, weight, share) for share in (1 / 3, 2 / 3)])
        blank = cls(
            scale, features, coefficients, ranges, np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64), cuts, h,
            int(round(weight.sum())), float(level), float(origin), float(min_age),
        )  # fmt: skip
        scores = blank.score(y, p, n_cells)
        order = np.argsort(scores, kind="stable")
        return cls(
            **vars(blank) | {"scores": scores[order], "weights": weight[order], "strata": blank.stratum(p)[order]}
        )

    def difficulty(self, predicted: ArrayLike, n_cells: ArrayLike | None = None) -> Array:
        """Scale of every sample, (n_samples,): in the unit of age, or 1 where scores are the residuals themselves."""
        p = np.asarray(predicted, dtype=np.float64)
        if not self.features:
            return np.ones(len(p))
        low, high = self.ranges.reshape(-1, 2).T
        x = np.clip(columns(self.features, p, n_cells, self.origin), low, high)
        return np.exp(self.coefficients[0] + x @ self.coefficients[1:])

    def score(self, age: ArrayLike, predicted: ArrayLike, n_cells: ArrayLike | None = None) -> Array:
        """Score of every sample with an age, (n_samples,)."""
        y, p = np.asarray(age, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
        if self.scale == "log":
            return np.abs(self._log(y) - self._log(p))
        return np.abs(y - p) / self.difficulty(p, n_cells)

    def stratum(self, predicted: ArrayLike) -> NDArray[np.int64]:
        """Third of the predictions that every sample is in, (n_samples,)."""
        return np.searchsorted(self.cuts, np.asarray(predicted, dtype=np.float64)).astype(np.int64)

    def quantiles(self, level: float | None = None) -> Array:
        """Score of the half width in each stratum, (1,) or (3,), NaN where there are too few subjects."""
        level = self.level if level is None else level
        n_strata = len(self.cuts) + 1
        parts = [self.strata == k for k in range(n_strata)]
        return np.array([conformal_quantile(self.scores[part], level, self.weights[part]) for part in parts])

    def interval(
        self, predicted: ArrayLike, n_cells: ArrayLike | None = None, *, level: float | None = None
    ) -> tuple[Array, Array]:
        """Lower and upper limit of the age of every sample, NaN without a prediction or with too few calibrated."""
        p = np.asarray(predicted, dtype=np.float64)
        q = self.quantiles(level)[self.stratum(p)]
        if self.scale == "log":
            low, high = self._age(self._log(p) - q), self._age(self._log(p) + q)
        else:
            half = q * self.difficulty(p, n_cells)
            low, high = p - half, p + half
        return np.maximum(low, self.min_age), np.maximum(high, self.min_age)

    def _log(self, age: Array) -> Array:
        return np.log(np.maximum(age - self.origin, _LOWEST))

    def _age(self, log: Array) -> Array:
        return np.exp(log) + self.origin

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and for ``adata.uns`` alike."""
        plain: dict[type, Any] = {np.ndarray: np.ndarray.tolist, tuple: list}
        return {name: plain.get(type(value), lambda same: same)(value) for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The calibration that :meth:`to_dict` described; further entries are passed over."""
        given: dict[str, Any] = {
            k: np.asarray(values[k], dtype=np.float64) for k in ("coefficients", "ranges", "scores", "weights", "cuts")
        }
        given |= {k: float(values[k]) for k in ("h", "level", "origin", "min_age")}
        given |= {"strata": np.asarray(values["strata"], dtype=np.int64), "n": int(values["n"])}
        features = tuple(str(name) for name in values["features"])
        return cls(scale=str(values["scale"]), features=features, **given)


def needed(level: float) -> int:
    """Calibration subjects without which no interval has this coverage: 1 / (1 - level) - 1, rounded up."""
    return max(1, math.ceil(level / (1 - level) - 1e-6))


def chosen_scale(scale: str, n: int, level: float) -> str:
    """The scale, with ``"auto"`` resolved and refused where there are too few subjects for it."""
    if scale not in SCALES:
        raise ValueError(f"scale={scale!r} is not known; choose one of {', '.join(map(repr, SCALES))}.")
    if scale == "auto":
        return "predicted" if n >= PER_FEATURE else "constant"
    wanted = {"predicted": PER_FEATURE, "mondrian": max(N_MONDRIAN, 3 * (needed(level) + 1))}.get(scale, 0)
    if n < wanted:
        raise ValueError(
            f"scale={scale!r} needs {wanted} calibration subjects, and there are {n}; pass scale='auto' or 'constant'."
        )
    return scale


def chosen_features(scale: str, n: int, n_cells: ArrayLike | None, difficulty: Sequence[str]) -> tuple[str, ...]:
    """Features of the scale: the prediction, then those that vary, one for each 20 subjects."""
    listed = isinstance(difficulty, Sequence) and not isinstance(difficulty, str)
    if not listed or any(name not in DIFFICULTY for name in difficulty):
        raise ValueError(
            f"difficulty={difficulty!r} is not known; pass a tuple of {', '.join(map(repr, DIFFICULTY))}, or () for "
            "none."
        )
    if scale != "predicted":
        return ()
    cells = None if n_cells is None else np.asarray(n_cells, dtype=np.float64)
    varies = cells is not None and bool(np.ptp(cells) > 0)
    features = ("predicted", *(name for name in difficulty if varies))
    return features[: n // PER_FEATURE]


def columns(features: Sequence[str], predicted: Array, n_cells: ArrayLike | None, origin: float) -> Array:
    """Logarithms of the features of the scale, (n_samples, n_features)."""
    out = []
    for name in features:
        if name == "predicted":
            out.append(np.log(np.maximum(predicted - origin, _LOWEST)))
        elif n_cells is None:
            raise ValueError("the calibration reads n_cells, the number of cells of every sample; pass it.")
        else:
            out.append(np.log(np.maximum(np.asarray(n_cells, dtype=np.float64), 1.0)))
    return np.stack(out, axis=1)


def subject_weights(subject: ArrayLike | None, n_samples: int) -> Array:
    """1 / samples of its subject for every sample, (n_samples,)."""
    if subject is None:
        return np.ones(n_samples)
    _, code, size = np.unique(np.asarray(subject).astype(str), return_inverse=True, return_counts=True)
    return np.asarray(1.0 / size[code])


def conformal_quantile(scores: Array, level: float, weights: Array | None = None) -> float:
    """Smallest score with weight ``(n + 1) * level`` at or below it, n the sum of weights; NaN where there is none."""
    # As many of the calibration subjects and the new one stay below as the level says (Vovk et al. 2005; Lei et al.
    # 2018); samples of a subject share its weight (Lee, Barber & Willett 2023, HCP).
    weights = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    below = np.cumsum(weights[order])
    place = int(np.searchsorted(below, (weights.sum() + 1) * level - 1e-7))
    return float(scores[order][place]) if place < len(scores) else float("nan")


def weighted_quantile(values: Array, weights: Array, share: float) -> float:
    """Quantile by the weights, between neighbouring values; that of numpy where all have equal weight."""
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    if len(values) == 1:
        return float(values[0])
    centre = np.cumsum(weights) - weights / 2
    place = (centre - centre[0]) / (centre[-1] - centre[0])
    return float(np.interp(share, place, values))
