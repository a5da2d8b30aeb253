"""How unusual the prediction of a sample is among reference samples of its age."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import linregress

from agevi import _checks, _keys, _names, _subjects
from agevi._docs import shared
from agevi.tl._store import store_table
from agevi.tl.acceleration import _norms
from agevi.tl.acceleration._design import MANY_SUBJECTS, check_age_df
from agevi.tl.predict._evaluate_by import sample_values

logger = logging.getLogger(__name__)

NOUN = "normative"
FEWEST = 20
"""Reference subjects below which the outer centiles and a spread that changes with age are too uncertain."""
SIGNAL = 2.0
COLUMNS = ["sample", "subject", "group", "age", "predicted", "expected", "sd", "z", "centile"]
COLUMNS += ["role", "reference", "outside"]


@shared
def normative_scores(
    adata: AnnData,
    *,
    groupby: str | None = None,
    reference: Any = None,
    age_df: Literal["auto", 1, 3] = "auto",
    key_added: str = _keys.DEFAULT_KEY,
    copy: bool = False,
) -> AnnData | None:
    """Centile of each held-out sample among reference samples of the same age, with its z score (without unit).

    In the reference, predictions are regressed on age, and their spread may change with age. ``z`` is the distance of a
    prediction from what is expected at its age, in standard deviations of reference samples of that age; ``centile`` is
    the percentage of them that would be predicted lower. In the reference neither goes with age, as predicted minus
    actual age does. A high value says that the sample looks old for its age, to this clock and against this reference:
    a batch that differs from the reference makes one, too. Compare groups with :func:`agevi.tl.age_acceleration` and
    not by a test of ``z``, and do not trust samples with ``outside``, whose age the reference does not cover.

    Parameters
    ----------
    adata
        Annotated data with the samples to be scored and the reference, after :func:`agevi.tl.cross_validate`, or
        :func:`agevi.tl.predict_age` with a clock of other subjects, and :func:`agevi.tl.aggregate_subjects`.
    groupby
        Column of :func:`agevi.get.subjects_df` or ``adata.obs`` with one group per sample, such as the diagnosis.
    reference
        Group, or list of groups, that makes the reference. Without ``groupby`` all held-out samples do.
    age_df
        ``1``: predictions change linearly with age; ``3``: as a cubic; ``"auto"``: cubic from 25 reference subjects.
    %(key_read)s
    %(copy)s

    Returns
    -------
    None, or the copy. Sets:

    ``adata.uns[f"{key_added}_normative"]``
        DataFrame with one row per held-out sample with age and prediction: ``sample``, ``subject``, ``group`` (text,
        empty where it has none), ``age``, ``predicted``, ``expected`` (mean prediction of the reference at this age),
        ``sd`` (of a new reference sample around it; all in the unit of age), ``z``, ``centile`` (0 to 100), ``role``,
        ``reference`` (bool) and ``outside`` (bool: younger or older than all of the reference). Samples of the
        reference are scored against the other subjects of it. :func:`agevi.get.normative_df` returns it.
    ``adata.uns[f"{key_added}_normative_params"]``
        The arguments, ``n_subjects`` and ``n_samples`` of the reference, ``n_left_out``, and the fitted ``norms``.

    Raises
    ------
    KeyError
        The subject table or a column is absent.
    ValueError
        The reference has fewer than 20 subjects, too few ages or equal predictions, is not given or unknown, samples
        have the role train or validation, or an argument is out of range.

    Notes
    -----
    The mean is a polynomial in age, fitted by least squares with weights of the inverse squared spread. The spread is
    ``sigma * exp(c * age)``, constant beyond the ends of the reference, with the ``c`` that leaves the size of
    standardised residuals uncorrelated with age, shrunk by ``1 - 1 / t**2`` (James and Stein, 1961). Centiles are ranks
    among the standardised residuals of the reference, interpolated, and continued by the tails of Student's t: normal
    centiles are off where predictions are skewed. With 20, 50 and 200 reference subjects 94 to 95, 95 to 96 and 95 % of
    new reference samples lie between the centiles 2.5 and 97.5, whether errors are normal, skewed or heavy-tailed and
    whether or not their spread changes with age. Several samples of a subject count as one where the number of them
    matters. Centiles against a healthy reference are known as normative models (Marquand et al., 2016).

    The reference is not saved with a clock: to score new samples, join them to the reference by ``anndata.concat`` and
    predict both with one clock that saw neither.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(
    ...     n_subjects=60, n_cells=20, n_genes=200, case_fraction=0.4, acceleration=15.0, rng=1
    ... )
    >>> agevi.tl.cross_validate(
    ...     adata, agevi.model.PLSClock, age_key="age", subject_key="donor", train_on="condition == 'control'", rng=0
    ... )
    >>> agevi.tl.aggregate_subjects(adata)
    >>> agevi.tl.normative_scores(adata, groupby="condition", reference="control")
    >>> table = agevi.get.normative_df(adata)
    >>> bool(table.groupby("group")["centile"].median()["case"] > 75)
    True
    """
    _checks.anndata(adata)
    keys = _keys.Keys(key_added)
    check_age_df(age_df)
    used, chosen, n_left_out = _samples(adata, groupby, reference, keys)
    is_reference = used["reference"].to_numpy()
    age, predicted = (used[name].to_numpy(dtype=np.float64) for name in ("age", "predicted"))
    subject = pd.factorize(used["subject"][is_reference], sort=True)[0]
    n_subjects = int(subject.max()) + 1
    degree = _degree(age[is_reference], predicted[is_reference], n_subjects, age_df)
    norms = _norms.fit(age[is_reference], predicted[is_reference], np.asarray(n_subjects), degree=degree)
    left_out = _norms.score_left_out(age[is_reference], predicted[is_reference], subject, degree=degree)
    for name, values in _norms.score(norms, age, predicted).items():
        values[is_reference] = left_out[name]
        used[name] = values
    used["outside"] = (age < norms.low) | (age > norms.high)
    unit = str(adata.uns.get(keys.uns, {}).get("age_unit", "years"))
    params = {
        "groupby": groupby,
        "reference": chosen,
        "age_df": str(age_df),
        "degree": degree,
        "n_subjects": n_subjects,
        "n_samples": int(is_reference.sum()),
        "n_left_out": n_left_out,
        "age_unit": unit,
        "norms": norms.to_dict(),
    }
    line = linregress(age[is_reference], predicted[is_reference])
    if line.slope < SIGNAL * line.stderr:
        logger.warning(
            "In the reference, predictions change by %.2f %s per %s of age (t = %.1f): the clock has no age signal "
            "there, and centiles say nothing about ageing.",
            line.slope, unit, unit.removesuffix("s"), line.slope / line.stderr,
        )  # fmt: skip
    return store_table(adata, keys, NOUN, used.reset_index(drop=True)[COLUMNS], params, copy=copy)


def _samples(
    adata: AnnData, groupby: str | None, reference: Any, keys: _keys.Keys
) -> tuple[pd.DataFrame, list[str], int]:
    """Held-out samples with ``group`` and ``reference``, the names of the reference groups, and the number left out."""
    table = _subjects.subject_table(adata, keys)
    group = pd.Series("", index=table.index, dtype=object)
    chosen: list[str] = []
    if groupby is not None:
        values = sample_values(adata, table, groupby, "groupby", keys=keys)
        group = _names.names(values, f"groupby={groupby!r}").fillna("")
        chosen = _reference(reference, _names.levels(values), groupby)
    elif reference is not None:
        raise ValueError(f"reference={reference!r} without groupby; pass the column that it is a group of.")
    known = table["age"].notna() & table["predicted"].notna()
    _subjects.refuse_fitted(table[known], keys, "so their spread is too small for a reference")
    kept = known & table["role"].isin(_keys.HELD_OUT_ROLES)
    used = table.assign(group=group)[kept].sort_index()
    used["reference"] = used["group"].isin(chosen) if chosen else True
    used = used.rename_axis("sample").reset_index()
    used[["subject", "role"]] = used[["subject", "role"]].astype(str).astype(object)
    n = used["subject"][used["reference"]].nunique()
    if n < FEWEST:
        whose = f"reference={reference!r}" if chosen else "the subject table"
        raise ValueError(
            f"{whose} has {n} held-out subjects with age and prediction; centiles by age need {FEWEST}. Add reference "
            "subjects, or compare groups with agevi.tl.age_acceleration."
        )
    n_left_out = int((~kept).sum())
    if n_left_out:
        logger.info("%d of %d samples lack an age, a prediction or a role and have no score.", n_left_out, len(table))
    return used, chosen, n_left_out


def _reference(reference: Any, levels: Sequence[str], groupby: str) -> list[str]:
    """Names of the reference groups."""
    if reference is None:
        raise ValueError(
            f"reference=None with groupby={groupby!r}; pass the group to score against, one of "
            f"{_checks.listed(levels, 9)}."
        )
    names = _names.several(reference)
    unknown = [name for name in names if name not in levels]
    if unknown or not names:
        hint = _checks.closest(unknown[0], levels) if unknown else ""
        raise ValueError(
            f"reference={reference!r} is not a group of groupby={groupby!r}{hint}. Available: "
            f"{_checks.listed(levels, 9)}."
        )
    return names


def _degree(age: np.ndarray, predicted: np.ndarray, n_subjects: int, age_df: Any) -> int:
    """Degree of the curve, where the reference has enough ages for it, also without one of its subjects."""
    n_ages = len(np.unique(age))
    degree = (3 if n_subjects >= MANY_SUBJECTS and n_ages >= 5 else 1) if age_df == "auto" else int(age_df)
    if n_ages < degree + 2:
        raise ValueError(
            f"the reference has {n_ages} different ages; a curve of age_df={age_df!r} needs {degree + 2} or more."
        )
    if np.ptp(predicted) == 0:
        raise ValueError(
            f"all {len(predicted)} samples of the reference have the prediction {predicted[0]:g}; a clock that "
            "predicts one age for all has no centiles."
        )
    return degree
