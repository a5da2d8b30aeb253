"""Intervals of the ages of subjects, one row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from agevi import _checks, _keys, _names, _subjects, get
from agevi.pl import _base
from agevi.pl._figure import figure
from agevi.tl.predict._evaluate_by import sample_values

TABLES = ("calibration", "posterior")
ORDERS = ("predicted", "age")
MAX_NAMED = 60
"""Samples up to which rows are named."""
_ROW, _LEAST, _MOST = 0.17, 1.6, 6.0  # inches of a row, of the axes
_OUTSIDE = "#d62728"
_FAR = 1.5  # ranges of age and prediction beyond which intervals end at the edge of the axes


class _Look(NamedTuple):
    """What all panels share."""

    colors: Mapping[str, Any]
    limits: tuple[float, float]
    named: bool
    unit: str


@figure
def subject_intervals(
    adata: AnnData,
    *,
    table: Literal["calibration", "posterior"] = "calibration",
    order_by: Literal["predicted", "age"] = "predicted",
    color_by: str = "role",
    groupby: str | None = None,
    roles: str | Sequence[str] | None = None,
    palette: Mapping[str, str] | Sequence[str] | None = None,
    n_cols: int = 4,
    key_added: str = _keys.DEFAULT_KEY,
    ax: Any = None,
) -> Axes | dict[str, Axes]:
    """Interval, prediction and actual age of every sample, one row each, in the unit of the age column.

    The line is the interval, the point on it the predicted age, the dark stroke the actual age where it is known, red
    where it lies outside. The youngest are at the bottom. Up to 60 samples are named. Only samples with an interval are
    drawn, so none that trained or recalibrated the clock. How many of the known ages lie inside is written beside; a
    share far below the level says that these subjects are not like those of the calibration.

    Parameters
    ----------
    adata
        Annotated data with intervals in the subject table, from :func:`agevi.tl.calibrate`,
        :func:`agevi.tl.recalibrate`, or :func:`agevi.tl.aggregate_subjects` with a calibrated clock; or after
        :func:`agevi.tl.subject_posterior`.
    table
        ``"calibration"``: intervals of the subject table; ``"posterior"``: those of :func:`agevi.tl.subject_posterior`,
        of all types of cells together, with the posterior mean as the point.
    order_by
        Rows rise with ``"predicted"`` or with ``"age"``; samples without an age are then at the top.
    color_by
        Column of :func:`agevi.get.subjects_df`, or of ``adata.obs`` with one value per sample, for the colours of the
        intervals.
    groupby
        Column of the same kind that makes panels, all with the same ages along the axis.
    roles
        Draw samples of these roles; all by default.
    %(palette)s
    %(n_cols)s
    %(key_added)s
    ax
        Axes to draw on, one per panel with ``groupby``; a new figure by default.

    Returns
    -------
    The axes; with ``groupby`` a dict of them by group, in the order of drawing.

    Raises
    ------
    KeyError
        The subject table, the posterior or a column is absent.
    ValueError
        No sample has an interval, ``order_by`` or ``table`` is unknown, or a column has several values in a sample.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=40, n_cells=5, n_genes=50)
    >>> adata.obs["agevi_predicted"] = adata.obs["age"] / 2 + 30  # stands for tl.predict_age(adata, model)
    >>> adata.obs["agevi_role"] = "new"
    >>> adata.uns["agevi"] = {"subject_key": "donor", "sample_key": "donor", "age_key": "age"}
    >>> agevi.tl.aggregate_subjects(adata)
    >>> labelled = sorted(set(adata.obs["donor"]))[:10]
    >>> adata.obs["known"] = adata.obs["age"].where(adata.obs["donor"].isin(labelled))
    >>> agevi.tl.recalibrate(adata, by=None, labels="known")
    >>> agevi.pl.subject_intervals(adata, key_added="recalibrated").get_xlabel()
    'Age (years)'
    """
    _checks.choice(order_by, ORDERS, "order_by")
    _checks.choice(table, TABLES, "table")
    keys = _keys.Keys(key_added)
    samples = _with_intervals(adata, keys, roles) if table == TABLES[0] else _posterior(adata, keys, roles)
    for column, argument in ((color_by, "color_by"), (groupby, "groupby")):
        if column is not None:
            values = sample_values(adata, samples, column, argument, keys=keys)
            samples[f"_{argument}"] = _names.names(values, f"{argument}={column!r}").fillna("").to_numpy()
    groups = _base.in_order(samples["_color_by"])
    column = keys.role if color_by == "role" else color_by
    look = _Look(
        _base.group_colors(adata, column, groups, palette),
        _limits(samples),
        groupby is None and len(samples) <= MAX_NAMED,
        _base.age_unit(adata, key_added),
    )
    samples = samples.sort_values([order_by, "predicted"], na_position="last", kind="stable")
    level = _level(adata, keys, ("calibration", "recalibration") if table == TABLES[0] else (table,))
    if groupby is None:
        ax = _base.axes(ax, 4.0, float(np.clip(_ROW * len(samples), _LEAST, _MOST * (1 + 0.7 * look.named))))
        _draw(ax, samples, look)
        _base.legend(ax, handles=_handles(samples, look), note=_inside_text(samples, level))
        return ax

    def draw(panel: Axes, name: str) -> list[str]:
        part = samples[samples["_groupby"] == name]
        _draw(panel, part, look)
        return _inside_text(part, level).split("\n")

    return _base.grid(samples["_groupby"], groupby, draw, _handles(samples, look), n_cols, ax)


def _with_intervals(adata: AnnData, keys: _keys.Keys, roles: str | Sequence[str] | None) -> pd.DataFrame:
    """Samples of some roles that have an interval, indexed by sample."""
    if keys.subjects in adata.uns:
        _subjects.check_cells(adata, keys, adata.uns[keys.subjects].index, keys.subjects)
    key_added = keys.key_added
    table = get.subjects_df(adata, key_added=key_added, roles=roles).set_index("sample")
    for bound in ("lower", "upper"):
        if bound not in table:
            table[bound] = np.nan
    found = table[table[["predicted", "lower", "upper"]].notna().all(axis=1)].copy()
    if found.empty:
        whose = "" if roles is None else f" of roles={roles!r}"
        other = "" if key_added == _keys.DEFAULT_KEY else f", key_added={key_added!r}"
        call = f"agevi.tl.calibrate(adata{other})"
        raise ValueError(f"no sample{whose} has an interval in adata.uns[{keys.subjects!r}]; run {call} first.")
    return found


def _posterior(adata: AnnData, keys: _keys.Keys, roles: str | Sequence[str] | None) -> pd.DataFrame:
    """Posterior mean, as what is predicted, and interval of samples of some roles, indexed by sample."""
    given = [roles] if isinstance(roles, str) else roles
    wanted = None if given is None else [_checks.choice(role, _keys.ROLES, "roles") for role in given]
    found = get.posterior_df(adata, key_added=keys.key_added)
    slot = keys.posterior
    found = (
        found[found["type"] == _names.ALL_TYPES]
        .set_index("sample")
        .drop(columns="predicted")
        .rename(columns={"mean": "predicted"})
    )
    _subjects.check_cells(adata, keys, found.index, slot)
    table = adata.uns.get(keys.subjects)  # absent where types alone were predicted
    others = pd.DataFrame(index=found.index) if table is None else table.reindex(found.index)
    others = others[[column for column in others if column not in found]]
    if "role" not in others:
        others = others.assign(role=_keys.OUT_OF_FOLD)
    found = found.join(others)
    found = found if wanted is None else found[found["role"].isin(wanted)].copy()
    if found.empty:
        raise ValueError(
            f"no sample of roles={roles!r} has a posterior in adata.uns[{slot!r}]; pass other roles, or None for all."
        )
    return found


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """Limits of the ages, which single intervals far beyond all others do not widen."""
    centre = table[["age", "predicted"]].to_numpy(dtype=np.float64)
    low, high = np.nanmin(centre), np.nanmax(centre)
    reach = _FAR * max(high - low, float(np.median(table["upper"] - table["lower"])))
    return _base.margins(
        np.array([max(table["lower"].min(), low - reach), min(table["upper"].max(), high + reach), low, high])
    )


def _level(adata: AnnData, keys: _keys.Keys, nouns: Sequence[str]) -> float:
    """Level of the intervals, NaN where it was not recorded."""
    for noun in nouns:
        params = adata.uns.get(keys.table_params(noun), {})
        if "level" in params:
            return float(params["level"])
    return float("nan")


def _draw(ax: Axes, table: pd.DataFrame, look: _Look) -> None:
    """The rows of one panel, from below."""
    n, row = len(table), np.arange(len(table))
    height = _base.inches(ax)[1] * 72 / n  # points of a row
    width, size = float(np.clip(0.3 * height, 0.5, 2.2)), float(np.clip(0.6 * height, 1.4, 5.5)) ** 2
    color = [look.colors[group] for group in table["_color_by"]]
    low, high = look.limits
    ax.hlines(
        row, table["lower"].clip(low, high), table["upper"].clip(low, high), color=color, linewidth=width, alpha=0.55
    )
    ax.scatter(table["predicted"].clip(low, high), row, s=size, color=color, linewidth=0, zorder=3)
    age = table["age"].to_numpy(dtype=np.float64)
    for chosen, dark, least in ((_inside(table), _base.LINE_COLOR, 0.7), (_outside(table), _OUTSIDE, 1.2)):
        ax.scatter(
            age[chosen], row[chosen], s=np.clip(1.3 * height, 6 * least, 11) ** 2, marker="|", color=dark, zorder=4,
            linewidth=np.clip(0.2 * height, least, 1.4),
        )  # fmt: skip
    ax.set(xlim=look.limits, xlabel=f"Age ({look.unit})", ylabel="" if look.named else "Samples")
    if look.named:
        _base.name_rows(ax, table.index)
        ax.set_ylim(-0.6, n - 0.4)
    else:
        ax.set_yticks([])
        ax.set_ylim(-0.02 * n - 0.5, 1.02 * n - 0.5)


def _inside(table: pd.DataFrame) -> np.ndarray:
    """Which actual ages lie in their interval."""
    return table["age"].between(table["lower"], table["upper"]).to_numpy()


def _outside(table: pd.DataFrame) -> np.ndarray:
    """Which known ages do not."""
    return table["age"].notna().to_numpy() & ~_inside(table)


def _inside_text(table: pd.DataFrame, level: float) -> str:
    """How many known ages lie inside."""
    known, width = int(table["age"].notna().sum()), (table["upper"] - table["lower"]).mean()
    lines = [f"{len(table)} intervals" if np.isnan(level) else f"{len(table)} intervals at {100 * level:g} %"]
    lines += [f"{_inside(table).sum()} of {known} ages inside"] if known else []
    return "\n".join([*lines, f"mean width {width:.1f}"])


def _handles(table: pd.DataFrame, look: _Look) -> list[Line2D]:
    """What colours and strokes mean."""
    names = dict(zip(look.colors, _base.shortened(map(_base.role_name, look.colors)), strict=True))
    counts = table["_color_by"].value_counts()
    handles = [
        Line2D([], [], color=color, marker="o", markersize=4, linewidth=2, label=f"{names[group]} ({counts[group]})")
        for group, color in look.colors.items()
        if group in counts
    ]
    strokes = (_inside(table), _base.LINE_COLOR, "actual age"), (_outside(table), _OUTSIDE, "actual age, outside")
    for chosen, dark, label in strokes:
        if chosen.any():
            handles.append(_base.marker(label, dark, "|", markersize=9, markeredgewidth=1.4))
    return handles
