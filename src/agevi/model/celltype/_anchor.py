"""The level of a cohort's ages by clocks of two types against each other."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from agevi import _checks, _names
from agevi._progress import Bar
from agevi.dataloaders._contrast import contrast, enough_counts
from agevi.dataloaders._query import GeneMatch
from agevi.dataloaders._sums import sum_rows
from agevi.model.base._classes import clock_class
from agevi.model.celltype._fit import TypedCells, can_train, fit_type, type_seed

logger = logging.getLogger(__name__)

CLOCK = "PLSClock"
"""Class of the clocks of contrasts."""
LEAST_R = 0.4
"""Correlation with the age of held-out subjects below which a contrast says nothing."""
_SETUP = ("age_key", "subject_key", "sample_key", "age_unit", "age_transform", "min_age")


def check_anchor(anchor: Any, normalize: str) -> None:
    """Refuse what cannot be an anchor."""
    if anchor is not None and not isinstance(anchor, str):
        raise TypeError(f"anchor={anchor!r} is a {type(anchor).__name__}; pass the name of a type, or None.")
    if anchor is not None and normalize != "log1p_cp10k":
        raise ValueError(
            f"anchor={anchor!r} compares counts of types, and normalize={normalize!r} says that the values are not "
            "counts; set up raw counts, or leave the anchor out."
        )


def targets_of(anchor: str, cells: TypedCells, able: list[int], key: str | None) -> list[int]:
    """Types that are compared with the anchor, which must have a clock itself."""
    names = [cells.names[i] for i in able]
    if anchor not in names or len(names) < 2:
        others = [name for name in names if name != anchor]
        why = "is the only type with a clock" if anchor in names else "is not a type with a clock"
        raise ValueError(
            f"anchor={anchor!r} {why} in {_names.in_types(key)}{_checks.closest(anchor, others)}. Types with a clock: "
            f"{_checks.listed(names)}."
        )
    return [i for i in able if cells.names[i] != anchor]


def fit_contrasts(
    cells: TypedCells, targets: list[int], anchor: str, setup: Mapping[str, Any], rng: int, folds: np.ndarray, bar: Bar
) -> tuple[dict[str, Any], dict[str, float]]:
    """Clocks of the types against the anchor, and the held-out correlation with age of all of them, by type.

    Only those that tell the age of held-out subjects are kept.
    """
    x, clocks, found = _checks.matrix(cells.adata, setup["layer"]), {}, {}
    place, n_of_type = cells.names.index(anchor), cells.n_of_type
    reference = _sums(x, cells, place)

    def make(shell: AnnData, name: str) -> Any:
        clock_cls = clock_class(CLOCK)
        clock_cls.setup_anndata(shell, normalize="none", **{argument: setup[argument] for argument in _SETUP})
        return clock_cls(shell, rng=type_seed(rng, f"{name} against {anchor}"))

    def train(model: Any, name: str) -> None:
        model.train(enable_progress_bar=False)

    for i in targets:
        target = _sums(x, cells, i)
        enough = (n_of_type[:, [i, place]] >= cells.min_cells).all(axis=1) & enough_counts(target, reference)
        if not can_train(cells, cells.trains & enough):
            continue
        name, kept = cells.names[i], np.flatnonzero(enough)
        first = np.unique(cells.sample, return_index=True)[1][kept]
        shell = AnnData(
            sp.csr_matrix(contrast(target[kept], reference[kept])),
            obs=cells.adata.obs.iloc[first],
            var=pd.DataFrame(index=cells.adata.var_names),
        )
        compared = replace(
            cells,
            adata=shell,
            names=[name],
            code=np.zeros(len(kept), dtype=int),
            sample=np.arange(len(kept)),
            owner=cells.owner[kept],
            age=cells.age[kept],
            min_cells=1,
        )
        clock, held = fit_type(compared, 0, make, train, folds, bar)
        known = np.isfinite(held) & compared.trains
        varies = known.sum() > 2 and np.ptp(held[known]) > 0
        found[name] = float(np.corrcoef(held[known], compared.age[known])[0, 1]) if varies else 0.0
        if found[name] >= LEAST_R:
            clocks[name] = clock
    return clocks, found


def say_contrasts(anchor: str, clocks: Mapping[str, Any], found: Mapping[str, float]) -> None:
    """Name the types whose contrast says nothing about age."""
    lost = [f"{name!r} (r = {r:.2f})" for name, r in found.items() if name not in clocks]
    if clocks and lost:
        logger.warning(
            "%d of %d types against anchor=%r do not tell the age of held-out subjects (r under %.1f) and are left out "
            "of the anchor: %s.", len(lost), len(found), anchor, LEAST_R, ", ".join(lost[:5]),
        )  # fmt: skip
    if not clocks:
        why = f"tells the age of held-out subjects (r under {LEAST_R}): {', '.join(lost[:5])}" if lost else ""
        logger.warning(
            "No type against anchor=%r %s. The clock has no anchor, since types that age alike, or are measured too "
            "little, give none.", anchor, why or "has the cells and counts to train",
        )  # fmt: skip


def anchor_ages(
    model: Any, units: AnnData, match: GeneMatch, sample: np.ndarray, of_type: np.ndarray, n_samples: int
) -> np.ndarray:
    """Mean age of every sample by the contrasts that it has, (n_samples,), NaN without any.

    ``units`` are the sums of one type in one sample, named by ``sample`` and ``of_type``, (n_units,).
    """
    out = np.full((len(model.contrast_clocks), n_samples), np.nan)
    x, names = _checks.matrix(units, model.setup_args["layer"])[:, match.present], model.genes[match.present]
    of_anchor = np.flatnonzero(of_type == model.types_.index(model.init_args["anchor"]))
    for row, (name, clock) in enumerate(model.contrast_clocks.items()):
        own = np.flatnonzero(of_type == model.types_.index(name))
        both, i, j = np.intersect1d(sample[own], sample[of_anchor], return_indices=True)
        target, reference = (_checks.dense(x[rows], np.float64) for rows in (own[i], of_anchor[j]))
        enough = enough_counts(target, reference)
        if enough.any():
            x_of_both = sp.csr_matrix(contrast(target[enough], reference[enough]))
            data = AnnData(x_of_both, var=pd.DataFrame(index=names))
            out[row, both[enough]] = clock.predict_rows(data, min_gene_coverage=0.0).value
    known = np.isfinite(out)
    return np.divide(
        np.where(known, out, 0).sum(axis=0), known.sum(axis=0), out=np.full(n_samples, np.nan), where=known.any(axis=0)
    )


def _sums(x: Any, cells: TypedCells, of_type: int) -> np.ndarray:
    """Sums of the cells of a type in every sample, (n_samples, n_genes)."""
    own = np.where(cells.code == of_type, cells.sample, -1)
    return _checks.dense(sum_rows(x, own, len(cells.age)), np.float64)
