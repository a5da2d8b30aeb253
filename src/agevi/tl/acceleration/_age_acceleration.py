"""Whether the subjects of a group look older to a clock than others of the same age."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import false_discovery_control

from agevi import _checks, _keys
from agevi._docs import shared
from agevi.metrics._regression import check_level
from agevi.tl._store import store_table
from agevi.tl.acceleration._design import Unusable, check_age_df
from agevi.tl.acceleration._differences import (
    COUNTS,
    NUMBERS,
    SAMPLE_COLUMNS,
    TEXT,
    Settings,
    compare,
    described,
    pair_of,
    sample_rows,
    sentence,
)
from agevi.tl.acceleration._samples import Samples, held_out_samples
from agevi.tl.predict._evaluate_by import OVERALL

logger = logging.getLogger(__name__)

NOUN = "acceleration"
COLUMNS = [*TEXT, *COUNTS, *NUMBERS, "flags", "sentence"]


@shared
def age_acceleration(  # noqa: PLR0913
    adata: AnnData,
    *,
    groupby: str | None = None,
    reference: Any = None,
    covariates: str | Sequence[str] | None = (),
    composition_key: str | None = None,
    age_df: Literal["auto", 1, 3] = "auto",
    by: str | None = None,
    paired: bool = False,
    level: float = 0.95,
    n_permutations: int = 2000,
    rng: int | np.random.Generator | None = 0,
    key_added: str = _keys.DEFAULT_KEY,
    copy: bool = False,
) -> AnnData | None:
    """Difference in predicted age between a group and the reference at equal age, in units of age on the clock's scale.

    Predictions of held-out samples are regressed on group, age and covariates (ANCOVA); ``difference`` is the term of
    the group. Positive means that the group looks older than reference subjects of the same age. A clock whose
    predictions rise by 0.6 years per year of age shows 3.6 of 6 years; ``scaled`` undoes that at the price of a wider
    interval. Predictions shrink towards the mean age, so that raw gaps (predicted minus actual age) differ wherever
    ages do: ``raw_gap`` is a column and is never tested. A difference is an association: batch, composition of the
    sample and drugs make one, too. Trust no row with the flag ``no_age_signal``.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.cross_validate`, or :func:`agevi.tl.predict_age` with a clock of other
        subjects, and :func:`agevi.tl.aggregate_subjects`.
    groupby
        Column of :func:`agevi.get.subjects_df` or ``adata.obs`` with one group per sample, such as the diagnosis.
    reference
        The group that all others are compared with, each on its own.
    covariates
        Columns with one value per sample to adjust for, such as sex or cohort. Numbers enter as one slope, all else as
        one term per level. Samples that lack a value are left out.
    composition_key
        Column of ``adata.obs`` with the type of each cell: centred log-ratios of the types are adjusted for.
    age_df
        ``1``: predictions change linearly with age; ``3``: as a cubic; ``"auto"``: cubic where both groups have 25
        subjects.
    by
        The column of ``tl.cross_validate(groupby=...)``, for a row per type of cells from the predictions of its own
        clock, or a column with one value per sample, such as the tissue, for a row per value. Both below the rows of
        all samples.
    paired
        Subjects have samples in both groups, such as before and after a treatment.
    level
        Coverage of the intervals.
    n_permutations
        Permutations. The smallest ``p_permutation`` is ``1 / (n_permutations + 1)``. 0: none.
    rng
        Seed or generator of the permutations.
    %(key_read)s
    %(copy)s

    Returns
    -------
    None, or the copy. Sets ``adata.uns[f"{key_added}_acceleration"]`` with two DataFrames, which
    :func:`agevi.get.acceleration_df` returns, and ``adata.uns[f"{key_added}_acceleration_params"]`` with the arguments
    and ``degree``, that of the curve of age in each row of ``"groups"`` (0 where there is no comparison).

    ``"groups"``, one row per group, then per type and group:

    - ``type`` ("overall", or that of ``by``), ``group``, ``reference``, text.
    - ``n``, ``n_reference`` (samples), ``n_subjects`` (of both), int64.
    - ``difference``, ``se``, ``low``, ``high``, float64, unit of age.
    - ``t``, ``df``, ``p`` (two-sided), ``p_permutation``, ``p_adjusted`` (Benjamini and Hochberg over the groups of the
      overall rows, and over all rows of types).
    - ``cohens_d``: difference by residual standard deviation.
    - ``slope``: change of the prediction per unit of age at equal group and covariates, of a line; ``slope_t``.
    - ``scaled``, ``scaled_low``, ``scaled_high``: difference by slope with Fieller's interval; NaN with ``slope_t``
      below 4, no interval below 2 or where it is unbounded.
    - ``raw_gap``: difference in predicted minus actual age; ``age_reference`` and ``age_group``, mean ages.
    - ``detectable``: 2.8 standard errors, the true difference that would be found at p < .05 four times in five.
    - ``flags``, joined by ";": ``no_age_signal`` (``slope_t`` below 2), ``weak_age_signal`` (below 4),
      ``ages_do_not_overlap`` (less than half of the group has an age within the range of the reference), ``confounded``
      (covariates explain more than three quarters of the group; or the groups were predicted by different clocks, by
      roles or by folds), ``trained_on_group`` (the clocks were trained on both groups, whose mean ages are more than a
      quarter of a standard deviation apart), ``few_subjects`` (fewer than 10 in a group).
    - ``sentence``: the row in words.

    ``"samples"``, one row per sample (and type): ``type``, ``sample``, ``subject``, ``group``, ``age``, ``predicted``;
    ``expected``, the line of the reference at its age and covariates, fitted without the subject itself;
    ``acceleration``, predicted minus expected; ``low`` and ``high``, between which a new reference sample would be
    predicted; ``z``, acceleration in standard deviations of new reference samples; ``p``, two-sided by Student's t.

    Raises
    ------
    KeyError
        The subject table or a column is absent.
    ValueError
        Samples have the role train or validation, ``groupby`` or ``reference`` is not given or selects nobody or
        everybody, a group has fewer than 3 subjects, a covariate is constant, missing or confounded with the group, a
        level of it has one subject, a subject is in both groups without ``paired=True``, or an argument is out of
        range.

    Notes
    -----
    Intervals and ``p`` are from Student's t with HC3 standard errors (MacKinnon and White, 1985), which hold where the
    groups differ in spread; where subjects have several samples, from the jackknife over subjects (CR3).
    ``p_permutation`` permutes the residuals of the model without the group (Freedman and Lane, 1983). Where groups
    differ in age, train on the reference alone: ``tl.cross_validate(train_on="condition == 'control'")``. A clock that
    learnt from older cases takes genes of the disease for genes of age (``trained_on_group``); one that did not is
    still moved by them, up or down by chance. One clock for all types and one for each are separate questions: the
    overall rows never use the clocks of types unless the predictions do.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(
    ...     n_subjects=60, n_cells=20, n_genes=100, case_fraction=0.4, acceleration=12.0, subject_sd=0.08, rng=3
    ... )
    >>> agevi.tl.cross_validate(
    ...     adata,
    ...     agevi.model.PLSClock,
    ...     age_key="age",
    ...     subject_key="donor",
    ...     train_on="condition == 'control'",
    ...     n_folds=3,
    ... )
    >>> agevi.tl.aggregate_subjects(adata)
    >>> agevi.tl.age_acceleration(adata, groupby="condition", reference="control", n_permutations=200)
    >>> row = agevi.get.acceleration_df(adata).iloc[0]
    >>> row["group"], bool(row["low"] > 0), row["flags"]
    ('case', True, '')
    """
    _checks.anndata(adata)
    keys = _keys.Keys(key_added)
    check_age_df(age_df)
    check_level(level)
    n_permutations = _checks.count(n_permutations, "n_permutations", low=0)
    generator = _checks.generator(rng)
    samples = held_out_samples(
        adata, groupby=groupby, reference=reference, covariates=covariates,
        composition_key=composition_key, by=by, keys=keys,
    )  # fmt: skip
    settings = Settings(
        groupby=str(groupby), age_df=age_df, paired=bool(paired), level=level,
        n_permutations=n_permutations, seed=int(generator.integers(2**32)),
    )  # fmt: skip
    unit = str(adata.uns.get(keys.uns, {}).get("age_unit", "years"))
    rows, notes = _rows(samples, settings)
    groups = _adjusted(pd.DataFrame(rows))
    groups["sentence"] = [
        sentence(dict(row), samples, unit, level, _family(groups, row["type"] == OVERALL))
        for _, row in groups.iterrows()
    ]
    parts = [sample_rows(frame, name, samples, settings) for name, frame in samples.tables.items()]
    tables = {"groups": _typed(groups[COLUMNS], COUNTS), "samples": _typed(pd.concat(parts)[SAMPLE_COLUMNS], [])}
    params = {
        "groupby": groupby,
        "reference": samples.reference,
        "covariates": [c.name for c in samples.covariates if c.kind != "composition"],
        "composition_key": composition_key,
        "age_df": str(age_df),
        "degree": groups["degree"].to_numpy(dtype=np.int64),
        "by": by,
        "paired": bool(paired),
        "level": level,
        "n_permutations": n_permutations,
        "rng": rng,
        "age_unit": unit,
        "n_left_out": samples.n_left_out,
    }
    out = store_table(adata, keys, NOUN, tables, params, copy=copy)
    _say(groups, notes)
    return out


def _rows(samples: Samples, settings: Settings) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of all types and groups, and the lines that explain their flags."""
    rows, notes, errors = [], [], []
    for of_type, frame in samples.tables.items():
        for group in samples.levels:
            pair = pair_of(frame, group, samples.reference)
            row = described(pair, of_type, group, samples.reference)
            of = "" if of_type == OVERALL else f"{of_type}: "
            try:
                found, reasons = compare(pair, group, samples.reference, samples.covariates, settings)
                notes += [of + reason for reason in reasons]
            except Unusable as error:
                found = {"flags": error.flag, "degree": 0}
                notes.append(f"{of}no difference for {group!r}: {error}")
                errors.append(error)
            rows.append(row | found)
        if of_type == OVERALL and len(errors) == len(samples.levels):
            raise ValueError(str(errors[0])) from None
    return rows, notes


def _adjusted(groups: pd.DataFrame) -> pd.DataFrame:
    """The same with ``p_adjusted``, the overall rows and those of types each on their own."""
    p = groups["p"].to_numpy(dtype=np.float64)
    adjusted = np.full(len(p), np.nan)
    overall = (groups["type"] == OVERALL).to_numpy()
    for family in (overall, ~overall):
        known = family & ~np.isnan(p)
        if known.any():
            adjusted[known] = false_discovery_control(p[known])
    return groups.assign(p_adjusted=adjusted)


def _family(groups: pd.DataFrame, overall: bool) -> str:
    """What the p values of the overall rows, or of those of types, are corrected for; "" for a single one."""
    n = int(groups["p"][(groups["type"] == OVERALL) == overall].notna().sum())
    one_group = groups["group"].nunique() == 1
    return "" if n < 2 else f"{n} {'groups' if overall else 'types' if one_group else 'comparisons'}"


def _typed(table: pd.DataFrame, counts: list[str]) -> pd.DataFrame:
    """The same with one dtype per column and a plain index."""
    out = table.reset_index(drop=True)
    for column in out:
        if column in counts:
            out[column] = out[column].astype(np.int64)
        elif pd.api.types.is_numeric_dtype(out[column]):
            out[column] = out[column].astype(np.float64)
        else:
            out[column] = out[column].astype(str).astype(object)
    return out


def _say(groups: pd.DataFrame, notes: list[str]) -> None:
    """Log the result of every group, the types that differ, and what limits them."""
    overall = groups["type"] == OVERALL
    for line in groups["sentence"][overall]:
        logger.info(line)
    types = groups[~overall]
    if len(types):
        found = types[types["p_adjusted"] < 0.05]
        names = _checks.listed([f"{row.type} ({row.difference:+.1f})" for row in found.itertuples()])
        logger.info(
            "%d of %d rows of types differ at p_adjusted < .05%s.", len(found), len(types), names and f": {names}"
        )
    for note in dict.fromkeys(notes):
        logger.warning(note)
