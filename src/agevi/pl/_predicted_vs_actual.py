"""Predicted against actual age."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from agevi import _checks, _keys, _names, _subjects, get, metrics
from agevi.metrics._rows import metrics_row
from agevi.pl import _base
from agevi.pl._figure import figure
from agevi.tl.predict._evaluate_by import sample_values
from agevi.tl.predict._judged import REFERENCE, TYPE, announce, announce_types, of_types, references, types_key

PANEL = "panel"
"""Column with the panel of every row, text."""
GROUP = "color"
"""Column with the group that gives the colour."""
FITS = ("all", "groups")
FAR = 1.5
"""Ranges of age beyond all ages from which predictions are drawn at the edge of the axes."""
BOUNDS = ("lower", "upper")
DASHED = (0, (4, 3))
HOLLOW = {_keys.TRAIN: ("#a6a6a6", "o"), _keys.VALIDATION: ("#737373", "D"), _keys.RECALIBRATION: ("#8c564b", "s")}
"""Rim and marker of samples that shaped their predictions."""


class _Style(NamedTuple):
    """What all panels share; ``grey`` says that samples which shaped the clock are grey, since others are there."""

    colors: Mapping[str, Any]
    by_role: bool
    grey: bool
    markers: Mapping[str, str]
    fit: str | None
    limits: tuple[float, float]
    unit: str
    size: float
    intervals: str  # what lines of the intervals are called, "" where none are drawn


@figure
def predicted_vs_actual(  # noqa: PLR0913
    adata: AnnData,
    *,
    key_added: str = _keys.DEFAULT_KEY,
    roles: str | Sequence[str] | None = None,
    color_by: str = "role",
    groupby: str | None = None,
    fit: Literal["all", "groups"] | None = "all",
    intervals: bool = False,
    n_cols: int = 4,
    palette: Mapping[str, str] | Sequence[str] | None = None,
    size: float | None = None,
    ax: Any = None,
) -> Axes | dict[str, Axes]:
    """Predicted against actual age of every sample, in the unit of the age column.

    One point is one sample, never a cell. The dashed line is where predictions are exact, the solid one the
    least-squares fit. Samples that shaped the clock (roles train and validation) are hollow and grey whatever the
    colours are, since they lie close to the dashed line in any large model: no line is fitted to them. The accuracy
    is that of the held-out samples (roles test, out_of_fold, new) of each role, with the 95 % interval of the mean
    absolute error and the error of predicting the median training age for everyone, as in
    :func:`agevi.get.metrics_df`. If held-out subjects are not predicted better than by the median age, one line of the
    log says so. With ``groupby`` there is a panel per cohort, tissue or cell type, all with the same
    limits; the fit and the accuracy are then those of the panel.

    Parameters
    ----------
    %(after_subjects)s
    %(key_added)s
    roles
        Draw samples of these roles; all but ``"recalibration"`` by default.
    color_by
        Column of :func:`agevi.get.subjects_df`, or of ``adata.obs`` (a sample has its most common value), for the
        colours of held-out samples. Where all samples shaped the clock, their rims have the colours.
    groupby
        Column that makes panels: the one that clocks per cell type were trained by with
        ``tl.cross_validate(groupby=...)``, whose predictions are drawn then, else a column of
        :func:`agevi.get.subjects_df`, or of ``adata.obs`` with one value per sample.
    fit
        ``"all"``: one line through all held-out samples; ``"groups"``: one per colour; None: no line.
    intervals
        Draw the interval of every sample, which :func:`agevi.tl.calibrate` makes, as a thin vertical line.
    %(n_cols)s
    palette
        Colour by group, or colours in the order of the groups. Default: ``adata.uns[f"{color_by}_colors"]``, else fixed
        colours for roles and scanpy's palette for other columns.
    %(size)s
    ax
        Axes to draw on, one per panel with ``groupby``; a new figure by default.

    Returns
    -------
    The axes; with ``groupby`` a dict of them by group, in the order of drawing.

    Raises
    ------
    KeyError
        The subject table, ``color_by`` or ``groupby`` is absent.
    TypeError
        ``ax`` is not what is drawn on.
    ValueError
        No sample has an age and a prediction, there are no intervals to draw, ``fit`` is unknown, ``color_by`` has more
        values than there are colours, or ``groupby`` has several values in a sample or too many for panels.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=4, n_cells=5, n_genes=50)
    >>> adata.obs["agevi_predicted"] = adata.obs["age"] + 2  # stands for tl.predict_age(adata, model)
    >>> agevi.tl.aggregate_subjects(adata, subject_key="donor", age_key="age")
    >>> ax = agevi.pl.predicted_vs_actual(adata)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('Age (years)', 'Predicted age (years)')
    """
    if fit is not None:
        _checks.choice(fit, FITS, "fit")
    table = _by_group(adata, groupby, key_added, roles)
    table = table[table["age"].notna() & table["predicted"].notna()].reset_index(drop=True)
    if table.empty:
        raise ValueError(
            f"no sample{f' of roles={roles!r}' if roles else ''} has an age and a prediction, so nothing can be drawn. "
            "Pass age_key to agevi.tl.aggregate_subjects."
        )
    if groupby is None or groupby != types_key(adata, _keys.Keys(key_added)):
        announce(adata, get.subjects_df(adata, key_added=key_added), _keys.Keys(key_added), roles)
    groups = _groups(adata, table, color_by, key_added)
    order = _base.in_order(groups)
    _base.check_groups(order, "color_by", color_by)
    table[GROUP] = groups.astype(str)
    column = _keys.Keys(key_added).role if color_by == "role" else color_by
    colors = _base.group_colors(adata, column, order, palette)
    unit, by_role = _base.age_unit(adata, key_added), color_by == "role"
    lines_of = _name_of_intervals(adata, table, key_added) if intervals else ""
    grey, points = not _fitted(table).all(), size or _base.point_size(len(table))
    limits = _limits(table, *(BOUNDS if intervals else ()))
    style = _Style(colors, by_role, grey, _markers(table, by_role), fit, limits, unit, points, lines_of)
    if groupby is None:
        ax = _base.axes(ax)
        lines = _draw(ax, table, style)
        _base.legend(ax, handles=_handles(table, style, lines), note="\n".join(_accuracy(table, style)))
        return ax
    style = style._replace(size=size or 0.6 * _base.point_size(int(table[PANEL].value_counts().max())))

    def draw(panel: Axes, name: str) -> list[str]:
        part = table[table[PANEL] == name]
        _draw(panel, part, style)
        return _accuracy_of_panel(part, style)

    fits = [_line("fit of the panel" if fit == "all" else "fits of the colours")] if fit else []
    return _base.grid(table[PANEL], groupby, draw, _handles(table, style, fits), n_cols, ax)


def _by_group(adata: AnnData, groupby: str | None, key_added: str, roles: str | Sequence[str] | None) -> pd.DataFrame:
    """One row per sample, or per sample and panel."""
    keys = _keys.Keys(key_added)
    if keys.subjects in adata.uns:
        _subjects.check_cells(adata, keys, adata.uns[keys.subjects].index, keys.subjects)
    table = get.subjects_df(adata, key_added=key_added)
    table[REFERENCE] = references(adata, table, keys)
    found = get.subjects_df(adata, key_added=key_added, roles=roles)
    wanted = found.loc[found["role"] != _keys.RECALIBRATION, "sample"] if roles is None else found["sample"]
    table = table[table["sample"].isin(wanted)].reset_index(drop=True)
    if groupby is None:
        return table
    if groupby == types_key(adata, keys):
        table = of_types(adata, keys)
        announce_types(adata, table, keys, groupby, roles)
        table = table.rename(columns={TYPE: PANEL})
        return table if roles is None or _keys.OUT_OF_FOLD in roles else table[:0]
    values = sample_values(adata, table.set_index("sample"), groupby, "groupby", keys=keys)
    text = _names.names(values, f"groupby={groupby!r}").fillna("").to_numpy()
    if not isinstance(values.dtype, pd.CategoricalDtype):
        return table.assign(**{PANEL: text})
    names = _names.several(values.cat.categories)
    return table.assign(**{PANEL: pd.Categorical(text, [*names, *({""} - set(names) if values.isna().any() else ())])})


def _name_of_intervals(adata: AnnData, table: pd.DataFrame, key_added: str) -> str:
    """What intervals are called in the legend, with their level."""
    params = _keys.Keys(key_added).calibration_params
    if params not in adata.uns or not set(BOUNDS) <= set(table) or table[list(BOUNDS)].isna().all(axis=None):
        raise ValueError("intervals=True, but the samples that are drawn have none; run agevi.tl.calibrate first.")
    return f"{100 * float(adata.uns[params]['level']):g} % interval"


def _limits(table: pd.DataFrame, *bounds: str) -> tuple[float, float]:
    """Limits of both axes, which single values far from all ages do not widen."""
    age = table["age"].to_numpy(dtype=np.float64)
    others = table[["predicted", *bounds]].to_numpy(dtype=np.float64).ravel()
    reach = FAR * np.ptp(age) or np.inf
    return _base.margins(np.append(age, others[np.isfinite(others)].clip(age.min() - reach, age.max() + reach)))


def _draw(ax: Axes, table: pd.DataFrame, style: _Style) -> list[Line2D]:
    """Points, identity and fits of one panel; returns the fits."""
    low, high = style.limits
    ax.axline((low, low), slope=1, color=_base.LINE_COLOR, linewidth=1, linestyle=DASHED, zorder=1)
    pairs: list[tuple[str, str]] = list(table[["role", GROUP]].drop_duplicates().itertuples(index=False, name=None))
    order = sorted(pairs, key=lambda pair: pair[0] not in _keys.SHAPED_ROLES)  # what shaped the clock lies behind
    for role, group in order:
        part = table[(table["role"] == role) & (table[GROUP] == group)]
        if style.intervals:
            thin = np.clip(40 / max(len(table), 1), 0.12, 0.6)
            low_end, high_end = (part[bound] for bound in BOUNDS)
            ax.vlines(part["age"], low_end, high_end, color=style.colors[group], alpha=thin, linewidth=1, zorder=0)
        look: dict[str, Any] = {"color": style.colors[group], "edgecolor": "white", "linewidth": 0.4, "alpha": 0.9}
        if role in _keys.SHAPED_ROLES:
            look = {"facecolor": "none", "edgecolor": _rim(role, group, style), "linewidth": 0.9}
        ax.scatter(
            part["age"], part["predicted"].clip(low, high), s=style.size, marker=style.markers[role],
            label=_base.role_name(group), zorder=2 if role in _keys.SHAPED_ROLES else 3, clip_on=False, **look,
        )  # fmt: skip
    fits = _draw_fits(ax, _judged(table), style)
    ax.set(xlim=style.limits, ylim=style.limits, aspect="equal")
    ax.set(xlabel=f"Age ({style.unit})", ylabel=f"Predicted age ({style.unit})")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    return fits


def _fitted(table: pd.DataFrame) -> pd.Series:
    """Whether each sample shaped the clock."""
    return table["role"].isin(_keys.SHAPED_ROLES)


def _rim(role: str, group: str, style: _Style) -> Any:
    """Colour of the rim of a sample that shaped the clock."""
    own = style.colors[group] != _base.ROLE_COLORS.get(group) if style.by_role else not style.grey
    return style.colors[group] if own else HOLLOW[role][0]


def _markers(table: pd.DataFrame, by_role: bool) -> dict[str, str]:
    """Marker of every role: held-out roles have their own where colours mean something else."""
    held_out = [role for role in _keys.HELD_OUT_ROLES if (table["role"] == role).any()]
    own = {} if by_role or len(held_out) < 2 else dict(zip(_keys.HELD_OUT_ROLES, "os^", strict=True))
    return {role: own.get(role, "o") for role in ("", *_keys.ROLES)} | {r: m for r, (_, m) in HOLLOW.items()}


def _handles(table: pd.DataFrame, style: _Style, fits: list[Line2D]) -> list[Line2D]:
    """What every marker, colour and line means."""
    fitted = _fitted(table)
    colored = table if style.by_role or not style.grey else table[~fitted]
    names = dict(zip(style.colors, _base.shortened(map(_base.role_name, style.colors)), strict=True))
    handles = []
    counts = colored[GROUP].value_counts()
    for group in filter(counts.__contains__, style.colors):
        shown, color = "o", style.colors[group]
        look = {} if style.grey else {"markerfacecolor": "none"}
        if group in HOLLOW and style.by_role:
            shown, color, look = style.markers[group], _rim(group, group, style), {"markerfacecolor": "none"}
        handles.append(_base.marker(f"{names[group]} ({counts[group]})", color, shown, **look))
    several = len({style.markers[role] for role in table.loc[~fitted, "role"]}) > 1
    for role in [] if style.by_role else _base.in_order(table["role"]):
        if role in HOLLOW or several:
            label = f"{_base.role_name(role)} ({(table['role'] == role).sum()})"
            look = {"markerfacecolor": "none"} if role in HOLLOW else {}
            color = HOLLOW[role][0] if role in HOLLOW else _base.LINE_COLOR
            handles.append(_base.marker(label, color, style.markers[role], **look))
    return [
        *handles,
        *fits,
        *([Line2D([], [], color="0.6", linewidth=1, label=style.intervals)] if style.intervals else []),
        Line2D([], [], color=_base.LINE_COLOR, linewidth=1, linestyle=DASHED, label="predicted = actual"),
    ]


def _groups(adata: AnnData, table: pd.DataFrame, color_by: str, key_added: str) -> pd.Series:
    """Group of every sample."""
    if color_by in table:
        return _names.names(table[color_by]).fillna("nan")
    sample_key = adata.uns.get(key_added, {}).get("sample_key")
    if color_by not in adata.obs or sample_key not in adata.obs:
        raise KeyError(
            f"color_by={color_by!r} is neither a column of the subject table ({_checks.listed(table, 9)}) nor one of "
            "adata.obs with samples that are known."
        )
    sample, group = _names.names(adata.obs[sample_key]), _names.names(adata.obs[color_by], f"color_by={color_by!r}")
    pairs = pd.DataFrame({"sample": sample, "group": group.fillna("nan")})
    most = pairs.value_counts(sort=True).reset_index().drop_duplicates("sample").set_index("sample")["group"]
    groups = most.loc[table["sample"]].set_axis(table.index)
    values = adata.obs[color_by]
    return (
        groups.astype(pd.CategoricalDtype(_names.several(values.cat.categories))) if hasattr(values, "cat") else groups
    )


def _judged(table: pd.DataFrame) -> pd.DataFrame:
    """The samples whose accuracy counts: held-out ones, or those whose role was not recorded where none is."""
    held_out = table[table["role"].isin(_keys.HELD_OUT_ROLES)]
    return table[~_fitted(table)] if held_out.empty else held_out


def _line(label: str, color: Any = _base.LINE_COLOR) -> Line2D:
    """A solid line for the legend or the axes."""
    return Line2D([], [], color=color, linewidth=1.6, label=label, zorder=9)


def _draw_fits(ax: Axes, judged: pd.DataFrame, style: _Style) -> list[Line2D]:
    """Least-squares lines, each over the range of ages that it was fitted to."""
    parts: dict[str, tuple[pd.DataFrame, Any]] = {}
    if style.fit == "all":
        parts[f"fit to {_roles(judged)}"] = (judged, _base.LINE_COLOR)
    elif style.fit == "groups":
        names = dict(zip(style.colors, _base.shortened(map(_base.role_name, style.colors)), strict=True))
        parts = {f"fit to {names[g]}": (judged[judged[GROUP] == g], color) for g, color in style.colors.items()}
    fits = []
    for label, (part, color) in parts.items():
        if part["age"].nunique() < 2:
            continue
        slope, intercept = _slope(part)
        line = _line(f"{label}: slope {slope:.2f}", color)
        x = np.array([part["age"].min(), part["age"].max()])
        line.set_data(x, intercept + slope * x)
        fits.append(ax.add_line(line))
    return fits


def _slope(part: pd.DataFrame) -> tuple[float, float]:
    """Slope and intercept of predicted on actual age."""
    fit = metrics.slope_intercept(part["age"].to_numpy(), part["predicted"].to_numpy())
    return fit.slope, fit.intercept


def _roles(table: pd.DataFrame) -> str:
    """Roles of some samples in words."""
    return _names.in_words([_base.role_name(role) if role else "all" for role in _base.in_order(table["role"])])


def _accuracy(table: pd.DataFrame, style: _Style) -> list[str]:
    """Accuracy of every held-out role, or how the samples were fitted, and what lies beyond the axes."""
    judged, lines = _judged(table), []
    for role in _base.in_order((table if judged.empty else judged)["role"]):
        part = table[table["role"] == role]
        lines += [f"{_roles(part)} (n = {len(part)}){', fitted' if judged.empty else ''}", *_errors(part, style)]
    beyond = (~table["predicted"].between(*style.limits)).sum()
    return [*lines, f"{beyond} predicted beyond the axes"] if beyond else lines


def _accuracy_of_panel(table: pd.DataFrame, style: _Style) -> list[str]:
    """The same over all roles, with the slope, which no legend tells there."""
    judged = _judged(table)
    part = table if judged.empty else judged
    lines = [f"{_roles(part)} (n = {len(part)}){', fitted' if judged.empty else ''}", *_errors(part, style)]
    if style.fit == "all" and judged["age"].nunique() > 1:
        lines.append(f"slope {_slope(judged)[0]:.2f}")
    return lines


def _errors(part: pd.DataFrame, style: _Style) -> list[str]:
    """MAE with its interval, the error of the median training age, and r of some samples."""
    if len(part) < 2:
        return ["too few to judge"]
    age, predicted = part["age"].to_numpy(), part["predicted"].to_numpy()
    if _fitted(part).all():
        return [f"MAE {metrics.mae(age, predicted):.2f} {style.unit}"]
    row = metrics_row(age, predicted, subject=part["subject"].to_numpy(), reference=part[REFERENCE].to_numpy())
    lines = [f"MAE {row['mae']:.2f} {style.unit} [{row['mae_low']:.2f}, {row['mae_high']:.2f}]"]
    if np.isfinite(row["mae_median"]):
        lines.append(f"median age: MAE {row['mae_median']:.2f}")
    return [*lines, f"r {'undefined' if np.isnan(row['pearson']) else format(row['pearson'], '.2f')}"]
