"""Cohorts that trained a clock, which travel with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks, _keys, _names, _subjects, _units
from agevi._compat import Host
from agevi.io._numbers import check_training_cohorts
from agevi.model.base._reference import PREFIX, Reference
from agevi.model.base._unit_rows import UnitRows

_N_SLOPES = 64  # samples over which the slopes of genes are averaged
_ADVICE = "a sample is of one cohort."


class SampleRows(NamedTuple):
    """What a clock reads of the samples of some cells."""

    names: pd.Index  # of the samples
    values: np.ndarray  # (n_samples, n_genes)
    rows: UnitRows

    def ages(self) -> np.ndarray:
        """Ages of the samples from their sums, (n_samples,)."""
        out = []
        for rows in self.rows.blocks(len(self.values)):
            x = torch.from_numpy(self.values[rows]).to(self.rows.device)
            out.append(self.rows.ages(x, rows).detach().cpu().numpy())
        return np.concatenate(out).astype(np.float64)


class CohortsMixin(Host):
    """The cohorts that trained a clock."""

    reference_: Reference | None = None

    @property
    def cohorts(self) -> pd.DataFrame | None:
        """The training cohorts, a row each; None before :meth:`set_cohorts`.

        Columns ``n_subjects``, ``mean_age`` and ``left_out``, the mean error of the cohort where it was held out, NaN
        where that is not known.
        """
        found = [part.reference_ for part in self.judged().values() if part.reference_ is not None]
        if not found:
            return None
        own = found[0]
        columns = {"n_subjects": own.n_subjects, "mean_age": own.mean_age, "left_out": own.left_out or np.nan}
        return pd.DataFrame(columns, index=pd.Index(own.names, name=own.by))

    def judged(self) -> dict[str, Any]:
        """The clocks that each have a reference, by name: itself, or those that it holds, which are taken apart too."""
        if not self.own_clocks:
            return {"": self}
        found = zip(self.own_names, self.own_clocks, strict=True)
        return {f"{name} {own}".strip(): part for name, clock in found for own, part in clock.judged().items()}

    def judged_cells(self, adata: AnnData, cells: np.ndarray) -> dict[str, np.ndarray]:
        """Those of ``cells``, by position, that each of them reads."""
        if not self.own_clocks:
            return {"": cells}
        found = zip(self.own_names, self.own_clocks, self.own_cells(adata, cells), strict=True)
        return {
            f"{name} {own}".strip(): chosen
            for name, clock, part in found
            for own, chosen in clock.judged_cells(adata, part).items()
        }

    @property
    def own_names(self) -> list[str]:
        """Names of the clocks that it holds, by their class."""
        classes = [type(clock).__name__ for clock in self.own_clocks]
        return [
            f"{name} {classes[:i].count(name) + 1}" if classes.count(name) > 1 else name
            for i, name in enumerate(classes)
        ]

    def own_cells(self, adata: AnnData, cells: np.ndarray) -> list[np.ndarray]:
        """Those of ``cells``, by position, that each of the clocks that it holds reads: all."""
        return [cells] * len(self.own_clocks)

    def set_cohorts(self, adata: AnnData, by: str, *, left_out: str | None = None) -> None:
        """Let the clock tell what its training cohorts look like, for :func:`agevi.tl.check_transport` on others.

        Of the training samples it keeps the mean of every cohort, the spread of each gene within cohorts, 30 principal
        components of it, how far samples lie outside these, and how much each gene says about age. They are saved with
        the clock, in about 70 + 4 x n_cohorts bytes per gene. Training again removes them.

        Parameters
        ----------
        adata
            The cells that trained the clock.
        by
            Column of ``adata.obs`` with the cohort (study, laboratory, data set) of each cell's sample.
        left_out
            Prefix of predictions with each of these cohorts held out, by
            ``agevi.tl.cross_validate(adata, ..., fold_key=by, key_added=left_out)`` and
            :func:`agevi.tl.aggregate_subjects`: the mean error of each is kept.

        Raises
        ------
        KeyError
            If a column or the predictions are absent.
        RuntimeError
            If the clock is not trained.
        TypeError
            If the model predicts no ages.
        ValueError
            If training subjects are absent from ``adata``, samples are of several cohorts or of none, or the
            predictions are of another clock or other folds.

        Examples
        --------
        >>> import agevi
        >>> adata = agevi.datasets.simulate_cohort(n_subjects=30, n_cells=5, n_genes=50, n_batches=2)
        >>> agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
        >>> clock = agevi.model.PLSClock(adata)
        >>> clock.train()
        >>> clock.set_cohorts(adata, by="batch")
        >>> list(clock.cohorts)
        ['n_subjects', 'mean_age', 'left_out']
        """
        self.check_ages("model.set_cohorts")
        _checks.anndata(adata)
        levels = {} if left_out is None else self._levels_left_out(adata, by, left_out)
        cells = self.judged_cells(adata, np.arange(adata.n_obs))
        found = {name: _reference(clock, adata, cells[name], by, levels) for name, clock in self.judged().items()}
        for reference in found.values():
            check_training_cohorts(reference.meta())  # what is saved can be loaded
        for name, clock in self.judged().items():
            clock.reference_ = found[name]

    def _levels_left_out(self, adata: AnnData, by: str, key: str) -> dict[str, float]:
        """Mean error of every cohort where it was held out, each subject counting once."""
        keys = _keys.Keys(key)
        table = _subjects.subject_table(adata, keys, f"agevi.tl.aggregate_subjects(adata, key_added={key!r})")
        record = adata.uns.get(keys.uns, {})
        self._check_same(record.get("clock"), f"table of subjects under left_out={key!r}")
        if record.get("params", {}).get("fold_key") != by:
            raise ValueError(
                f"the predictions under left_out={key!r} do not hold out the cohorts in adata.obs[{by!r}]; run "
                f"agevi.tl.cross_validate(adata, ..., fold_key={by!r}, key_added={key!r})."
            )
        used = table[_subjects.held_out(table)]
        error = (used["predicted"] - used["age"]).groupby(used["subject"].to_numpy()).mean()
        cohort = cohort_of_unit(adata, by, _checks.labels(adata, self.setup_args["subject_key"], "subject_key"))
        levels = error.groupby(cohort.reindex(error.index).to_numpy()).mean()
        return {str(name): float(level) for name, level in levels.items()}

    # --- in a bundle -----------------------------------------------------------------------------------------

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        """All tensors of its bundle: the weights, and those of its reference."""
        own = {} if self.reference_ is None else self.reference_.tensors()
        for i, clock in enumerate(self.own_clocks if self.predicts == "age" else ()):
            own |= {f"clocks.{i}.{name}": values for name, values in clock.stored_tensors().items() if PREFIX in name}
        return {**self.module.state_dict(), **own}

    def _take_reference(self, meta: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """What a bundle holds, after every value was checked."""
        if meta.get("training_cohorts") is not None:
            own = {name: tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
            self.reference_ = Reference.of_bundle(meta["training_cohorts"], own, len(self.genes))


def sample_rows(
    clock: Any, adata: AnnData, cells: np.ndarray, sample_key: str | None = None, min_gene_coverage: float = 0.8
) -> SampleRows:
    """What a clock reads of the samples of ``cells``, whose values are summed as it sums them."""
    names, codes = sample_codes(clock, adata, cells, sample_key)
    rows = UnitRows(clock, adata, cells, codes, min_gene_coverage)
    parts = [rows.values(some).cpu().numpy() for some in rows.blocks(len(names))]
    return SampleRows(pd.Index(names), np.concatenate(parts), rows)


def sample_codes(
    clock: Any, adata: AnnData, cells: np.ndarray, sample_key: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Names of samples, and the sample of each of ``cells``; rows of bulk data without such a column are samples."""
    setup = clock.setup_args
    if clock.predicts_rows and _units.sample_column(setup, sample_key) not in adata.obs:
        codes, names = pd.factorize(adata.obs_names.astype(str)[cells], sort=True)
        return np.asarray(names, dtype=object), codes
    names, codes = clock.sample_names(adata, cells, sample_key)
    return names, codes


def _reference(clock: Any, adata: AnnData, cells: np.ndarray, by: str, levels: Mapping[str, float]) -> Reference:
    """The training cohorts of one clock without further ones in it."""
    if not clock.split_:
        raise ValueError(
            f"this {type(clock).__name__} names no subjects that it was trained on, so that its cohorts cannot be told."
        )
    subject_key = clock.setup_args["subject_key"]
    subject = _checks.labels(adata, subject_key, "subject_key")
    trained = subject.map(clock.split_).isin([_keys.TRAIN]).to_numpy()
    there = set(subject[trained])
    absent = [name for name, role in clock.split_.items() if role == _keys.TRAIN and name not in there]
    if absent:
        raise ValueError(
            f"adata lacks {len(absent)} of the subjects that trained the clock ({_checks.listed(absent, 3)}); pass the "
            "cells that it was trained on."
        )
    cells = cells[trained[cells]]
    found = sample_rows(clock, adata, cells)
    setup = clock.setup_args
    sample = _checks.labels(adata, _units.sample_column(setup), "sample_key").iloc[cells]
    cohort = cohort_of_unit(adata, by, sample, cells).reindex(found.names)
    owner = _units.PerUnit(subject.iloc[cells], sample).values.reindex(found.names)
    age = _units.PerUnit(adata.obs[setup["age_key"]].iloc[cells], sample).values.astype(np.float64).reindex(found.names)
    code, names = _names.coded(cohort, f"adata.obs[{by!r}]")
    of_subject = pd.DataFrame({"subject": owner.to_numpy(), "cohort": code, "age": age.to_numpy()})
    once = of_subject.groupby("subject").agg({"cohort": "first", "age": "mean"})
    per_cohort = once.groupby("cohort")["age"]
    return Reference.fit(
        found.values,
        code,
        pd.factorize(owner)[0],
        _slopes(found),
        by=by,
        names=names,
        n_subjects=[int(n) for n in per_cohort.size()],
        mean_age=[float(mean) for mean in per_cohort.mean()],
        left_out=[float(levels[name]) for name in names] if set(names) <= set(levels) else [],
        age_mean=float(once["age"].mean()),
        age_sd=float(once["age"].std(ddof=0)),
    )


def cohort_of_unit(adata: AnnData, by: str, unit: pd.Series, cells: np.ndarray | None = None) -> pd.Series:
    """Name of the cohort of every unit, indexed by unit."""
    values = _checks.labels(adata, by, "by")
    values = values if cells is None else values.iloc[cells]
    found = _units.one_per_unit(values.reset_index(drop=True), unit.reset_index(drop=True), by, _ADVICE)
    return _names.names(found, f"adata.obs[{by!r}]")


def _slopes(found: SampleRows) -> np.ndarray:
    """Mean over samples of how much the age changes with what is read of each gene, (n_genes,), in absolute terms."""
    rows = np.unique(np.linspace(0, len(found.values) - 1, _N_SLOPES).astype(int))
    x = torch.from_numpy(found.values[rows]).to(found.rows.device).requires_grad_()
    with torch.enable_grad():
        slope = torch.autograd.grad(found.rows.ages(x, rows).sum(), x)[0]
    return slope.abs().mean(dim=0).cpu().numpy().astype(np.float64)
