"""The held-out predictions that a posterior is made of: one per sample, or one per sample and type of cells."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _subjects
from agevi.tl.predict._judged import types_key

logger = logging.getLogger(__name__)

ALL = "all"
"""Type of the rows that combine all types of a sample."""
MIN_LABELLED = 10
"""Labelled samples below which nothing is fitted."""


@dataclass(frozen=True)
class Samples:
    """Predictions by sample and type; rows are samples that did not shape their clocks."""

    table: pd.DataFrame  # index sample: subject, age, predicted (of all types together), n_cells
    types: list[str]  # one, "all", where types are not told apart
    predicted: np.ndarray  # n x T, NaN where missing
    n_cells: np.ndarray  # n x T
    n_left_out: int  # samples whose ages shaped the clock, or whose role is not known

    @property
    def labelled(self) -> np.ndarray:
        """Which samples have an age, (n,)."""
        return self.table["age"].notna().to_numpy()

    @property
    def usual_cells(self) -> np.ndarray:
        """Median number of cells of the labelled samples that have the type, (T,)."""
        there = ~np.isnan(self.predicted) & self.labelled[:, None]
        return np.array([np.median(n[ok]) for n, ok in zip(self.n_cells.T, there.T, strict=True)])


def whole(adata: AnnData, keys: _keys.Keys) -> Samples:
    """One prediction of every sample."""
    table = _subjects.subject_table(adata, keys)
    held_out = table["role"].isin(_keys.HELD_OUT_ROLES).to_numpy()
    predicted = table["predicted"].notna().to_numpy()
    kept = table.loc[held_out & predicted, ["subject", "age", "predicted", "n_cells"]]
    values = kept["predicted"].to_numpy(dtype=np.float64)[:, None]
    return Samples(kept, [ALL], values, kept["n_cells"].to_numpy()[:, None], int((predicted & ~held_out).sum()))


def by_type(adata: AnnData, keys: _keys.Keys, cell_type_key: str) -> Samples:
    """Predictions of every sample by the clocks of the types."""
    call = f"agevi.tl.cross_validate(adata, model_cls, groupby={cell_type_key!r}, key_added={keys.key_added!r}, ...)"
    long = _checks.slot(adata, keys.by_group, "uns", call)
    _subjects.check_cells(adata, keys, long["sample"], keys.by_group)
    groupby = types_key(adata, keys)
    if groupby != cell_type_key:
        raise ValueError(
            f"cell_type_key={cell_type_key!r} is not the column by whose types the clocks of adata.uns[{keys.uns!r}] "
            f"were fitted, {groupby!r}; pass that, or run {call} first."
        )
    long = long[long["predicted"].notna()]
    if ALL in set(long["group"]):
        raise ValueError(f"adata.obs[{cell_type_key!r}] has a type {ALL!r}, which names all types together; rename it.")
    wide = long.pivot(index="sample", columns="group", values="predicted")
    of_sample = long.groupby("sample")
    table = of_sample[["subject", "age"]].first().assign(predicted=of_sample["combined"].first())
    cells = long.pivot(index="sample", columns="group", values="n_cells").fillna(0)
    table["n_cells"] = cells.sum(axis=1).astype(np.int64)
    return Samples(table, [str(t) for t in wide], wide.to_numpy(dtype=np.float64), cells.to_numpy(), 0)


def with_enough(samples: Samples, keys: _keys.Keys) -> Samples:
    """Samples of the types that have labelled samples enough; refuses too few of them, and one age for all."""
    infinite = np.isinf(samples.predicted).any(1)
    if infinite.any():
        raise ValueError(
            f"{infinite.sum()} samples under key_added={keys.key_added!r} have an infinite prediction (first: "
            f"{samples.table.index[infinite.argmax()]!r}); set those to NaN or leave them out."
        )
    n = int(samples.labelled.sum())
    if n < MIN_LABELLED:
        more = (
            f" {samples.n_left_out} more are of role train or validation, or of none, and their predictions are too "
            "good to learn from."
            if samples.n_left_out
            else ""
        )
        raise ValueError(
            f"only {n} held-out samples have an age and a prediction under key_added={keys.key_added!r}; a posterior "
            f"needs {MIN_LABELLED} or more.{more} Predict all subjects out of fold with agevi.tl.cross_validate(adata, "
            "model_cls, ...)."
        )
    ages = samples.table["age"].dropna()
    if ages.nunique() < 2:
        raise ValueError(
            f"all {n} held-out samples with an age have the same, {ages.iloc[0]:g}; a posterior needs samples of "
            "different ages."
        )
    count = (~np.isnan(samples.predicted[samples.labelled])).sum(0)
    enough = count >= MIN_LABELLED
    if enough.all():
        return samples
    few = [f"{t} ({c})" for t, c, ok in zip(samples.types, count, enough, strict=True) if not ok]
    if not enough.any():
        raise ValueError(
            f"no type has {MIN_LABELLED} samples with an age and a prediction: {_checks.listed(few)}; leave "
            "cell_type_key out, or lower min_cells of agevi.tl.cross_validate."
        )
    out = "Types with fewer than %d labelled samples are left out of the posterior: %s."
    logger.warning(out, MIN_LABELLED, _checks.listed(few))
    kept = (~np.isnan(samples.predicted[:, enough])).any(1)
    types = [name for name, ok in zip(samples.types, enough, strict=True) if ok]
    predicted, n_cells = samples.predicted[kept][:, enough], samples.n_cells[kept][:, enough]
    return Samples(samples.table[kept], types, predicted, n_cells, samples.n_left_out)
