"""The subject table of a recalibrated cohort, what was done to it, and the columns of its cells."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _ages, _checks, _keys
from agevi.tl.intervals import _recalibration as kernel
from agevi.tl.intervals._cohort_level import Level
from agevi.tl.predict._stale import forget

logger = logging.getLogger(__name__)

NONE = "none"
"""Kind of a cohort without labelled samples."""


@dataclass(frozen=True)
class Cohort:
    """Samples of a cohort, as masks (n_samples,) of the subject table."""

    name: str
    all: np.ndarray
    labelled: np.ndarray  # of known age, predicted by a clock that did not see them
    others: np.ndarray  # those of subjects without a labelled sample

    @property
    def text(self) -> str:
        """The cohort in a message; nothing where there is one only."""
        return f" of cohort {self.name!r}" if self.name else ""


def row_of(
    table: pd.DataFrame, known: np.ndarray, cohort: Cohort, move: kernel.Move | None, level: Level | None
) -> dict[str, Any]:
    """What was done in a cohort."""
    predicted, chosen = table["predicted"].to_numpy(dtype=np.float64), cohort.labelled
    row = {"cohort": cohort.name, "kind": NONE, "n_labelled": 0, "n": int((~np.isnan(predicted[cohort.others])).sum())}
    row |= dict.fromkeys(("gap", "intercept", "slope", "sd"), np.nan)
    row |= {"n_beyond": 0, "labelled_low": np.nan, "labelled_high": np.nan}
    row |= {"level_from": "", "n_level": 0, "level_shift": np.nan, "level_sd": np.nan}
    if level is not None:
        row |= {"level_from": level.kind, "n_level": level.n}
        row |= {"level_shift": level.shift, "level_sd": float(np.sqrt(level.variance))}
    if move is None:
        return row
    gap = (table["predicted"] - known)[chosen].groupby(table.loc[chosen, "subject"]).mean().mean()
    low, high = float(predicted[chosen].min()), float(predicted[chosen].max())
    row |= {"kind": move.kind, "n_labelled": move.n, "gap": float(gap)}
    row |= {"intercept": move.intercept, "slope": move.slope, "sd": move.sd}
    n_beyond = int(_outside(predicted[cohort.others], low, high).sum())
    return row | {"n_beyond": n_beyond, "labelled_low": low, "labelled_high": high}


def _outside(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Which values lie outside a range; NaN does not."""
    return (values < low) | (values > high)


def say_beyond(table: pd.DataFrame, out: pd.DataFrame, row: dict[str, Any], cohort: Cohort) -> None:
    """Warn of samples whose age is extrapolated by a line, with the ages that they get."""
    if row["kind"] != "line" or not row["n_beyond"]:
        return
    predicted = table["predicted"].to_numpy(dtype=np.float64)
    beyond = cohort.others & _outside(predicted, row["labelled_low"], row["labelled_high"])
    new, ages = out.loc[beyond, "predicted"], out.loc[cohort.labelled, "age"]
    logger.warning(
        "%d of %d samples%s are predicted outside the range of the %d labelled controls (predictions %.1f to %.1f, "
        "ages %.1f to %.1f), where the line is extrapolated: their recalibrated ages, %.1f to %.1f, and intervals "
        "rest on no labelled control of such an age. Label younger and older controls, or leave those samples out.",
        row["n_beyond"], row["n"], cohort.text, row["n_labelled"], row["labelled_low"], row["labelled_high"],
        ages.min(), ages.max(), new.min(), new.max(),
    )  # fmt: skip


def apply(out: pd.DataFrame, move: kernel.Move, scale: _ages.AgeTransform, cohort: Cohort, known: np.ndarray) -> None:
    """New predictions, intervals and roles of a cohort, in the table."""
    x = scale.forward(out.loc[cohort.all, "predicted"].to_numpy(dtype=np.float64))
    with np.errstate(over="ignore"):  # far beyond all ages on a logarithmic scale
        ages = np.stack([scale.back(values) for values in move.apply(x)])  # predicted, lower, upper x n
    ages[:, ~np.isfinite(ages).all(axis=0)] = np.nan
    shaped = cohort.all & ~cohort.others
    out.loc[cohort.all, ["predicted", "lower", "upper"]] = ages.T
    out.loc[shaped, ["lower", "upper"]] = np.nan
    out.loc[shaped, "role"] = _keys.RECALIBRATION
    out.loc[cohort.all, "sd_cells"] = np.nan  # the spread of cells is that of the old predictions
    out.loc[cohort.labelled, "age"] = known[cohort.labelled]


def sample_of_cell(adata: AnnData, out: pd.DataFrame, record: Mapping[str, Any], keys: _keys.Keys) -> np.ndarray:
    """Row of the subject table for every cell, (n_cells,)."""
    sample_key = record.get("sample_key") or record.get("subject_key")
    if not sample_key:
        raise KeyError(
            f"adata.uns[{keys.uns!r}] names no sample column; predict with agevi.tl.predict_age or "
            "agevi.tl.cross_validate."
        )
    place: np.ndarray = out.index.get_indexer(pd.Index(_checks.labels(adata, str(sample_key), "sample_key")))
    if (place < 0).any():
        raise ValueError(
            f"{(place < 0).sum():,} cells are of samples that adata.uns[{keys.subjects!r}] lacks; run "
            "agevi.tl.aggregate_subjects again."
        )
    return place


def write(adata: AnnData, out: pd.DataFrame, of_cell: np.ndarray, old: _keys.Keys, new: _keys.Keys) -> None:
    """Columns of the cells, in place of what stood under the key."""
    predicted = out["predicted"].to_numpy(dtype=np.float32)[of_cell]
    adata.obs[new.predicted] = predicted
    forget(adata, new)
    adata.obs[new.predicted_sample] = predicted
    roles = out["role"].to_numpy(dtype=object)[of_cell]
    adata.obs[new.role] = pd.Categorical(roles, categories=[r for r in _keys.ROLES if r in set(roles)])
    if old.fold in adata.obs:
        adata.obs[new.fold] = adata.obs[old.fold]
