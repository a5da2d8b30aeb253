"""The table of a comparison of transfers: metrics of held-out subjects with their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from agevi.metrics._bootstrap import interval, two_class_draws
from agevi.metrics._register import OF_CLASSES

_HIGH = 0.975


def metric_table(
    rows: list[str],
    case: np.ndarray,
    probability: np.ndarray,
    fold: np.ndarray,
    *,
    reference: str,
    n_boot: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Metrics of ``probability``, (n_rows, n_repeats, n_subjects), with intervals and AUROC less the reference's."""
    n = len(case)
    draws = two_class_draws(case, None, n_boot, rng)
    weight = np.stack([np.ones(n), *(np.bincount(drawn, minlength=n) for drawn in draws)])
    columns: dict[str, Any] = {"n_subjects": np.full(len(rows), n), "n_cases": np.full(len(rows), int(case.sum()))}
    for name, entry in OF_CLASSES.items():
        if name == "auroc":
            of_repeat = np.stack(
                [[auroc_within(case, p, f, weight) for p, f in zip(row, fold, strict=True)] for row in probability]
            )
            each, drawn = of_repeat[..., 0], np.nanmean(of_repeat[..., 1:], axis=1)
        else:
            kernel, cases = entry.function.kernel, np.broadcast_to(case, probability.shape)
            each = kernel(cases, probability)
            drawn = np.stack([kernel(cases[..., i], probability[..., i]).mean(axis=1) for i in draws], axis=1)
        columns[name] = each.mean(axis=1)
        columns |= _ends(name, drawn)
        if name == "auroc":
            i = rows.index(reference)
            columns["auroc_sd"] = each.std(axis=1, ddof=1) if each.shape[1] > 1 else np.full(len(rows), np.nan)
            columns["difference"] = columns[name] - columns[name][i]
            columns |= _ends("difference", drawn - drawn[i])
    return pd.DataFrame(columns, index=pd.Index(rows, dtype=object))


def auroc_within(case: np.ndarray, probability: np.ndarray, fold: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Share of pairs of a case and a control of one fold in which the case ranks above, ties one half, (n_draws,)."""
    # Folds come from models of their own and do not compare: ranked together, features that say nothing have an area
    # below one half, since a fold that holds out more cases has fewer to train on (Airola et al. 2011).
    above, pairs = np.zeros(len(weight)), np.zeros(len(weight))
    for code in np.unique(fold):
        cases, controls = (np.flatnonzero((fold == code) & (case == label)) for label in (1, 0))
        gap = probability[cases][:, None] - probability[controls]
        won = (gap > 0) + 0.5 * (gap == 0)
        above += ((weight[:, cases] @ won) * weight[:, controls]).sum(axis=1)
        pairs += weight[:, cases].sum(axis=1) * weight[:, controls].sum(axis=1)
    return np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan)


def _ends(name: str, drawn: np.ndarray) -> dict[str, np.ndarray]:
    """Ends of the interval of every row."""
    ends = np.array([interval(values, _HIGH) for values in drawn])
    return {f"{name}_low": ends[:, 0], f"{name}_high": ends[:, 1]}
