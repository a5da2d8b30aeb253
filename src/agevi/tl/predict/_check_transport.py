"""Whether a clock can be used in another cohort, judged before it predicts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _ages, _checks, _keys, _names, _units
from agevi.model.base._clock import require_clock
from agevi.model.base._cohorts import SampleRows, cohort_of_unit, sample_codes, sample_rows
from agevi.model.base._kept_sums import summed_once
from agevi.tl.intervals._cohort_level import by_subject, read_anchor
from agevi.tl.predict._verdict import VERDICTS, Found, judge

logger = logging.getLogger(__name__)

_SHOWN = (
    "n_subjects", "gene_coverage", "outside", "level", "level_anchor", "n_anchored", "shrunk_by", "slope", "left_out",
)  # fmt: skip


def check_transport(
    adata: AnnData,
    model: Any,
    *,
    by: str | None,
    anchor: pd.Series | Mapping[str, float] | str | None = None,
    sample_key: str | None = None,
) -> pd.DataFrame:
    """Verdict on every cohort before its ages are predicted, from its values alone: no age is read.

    In the cohort of another laboratory a clock is often off by a constant of up to 20 years that nothing in its
    predictions shows. What can be seen is whether samples lie where training samples do. A cohort is ``"shifted"``
    where most of its samples lie outside of how training samples vary around their nearest cohort, beyond the 95 %
    quantile of training subjects held out; with an anchor, where this moves predictions by more than 6 years. In 36
    transfers between three cohorts of T cells every sample lay outside, and in no more than 32 % of donors of the same
    cohorts and 21 % of 11 data sets of blood methylation left out did (``benchmarks/transport.py``). Shifted does not
    mean wrong: of those cohorts half were off by less than 8 years. Nothing but ages, their mean, or a second cell type
    of the same donors shows which (:func:`agevi.tl.recalibrate`).

    Parameters
    ----------
    adata
        Cells of the new cohorts.
    model
        A trained clock, best with :meth:`~agevi.model.PLSClock.set_cohorts`; a clock of several is judged clock by
        clock.
    by
        Column of ``adata.obs`` with the cohort of each cell's sample; None: all samples are of one.
    anchor
        Ages of another clock that is off less in other cohorts, as in :func:`agevi.tl.recalibrate`: a Series by subject
        or sample, or the ``key_added`` of its predictions. It counts from 5 subjects on. Default: that of the clock
        itself, where it is a :class:`agevi.model.CellTypeClock` with one.
    sample_key
        Column with the samples. Default: that of the clock, else the subject.

    Returns
    -------
    DataFrame with one row per cohort, and per clock of a clock of several:

    ``cohort``, ``clock``
        Name of the cohort, and of the clock or its type (empty for a clock by itself).
    ``verdict``
        The first that holds of ``"genes missing"`` (under 90 % of the clock's genes by importance), ``"shifted"``,
        ``"shrunk"`` (by more than 3 years towards the mean of training, or a held-out slope under .5), ``"unproven"``
        (under 2 training cohorts or 60 training subjects, cohorts that are not known, 5 or more of them that were off
        by over 6 years when left out, or most samples outside where an anchor agrees), and ``"supported"``.
    ``n_subjects``, ``gene_coverage``, ``outside``
        Subjects that did not train the clock, the share of the clock's genes by importance, and of samples that lie
        outside.
    ``level``, ``level_anchor``, ``n_anchored``
        Mean prediction in the unit of age, the same with the shift by the anchor, and subjects that have one.
    ``shrunk_by``, ``slope``, ``left_out``
        How far the level is drawn to the mean of training, in the unit of age; the clock's slope on held-out subjects;
        and the root mean square of the mean errors of its training cohorts, left out.
    ``message``
        The verdict as a sentence, which is logged; of a clock of several one line per cohort says how many were which.

    Raises
    ------
    KeyError
        A column or the predictions of ``anchor`` are absent.
    TypeError
        ``model`` is not a clock, or ``anchor`` not numeric.
    RuntimeError
        The clock is not trained.
    ValueError
        Samples are of several cohorts, values are of the wrong kind, or all subjects trained the clock.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=40, n_cells=5, n_genes=50, n_batches=2)
    >>> new = adata[adata.obs["donor"].isin(adata.obs["donor"].unique()[:10])].copy()
    >>> old = adata[~adata.obs_names.isin(new.obs_names)].copy()
    >>> agevi.model.PLSClock.setup_anndata(old, age_key="age", subject_key="donor")
    >>> clock = agevi.model.PLSClock(old)
    >>> clock.train()
    >>> clock.set_cohorts(old, by="batch")
    >>> agevi.tl.check_transport(new, clock, by=None)["verdict"].tolist()
    ['unproven']
    """
    require_clock(model)
    model.check_ages("tl.check_transport")
    _checks.anndata(adata)
    cells = _new_cells(adata, model)
    of_part = model.judged_cells(adata, cells)
    rows = []
    with summed_once():
        if anchor is None and model.contrast_clocks:
            anchor = model.predict_anchor(adata, indices=cells, sample_key=sample_key, min_gene_coverage=0.0)
        for name, clock in model.judged().items():
            if len(of_part[name]):
                rows += _of_clock(adata, clock, name, of_part[name], by, anchor, sample_key, model)
    table = pd.DataFrame(rows)
    table = table.sort_values(["cohort"], kind="stable", ignore_index=True) if len(table) else table
    _tell(table)
    return table


def _tell(table: pd.DataFrame) -> None:
    """One line per cohort: its sentence, or how many of its clocks have which verdict."""
    for name, own in table.groupby("cohort", sort=False) if len(table) else ():
        found = own["verdict"].value_counts()
        level = logging.INFO if set(found.index) == {"supported"} else logging.WARNING
        if len(own) == 1:
            logger.log(level, "%s", own["message"].iloc[0])
            continue
        said = [f"{verdict} for {found[verdict]} of {len(own)} clocks" for verdict in VERDICTS if verdict in found]
        whose = f"cohort {name!r}" if name else "These data"
        logger.log(level, "%s: %s; the table says why.", whose, ", ".join(said))


def _new_cells(adata: AnnData, model: Any) -> np.ndarray:
    """Positions of the cells of subjects that did not shape the clock."""
    subject_key = model.setup_args["subject_key"]
    if subject_key not in adata.obs or not model.split_:
        return np.arange(adata.n_obs)
    cells = np.flatnonzero(~np.isin(model.roles(adata), _keys.FITTED_ROLES))
    if not len(cells):
        raise ValueError(
            f"all subjects in adata.obs[{subject_key!r}] trained the clock, for which no verdict is needed; pass the "
            "cells of another cohort, with ids of its own."
        )
    if len(cells) < adata.n_obs:
        n = adata.n_obs
        logger.info("%d of %d cells are of subjects that trained the clock, and left out.", n - len(cells), n)
    return cells


def _of_clock(
    adata: AnnData,
    clock: Any,
    part: str,
    cells: np.ndarray,
    by: str | None,
    anchor: Any,
    sample_key: str | None,
    whole: Any,
) -> list[dict[str, Any]]:
    """A row per cohort for one clock."""
    found = sample_rows(clock, adata, cells, sample_key, min_gene_coverage=0.0)
    table = _samples(adata, clock, cells, found, by, sample_key)
    table["predicted"] = _predicted(clock, adata, cells, found, sample_key)
    reference, unit = clock.reference_, clock.unit
    present = found.rows.match.present
    coverage = present.mean() if reference is None else min(float(reference.importance[present].sum()), 1.0)
    table["outside"] = np.nan if reference is None else reference.outside(found.values, present)
    scale = _ages.AgeTransform.of({**clock.setup_args, "age_transform": clock.age_transform})
    table["anchored"] = np.nan
    if anchor is not None:
        table["anchored"] = scale.forward(read_anchor(adata, table, anchor).to_numpy(dtype=np.float64))
    left_out = np.asarray([] if reference is None else reference.left_out, dtype=np.float64)
    judged = (whole.evaluation if clock.evaluation is None else clock.evaluation) or {}
    slope = judged.get("slope")
    rows = []
    for name in _names.in_order(set(table["cohort"])):
        own = table[(table["cohort"] == name) & table["predicted"].notna()]
        if not len(own):
            continue
        x = scale.forward(own["predicted"].to_numpy(dtype=np.float64))
        moved = by_subject(own, own["anchored"].to_numpy() - x, own["anchored"].notna().to_numpy())
        figures = Found(
            n_subjects=own["subject"].nunique(),
            gene_coverage=float(coverage),
            outside=float(own["outside"].mean()),
            level=_over_subjects(own["predicted"].to_numpy(), own),
            level_anchor=_over_subjects(scale.back(x + moved.mean()), own) if len(moved) else np.nan,
            n_anchored=len(moved),
            n_cohorts=0 if reference is None else len(reference.names),
            n_trained=0 if reference is None else sum(reference.n_subjects),
            mean_age=np.nan if reference is None else reference.age_mean,
            slope=np.nan if slope is None else float(slope),
            left_out=float(np.sqrt((left_out**2).mean())) if len(left_out) else np.nan,
            n_left_out=len(left_out),
            year=scale.year,
            **({"anchor": "<key_added of the predictions>"} if whole.contrast_clocks else {}),
        )
        whose = " of ".join(text for text in (part and f"{part!r}", name and f"cohort {name!r}") if text)
        call = f"agevi.tl.recalibrate(adata, by={by!r}"
        shown = {column: getattr(figures, column) for column in _SHOWN}
        rows.append({"cohort": name, "clock": part} | shown | judge(figures, whose or "These data", unit, call))
    return rows


def _over_subjects(ages: np.ndarray, samples: pd.DataFrame) -> float:
    """Mean of ages of samples, each subject counting once."""
    return float(by_subject(samples, ages, np.ones(len(ages), dtype=bool)).mean())


def _samples(
    adata: AnnData, clock: Any, cells: np.ndarray, found: SampleRows, by: str | None, sample_key: str | None
) -> pd.DataFrame:
    """Subject and cohort of every sample, indexed by sample."""
    subject_key, codes = clock.setup_args["subject_key"], sample_codes(clock, adata, cells, sample_key)[1]
    sample = pd.Series(found.names.to_numpy()[codes])
    owner = sample
    if subject_key in adata.obs:
        owner = _checks.labels(adata, subject_key, "subject_key").iloc[cells].reset_index(drop=True)
    cohort = "" if by is None else cohort_of_unit(adata, by, sample, cells).reindex(found.names).to_numpy()
    subject = _units.PerUnit(owner, sample).values.reindex(found.names).to_numpy()
    return pd.DataFrame({"subject": subject, "cohort": cohort}, index=found.names)


def _predicted(clock: Any, adata: AnnData, cells: np.ndarray, found: SampleRows, sample_key: str | None) -> np.ndarray:
    """Age of every sample, (n_samples,)."""
    if clock.predicts_sums and clock.pseudocell_groupby is None:
        return found.ages()
    codes = sample_codes(clock, adata, cells, sample_key)[1]
    if clock.predicts_sums:
        ages = clock.predict_samples(adata, indices=cells, sample_key=sample_key, min_gene_coverage=0.0)
    else:
        ages = clock.predict_rows(adata, indices=cells, min_gene_coverage=0.0).value
    return pd.Series(ages, dtype=np.float64).groupby(codes).mean().to_numpy()
