"""How many subjects or cells there are of each age."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from agevi import _checks, _keys, _names, _units
from agevi.pl import _base
from agevi.pl._figure import figure

_NAMELESS = (_keys.SPLIT,)
"""Columns whose values speak for themselves."""


@figure
def age_distribution(
    adata: AnnData,
    *,
    age_key: str,
    subject_key: str | None = None,
    groupby: str | None = _keys.SPLIT,
    level: Literal["subject", "cell"] = "subject",
    n_bins: int = 15,
    age_unit: str | None = None,
    palette: Mapping[str, str] | Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Number of subjects, or of cells, by age, stacked by group.

    Look at it before training: a clock learns little about ages that no training subject has, and a split whose test
    subjects are all of one age judges nothing. Cells per age show how unequally subjects were sampled.

    Parameters
    ----------
    adata
        Annotated data, cells x genes.
    age_key
        Column of ``adata.obs`` with the age; cells without one are left out.
    subject_key
        Column with the subject, needed for ``level="subject"``. Default: that of the predictions in
        ``adata.uns["agevi"]``.
    groupby
        Column that the bars are divided by, None for one colour. A subject with cells in two groups counts in both.
    level
        Count subjects (each at the mean age of its cells) or cells.
    n_bins
        Largest number of bars; their edges are round numbers.
    age_unit
        Unit on the label. Default: that of the predictions, else years.
    %(palette)s
    %(ax)s

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        A column is absent or not named.
    TypeError
        Ages are text.
    ValueError
        No cell has an age, or ``level`` is unknown.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=5, n_genes=50)
    >>> agevi.pp.split_subjects(adata, subject_key="donor", age_key="age")
    >>> ax = agevi.pl.age_distribution(adata, age_key="age", subject_key="donor")
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('Age (years)', 'Subjects')
    """
    _checks.choice(level, ("subject", "cell"), "level")
    table = _table(adata, age_key, _subject_key(adata, subject_key, level), groupby)
    order = _base.in_order(table["group"])
    colors = _base.group_colors(adata, groupby or "", order, palette)
    lowest, highest = table["age"].min(), table["age"].max()
    edges = MaxNLocator(nbins=n_bins, steps=[1, 2, 5, 10], integer=highest - lowest > 2).tick_values(lowest, highest)
    ax = _base.axes(ax, width=4.2, height=2.7)
    base = np.zeros(len(edges) - 1)
    for group, name in zip(order, _base.shortened(map(_base.role_name, order)), strict=True):
        counts = np.histogram(table.loc[table["group"] == group, "age"], edges)[0]
        ax.bar(
            edges[:-1], counts, np.diff(edges), base, align="edge", color=colors[group], edgecolor="white",
            linewidth=0.6, label=f"{name} ({counts.sum():,})",
        )  # fmt: skip
        base += counts
    unit = age_unit or _base.age_unit(adata)
    ax.set(xlabel=f"Age ({unit})", ylabel="Subjects" if level == "subject" else "Cells")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    if groupby is not None:
        _base.legend(ax, title=_base.shortened([groupby])[0] if groupby not in _NAMELESS else None)
    return ax


def _subject_key(adata: AnnData, subject_key: str | None, level: str) -> str | None:
    """The column with subjects, None where cells are counted."""
    if level == "cell":
        return None
    found = subject_key or adata.uns.get(_keys.DEFAULT_KEY, {}).get("subject_key")
    if not found:
        raise KeyError("no subject column is known; pass subject_key='<column of adata.obs>', or level='cell'.")
    return str(found)


def _table(adata: AnnData, age_key: str, subject_key: str | None, groupby: str | None) -> pd.DataFrame:
    """Age and group of every subject or cell that has an age."""
    age = _units.ages(adata, age_key, min_age=-np.inf)
    if groupby is None:
        group = pd.Series("", index=adata.obs_names)
    elif groupby == _keys.SPLIT and groupby not in adata.obs:
        raise KeyError(f"adata.obs[{groupby!r}] is absent; run agevi.pp.split_subjects first, or pass groupby=None.")
    else:
        group = _checks.column(adata, groupby, "groupby")
    frame = pd.DataFrame({"age": age, "group": group.to_numpy()}, index=adata.obs_names)
    code, names = _names.coded(group, f"adata.obs[{groupby!r}]")
    frame["group"] = pd.Categorical.from_codes(code, pd.Index(names, dtype=object))
    frame = frame[frame["age"].notna() & frame["group"].notna()]
    if subject_key is None:
        return frame
    frame["subject"] = _checks.labels(adata, subject_key, "subject_key")[frame.index]
    return frame.groupby(["subject", "group"], observed=True)["age"].mean().reset_index()
