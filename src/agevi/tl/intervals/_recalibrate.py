"""Predicted ages of a new cohort, moved by those of its subjects whose age is known."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _ages, _checks, _keys, _names, _subjects
from agevi._compat import written_to
from agevi._docs import shared
from agevi.metrics._regression import check_level
from agevi.tl.intervals import _recalibration as kernel
from agevi.tl.predict._evaluate_by import sample_values
from agevi.tl.predict._stale import forget
from agevi.tl.validate._jobs import check_outputs

logger = logging.getLogger(__name__)

NONE = "none"
"""Kind of a cohort without labelled samples, whose predictions stay."""
_SAME = 1e-9  # scatter of errors that is rounding
_NO_SIGNAL = 2.0  # t of the slope of a line below which predictions do not tell ages in the cohort


@shared
def recalibrate(
    adata: AnnData,
    *,
    by: str | None,
    key: str = _keys.DEFAULT_KEY,
    labels: str | None = None,
    kind: Literal["auto", "shift", "line"] = "auto",
    level: float = 0.9,
    key_added: str = "recalibrated",
    copy: bool = False,
) -> AnnData | None:
    """Predicted ages of a new cohort, corrected by its labelled controls, with intervals, in the unit of age.

    A clock is often off by a constant in another laboratory's cohort, and intervals that were calibrated elsewhere
    cover far less than their level there. The ages of a few subjects repair both. From 10 labelled subjects on a line
    of age on prediction is fitted by least squares, on the scale on which the clock was trained, with the t interval of
    a new observation. From 5 to 9 on predictions are shifted by the mean residual, shrunk by how much cohorts differ;
    their intervals are those of the calibration, widened. Fewer than 5 are refused. Label controls, not cases: whatever
    makes cases look older would be removed. The labelled subjects get the role ``"recalibration"``, which no later
    figure or test counts. Intervals hold for subjects like the labelled ones: label the youngest and the oldest
    controls too, since beyond their predictions the line is extrapolated, of which one line of the log tells.

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
        of the labelled samples' predictions before, and ``n_beyond`` samples outside it, where a line is extrapolated.
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
    With g the clock's scale of ages and r = g(age) - g(prediction) of the k labelled subjects, the shift is B mean(r)
    with B = k G / (k G + s**2), s**2 the variance of held-out residuals in the calibration and G the mean square of its
    cohorts' mean residuals when each was left out (s**2 where that was not measured), with half-width (q / s) max(s,
    sd(r)) sqrt(1 + B / k), q the conformal quantile of the calibration.

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
    known = _labels(adata, table, labels, old, scale.min_age)
    cohorts = [_cohort(table, known, names, name, by, labels) for name in _names.in_order(set(names))]
    if not any(cohort.labelled.any() for cohort in cohorts):
        raise ValueError(_too_few(0, "all samples" if by is None else f"the cohorts of by={by!r}", labels))
    out, rows = table.assign(**{bound: np.nan for bound in ("lower", "upper") if bound not in table}), []
    for cohort in cohorts:
        move = _move(adata, table, known, cohort, scale, kind, level, old)
        rows.append(_row(table, known, cohort, move))
        if move is not None:
            _apply(out, move, scale, cohort, known)
            _say_beyond(table, out, rows[-1], cohort)
    kept = [row["cohort"] for row in rows if row["kind"] == NONE]
    if kept:
        logger.warning(
            "%d cohorts of by=%r have no labelled subject (%s): they keep the predictions and intervals of key=%r, "
            "which in a cohort that the clock has not seen cover less than their level.",
            len(kept), by, _checks.listed(kept), key,
        )  # fmt: skip
    record = {name: value for name, value in record.items() if name not in ("params", "folds")}
    stored = {new.subjects: out, new.recalibration: pd.DataFrame(rows), new.uns: record | {"recalibrated_from": key}}
    stored[new.recalibration_params] = {"by": by, "key": key, "labels": labels, "kind": kind, "level": float(level)}
    stored = {slot: _keys.to_uns(value) for slot, value in stored.items()}
    of_cell = _sample_of_cell(adata, out, record, old)
    adata = written_to(adata, copy=copy)
    _write(adata, out, of_cell, old, new)
    adata.uns.update(stored)
    return adata if copy else None


@dataclass(frozen=True)
class _Cohort:
    """Samples of a cohort, as masks (n_samples,) of the subject table."""

    name: str
    all: np.ndarray
    labelled: np.ndarray  # of known age, predicted by a clock that did not see them
    others: np.ndarray  # those of subjects without a labelled sample

    @property
    def text(self) -> str:
        """The cohort in a message; nothing where there is one only."""
        return f" of cohort {self.name!r}" if self.name else ""


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
) -> _Cohort:
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
    return _Cohort(name, part, chosen, part & others)


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


def _move(
    adata: AnnData,
    table: pd.DataFrame,
    known: np.ndarray,
    cohort: _Cohort,
    scale: _ages.AgeTransform,
    kind: str,
    level: float,
    keys: _keys.Keys,
) -> kernel.Move | None:
    """How a cohort's predictions move; None where nobody is labelled."""
    if not cohort.labelled.any():
        return None
    points = pd.DataFrame({"x": scale.forward(table["predicted"].to_numpy()), "y": scale.forward(known)}, table.index)
    points = points[cohort.labelled].groupby(table.loc[cohort.labelled, "subject"]).mean()  # a subject counts once
    x, y = points["x"].to_numpy(), points["y"].to_numpy()
    if kind == "shift" or (kind == "auto" and len(points) < kernel.MIN_FOR_LINE):
        return kernel.fit_shift(x, y, _old_errors(adata, keys, len(points), level), level)
    if np.ptp(x) == 0:
        raise ValueError(
            f"the {len(x)} labelled subjects{cohort.text} have one prediction, {scale.back(x[:1])[0]:.1f}, through "
            "which no line can be fitted; pass kind='shift'."
        )
    move = kernel.fit_line(x, y, level)
    if kernel.slope_t(move) < _NO_SIGNAL:
        logger.warning(
            "Predictions do not rise with age among the %d labelled subjects%s (slope %.2f, t = %.1f): recalibrated "
            "ages say little more than their mean.",
            move.n, cohort.text, move.slope, kernel.slope_t(move),
        )  # fmt: skip
    return move


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


def _row(table: pd.DataFrame, known: np.ndarray, cohort: _Cohort, move: kernel.Move | None) -> dict[str, Any]:
    """What was done in a cohort."""
    predicted, chosen = table["predicted"].to_numpy(dtype=np.float64), cohort.labelled
    row = {"cohort": cohort.name, "kind": NONE, "n_labelled": 0, "n": int((~np.isnan(predicted[cohort.others])).sum())}
    row |= dict.fromkeys(("gap", "intercept", "slope", "sd"), np.nan)
    row |= {"n_beyond": 0, "labelled_low": np.nan, "labelled_high": np.nan}
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


def _say_beyond(table: pd.DataFrame, out: pd.DataFrame, row: dict[str, Any], cohort: _Cohort) -> None:
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


def _apply(out: pd.DataFrame, move: kernel.Move, scale: _ages.AgeTransform, cohort: _Cohort, known: np.ndarray) -> None:
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


def _sample_of_cell(adata: AnnData, out: pd.DataFrame, record: Mapping[str, Any], keys: _keys.Keys) -> np.ndarray:
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


def _write(adata: AnnData, out: pd.DataFrame, of_cell: np.ndarray, old: _keys.Keys, new: _keys.Keys) -> None:
    """Columns of the cells, in place of what stood under the key."""
    predicted = out["predicted"].to_numpy(dtype=np.float32)[of_cell]
    adata.obs[new.predicted] = predicted
    forget(adata, new)
    adata.obs[new.predicted_sample] = predicted
    roles = out["role"].to_numpy(dtype=object)[of_cell]
    adata.obs[new.role] = pd.Categorical(roles, categories=[r for r in _keys.ROLES if r in set(roles)])
    if old.fold in adata.obs:
        adata.obs[new.fold] = adata.obs[old.fold]
