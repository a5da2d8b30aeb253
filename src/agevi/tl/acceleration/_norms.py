"""What a clock predicts at each age in a reference, and how far others are from it: arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

_NEWTON = 12  # steps, of which few are needed
_TINY = np.finfo(np.float64).tiny
_VALUES = 1 << 24  # values held at once while samples are left out


@dataclass(frozen=True)
class Norms:
    """Mean, a polynomial in standardised age, and spread of predictions of references along leading axes."""

    centre: np.ndarray
    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray
    coefficients: np.ndarray
    covariance: np.ndarray  # (p, p), times sigma**2 that of the coefficients
    spread: np.ndarray  # of sigma * exp(spread * age), the age held at the ends of the reference
    sigma: np.ndarray
    df: np.ndarray
    # standardised residuals of the reference in rising order, NaN last, and the centiles where they stand
    order: np.ndarray
    place: np.ndarray

    def expected(self, age: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean prediction at each age, (..., m), and the standard deviation of a new sample around it."""
        x = _powers(age, self.centre, self.scale, self.coefficients.shape[-1])
        mean = _times(x, self.coefficients)
        variance = self._relative(age) ** 2 + _quadratic(x, self.covariance)
        return mean, self.sigma[..., None] * np.sqrt(variance)

    def _relative(self, age: np.ndarray) -> np.ndarray:
        """Spread at each age relative to that at the mean age, (..., m)."""
        held = np.clip(age, self.low[..., None], self.high[..., None])
        return np.exp(self.spread[..., None] * (held - self.centre[..., None]) / self.scale[..., None])

    def centile(self, z: np.ndarray) -> np.ndarray:
        """Share of the reference in per cent below each deviation, (..., m), by rank, and by Student's t beyond."""
        flat = np.broadcast_to(z, (*self.df.shape, z.shape[-1])).reshape(-1, z.shape[-1])
        order, place = (values.reshape(len(flat), -1) for values in (self.order, self.place))
        out = np.stack([_centile(*row) for row in zip(flat, order, place, self.df.reshape(-1), strict=True)])
        return out.reshape(*self.df.shape, z.shape[-1])

    def deviation(self, centile: np.ndarray) -> np.ndarray:
        """The deviation at each of some centiles of one reference, (m,): the inverse of :meth:`centile`."""
        n = int(np.isfinite(self.order).sum())
        order, place = self.order[:n], self.place[:n]
        share = np.asarray(centile, dtype=np.float64) / 100
        out = np.interp(share, place, order)
        low, high = share < place[0], share > place[-1]
        out[low] = stdtrit(self.df, share[low] / place[0] * stdtr(self.df, order[0]))
        out[high] = -stdtrit(self.df, (1 - share[high]) / (1 - place[-1]) * stdtr(self.df, -order[-1]))
        return out

    def to_dict(self) -> dict[str, Any]:
        """The fields of one reference as plain values."""
        fields = {name: np.asarray(getattr(self, name)) for name in self.__dataclass_fields__}
        return {name: value if value.ndim else float(value) for name, value in fields.items()}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Norms:
        """Norms from :meth:`to_dict`, also after a file."""
        return cls(**{name: np.asarray(stored[name], dtype=np.float64) for name in cls.__dataclass_fields__})


def _centile(z: np.ndarray, order: np.ndarray, place: np.ndarray, df: float) -> np.ndarray:
    """Centiles of deviations in one reference, (m,)."""
    n = int(np.isfinite(order).sum())
    order, place = order[:n], place[:n]
    out = np.interp(z, order, place)
    low, high = z < order[0], z > order[-1]
    out[low] = place[0] * stdtr(df, z[low]) / stdtr(df, order[0])
    out[high] = 1 - (1 - place[-1]) * stdtr(df, -z[high]) / stdtr(df, -order[-1])
    return 100 * out


def fit(
    age: np.ndarray, predicted: np.ndarray, n_subjects: np.ndarray, *, degree: int, used: np.ndarray | None = None
) -> Norms:
    """Norms by ``age`` and ``predicted``, (..., n): least squares weighted by a spread that changes with age."""
    used = np.ones(np.broadcast_shapes(age.shape, predicted.shape)) if used is None else used.astype(np.float64)
    age, predicted = np.broadcast_to(age, used.shape), np.broadcast_to(predicted, used.shape)
    n, n_subjects = used.sum(-1), np.asarray(n_subjects, dtype=np.float64)
    # Several samples of a subject narrow the ranks, not what is known of the mean.
    weight = used * (n_subjects / n)[..., None]
    centre = (used * age).sum(-1) / n
    scale = np.sqrt((used * (age - centre[..., None]) ** 2).sum(-1) / n)
    ends = np.where(used > 0, age, np.inf).min(-1), np.where(used > 0, age, -np.inf).max(-1)
    x = _powers(age, centre, scale, degree + 1)
    beta, inverse = _least_squares(x, predicted, weight)
    left = np.clip(1 - weight * _quadratic(x, inverse), 1e-9, None)  # 1 - leverage
    size = np.abs(predicted - _times(x, beta)) / np.sqrt(left)
    # Shrunk (James and Stein's 1 - 1 / t**2), so that chance among few samples makes no trend.
    spread = _slope_of_size(size, x[..., 1], weight, n_subjects)
    df = n_subjects - degree - 1
    plain = Norms(centre, scale, *ends, beta, inverse, spread, np.ones_like(df), df, used, used)
    relative = plain._relative(age)
    beta, inverse = _least_squares(x, predicted, weight / relative**2)
    residual = (predicted - _times(x, beta)) / relative
    sigma = np.sqrt((weight * residual**2).sum(-1) / df)
    left = np.clip(1 - weight / relative**2 * _quadratic(x, inverse), 1e-9, None)
    standardised = np.where(used > 0, residual / (sigma[..., None] * np.sqrt(left)), np.nan)
    order = np.sort(standardised, axis=-1)  # NaN last
    rank = np.arange(order.shape[-1]) * (n_subjects / n)[..., None]
    place = (rank + 0.5 * (n_subjects / n)[..., None] + 0.5) / (n_subjects[..., None] + 1)
    return Norms(centre, scale, *ends, beta, inverse, spread, sigma, df, order, place)


def score(norms: Norms, age: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, spread, deviation and centile of samples, each (..., m)."""
    mean, sd = norms.expected(age)
    z = (predicted - mean) / sd
    return {"expected": mean, "sd": sd, "z": z, "centile": norms.centile(z)}


def score_left_out(
    age: np.ndarray, predicted: np.ndarray, subject: np.ndarray, *, degree: int
) -> dict[str, np.ndarray]:
    """Scores of the samples of a reference, (n,), each against the norms of the other subjects, numbered from 0."""
    n, n_subjects = len(age), int(subject.max()) + 1
    out = {name: np.full(n, np.nan) for name in ("expected", "sd", "z", "centile")}
    step = max(1, _VALUES // (n * (degree + 2) ** 2))
    for start in range(0, n_subjects, step):
        left_out = np.arange(start, min(start + step, n_subjects))
        used = (subject != left_out[:, None]).astype(np.float64)  # n_left_out x n
        norms = fit(age, predicted, np.full(len(left_out), n_subjects - 1), degree=degree, used=used)
        rows, columns = np.nonzero(used == 0)
        own = Norms(**{name: getattr(norms, name)[rows] for name in Norms.__dataclass_fields__})
        found = score(own, age[columns, None], predicted[columns, None])
        for name, values in found.items():
            out[name][columns] = values[:, 0]
    return out


def _powers(age: np.ndarray, centre: np.ndarray, scale: np.ndarray, n: int) -> np.ndarray:
    """Powers of standardised age from 0, (..., m, n)."""
    z = (age - centre[..., None]) / scale[..., None]
    return z[..., None] ** np.arange(n)


def _times(x: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Values of the polynomial, (..., m)."""
    return np.einsum("...mi,...i->...m", x, beta)


def _quadratic(x: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Quadratic form x' A x of each row, (..., m)."""
    return ((x @ inverse) * x).sum(-1)


def _least_squares(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares: coefficients (..., p) and the inverse of X'WX, (..., p, p)."""
    weighed = np.swapaxes(x * weight[..., None], -1, -2)
    inverse = np.linalg.inv(weighed @ x)
    return np.einsum("...ij,...jm,...m->...i", inverse, weighed, y, optimize=True), inverse


def _slope_of_size(size: np.ndarray, z: np.ndarray, weight: np.ndarray, n_subjects: np.ndarray) -> np.ndarray:
    """Shrunk slope of the logarithm of the residuals' size on standardised age ``z`` (..., n), (...)."""
    slope = np.zeros(size.shape[:-1])
    # Newton's method to the minimum over c of sum w |e| exp(-c z), which is convex; there |r| does not go with age.
    for _ in range(_NEWTON):
        relative = weight * size * np.exp(-slope[..., None] * z)
        curved = np.maximum((relative * z**2).sum(-1), _TINY)
        slope = slope + np.clip((relative * z).sum(-1) / curved, -0.5, 0.5)
    standardised = size * np.exp(-slope[..., None] * z)
    total = weight.sum(-1)
    mean = np.maximum((weight * standardised).sum(-1) / total, _TINY)
    relative_variance = (weight * standardised**2).sum(-1) / total / mean**2 - 1
    variance = relative_variance / np.maximum(n_subjects - 2, 1)
    return slope * np.maximum(0, 1 - variance / np.maximum(slope**2, _TINY))
