"""Every metric, once: what bootstraps, tables, the leaderboard and figures need to know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

from agevi.metrics._classification import auprc, auroc, balanced_accuracy, brier, f1, mcc
from agevi.metrics._metric import Metric
from agevi.metrics._regression import LinearFit, mad, mae, mdae, pearson, r2, rmse, spearman


@dataclass(frozen=True)
class Entry:
    """One metric."""

    function: Metric
    better: Literal["lower", "higher"]
    unit: Literal["age", ""] = ""
    compared: bool = True  # whether the leaderboard has it as a column
    label: str = ""  # on an axis
    by_chance: Callable[[float], float] = lambda share: 0.5  # what a coin scores, from the share of cases


def _named(*entries: Entry) -> dict[str, Entry]:
    """Entries by the names of their functions."""
    return {entry.function.__name__: entry for entry in entries}


OF_AGES = _named(
    Entry(mae, "lower", "age"),
    Entry(rmse, "lower", "age"),
    Entry(mdae, "lower", "age"),
    Entry(mad, "lower", "age", compared=False),
    Entry(r2, "higher"),
    Entry(pearson, "higher"),
    Entry(spearman, "higher"),
)
OF_CLASSES = _named(
    Entry(auroc, "higher", label="AUROC"),
    Entry(auprc, "higher", label="Average precision", by_chance=lambda share: share),
    Entry(f1, "higher", label="F1", by_chance=lambda share: share / (share + 0.5)),
    Entry(mcc, "higher", label="Matthews' correlation", by_chance=lambda share: 0.0),
    Entry(balanced_accuracy, "higher", label="Balanced accuracy"),
    Entry(brier, "lower", label="Brier score (0 is best)", by_chance=lambda share: 0.25),
)
_ERROR = ["n", "n_subjects", "mae", "mae_low", "mae_high"]
_OTHERS = [name for name in OF_AGES if name != "mae"]
ROW = [*_ERROR, "mae_median", *_OTHERS, *(field.name for field in fields(LinearFit))]
"""Columns of a table with the accuracy of groups of samples."""
COMPARED = [*_ERROR, *(name for name in _OTHERS if OF_AGES[name].compared), "slope"]
"""Columns of the leaderboard."""
