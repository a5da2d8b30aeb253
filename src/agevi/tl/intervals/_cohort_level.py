"""The level of a cohort without labelled subjects: from predictions of another clock, or from its mean age."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _ages, _checks, _keys, _names, _subjects
from agevi.tl.intervals._recalibration import OldErrors

logger = logging.getLogger(__name__)

_BETWEEN = 0.35
"""How much the levels of cohorts differ on the logarithmic scale of ages, and by which an anchor is shrunk."""
_LEFT = 0.12
"""How much they still differ after an anchor."""
_FEW = 10  # subjects below which an anchor is noise as much as signal


@dataclass(frozen=True)
class Level:
    """How the predictions of a cohort move on the clock's scale."""

    kind: str  # "anchor" or "mean_age"
    n: int  # subjects that tell
    shift: float
    variance: float  # of the true shift about it
    between: float  # variance of what labelled subjects may still move


def levels(
    table: pd.DataFrame,
    names: pd.Series,
    tells: np.ndarray,
    scale: _ages.AgeTransform,
    anchor: pd.Series | None,
    mean_age: Any,
) -> dict[str, Level]:
    """The level of every cohort by an anchor or its mean age, from the samples in the mask ``tells``, (n_samples,)."""
    x = scale.forward(table["predicted"].to_numpy(dtype=np.float64))
    out = {}
    for name in _names.in_order(set(names)):
        part = (names == name).to_numpy() & np.isfinite(x) & tells
        if anchor is not None:
            of_anchor = scale.forward(anchor.to_numpy(dtype=np.float64))
            part &= np.isfinite(anchor.to_numpy(dtype=np.float64))
            moved = by_subject(table, of_anchor - x, part)
            if len(moved):
                out[name] = _of_anchor(moved, _per_log(scale, table["predicted"].to_numpy()[part]))
        else:
            known = mean_age.get(name) if isinstance(mean_age, Mapping) else mean_age
            of_clock = by_subject(table, x, part)
            if known is not None and len(of_clock):
                shift = float(scale.forward(np.array([known]))[0] - of_clock.mean())
                variance = float(of_clock.var(ddof=1)) / len(of_clock) if len(of_clock) > 1 else 0.0
                out[name] = Level("mean_age", len(of_clock), shift, variance, variance)
    few = [f"{name}: {level.n}" for name, level in out.items() if level.kind == "anchor" and level.n < _FEW]
    if few:
        logger.warning(
            "%d cohorts have an anchor for fewer than %d subjects (%s); their shift is shrunk, and may do more harm "
            "than good where nothing is wrong.", len(few), _FEW, _checks.listed(few, 3),
        )  # fmt: skip
    return out


def by_subject(table: pd.DataFrame, values: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Mean over the samples of each subject, since a subject counts once."""
    return pd.Series(values[part]).groupby(table["subject"].to_numpy()[part]).mean().to_numpy()


def _of_anchor(moved: np.ndarray, per_log: float) -> Level:
    """The mean of what the anchor says of each subject, (n,), shrunk by how much cohorts differ."""
    n, between = len(moved), (_BETWEEN * per_log) ** 2
    noise = float(moved.var(ddof=1)) / n if n > 1 else between
    weight, left = between / (between + noise), (_LEFT * per_log) ** 2
    return Level("anchor", n, weight * float(moved.mean()), weight * noise + left, left)


def _per_log(scale: _ages.AgeTransform, predicted: np.ndarray) -> float:
    """How far the clock's scale goes while log(age - min_age + 1) goes by 1, at the mean of predictions."""
    middle = float(np.mean(predicted)) - scale.min_age + 1
    ages = middle * np.exp([-0.01, 0.01]) + scale.min_age - 1
    return float(np.diff(scale.forward(ages))[0] / 0.02)


def move(
    table: pd.DataFrame,
    names: pd.Series,
    found: Mapping[str, Level],
    scale: _ages.AgeTransform,
    old: Callable[[], OldErrors | None],
    level: float,
) -> pd.DataFrame:
    """The subject table with the predictions of cohorts at their level, and intervals where errors are known."""
    out = table.assign(**{bound: np.nan for bound in ("lower", "upper") if bound not in table})
    errors = old() if found else None
    for name, of_cohort in found.items():
        part = (names == name).to_numpy()
        x = scale.forward(out.loc[part, "predicted"].to_numpy(dtype=np.float64)) + of_cohort.shift
        half = np.nan if errors is None else errors.reach(level) * np.sqrt(errors.sd**2 + of_cohort.variance)
        for column, values in {"predicted": x, "lower": x - half, "upper": x + half}.items():
            out.loc[part, column] = scale.back(values)
        out.loc[part, "sd_cells"] = np.nan  # the spread of cells is that of the old predictions
    return out


def with_between(old: OldErrors, level: Level | None) -> OldErrors:
    """Errors whose cohorts differ by what is left after the level was set."""
    return old if level is None else replace(old, shift_var=level.between)


def read_anchor(adata: AnnData, table: pd.DataFrame, anchor: Any) -> pd.Series:
    """Age of every sample by the anchor, indexed as ``table``, NaN where it has none."""
    if isinstance(anchor, str):
        given = _ages_under(adata, anchor)
    elif isinstance(anchor, pd.Series | Mapping):
        given = pd.Series(anchor)
    else:
        raise TypeError(
            f"anchor is a {type(anchor).__name__}; pass ages by subject or sample as a Series, or the key_added of "
            "other predictions."
        )
    if given.dtype.kind not in "iuf":
        raise TypeError(f"anchor holds {given.dtype} values; pass ages as numbers.")
    given.index = pd.Index(_names.names(pd.Series(given.index.to_numpy(), dtype=object)))
    if given.index.has_duplicates:
        raise ValueError(f"anchor names {given.index[given.index.duplicated()][0]!r} twice; give each one age.")
    units = table.index if given.index.isin(table.index).any() else pd.Index(table["subject"])
    out = pd.Series(given.reindex(units).to_numpy(dtype=np.float64), table.index)
    if not given.index.isin(units).any():
        raise ValueError(
            f"anchor has an age for none of the {len(table)} samples: it names {_checks.listed(given.index, 3)}, and "
            f"the samples are {_checks.listed(table.index, 3)}{_names.difference(given.index, table.index)}."
        )
    return out


def _ages_under(adata: AnnData, key: str) -> pd.Series:
    """Ages of samples by the anchor of the clock that predicted under a key, else its predictions."""
    keys = _keys.Keys(key)
    if keys.anchor in adata.uns:
        ages: pd.Series = adata.uns[keys.anchor]["anchor"]
        return ages
    call = f"agevi.tl.aggregate_subjects(adata, key_added={key!r})"
    return _subjects.subject_table(adata, keys, call)["predicted"]


def check_mean_age(mean_age: Any, names: pd.Series, min_age: float) -> Any:
    """A number, or numbers by cohort."""
    given = mean_age if isinstance(mean_age, Mapping) else {"": mean_age}
    for name, value in given.items():
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not number or not np.isfinite(value) or value < min_age:
            whose = f" for {name!r}" if name else ""
            raise ValueError(f"mean_age={value!r}{whose} is not an age from {min_age:g}; pass the mean of the cohort.")
    if not isinstance(mean_age, Mapping):
        return float(mean_age)
    known = {_names.name(name): float(value) for name, value in mean_age.items()}
    strange = [name for name in known if name not in set(names)]
    if strange:
        raise ValueError(
            f"mean_age names the cohort {strange[0]!r}{_checks.closest(strange[0], list(set(names)))}; there are "
            f"{_checks.listed(_names.in_order(set(names)))}."
        )
    return known
