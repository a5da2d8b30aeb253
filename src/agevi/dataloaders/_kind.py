"""Of what kind values are that a clock reads as they are: those that trained it tell what others must be like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from anndata import AnnData

from agevi import _checks
from agevi._keys import CONTRAST
from agevi._source import CLR, inner, place
from agevi._stored import Stored
from agevi.io._numbers import check_kind

LOG_MAX = 20.0
"""No logarithm of counts, or of counts per million, is above it."""
_N_LOOKED = 1 << 21  # values that are looked at, in rows spread over the data
_FEWEST = 100  # values that tell something
_CLOSED = 1e-3  # relative spread of row sums that were scaled to one number
_EVEN = 0.35  # spread of the logarithm of row sums by which a scale is told
_SCALES_APART = 30.0  # those of counts per million and per 10,000 are 100 apart
_LARGEST = 1e9  # that a bundle holds


class _Seen(NamedTuple):
    """What is seen of some values."""

    n: int  # values other than 0
    low: float
    high: float
    whole: bool
    mean: float  # of the absolute values
    negative: float  # share of their sum that is below 0
    row_low: np.ndarray  # (n_rows,)
    row_high: np.ndarray  # (n_rows,)
    totals: np.ndarray  # (n_rows,) sums of exp(x) - 1, empty for what cannot be logarithms


@dataclass(frozen=True)
class ValueKind:
    """Values that a clock reads; what :meth:`differs` refuses depends on all values and not on single ones."""

    low: float
    high: float
    whole: bool
    mean: float | None = None
    negative: float = 0.0
    total: float | None = None  # of exp(x) - 1 in a row, where all rows are about alike
    closed: bool = False  # whether they are all the same
    contrast: dict[str, Any] | None = None  # types and scale, where agevi.pp.contrast_types made them

    @classmethod
    def of(cls, x: Any, contrast: Mapping[str, Any] | None = None) -> ValueKind | None:
        """The kind of training values; None of too few."""
        seen = _look(x)
        if seen.n < _FEWEST:
            return None
        total, spread = None, np.inf
        if len(seen.totals) and seen.totals.min() > 0 and x.shape[1] >= _FEWEST:
            total, spread = float(np.median(seen.totals)), float(np.log(seen.totals).std())
        known = {key: contrast[key] for key in ("target", "reference", "scale")} if contrast else None
        found = cls(
            low=max(seen.low, -_LARGEST),
            high=min(seen.high, _LARGEST),
            whole=seen.whole,
            mean=min(seen.mean, _LARGEST),
            negative=seen.negative,
            total=total if spread < _EVEN else None,
            closed=spread < _CLOSED,
            contrast=known,
        )
        return cls.of_bundle(found.as_plain())

    @classmethod
    def logarithms(cls, usual: np.ndarray) -> ValueKind:
        """Logarithms of counts whose means, (n_features,), a publication gives; NaN where it does not."""
        known = len(usual) >= _FEWEST and np.isfinite(usual).all()
        return cls(0.0, LOG_MAX, whole=False, total=float(np.expm1(usual).sum()) if known else None)

    @classmethod
    def of_bundle(cls, values: Any) -> ValueKind:
        """What a bundle holds, after every value was checked."""
        return cls(**check_kind(values))

    def as_plain(self) -> dict[str, Any]:
        """What a bundle holds of it."""
        plain = asdict(self)
        if self.contrast is not None:
            plain["contrast"] = {
                "target": [str(name) for name in self.contrast["target"]],
                "reference": [str(name) for name in self.contrast["reference"]],
                "scale": float(self.contrast["scale"]),
            }
        return plain

    @property
    def logs(self) -> bool:
        """Whether it may be that of logarithms of counts."""
        return not self.whole and self.low >= 0 and 1.01 < self.high <= LOG_MAX

    def differs(self, x: Any) -> str:
        """In what ``x`` is of another kind, to follow the name of a matrix in a message; empty where it is not."""
        seen, span = _look(x), self.high - self.low
        if seen.n < _FEWEST:
            return ""
        counts = seen.whole and seen.low >= 0 and seen.high >= 2
        if counts and not self.whole and not self._rounded(seen):
            return f"holds whole numbers up to {seen.high:,.0f}, as raw counts are"
        if self.whole and not seen.whole and 0 <= seen.low and seen.high <= LOG_MAX < self.high / 5:
            return f"holds fractions up to {seen.high:.3g}, as logarithms are"
        if self.low >= 0 and seen.negative > 1 / 3:
            return f"holds values from {seen.low:.3g} to {seen.high:.3g}, as much below 0 as above"
        if self.negative > 0.2 and seen.low >= 0:
            return f"holds values from {seen.low:.3g} to {seen.high:.3g}, none of them below 0"
        beyond = (seen.row_low < self.low - span) | (seen.row_high > self.high + span)
        if max(-self.low, self.high) <= LOG_MAX:
            other = beyond.mean() > 0.5
        else:  # counts and intensities have long tails
            other = not self.whole and bool(self.mean) and not self._as_large(seen, _SCALES_APART)
        if other:
            return f"holds values from {seen.low:.3g} to {seen.high:.3g}"
        if self.total is not None and self.logs and len(seen.totals):
            total = float(np.median(seen.totals))
            if total > 0 and not 1 / _SCALES_APART < total / self.total < _SCALES_APART:
                return (
                    f"holds logarithms of counts on another scale (exp(x) - 1 sums to {total:,.0f} in a row over the "
                    f"clock's genes, and should to about {self.total:,.0f})"
                )
        return ""

    def _rounded(self, seen: _Seen) -> bool:
        """Whether whole numbers may be such values without their decimals, as percentages may be."""
        return self.high > LOG_MAX and seen.high <= self.high and self._as_large(seen, 3.0)

    def _as_large(self, seen: _Seen, factor: float) -> bool:
        """Whether values are as large on average, but for a factor."""
        return self.mean is not None and self.mean / factor < seen.mean < self.mean * factor

    def described(self) -> str:
        """The values, after "it reads" in a message."""
        if self.contrast is not None:
            target, reference = (_checks.listed(self.contrast[side]) for side in ("target", "reference"))
            return f"contrasts of {target} against {reference}"
        if self.closed and self.logs:
            return f"logarithms of counts per {self.total:,.0f}"
        if self.mean is None:
            return "logarithms of normalised counts"
        return f"values as in training, {'whole numbers ' * self.whole}from {self.low:.3g} to {self.high:.3g}"

    def advice(self) -> str:
        """What to do with values of another kind."""
        if self.contrast is not None:
            target, reference, scale = (self.contrast[key] for key in ("target", "reference", "scale"))
            return (
                "Make the contrast of raw counts as in training: agevi.pp.contrast_types(adata, ..., "
                f"target={target}, reference={reference}, genes=clock.genes, scale={scale:g}), with the types as "
                "adata.obs names them, or with like=<the contrast that trained the clock>."
            )
        if self.closed and self.logs:
            return (
                "Normalise raw counts of all genes as in training: sc.pp.normalize_total(adata, "
                f"target_sum={self.total:.6g}), then sc.pp.log1p(adata)."
            )
        if self.logs and self.high > 2:
            total = f" (over the clock's genes, exp(x) - 1 sums to about {self.total:,.0f})" if self.total else ""
            return (
                f"Normalise raw counts as {'in training' if self.mean is not None else 'its publication says'}{total}, "
                "for example with sc.pp.normalize_total(adata, target_sum=...) over all genes, then sc.pp.log1p(adata)."
            )
        if not self.whole and 0 <= self.low and self.high <= 1.01:
            return "If these are M values, beta = 2**M / (2**M + 1); if they are per cent, divide them by 100."
        return "Pass values that were made as those of the training data, with the same scaling or by the same model."


def kind_of(adata: AnnData, x: Any, setup: Mapping[str, Any], *, counts: bool) -> ValueKind | None:
    """The kind of the values that train a clock; None where it normalises them itself or has several."""
    if counts or setup["normalize"] == CLR or inner(setup["normalize"]) != "none" or setup.get("modality_key"):
        return None
    return ValueKind.of(x, adata.uns.get(CONTRAST))


def refuse_other_kinds(x: Any, kind: ValueKind | None, setup: Mapping[str, Any], model: str, source: AnnData) -> None:
    """Refuse values, (n_cells, n_features), of another kind than a clock reads; ``source`` is where they are from."""
    if kind is None:
        return
    made = source.uns.get(CONTRAST)
    if kind.contrast is not None and made is not None and not np.isclose(made["scale"], kind.contrast["scale"]):
        differs = f"holds a contrast with scale={made['scale']:g}, and that of training had {kind.contrast['scale']:g}"
    elif not (differs := kind.differs(x)):
        return
    what, own = place(setup), setup.get("layer")
    there = [key for key in source.layers if key is not None and key != own and _fits(source.layers[key], kind)]
    advice = (
        kind.advice()
        if not there
        else f"adata.layers[{there[0]!r}] may hold them: {what} = {place({'layer': there[0]})}."
    )
    raise ValueError(f"{what} {differs}; this {model} reads {kind.described()}. {advice}")


def _fits(x: Any, kind: ValueKind) -> bool:
    """Whether a layer may hold values of a kind."""
    try:
        _checks.finite(_checks.readable(x, ""), "")
    except (TypeError, ValueError):
        return False
    return not kind.differs(x) and _look(x).n >= _FEWEST


def _look(x: Any) -> _Seen:
    """What some rows of ``x``, spread over all, hold."""
    n = min(x.shape[0], max(16, _N_LOOKED // max(x.shape[1], 1)))
    chosen = np.unique(np.linspace(0, x.shape[0] - 1, n).astype(int)) if x.shape[0] else np.zeros(0, dtype=int)
    values = _checks.dense(x if n == x.shape[0] and not isinstance(x, Stored) else x[chosen], np.float64)
    if not values.size:
        return _Seen(0, 0.0, 0.0, False, 0.0, 0.0, *(np.zeros(0),) * 3)
    row_low, row_high = values.min(axis=1), values.max(axis=1)
    size, low, high = np.abs(values), float(row_low.min()), float(row_high.max())
    total = float(size.sum())
    return _Seen(
        n=int(np.count_nonzero(values)),
        low=low,
        high=high,
        whole=bool((values == np.rint(values)).all()),
        mean=total / values.size,
        negative=float(np.maximum(-values, 0).sum()) / total if total else 0.0,
        row_low=row_low,
        row_high=row_high,
        totals=np.expm1(values).sum(axis=1) if 0 <= low and high <= LOG_MAX else np.zeros(0),
    )
