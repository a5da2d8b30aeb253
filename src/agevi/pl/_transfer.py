"""Classifiers with and without what a clock has learnt."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from agevi import _checks, _keys, get
from agevi.metrics._register import OF_CLASSES
from agevi.pl import _base
from agevi.pl._figure import figure

COLORS = {"from the clock": "#1f77b4", "without the clock": "#ff7f0e", "no genes": "#a6a6a6"}
"""Colour by what a row starts from, from scanpy's default palette."""
_FROM_CLOCK = ("frozen transfer", "encoder frozen", "fine-tuned")
_WITHOUT = ("from scratch", "logistic regression")


@figure
def transfer(
    adata: AnnData, *, metric: str = "auroc", key_added: str = _keys.DEFAULT_KEY, ax: Axes | None = None
) -> Axes:
    """How well held-out cases are told from controls by each row of a transfer, with 95 % intervals, without unit.

    The dashed line is the baseline, what a coin scores. Intervals of two rows overlap more than the interval of their
    difference suggests, since both are judged on the same subjects: a filled marker says that the interval of the
    difference of its AUROC from the reference (a diamond) does not hold 0.

    Parameters
    ----------
    %(after_transfer)s
    metric
        ``"auroc"``, ``"auprc"``, ``"f1"``, ``"mcc"``, ``"balanced_accuracy"`` or ``"brier"``.
    %(drawn)s

    Raises
    ------
    KeyError
        :func:`agevi.tl.compare_transfer` was not run.
    ValueError
        The metric is unknown.

    Examples
    --------
    %(example_transfer)s
    >>> agevi.pl.transfer(adata).get_xlabel()
    'AUROC'
    """
    _checks.choice(metric, list(OF_CLASSES), "metric")
    table = get.transfer_df(adata, key_added=key_added)
    params = _base.params_of(adata, "transfer", key_added)
    ax = _base.axes(ax, 3.6, 0.36 * len(table))
    value, low, high = (table[f"{metric}{end}"].to_numpy() for end in ("", "_low", "_high"))
    apart = ((table["difference_low"] > 0) | (table["difference_high"] < 0)).to_numpy()
    is_reference = (table["model"] == params["reference"]).to_numpy()
    kind = np.array([_kind(name) for name in table["model"]])
    for name, color in COLORS.items():
        for shape, chosen in (("o", ~is_reference), ("D", is_reference)):
            for filled in (True, False):
                rows = np.flatnonzero((kind == name) & chosen & (apart == filled))
                if len(rows):
                    ax.errorbar(
                        value[rows], rows, xerr=np.stack([value - low, high - value])[:, rows].clip(0), fmt=shape,
                        color=color, markerfacecolor=color if filled else "white", capsize=3, zorder=3,
                    )  # fmt: skip
    for name, color in COLORS.items():
        if (kind == name).any():
            ax.plot([], [], "o", color=color, label=name)
    share = table["n_cases"].iloc[0] / table["n_subjects"].iloc[0]
    by_chance = OF_CLASSES[metric].by_chance(share)
    meanings = {
        "reference": ("D", "full", is_reference),
        "differs from it": ("o", "full", apart),
        "does not differ": ("o", "none", ~apart & ~is_reference),
    }
    for label, (marker, fill, shown) in meanings.items():
        if shown.any():
            ax.plot([], [], marker, color=_base.LINE_COLOR, label=label, fillstyle=fill)
    ax.axvline(by_chance, color=_base.LINE_COLOR, linewidth=1, linestyle=(0, (4, 3)), zorder=1, label="baseline")
    ax.set(xlabel=OF_CLASSES[metric].label)
    n_cases = int(table["n_cases"].iloc[0])
    n_controls = int(table["n_subjects"].iloc[0]) - n_cases
    case, control = _base.shortened((params["case"], params["control"]), 24)
    _base.title(ax, f"{n_cases:,} {case}, {n_controls:,} {control}")
    _base.name_rows(ax, table["model"])
    ax.grid(axis="x", color="#e0e0e0", linewidth=0.6)
    _base.legend(ax)
    return ax


def _kind(name: str) -> str:
    """What a row starts from."""
    if name in _FROM_CLOCK:
        return "from the clock"
    return "without the clock" if name in _WITHOUT else "no genes"
