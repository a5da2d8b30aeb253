"""What a clock says about itself: intervals of its predictions, and its errors on held-out subjects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _subjects
from agevi._compat import Host
from agevi.dataloaders._kind import ValueKind
from agevi.io._numbers import check_calibration, check_evaluation
from agevi.metrics._rows import metrics_row, table_references
from agevi.model.base import _fingerprint

_LEVEL = 0.95  # of the intervals of an evaluation
_METRICS = (
    "mae",
    "rmse",
    "mae_median",
    "mae_low",
    "mae_high",
    "slope",
    "slope_low",
    "slope_high",
    "pearson",
    "spearman",
)
_INTERVALS = ("level", "coverage", "coverage_low", "coverage_high", "width", "interval_score")


class NumbersMixin(Host):
    """Calibration and evaluation of a clock, which travel with it."""

    calibration_: dict[str, Any] | None = None
    evaluation_: dict[str, Any] | None = None
    kind_: ValueKind | None = None

    @property
    def calibration(self) -> dict[str, Any] | None:
        """What gives predictions their intervals, a copy; None before :meth:`set_calibration`."""
        return deepcopy(self.calibration_)

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """How well held-out subjects were predicted, a copy; None before :meth:`set_evaluation`."""
        return deepcopy(self.evaluation_)

    def set_calibration(self, adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> None:
        """Let the clock give intervals of age, in its unit, with the calibration of :func:`agevi.tl.calibrate`.

        It is saved with the clock, and :func:`agevi.tl.aggregate_subjects` gives every sample that it predicts
        ``lower`` and ``upper``. The recommended way: calibrate the out-of-fold predictions of
        :func:`agevi.tl.cross_validate`, and train the same class with the same arguments on all subjects. A calibration
        on test subjects fits the very clock that predicted them alone. Training again removes it.

        Parameters
        ----------
        adata
            Annotated data after :func:`agevi.tl.calibrate`.
        key_added
            Prefix of the slots.

        Raises
        ------
        KeyError
            The calibration is absent.
        RuntimeError
            The clock is not trained.
        TypeError
            The model predicts no ages.
        ValueError
            The calibration is of another clock.

        Examples
        --------
        >>> import agevi
        >>> adata = agevi.datasets.simulate_cohort(n_subjects=30, n_cells=5, n_genes=50)
        >>> agevi.tl.cross_validate(adata, agevi.model.PLSClock, age_key="age", subject_key="donor")
        >>> agevi.tl.aggregate_subjects(adata)
        >>> agevi.tl.calibrate(adata)
        >>> agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
        >>> clock = agevi.model.PLSClock(adata)
        >>> adata.obs["everybody"] = "train"
        >>> clock.train(split_key="everybody")
        >>> clock.set_calibration(adata)
        >>> clock.calibration["n"], clock.calibration["level"]
        (30, 0.9)
        """
        self.check_ages("model.set_calibration")
        _checks.anndata(adata)
        keys, call = _keys.Keys(key_added), f"agevi.tl.calibrate(adata, key_added={key_added!r})"
        params = _checks.slot(adata, keys.calibration_params, "uns", call)
        self._check_same(params.get("clock"), f"calibration under key_added={key_added!r}")
        self.calibration_ = check_calibration(_plain(params))

    def set_evaluation(
        self, adata: AnnData, *, gene_symbols: str | None = None, key_added: str = _keys.DEFAULT_KEY
    ) -> None:
        """Let the clock tell how well it predicts: errors in the unit of age, over held-out subjects.

        They are saved with the clock, and its card shows them: the mean absolute error with its bootstrap interval over
        subjects beside that of the median age, the slope, correlations, and coverage and width of intervals after
        :func:`agevi.tl.calibrate`. As in :meth:`set_calibration` they are those of the same recipe in
        :func:`agevi.tl.cross_validate`, or of this very clock on test subjects. Training again removes them.

        Parameters
        ----------
        adata
            Annotated data after :func:`agevi.tl.aggregate_subjects`.
        gene_symbols
            Column of ``adata.var`` with symbols, as in :meth:`set_gene_names`; the card shows the first of them.
        key_added
            Prefix of the slots.

        Raises
        ------
        KeyError
            The subject table or the column is absent.
        RuntimeError
            The clock is not trained.
        TypeError
            The model predicts no ages.
        ValueError
            The predictions are of another clock, or fewer than 2 held-out samples have an age.

        Examples
        --------
        >>> import agevi
        >>> adata = agevi.datasets.simulate_cohort(n_subjects=30, n_cells=5, n_genes=50)
        >>> agevi.tl.cross_validate(adata, agevi.model.PLSClock, age_key="age", subject_key="donor")
        >>> agevi.tl.aggregate_subjects(adata)
        >>> agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
        >>> clock = agevi.model.PLSClock(adata)
        >>> adata.obs["everybody"] = "train"
        >>> clock.train(split_key="everybody")
        >>> clock.set_evaluation(adata)
        >>> clock.evaluation["n_subjects"], clock.evaluation["n_folds"]
        (30, 5)
        """
        self.check_ages("model.set_evaluation")
        _checks.anndata(adata)
        keys = _keys.Keys(key_added)
        call = f"agevi.tl.aggregate_subjects(adata, key_added={key_added!r})"
        table = _subjects.subject_table(adata, keys, call)
        record = adata.uns.get(keys.uns, {})
        self._check_same(record.get("clock"), f"table of subjects under key_added={key_added!r}")
        report = adata.uns.get(keys.calibration)
        cohorts = adata.uns.get(keys.calibration_params, {}).get("cohorts", ())
        found = _evaluated(table, record, f"adata.uns[{keys.subjects!r}]")
        found["cohorts"] = [str(name) for name in cohorts] or found["cohorts"]
        if report is not None and np.isfinite(report["coverage"].iloc[0]):
            row = report.iloc[0]
            found["intervals"] = {k: float(row[k]) for k in _INTERVALS} | {"n_subjects": int(row["n_subjects"])}
        evaluation = check_evaluation(found)
        if gene_symbols is not None:
            self.set_gene_names(adata, gene_symbols=gene_symbols)
        self.evaluation_ = evaluation

    def _check_same(self, stored: Any, what: str) -> None:
        """Refuse numbers that are of another clock."""
        if not stored:
            raise ValueError(
                f"the {what} does not say which clock its predictions are of, since they were not made by this version "
                "of agevi; "
                "run agevi.tl.cross_validate or agevi.tl.predict_age again, and then agevi.tl.aggregate_subjects."
            )
        differs = _fingerprint.difference(stored, self)
        if differs:
            kind = "predictions of one" if stored.get("weights") else "out-of-fold predictions of a"
            raise ValueError(
                f"the {what} is of another clock: it is of {kind} {stored.get('class')}, and this "
                f"{type(self).__name__} differs in {differs}. Cross-validate this class with the same setup_kwargs and "
                "model_kwargs, or predict test subjects with this clock."
            )

    def _numbers(self) -> dict[str, Any]:
        """What the bundle holds of it."""
        held = {"calibration": self.calibration_, "evaluation": self.evaluation_}
        held |= {"training_cohorts": None if self.reference_ is None else self.reference_.meta()}
        held |= {"values": None if self.kind_ is None else self.kind_.as_plain()}
        return {name: deepcopy(values) for name, values in held.items() if values is not None}

    def _take_numbers(self, meta: Mapping[str, Any]) -> None:
        """What a bundle holds, after every value was checked."""
        calibration, evaluation, kind = (meta.get(name) for name in ("calibration", "evaluation", "values"))
        self.calibration_ = None if calibration is None else check_calibration(calibration)
        self.evaluation_ = None if evaluation is None else check_evaluation(evaluation)
        self.kind_ = None if kind is None else ValueKind.of_bundle(kind)


def _evaluated(table: pd.DataFrame, record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Metrics of the held-out samples of a subject table, and who they are."""
    used = table[_subjects.held_out(table)]
    if len(used) < 2:
        raise ValueError(
            f"{len(used)} samples of {where} are held out and have an age (roles there: "
            f"{_checks.listed(sorted(set(table['role'])))}); predict with agevi.tl.cross_validate, or test subjects "
            "with ages."
        )
    age, role = used["age"].to_numpy(dtype=np.float64), used["role"].to_numpy()
    reference = table_references(used, record)
    reference = np.where(np.isnan(reference), np.median(age), reference)
    row = metrics_row(
        age,
        used["predicted"].to_numpy(dtype=np.float64),
        subject=used["subject"].to_numpy(),
        reference=reference,
        level=_LEVEL,
    )
    params, folds = record.get("params", {}), record.get("folds")
    fold_key = str(params.get("fold_key") or "")
    names = [] if folds is None else [str(name) for name in pd.unique(folds["fold"])]
    return {
        "roles": [name for name in _keys.ROLES if name in set(role)],
        "n_subjects": int(row["n_subjects"]),
        "n_samples": len(used),
        "n_folds": len(names),
        "fold_key": fold_key,
        "train_on": str(params.get("train_on") or "")[:200],
        "cohorts": names if fold_key else [],
        "age_unit": str(record.get("age_unit", "years")),
        "age_min": float(age.min()),
        "age_max": float(age.max()),
        "level": _LEVEL,
        **{name: float(row[name]) if math.isfinite(row[name]) else None for name in _METRICS},
    }


def _plain(values: Any) -> Any:
    """Values of ``adata.uns`` as those of JSON."""
    if isinstance(values, Mapping):
        return {str(k): _plain(v) for k, v in values.items()}
    if isinstance(values, np.ndarray):
        return [_plain(v) for v in values.tolist()]
    if isinstance(values, list | tuple):
        return [_plain(v) for v in values]
    return values.item() if isinstance(values, np.generic) else values
