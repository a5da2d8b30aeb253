"""From counts to a clock that is judged, calibrated, compared and explained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData

from agevi import _keys
from agevi._compat import version
from agevi._docs import shared
from agevi.model.base._seed import as_seed
from agevi.tl.full_study._folder import check_out, claim_out, default_seed, write_results
from agevi.tl.full_study._plan import Arguments, make_plan
from agevi.tl.full_study._result import StudyResult
from agevi.tl.full_study._steps import Run
from agevi.tl.full_study._verdict import Verdict


@shared
def study(  # noqa: PLR0913
    adata: AnnData,
    *,
    age_key: str,
    subject_key: str,
    sample_key: str | None = None,
    cell_type_key: str | None = None,
    condition_key: str | None = None,
    reference: Any = None,
    covariates: str | Sequence[str] = (),
    age_unit: str = "years",
    layer: str | None = None,
    obsm_key: str | None = None,
    out: str | Path | None = None,
    quick: bool = False,
    rng: int | np.random.Generator | None = 0,
    key_added: str = _keys.DEFAULT_KEY,
) -> StudyResult:
    """A whole study of ageing in one call, whose first line says whether the clock beats the median age.

    The recommended clock, :class:`agevi.model.CellTypeClock` where types of cells are named and
    :class:`agevi.model.PLSClock` elsewhere, predicts every subject while it is held out. The predictions get intervals,
    are compared between groups at equal age, and stand beside the median age and clocks of shuffled ages. A final clock
    is then trained on everybody, or on the reference alone, calibrated and taken back to its genes. Every step is a
    public call that ``steps`` names, so you can continue by hand from any of them. What the data cannot carry is left
    out, with the reason: genes and pathways where the clock is not shown to beat the median age, for example.

    Parameters
    ----------
    adata
        Cells x genes, in memory, with raw counts. What the steps make is written to it, as their own docs say.
    %(age_key)s
    %(subject_key)s
    %(sample_key)s
    cell_type_key
        Column with the type of each cell: each type gets a clock.
    condition_key
        Column with the groups to compare at equal age, one per sample, such as the diagnosis.
    reference
        The group that the others are compared with. From 30 subjects on, or 10 where the groups differ in age, it
        alone trains the clocks.
    covariates
        Columns that the comparison is adjusted for, as in :func:`agevi.tl.age_acceleration`.
    age_unit
        Unit of the ages: ``"years"``, ``"months"``, ``"weeks"`` or ``"days"``.
    layer
        Layer with the counts, in place of ``adata.X``.
    obsm_key
        Table of ``adata.obsm`` that is read in place of genes, such as ``"X_scVI"``.
    out
        Folder for the results: ``clock/``, ``tables/*.csv``, and ``study.h5ad`` with all that was written to ``adata``
        but not its values. Each file is there whole or not at all, and the same call resumes after it was killed; a
        call with other data or arguments is refused.
    quick
        A first look at a fraction of the time: fewer folds, no comparison with other clocks, types have equal weight.
    rng
        Seed or generator.
    %(key_added)s

    Returns
    -------
    The tables, the clock and the steps; printed, what they say. Sets the slots of the steps, and:

    ``adata.uns[f"{key_added}_study"]``
        The steps: DataFrame with the columns ``step``, ``call`` (as text), ``status`` ("done" or "left out"),
        ``reason``, and ``seconds``, float64.
    ``adata.uns[f"{key_added}_study_params"]``
        Arguments, seed, version and verdict.
    ``adata.uns[f"{key_added}_study_audit"]``
        The findings of :func:`agevi.pp.audit_leakage`.
    ``adata.obs[f"{key_added}_study_role"]``
        Categorical: ``train`` for cells that trained the final clock, else ``test``.

    Raises
    ------
    KeyError
        A column, the layer or the table is absent.
    TypeError
        Ages are not numeric, or an argument is of the wrong type.
    ValueError
        Ages, units or values cannot be used, fewer than 4 subjects have an age, ``reference`` is not a group or a
        covariate cannot be used, or ``out`` holds other files. All of it is said before anything long begins.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=40, n_cells=20, n_genes=60, rng=1)
    >>> found = agevi.tl.study(adata, age_key="age", subject_key="donor", quick=True)
    >>> found.verdict.split(":")[0], type(found.clock).__name__
    ('The clock beats the median age', 'PLSClock')
    >>> found.steps.loc[found.steps["status"] == "left out", "step"].tolist()
    ['comparison', 'types', 'acceleration', 'pathways']
    """
    keys = _keys.Keys(key_added)
    named = (covariates,) if isinstance(covariates, str) else tuple(covariates or ())
    given = Arguments(
        age_key, subject_key, sample_key, cell_type_key, condition_key, reference, named, layer, obsm_key, bool(quick),
        key_added, age_unit,
    )  # fmt: skip
    stored = {} if out is None else check_out(out)
    seed = as_seed(default_seed(stored, rng))
    plan = make_plan(adata, given, seed)
    path = None if out is None else claim_out(out, adata, given, seed)
    run = Run(adata, plan, path)
    verdict = run.all()
    adata.uns[keys.study] = _keys.to_uns(run.log.table())
    adata.uns[keys.study_params] = _keys.to_uns(_record(run, verdict))
    if "audit" in run.log.variables:
        adata.uns[keys.study_audit] = _keys.to_uns(run.log.variables["audit"])
    result = _result(run, verdict, adata.uns[keys.subjects])
    if path is not None:
        write_results(path, adata, given, result.tables)
    return result


def _record(run: Run, verdict: Verdict) -> dict[str, Any]:
    """Arguments, and what they led to."""
    given, plan = run.plan.given, run.plan
    return {
        **given.units,
        **given.matrix,
        "age_unit": given.age_unit,
        "cell_type_key": given.cell_type_key,
        "condition_key": given.condition_key,
        "reference": plan.comparison.reference,
        "covariates": list(given.covariates),
        "quick": given.quick,
        "rng": plan.seed,
        "version": version("agevi"),
        "clock": plan.clock,
        "trained_on": plan.comparison.why or "everybody",
        "verdict": verdict.text,
        "beats_median": {True: "yes", False: "no", None: "unknown"}[verdict.beats_median],
    }


def _result(run: Run, verdict: Verdict, subjects: Any) -> StudyResult:
    """The tables that the steps made."""
    made = {name: value for name, value in run.log.variables.items() if name != "adata"}
    table = subjects.rename_axis("sample").reset_index()
    unit = str(run.adata.uns[run.plan.given.key_added]["age_unit"])
    return StudyResult(
        verdict.text, verdict.beats_median, steps=run.log.table(), subjects=table, path=run.out, unit=unit, **made
    )
