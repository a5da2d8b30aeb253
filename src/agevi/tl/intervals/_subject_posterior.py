"""The posterior of each sample's age given what clocks predicted for it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _ages, _checks, _keys, _subjects
from agevi._docs import shared
from agevi._names import ALL_TYPES
from agevi._threads import n_threads, threads
from agevi.metrics._regression import check_level
from agevi.model.base._seed import as_seed
from agevi.tl._store import store_table
from agevi.tl.intervals._posterior_age import AgePrior, Prior, age_densities, check_prior, make_prior, summarise
from agevi.tl.intervals._posterior_fit import METHODS, Fitted, fit
from agevi.tl.intervals._posterior_model import Data, Draws
from agevi.tl.predict._judged import types_key

logger = logging.getLogger(__name__)

NOUN = "posterior"
MIN_LABELLED = 10
"""Labelled samples below which nothing is fitted."""
_FEW_LABELLED = 30
"""Labelled samples below which intervals of 90 % hold .85 to .88 of ages."""
_LEAST_T = 2.0
_EXACT = 1e-9
"""Scatter, on the standardised scale, that is rounding and no error of a clock."""
COLUMNS = ["sample", "type", "subject", "age", "predicted", "n_cells", "mean", "sd", "lower", "upper", "prior"]


@shared
def subject_posterior(
    adata: AnnData,
    *,
    cell_type_key: str | None = None,
    prior: Prior = "cohort",
    method: Literal["laplace", "svi", "nuts"] = "laplace",
    level: float = 0.9,
    rng: int | np.random.Generator | None = 0,
    key_added: str = _keys.DEFAULT_KEY,
    copy: bool = False,
) -> AnnData | None:
    """Posterior of the age of every sample given its predicted ages, in the unit of age: mean, deviation and interval.

    A model of predictions given ages is fitted to the held-out samples with an age and turned round by Bayes' rule, for
    samples with and without an age. Predictions of several types of cells are combined by their information: errors
    that types share count once, and a type with few cells counts less. With the default prior the mean is shrunk
    towards the ages of the cohort as predictions are. The interval holds for samples like the labelled ones, not for
    another cohort, and is one of age, not of health.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.aggregate_subjects` or, with ``cell_type_key``, after
        ``agevi.tl.cross_validate(groupby=...)``.
    cell_type_key
        The column of ``adata.obs`` with the type of each cell, as in ``groupby`` of that call: one prediction per
        sample and type, of the type's own clock. Types may be missing in samples. Default: one prediction per sample.
    prior
        What is known of an age before cells are seen. ``"cohort"``: the kernel density of the labelled ages, of all
        subjects but the sample's own. ``"flat"``: uniform over the labelled ages and a quarter of their span beyond
        each end; it undoes the shrinkage, and errors grow. Or your own: an array (n, 2) with rising ages and their
        density, joined by lines and 0 outside, or a function of an array of ages.
    method
        How the shared parameters are fitted: ``"laplace"`` (normal approximation at the mode, below a second),
        ``"svi"`` (variational, multivariate normal) or ``"nuts"`` (two chains of the No-U-Turn sampler, minutes). They
        agree.
    level
        Probability that the interval holds; its ends are quantiles.
    rng
        Seed or generator of the draws of the parameters.
    %(key_read)s
    %(copy)s

    Returns
    -------
    None, or the copy. Sets:

    ``adata.uns[f"{key_added}_posterior"]``
        DataFrame with the columns ``sample``, ``type`` (``"all"``: all cells or all types together; with
        ``cell_type_key`` also each type alone), ``subject``, ``age`` (NaN where unknown), ``predicted``, ``n_cells``
        (int64), ``mean``, ``sd``, ``lower`` and ``upper`` (float64, the unit of age) and ``prior``. Samples of role
        train or validation, and those without a prediction, are not in it. :func:`agevi.get.posterior_df` returns it.
    ``adata.uns[f"{key_added}_posterior_params"]``
        The arguments, ``n`` (labelled samples), ``n_left_out``, ``age_unit``, ``age_transform``, ``slope_t`` (t of the
        slope of predictions on age, by type), ``parameters`` (a DataFrame of posterior means and deviations on the
        standardised scale, with ``r_hat`` for ``"nuts"``), ``grid`` and ``prior_density``; for ``"svi"`` ``elbo_tail``,
        for ``"nuts"`` ``n_divergences``.

    Raises
    ------
    KeyError
        The table of subjects or types is absent.
    TypeError
        ``prior`` is of another kind.
    ValueError
        Fewer than 10 held-out samples have an age, all have one age, or an argument is out of range.

    Notes
    -----
    The formulas and what they leave out are on the page "The posterior of an age". The prior of the degrees of freedom
    is that of Juarez & Steel (2010). Samples of one subject count as if they were of several.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=60, n_cells=20, n_genes=60)
    >>> agevi.tl.cross_validate(adata, agevi.model.PLSClock, age_key="age", subject_key="donor")
    >>> agevi.tl.aggregate_subjects(adata)
    >>> agevi.tl.subject_posterior(adata)
    >>> table = agevi.get.posterior_df(adata)
    >>> bool(((table["lower"] <= table["age"]) & (table["age"] <= table["upper"])).mean() > 0.8)
    True
    """
    _checks.anndata(adata)
    _checks.choice(method, METHODS, "method")
    check_prior(prior)
    check_level(level)
    seed = as_seed(rng)
    keys = _keys.Keys(key_added)
    record = adata.uns.get(keys.uns, {})
    samples = whole(adata, keys) if cell_type_key is None else by_type(adata, keys, cell_type_key)
    samples = with_enough(samples, keys)
    scale = _Scale.of(samples, _ages.AgeTransform.of(record))
    known = samples.table[samples.labelled]
    density = make_prior(prior, known["age"].to_numpy(), known["subject"].to_numpy(), scale.transform.min_age)
    slope_t = _slope_t(samples, scale)
    _announce(samples, slope_t)
    data = Data.of(scale.ages(samples.predicted), samples.n_cells / samples.usual_cells)
    fitted = fit(data[samples.labelled], torch.from_numpy(scale.ages(known["age"])), method, seed)
    table = _table(samples, data, fitted.draws, density, scale, level)
    params = {
        "cell_type_key": cell_type_key,
        "prior": density.name,
        "method": method,
        "level": level,
        "rng": rng,
        "n": len(known),
        "n_left_out": samples.n_left_out,
        "age_unit": str(record.get("age_unit", "years")),
        "age_transform": scale.transform.name,
        "slope_t": slope_t,
        "parameters": _parameters(fitted, samples.types),
        "grid": density.grid,
        "prior_density": np.exp(density.log_density - density.log_density.max()),
        **{name: value for name, value in fitted.diagnostics.items() if name != "r_hat"},
    }
    return store_table(adata, keys, NOUN, table, params, copy=copy)


@dataclass(frozen=True)
class Samples:
    """Predictions by sample and type; rows are samples that did not shape their clocks."""

    table: pd.DataFrame  # index sample: subject, age, predicted (of all types together), n_cells
    types: list[str]  # one, "all", where types are not told apart
    predicted: np.ndarray  # n x T, NaN where missing
    n_cells: np.ndarray  # n x T
    n_left_out: int  # samples whose ages shaped the clock, or whose role is not known

    @property
    def labelled(self) -> np.ndarray:
        """Which samples have an age, (n,)."""
        return self.table["age"].notna().to_numpy()

    @property
    def usual_cells(self) -> np.ndarray:
        """Median number of cells of the labelled samples that have the type, (T,)."""
        there = ~np.isnan(self.predicted) & self.labelled[:, None]
        return np.array([np.median(n[ok]) for n, ok in zip(self.n_cells.T, there.T, strict=True)])


def whole(adata: AnnData, keys: _keys.Keys) -> Samples:
    """One prediction of every sample."""
    table = _subjects.subject_table(adata, keys)
    held_out = table["role"].isin(_keys.HELD_OUT_ROLES).to_numpy()
    predicted = table["predicted"].notna().to_numpy()
    kept = table.loc[held_out & predicted, ["subject", "age", "predicted", "n_cells"]]
    values = kept["predicted"].to_numpy(dtype=np.float64)[:, None]
    return Samples(kept, [ALL_TYPES], values, kept["n_cells"].to_numpy()[:, None], int((predicted & ~held_out).sum()))


def by_type(adata: AnnData, keys: _keys.Keys, cell_type_key: str) -> Samples:
    """Predictions of every sample by the clocks of the types."""
    call = f"agevi.tl.cross_validate(adata, model_cls, groupby={cell_type_key!r}, key_added={keys.key_added!r}, ...)"
    long = _checks.slot(adata, keys.by_group, "uns", call)
    _subjects.check_cells(adata, keys, long["sample"], keys.by_group)
    groupby = types_key(adata, keys)
    if groupby != cell_type_key:
        raise ValueError(
            f"cell_type_key={cell_type_key!r} is not the column by whose types the clocks of adata.uns[{keys.uns!r}] "
            f"were fitted, {groupby!r}; pass that, or run {call} first."
        )
    long = long[long["predicted"].notna()]
    if ALL_TYPES in set(long["group"]):
        raise ValueError(
            f"adata.obs[{cell_type_key!r}] has a type {ALL_TYPES!r}, which names all types together; rename it."
        )
    wide = long.pivot(index="sample", columns="group", values="predicted")
    of_sample = long.groupby("sample")
    table = of_sample[["subject", "age"]].first().assign(predicted=of_sample["combined"].first())
    cells = long.pivot(index="sample", columns="group", values="n_cells").fillna(0)
    table["n_cells"] = cells.sum(axis=1).astype(np.int64)
    return Samples(table, [str(t) for t in wide], wide.to_numpy(dtype=np.float64), cells.to_numpy(), 0)


def with_enough(samples: Samples, keys: _keys.Keys) -> Samples:
    """Samples of the types that have labelled samples enough; refuses too few of them, and one age for all."""
    infinite = np.isinf(samples.predicted).any(1)
    if infinite.any():
        raise ValueError(
            f"{infinite.sum()} samples under key_added={keys.key_added!r} have an infinite prediction (first: "
            f"{samples.table.index[infinite.argmax()]!r}); set those to NaN or leave them out."
        )
    n = int(samples.labelled.sum())
    if n < MIN_LABELLED:
        more = (
            f" {samples.n_left_out} more are of role train or validation, or of none, and their predictions are too "
            "good to learn from."
            if samples.n_left_out
            else ""
        )
        raise ValueError(
            f"only {n} held-out samples have an age and a prediction under key_added={keys.key_added!r}; a posterior "
            f"needs {MIN_LABELLED} or more.{more} Predict all subjects out of fold with agevi.tl.cross_validate(adata, "
            "model_cls, ...)."
        )
    ages = samples.table["age"].dropna()
    if ages.nunique() < 2:
        raise ValueError(
            f"all {n} held-out samples with an age have the same, {ages.iloc[0]:g}; a posterior needs samples of "
            "different ages."
        )
    count = (~np.isnan(samples.predicted[samples.labelled])).sum(0)
    enough = count >= MIN_LABELLED
    if enough.all():
        return samples
    few = [f"{t} ({c})" for t, c, ok in zip(samples.types, count, enough, strict=True) if not ok]
    if not enough.any():
        raise ValueError(
            f"no type has {MIN_LABELLED} samples with an age and a prediction: {_checks.listed(few)}; leave "
            "cell_type_key out, or lower min_cells of agevi.tl.cross_validate."
        )
    out = "Types with fewer than %d labelled samples are left out of the posterior: %s."
    logger.warning(out, MIN_LABELLED, _checks.listed(few))
    kept = (~np.isnan(samples.predicted[:, enough])).any(1)
    types = [name for name, ok in zip(samples.types, enough, strict=True) if ok]
    predicted, n_cells = samples.predicted[kept][:, enough], samples.n_cells[kept][:, enough]
    return Samples(samples.table[kept], types, predicted, n_cells, samples.n_left_out)


@dataclass(frozen=True)
class _Scale:
    """The clock's scale of ages, standardised by the labelled ages."""

    transform: _ages.AgeTransform
    centre: float
    unit: float

    @classmethod
    def of(cls, samples: Samples, transform: _ages.AgeTransform) -> _Scale:
        """Mean and deviation of the labelled ages on the scale."""
        ages = transform.forward(samples.table["age"].dropna().to_numpy(dtype=np.float64))
        return cls(transform, float(ages.mean()), float(ages.std()))

    def ages(self, age: Any) -> np.ndarray:
        """Ages on the standardised scale."""
        return (self.transform.forward(np.asarray(age, dtype=np.float64)) - self.centre) / self.unit


def _slope_t(samples: Samples, scale: _Scale) -> np.ndarray:
    """The t of the least-squares slope of predictions on age by type, (T,); refuses predictions without scatter."""
    age, predicted = scale.ages(samples.table["age"][samples.labelled]), scale.ages(samples.predicted[samples.labelled])
    out = []
    for name, values in zip(samples.types, predicted.T, strict=True):
        there = ~np.isnan(values)
        x, y = age[there] - age[there].mean(), values[there] - values[there].mean()
        slope = (x @ y) / max(x @ x, _EXACT)
        spread = np.sqrt(((y - slope * x) ** 2).sum() / (len(x) - 2))
        if spread < _EXACT:
            raise ValueError(
                f"the predictions of {len(x)} labelled samples (type {name!r}) lie on a line over age without any "
                "error; they are constant, or were made from the ages. A posterior needs predictions of a clock."
            )
        out.append(slope * np.sqrt(x @ x) / spread)
    return np.asarray(out)


def _announce(samples: Samples, slope_t: np.ndarray) -> None:
    """One line where the posterior is little more than the prior, or rests on few samples."""
    n = int(samples.labelled.sum())
    if n < _FEW_LABELLED:
        logger.warning(
            "The posterior is fitted to %d labelled samples; below %d its intervals of 90 %% hold 85 to 88 %% of ages.",
            n, _FEW_LABELLED,
        )  # fmt: skip
    if not (slope_t >= _LEAST_T).any():
        logger.warning(
            "Predictions do not rise with age in the %d labelled samples (t of the slope %s, below %g): the posterior "
            "says little more than its prior.",
            n, f"{slope_t.max():.1f}" + " in the best type" * (len(slope_t) > 1), _LEAST_T,
        )  # fmt: skip


def _table(samples: Samples, data: Data, draws: Draws, prior: AgePrior, scale: _Scale, level: float) -> pd.DataFrame:
    """One row for each sample, and for each sample and type where types are told apart."""
    log_prior, grid = prior.for_subjects(samples.table["subject"].to_numpy()), scale.ages(prior.grid)
    several = len(samples.types) > 1 or samples.types != [ALL_TYPES]
    views = [(ALL_TYPES, data, draws, samples.table["predicted"].to_numpy(), samples.table["n_cells"].to_numpy())]
    if several:
        views += [
            (name, data.of_type(t), draws.of_type(t), samples.predicted[:, t], samples.n_cells[:, t])
            for t, name in enumerate(samples.types)
        ]
    parts = []
    with threads(n_threads(float(len(draws.df) * len(log_prior) * len(grid)))):
        for name, predictions, parameters, predicted, n_cells in views:
            there = np.flatnonzero(~np.isnan(predicted))
            density = age_densities(predictions[there], parameters, grid, log_prior[there])
            rows = samples.table.iloc[there][["subject", "age"]].astype({"subject": object, "age": np.float64})
            own = {"predicted": predicted[there].astype(np.float64), "n_cells": n_cells[there].astype(np.int64)}
            rows = rows.rename_axis("sample").reset_index().astype({"sample": object})
            parts.append(rows.assign(type=name, **own, **summarise(density, prior.grid, level), prior=prior.name))
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def _parameters(fitted: Fitted, types: list[str]) -> pd.DataFrame:
    """Posterior mean and deviation of every parameter, and its r-hat where there are chains."""
    labels = {"shares": ["sample", "type", "cells"], "df": [""]}
    rows = []
    for name, values in vars(fitted.draws).items():
        columns = values.reshape(len(values), -1).numpy()
        r_hat = np.ravel(fitted.diagnostics.get("r_hat", {}).get(name, np.full(columns.shape[1], np.nan)))
        for i, label in enumerate(labels.get(name, types)):
            column = columns[:, i]
            rows.append((name, label, column.mean(), column.std(ddof=1), float(r_hat[i])))
    return pd.DataFrame(rows, columns=["parameter", "of", "mean", "sd", "r_hat"])
