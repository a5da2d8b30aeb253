"""Intervals of the age of every subject, from the residuals of held-out ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _names, _subjects
from agevi._ages import AgeTransform
from agevi._compat import written_to
from agevi._docs import shared
from agevi.tl.intervals._conformal import Calibration
from agevi.tl.intervals._recalibration import OldErrors, old_errors
from agevi.tl.intervals._report import Labelled, report, with_intervals
from agevi.tl.predict._evaluate_by import sample_values

logger = logging.getLogger(__name__)

GUARANTEES = ("split", "approximate")


@shared
def calibrate(
    adata: AnnData,
    *,
    level: float = 0.9,
    scale: Literal["auto", "constant", "predicted", "log", "mondrian"] = "auto",
    difficulty: Sequence[str] = ("n_cells",),
    groupby: str | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    copy: bool = False,
) -> AnnData | None:
    """Interval of the age of every sample, in the unit of age, from the residuals of held-out subjects (conformal).

    An interval holds the age of a new subject with the probability ``level``, on average over subjects that are like
    those that calibrate it: in another cohort expect less, until :func:`agevi.tl.recalibrate` has seen some of it. It
    is one of the chronological age, not of a biological one. By true age the oldest are covered less than the middle,
    since predictions shrink towards the mean; the rows of the report show it. Only samples of the roles test,
    out_of_fold and new with an age calibrate. The scale of residuals is that of Papadopoulos et al. (2011), thirds with
    quantiles of their own are those of Boström et al. (2020), and the quantile is that of Vovk et al. (2005).

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.aggregate_subjects`.
    level
        Coverage. It needs 1 / (1 - level) - 1 subjects: 9 for 0.9, 19 for 0.95.
    scale
        What the width follows. ``"constant"``: nothing; ``"predicted"``: a power of the predicted age, and of the
        number of cells; ``"log"``: residuals are those of the logarithms of ages, which is too narrow for the young
        where there are children; ``"mondrian"``: each third of the predicted ages has its own width, from 150 subjects
        on. ``"auto"``: ``"predicted"`` from 20 subjects on, else ``"constant"``.
    difficulty
        What else the width of ``"predicted"`` follows: ``("n_cells",)``, where numbers differ and there are 40 subjects
        or more, or ``()``.
    groupby
        Column of :func:`agevi.get.subjects_df` or ``adata.obs`` with one value per sample, such as the cohort, that
        makes rows of the report. Its values are stored as the cohorts of the calibration.
    %(key_read)s
    %(copy)s

    Returns
    -------
    None, or the copy. Sets:

    ``adata.uns[f"{key_added}_subjects"]``
        The columns ``lower`` and ``upper``, float64, in the unit of age. Samples that calibrate get theirs from the
        subjects of the other of ten folds, so that their own age plays no part in it; all others from all. NaN for the
        roles train and validation, samples without a prediction, and where too few subjects are left.
    ``adata.uns[f"{key_added}_calibration"]``
        How well these intervals hold: DataFrame with one row for all samples ("overall") and for thirds of the
        predicted and of the true age, each value of ``groupby``, and thirds of the number of cells. Columns
        ``groupby``, ``group``, ``n`` (samples), ``n_subjects``, ``level``, ``coverage`` with its 95 % interval
        ``coverage_low`` and ``coverage_high`` (Wilson), ``width``, ``interval_score`` (Gneiting & Raftery 2007, eq. 43;
        small is good), and ``width_trivial`` and ``interval_score_trivial`` of intervals from the quantiles of the ages
        alone. :func:`agevi.get.calibration_df` returns it.
    ``adata.uns[f"{key_added}_calibration_params"]``
        All that makes intervals of new predictions: ``scale``, ``features``, ``coefficients``, ``scores`` and more.
        ``guarantee`` is ``"split"`` for predictions of one clock and a scale that is not fitted to them, whose coverage
        is at least the level on average over calibrations (Lei et al. 2018), else ``"approximate"``: that of
        out-of-fold predictions may fall to 1 - 2 (1 - level) in the worst case (Barber et al. 2021), and does not in
        practice.

    Raises
    ------
    KeyError
        The subject table or a column is absent.
    ValueError
        Too few held-out subjects with an age, or an argument is out of range.

    Notes
    -----
    Subjects count once. Where a subject has several samples, these share its weight in the quantile and in the fit of
    the scale, and are in the same fold: the level then holds for a sample of a new subject (Lee, Barber & Willett
    2023).

    Examples
    --------
    >>> import agevi, numpy as np
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=30, n_cells=5, n_genes=50)
    >>> agevi.tl.cross_validate(adata, agevi.model.PLSClock, age_key="age", subject_key="donor")
    >>> agevi.tl.aggregate_subjects(adata)
    >>> agevi.tl.calibrate(adata)
    >>> table = agevi.get.subjects_df(adata)
    >>> bool((table["lower"] < table["upper"]).all())
    True
    >>> agevi.get.calibration_df(adata)["groupby"].unique().tolist()
    ['overall', 'predicted', 'age']
    """
    _checks.anndata(adata)
    keys = _keys.Keys(key_added)
    call = f"agevi.tl.aggregate_subjects(adata, key_added={key_added!r})"
    table = _subjects.subject_table(adata, keys, call)
    own = held_out_with_ages(table, keys)
    used = table[own]
    cohorts = {}
    if groupby is not None:
        found = sample_values(adata, table, groupby, "groupby", keys=keys)[own]
        cohorts[groupby] = _names.names(found, f"column {groupby!r}")
    rows = Labelled.of(used)
    record = adata.uns.get(keys.uns, {})
    fitted = Calibration.fit(
        rows.age,
        rows.predicted,
        rows.n_cells,
        subject=rows.subject,
        level=level,
        scale=scale,
        difficulty=difficulty,
        min_age=float(record.get("min_age", -1.0)),
    )
    params = fitted.to_dict() | _about(used, fitted, record, cohorts)
    stored = _keys.to_uns(with_intervals(table, params)), _keys.to_uns(report(rows, fitted, cohorts)), params
    if stored[0].loc[own, "lower"].isna().any():
        logger.warning(
            "level=%g needs %d subjects, and leaving one out of %d leaves too few: the intervals of the subjects that "
            "calibrate are NaN; those of new subjects are not.", level, fitted.n, fitted.n,
        )  # fmt: skip
    out = written_to(adata, copy=copy)
    out.uns[keys.subjects], out.uns[keys.calibration] = stored[:2]
    out.uns[keys.calibration_params] = _keys.to_uns(params)
    return out if copy else None


def held_out_with_ages(table: pd.DataFrame, keys: _keys.Keys) -> np.ndarray:
    """Samples that calibrate, (n_samples,); refused where there are none, with the reason."""
    mask = _subjects.held_out(table)
    known = table["age"].notna() & table["predicted"].notna()
    fitted = int((known & table["role"].isin(_keys.FITTED_ROLES)).sum())
    where = f"adata.uns[{keys.subjects!r}]"
    if mask.any():
        if fitted:
            logger.info("%d samples of role train or validation shaped the clock and are left out.", fitted)
        return mask
    if fitted:
        raise ValueError(
            f"all {fitted} samples of {where} with an age have the role train or validation, whose residuals are too "
            "small to calibrate. Predict held-out subjects: agevi.tl.cross_validate(...), or the test subjects of the "
            "clock."
        )
    if not table["age"].notna().any():
        raise ValueError(f"no sample of {where} has an age; pass age_key=... to agevi.tl.aggregate_subjects.")
    there = _checks.listed(sorted(set(table["role"])))
    raise ValueError(
        f"no sample of {where} has an age, a prediction and one of the roles {_checks.listed(_keys.HELD_OUT_ROLES)} "
        f"(roles there: {there}). Predict with agevi.tl.cross_validate or agevi.tl.predict_age, which record roles."
    )


def _about(
    used: pd.DataFrame, fitted: Calibration, record: dict[str, Any], cohorts: dict[str, pd.Series]
) -> dict[str, Any]:
    """What a calibration is of, and what it promises."""
    roles = [role for role in _keys.ROLES if role in set(used["role"])]
    exact = _keys.OUT_OF_FOLD not in roles and fitted.scale in ("constant", "log")
    names = [level for values in cohorts.values() for level in _names.levels(values)]
    old = _errors(used, record, next(iter(cohorts.values()), None))
    about = {
        "guarantee": GUARANTEES[0] if exact else GUARANTEES[1],
        "age_unit": str(record.get("age_unit", "years")),
        "roles": roles,
        "cohorts": names,
        "groupby": next(iter(cohorts), ""),
        "n_samples": len(used),
        "residuals": old.residuals.tolist(),  # on the clock's scale, for tl.recalibrate
    } | ({} if np.isnan(old.shift_var) else {"shift_var": old.shift_var})
    clock = record.get("clock")
    return about | ({"clock": dict(clock)} if clock else {})


def _errors(used: pd.DataFrame, record: dict[str, Any], cohort: pd.Series | None) -> OldErrors:
    """Errors of every subject on the clock's scale of ages, and how much its cohorts differ."""
    scale = AgeTransform.of(record)
    columns = {
        "age": scale.forward(used["age"].to_numpy(dtype=np.float64)),
        "predicted": scale.forward(used["predicted"].to_numpy(dtype=np.float64)),
    }
    labels = {"fold": used["fold"]} if "fold" in used else {}
    labels |= {} if cohort is None else {"cohort": cohort.astype(str)}
    frame = pd.DataFrame(columns, index=used.index).assign(**labels)
    mean = frame.groupby(used["subject"].to_numpy())[["age", "predicted"]].mean()
    first = frame.groupby(used["subject"].to_numpy()).first()
    of_subject = [first[name].to_numpy() if name in first else None for name in ("cohort", "fold")]
    return old_errors(mean["age"].to_numpy(), mean["predicted"].to_numpy(), *of_subject)
