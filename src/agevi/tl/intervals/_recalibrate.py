"""Predicted ages of a new cohort, moved by those of its subjects whose age is known."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _ages, _checks, _keys, _names, _subjects
from agevi._compat import written_to
from agevi._docs import shared
from agevi.metrics._regression import check_level
from agevi.tl.intervals import _cohort_level
from agevi.tl.intervals import _recalibration as kernel
from agevi.tl.intervals._recalibrated import NONE, Cohort, apply, row_of, sample_of_cell, say_beyond, write
from agevi.tl.predict._evaluate_by import sample_values
from agevi.tl.validate._cohort import query_cells
from agevi.tl.validate._jobs import check_outputs

logger = logging.getLogger(__name__)

_SAME = 1e-9  # scatter of errors that is rounding
_NO_SIGNAL = 2.0  # t of the slope of a line below which predictions do not tell ages in the cohort


@shared
def recalibrate(  # noqa: PLR0913, PLR0915
    adata: AnnData,
    *,
    by: str | None,
    key: str = _keys.DEFAULT_KEY,
    labels: str | None = None,
    anchor: pd.Series | Mapping[str, float] | str | None = None,
    mean_age: float | Mapping[str, float] | None = None,
    shift_on: str | None = None,
    kind: Literal["auto", "shift", "line"] = "auto",
    level: float = 0.9,
    key_added: str = "recalibrated",
    copy: bool = False,
) -> AnnData | None:
    """Predicted ages of a new cohort, corrected by its labelled controls, with intervals, in the unit of age.

    A clock is often off by a constant in another laboratory's cohort, and intervals that were calibrated elsewhere
    cover far less than their level there. The ages of a few subjects repair both. From 10 labelled subjects on a line
    of age on prediction is fitted, on the scale on which the clock was trained, its slope shrunk to 1 by how much those
    of cohorts differ, with the t interval of a new observation. From 5 to 9 on predictions are shifted by the mean
    residual, shrunk by how much cohorts differ; their intervals are those of the calibration, widened. Fewer than 5 are
    refused. Label controls, not cases: whatever makes cases look older would be removed. The labelled subjects get the
    role ``"recalibration"``, which no later figure or test counts. Intervals hold for subjects like the labelled ones:
    label the youngest and the oldest controls too, since beyond their predictions the line is extrapolated, of which
    one line of the log tells.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.aggregate_subjects`.
    by
        Column of :func:`agevi.get.subjects_df` or ``adata.obs`` with the cohort, each recalibrated on its own; None:
        all samples are of one cohort.
    key
        Prefix of the predictions that are read.
    labels
        Column with the ages of the labelled controls, NaN for all others. Default: the ages of the subject table, which
        must then be unknown for the samples of interest.
    anchor
        Ages that tell the level of a cohort, not of each subject: those of a clock that is off less in other cohorts,
        such as one of :func:`agevi.pp.contrast_types`, as a Series by subject or sample, or the ``key_added`` of its
        predictions. Where a :class:`agevi.model.CellTypeClock` with an anchor predicted under ``key``, pass that key.
        The mean difference is added to all predictions of the cohort, shrunk where few subjects have one. Subjects that
        trained the clock do not enter it.
    mean_age
        The mean age of the cohort, or of each cohort by its name, where no single age is known: the best of all without
        labels. With ``anchor`` or ``mean_age``, ``labels`` may be left out, and then no ages are read.
    shift_on
        Query on ``adata.obs``, such as ``"condition == 'control'"``: only these samples give the shift by ``anchor``
        or ``mean_age`` (which is then their mean age). Cases must not.
    kind
        ``"line"``, ``"shift"``, or ``"auto"``: a line from 10 labelled subjects on.
    level
        Coverage of the intervals.
    key_added
        Prefix of the slots that are written.
    %(copy)s

    Returns
    -------
    None, or the copy. Sets:

    ``adata.obs[f"{key_added}_predicted"]``, ``adata.obs[f"{key_added}_predicted_sample"]``
        New prediction of the cell's sample, float32, the same for all its cells.
    ``adata.obs[f"{key_added}_role"]``
        As under ``key``, with ``recalibration`` for labelled subjects.
    ``adata.uns[f"{key_added}_subjects"]``
        The subject table with the new ``predicted``, ``role`` and, float64, ``lower`` and ``upper``, which are NaN for
        labelled subjects. Cohorts without labels keep what they had.
    ``adata.uns[f"{key_added}_recalibration"]``
        DataFrame, one row per cohort: ``cohort``, ``kind``, ``n_labelled`` (subjects), ``n`` (samples that remain),
        ``gap`` (mean of prediction minus age of the labelled subjects before, in the unit of age), and ``intercept``,
        ``slope`` and ``sd`` of the correction on the clock's scale, ``labelled_low`` and ``labelled_high``, the range
        of the labelled samples' predictions before, and ``n_beyond`` samples outside it, where a line is extrapolated;
        ``level_from`` (``"anchor"``, ``"mean_age"`` or empty), ``n_level`` (subjects that told it), ``level_shift`` and
        ``level_sd``, its uncertainty, on the clock's scale; labels then correct what the level left.
    ``adata.uns[key_added]``, ``adata.uns[f"{key_added}_recalibration_params"]``
        The record of the predictions, and the arguments.

    Raises
    ------
    KeyError
        The subject table, a column, or the calibration that a shift needs is absent.
    TypeError
        ``labels`` does not hold numbers.
    ValueError
        A cohort has 1 to 4 labelled subjects, or nobody else; no cohort has any; the labelled subjects of a line have
        one prediction; or an argument is unknown.

    Notes
    -----
    With ``anchor``, u = g(anchor) - g(prediction) of the n subjects of a cohort that have one, and v its variance, the
    shift is w mean(u) with w = t / (t + v / n), and t = 0.35**2 on the logarithmic scale, the spread of the levels of
    three cohorts of T cells (carried to other scales at the mean prediction). Intervals are those of the calibration,
    widened by the uncertainty of the shift and 0.12, what an anchor left between these cohorts.

    With g the clock's scale of ages and r = g(age) - g(prediction) of the k labelled subjects, the shift is B mean(r)
    with B = k G / (k G + s**2), s**2 the variance of held-out residuals in the calibration and G the mean square of its
    cohorts' mean residuals when each was left out (s**2 where that was not measured), with half-width (q / s) max(s,
    sd(r)) sqrt(1 + B / k), q the conformal quantile of the calibration.

    A line has the slope (S b + p) / (S + p), with b that of least squares, S the sum of squares of the labelled
    predictions about their mean, p = s**2 / 0.25**2, s the standard deviation of residuals, and 0.25 the spread of the
    slopes of 27 transfers between cohorts around 1 (``benchmarks/recalibrate_controls.py``).

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
    >>> adata.uns["recalibrated_recalibration"][["kind", "n_labelled", "n", "slope"]].round(2).values.tolist()
    [['line', 10, 30, 2.0]]
    >>> agevi.get.metrics_df(adata, key_added="recalibrated")[["n", "mae"]].round(2).values.tolist()
    [[30.0, 0.0]]
    """
    _checks.anndata(adata)
    _checks.choice(kind, kernel.KINDS, "kind")
    check_level(level)
    _keys.check(key, "key")
    if key == key_added:
        raise ValueError(f"key_added={key_added!r} is also key, whose predictions would be lost; pass another one.")
    old, new = _keys.Keys(key), _keys.Keys(key_added)
    check_outputs([by, labels], [new.predicted, new.predicted_sample, new.role, new.fold], key_added)
    call = "agevi.tl.aggregate_subjects(adata)"
    call = call if key == _keys.DEFAULT_KEY else f"{call[:-1]}, key_added={key!r})"
    table = _subjects.subject_table(adata, old, call)
    record = dict(adata.uns.get(old.uns, {}))
    names = _cohort_names(adata, table, by, old)
    scale = _ages.AgeTransform.of(record)
    found = _levels(adata, table, names, scale, anchor, mean_age, shift_on, old)
    leveled_by = "the anchor" if anchor is not None else "the mean age" if mean_age is not None else ""
    known = np.full(len(table), np.nan)
    if labels is not None or not leveled_by:
        known = _labels(adata, table, labels, old, scale.min_age)
    cohorts = [_cohort(table, known, names, name, by, labels) for name in _names.in_order(set(names))]
    if not found and not any(cohort.labelled.any() for cohort in cohorts):
        whose = "all samples" if by is None else f"the cohorts of by={by!r}"
        raise ValueError(_no_level(leveled_by, whose, shift_on) if leveled_by else _too_few(0, whose, labels))
    leveled = _cohort_level.move(table, names, found, scale, lambda: _errors_if_any(adata, old, level), level)
    out, rows = leveled.copy(), []
    for cohort in cohorts:
        move = _move(adata, leveled, known, cohort, scale, kind, level, old, found.get(cohort.name))
        rows.append(row_of(leveled, known, cohort, move, found.get(cohort.name)))
        if move is not None:
            apply(out, move, scale, cohort, known)
            say_beyond(leveled, out, rows[-1], cohort)
    kept = [row["cohort"] for row in rows if row["kind"] == NONE and not row["level_from"]]
    if kept:
        logger.warning(
            "%d cohorts of by=%r have no %s (%s): they keep the predictions and intervals of key=%r, which in a cohort "
            "that the clock has not seen cover less than their level.",
            len(kept), by, f"level by {leveled_by}" if leveled_by else "labelled subject", _checks.listed(kept), key,
        )  # fmt: skip
    record = {name: value for name, value in record.items() if name not in ("params", "folds")}
    stored = {new.subjects: out, new.recalibration: pd.DataFrame(rows), new.uns: record | {"recalibrated_from": key}}
    params = {"by": by, "key": key, "labels": labels, "kind": kind, "level": float(level), "shift_on": shift_on}
    params |= {"anchor": anchor if isinstance(anchor, str) else "ages" if anchor is not None else None}
    stored[new.recalibration_params] = params | {"mean_age": mean_age}
    stored = {slot: _keys.to_uns(value) for slot, value in stored.items()}
    of_cell = sample_of_cell(adata, out, record, old)
    adata = written_to(adata, copy=copy)
    write(adata, out, of_cell, old, new)
    adata.uns.update(stored)
    return adata if copy else None


def _cohort_names(adata: AnnData, table: pd.DataFrame, by: str | None, keys: _keys.Keys) -> pd.Series:
    """Name of the cohort of every sample, indexed as ``table``."""
    if by is None:
        return pd.Series("", index=table.index, dtype=object)
    names = _names.names(sample_values(adata, table, by, "by", keys=keys), f"by={by!r}")
    if names.isna().any():
        raise ValueError(
            f"by={by!r} is missing in {names.isna().sum()} samples (first: {names.index[names.isna()][0]!r}); name the "
            "cohort of each, or drop those samples."
        )
    return names


def _labels(adata: AnnData, table: pd.DataFrame, labels: str | None, keys: _keys.Keys, min_age: float) -> np.ndarray:
    """Age of every labelled sample, (n_samples,), NaN for the others."""
    if labels is None:
        return table["age"].to_numpy(dtype=np.float64)
    values = sample_values(adata, table, labels, "labels", keys=keys)
    if values.dtype.kind not in "iuf":
        raise TypeError(
            f"labels={labels!r} holds {values.dtype} values; pass a column with the ages of the labelled controls as "
            "numbers and NaN elsewhere."
        )
    known = values.to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.isinf(known) | (known < min_age)
    if wrong.any():
        raise ValueError(
            f"labels={labels!r} has an age of {known[wrong.argmax()]:g} in sample {table.index[wrong.argmax()]!r}; "
            "correct it, or set it to NaN, which means not labelled."
        )
    return known


def _cohort(
    table: pd.DataFrame, known: np.ndarray, names: pd.Series, name: str, by: str | None, labels: str | None
) -> Cohort:
    """The samples of a cohort, refused where too few subjects are labelled, or all are."""
    part = (names == name).to_numpy()
    usable = part & (table["predicted"].notna() & ~table["role"].isin(_keys.FITTED_ROLES)).to_numpy()
    chosen = usable & ~np.isnan(known)
    others = ~table["subject"].isin(table.loc[chosen, "subject"]).to_numpy()
    k = table.loc[chosen, "subject"].nunique()
    whose = "all samples" if by is None else f"cohort {name!r}"
    if 0 < k < kernel.MIN_LABELLED:
        raise ValueError(_too_few(k, whose, labels))
    if k and not (usable & others).any():
        raise ValueError(
            f"all {k} subjects of {whose} have an age in {_where(labels)}, so recalibration would leave nobody to "
            f"predict; pass labels='<column with the ages of {kernel.MIN_FOR_LINE} or more controls, NaN elsewhere>'."
        )
    return Cohort(name, part, chosen, part & others)


def _where(labels: str | None) -> str:
    """Where the ages of labelled subjects stand."""
    return "the subject table" if labels is None else f"labels={labels!r}"


def _too_few(k: int, whose: str, labels: str | None) -> str:
    """That there are too few labelled subjects, and what to do."""
    return (
        f"{k} subjects of {whose} have an age in {_where(labels)} and a held-out prediction, and recalibration needs "
        f"{kernel.MIN_LABELLED}, better {kernel.MIN_FOR_LINE}; label more controls, or compare ages within the cohort "
        "only."
    )


def _no_level(leveled_by: str, whose: str, shift_on: str | None) -> str:
    """That neither an anchor nor a mean age says anything, and what to do."""
    of = f" of those with shift_on={shift_on!r}" if shift_on else ""
    return (
        f"{leveled_by} tells the level of none of {whose}: not one sample{of} has both a prediction and a value of it, "
        "and did not train the clock. Pass labels='<column with the ages of some controls>', or cells of the types "
        "that the anchor compares."
    )


def _move(
    adata: AnnData,
    table: pd.DataFrame,
    known: np.ndarray,
    cohort: Cohort,
    scale: _ages.AgeTransform,
    kind: str,
    level: float,
    keys: _keys.Keys,
    leveled: _cohort_level.Level | None,
) -> kernel.Move | None:
    """How a cohort's predictions move; None where nobody is labelled."""
    if not cohort.labelled.any():
        return None
    points = pd.DataFrame({"x": scale.forward(table["predicted"].to_numpy()), "y": scale.forward(known)}, table.index)
    points = points[cohort.labelled].groupby(table.loc[cohort.labelled, "subject"]).mean()  # a subject counts once
    x, y = points["x"].to_numpy(), points["y"].to_numpy()
    if kind == "shift" or (kind == "auto" and len(points) < kernel.MIN_FOR_LINE):
        return kernel.fit_shift(
            x, y, _cohort_level.with_between(_old_errors(adata, keys, len(points), level), leveled), level
        )
    if np.ptp(x) == 0:
        raise ValueError(
            f"the {len(x)} labelled subjects{cohort.text} have one prediction, {scale.back(x[:1])[0]:.1f}, through "
            "which no line can be fitted; pass kind='shift'."
        )
    move = kernel.fit_line(x, y, level)
    if move.slope_t < _NO_SIGNAL:
        logger.warning(
            "Predictions do not rise with age among the %d labelled subjects%s (slope %.2f, t = %.1f): recalibrated "
            "ages say little more than their mean.",
            move.n, cohort.text, move.slope, move.slope_t,
        )  # fmt: skip
    return move


def _levels(
    adata: AnnData,
    table: pd.DataFrame,
    names: pd.Series,
    scale: _ages.AgeTransform,
    anchor: Any,
    mean_age: Any,
    shift_on: str | None,
    keys: _keys.Keys,
) -> dict[str, _cohort_level.Level]:
    """How cohorts move by an anchor or their mean age; empty without either."""
    if anchor is None and mean_age is None:
        if shift_on is not None:
            raise ValueError(f"shift_on={shift_on!r} without anchor or mean_age has no meaning; leave it out.")
        return {}
    if anchor is not None and mean_age is not None:
        raise ValueError("anchor and mean_age are both given; the mean age is the better one, so leave the anchor out.")
    tells = np.ones(len(table), dtype=bool)
    if shift_on is not None:
        chosen = query_cells(adata, shift_on, "shift_on")
        tells = np.zeros(len(table), dtype=bool)
        tells[sample_of_cell(adata, table, adata.uns.get(keys.uns, {}), keys)[chosen]] = True
    if mean_age is not None:
        mean_age = _cohort_level.check_mean_age(mean_age, names, scale.min_age)
        return _cohort_level.levels(table, names, tells, scale, None, mean_age)
    if isinstance(anchor, str) and anchor == keys.key_added and keys.anchor not in adata.uns:
        raise ValueError(
            f"anchor={anchor!r} is also key, whose predictions came without an anchor; predict with a CellTypeClock "
            "that has one, or pass the ages of another clock."
        )
    ages = _cohort_level.read_anchor(adata, table, anchor)
    tells &= ~table["role"].isin(_keys.FITTED_ROLES).to_numpy()  # whom the clock knows, it does not misplace
    return _cohort_level.levels(table, names, tells, scale, ages, None)


def _errors_if_any(adata: AnnData, keys: _keys.Keys, level: float) -> kernel.OldErrors | None:
    """Errors of the clock where it was calibrated; None where it was not."""
    params: Mapping[str, Any] = adata.uns.get(keys.calibration_params, {})
    return _old_errors(adata, keys, 0, level) if "residuals" in params else None


def _old_errors(adata: AnnData, keys: _keys.Keys, k: int, level: float) -> kernel.OldErrors:
    """Errors of the clock where it was calibrated."""
    slot = keys.calibration_params
    params: Mapping[str, Any] = adata.uns.get(slot, {})
    residuals = np.asarray(params.get("residuals", ()), dtype=np.float64)
    if len(residuals) < kernel.MIN_LABELLED:
        raise KeyError(
            f"adata.uns[{slot!r}] has no held-out errors of the clock, by which a shift from {k} labelled subjects is "
            "shrunk; run agevi.tl.calibrate and model.set_calibration before agevi.tl.predict_age, or label "
            f"{kernel.MIN_FOR_LINE} subjects."
        )
    old = kernel.OldErrors(residuals, float(params.get("shift_var", np.nan)))
    if old.sd < _SAME * max(1.0, float(np.abs(residuals).max())):
        raise ValueError(
            f"the {len(residuals)} held-out errors in adata.uns[{slot!r}] are all the same, as if predictions were "
            f"made from the ages; a shift needs those of a clock. Label {kernel.MIN_FOR_LINE} subjects, or calibrate "
            "another clock."
        )
    if np.isnan(old.reach(level)):
        raise ValueError(
            f"level={level:g} needs more than the {len(residuals)} subjects of the calibration; pass a lower level, or "
            f"label {kernel.MIN_FOR_LINE} subjects."
        )
    return old
