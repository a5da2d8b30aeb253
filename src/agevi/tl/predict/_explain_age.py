"""What each type of cells, and the composition, add to the predicted age of a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _names, _units
from agevi._docs import shared
from agevi._names import BASELINE
from agevi.dataloaders._query import begin
from agevi.metrics._bootstrap import interval
from agevi.metrics._regression import check_level
from agevi.model.base._clock import require_clock
from agevi.tl._store import store_table
from agevi.tl.predict._evaluate_by import OVERALL

QUANTITIES = ("mean", "size", "share", "slope")


@dataclass(frozen=True)
class _Parts:
    """Ages by type of some samples."""

    samples: np.ndarray  # names, (n_samples,)
    subjects: np.ndarray  # names, (n_samples,)
    types: list[str]
    ages: np.ndarray  # (n_samples, n_types) NaN without the type
    weights: np.ndarray  # (n_samples, n_types)
    n_cells: np.ndarray  # (n_samples, n_types)
    age: np.ndarray  # (n_samples,) NaN where unknown
    reference: np.ndarray  # (n_samples,) whether the sample counts for the means
    unit: str


@shared
def explain_age(
    adata: AnnData,
    model: Any = None,
    *,
    groupby: str | None = None,
    sample_key: str | None = None,
    level: float = 0.95,
    n_boot: int = 2000,
    key_added: str = _keys.DEFAULT_KEY,
    rng: int | np.random.Generator | None = 0,
    copy: bool = False,
) -> AnnData | None:
    r"""Years that each type of cells, and the shares of the types, add to the predicted age of every sample.

    A clock of types predicts a sample's age as a weighted sum of the ages of its types. With the weight :math:`w_{st}`
    and the age :math:`a_{st}` of type :math:`t` in sample :math:`s`, and the mean :math:`m_t` over training samples,
    the type adds :math:`w_{st} (a_{st} - m_t)`; the rest, :math:`\sum_t w_{st} m_t`, is the baseline, and the sum of
    all is the prediction. A type without signal gives every sample about the same age and adds about nothing. With
    ``composition=True`` the shares of the types are one part, beside the state of each. The parts explain what the
    clock says, not why people age: a type adds little too where another one that errs alike was preferred.

    Parameters
    ----------
    adata
        Cells with the genes and types of the clock; without ``model``, annotated data after
        :func:`agevi.tl.cross_validate` of a :class:`agevi.model.CellTypeClock` or with ``groupby=``.
    model
        A trained :class:`agevi.model.CellTypeClock`. Default: the held-out predictions under ``key_added``, where the
        means are those of all samples.
    groupby
        Column of ``adata.obs`` with one value per sample, such as the condition, whose groups are listed too.
    sample_key
        Column with the samples, with ``model``. Default: that of the clock.
    level
        Coverage of the intervals.
    n_boot
        Draws of subjects for the intervals.
    %(key_added)s
    rng
        Seed or generator.
    %(copy)s

    Returns
    -------
    None, or the copy. Sets:

    ``adata.uns[f"{key_added}_explanation"]``
        Two DataFrames. ``samples`` has one row per sample and part: ``sample``, ``subject``, ``part`` (a type,
        ``"composition"`` or ``"baseline"``), ``contribution`` (years, or the unit of the ages; over the parts of a
        sample they sum to its prediction), ``age`` (what the type alone says), ``weight`` and ``n_cells``. ``groups``
        has one row per group (``"overall"`` first) and part with ``n_samples``, ``n_subjects``, ``mean`` (mean
        contribution), ``size`` (mean absolute contribution), ``share`` (covariance of the contribution with the
        prediction, divided by the variance of the prediction: over all parts they sum to 1), ``slope`` (years that the
        contribution rises per year of age, NaN without ages: over all parts they sum to the slope of predicted on true
        age), and ``_low`` and ``_high`` of each, a percentile bootstrap interval over subjects. A part with a large
        ``size`` and no ``slope`` moves predictions for other reasons than age.
    ``adata.uns[f"{key_added}_explanation_params"]``
        Arguments, and the unit of the ages.

    Raises
    ------
    KeyError
        If a column is missing, or there is neither a ``model`` nor a table of types under ``key_added``.
    TypeError
        If ``model`` is a clock without types.
    ValueError
        If ``groupby`` differs within a sample, or a type or group has the name of a row of the tables.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(
    ...     n_subjects=30, n_cells=20, n_genes=50, n_cell_types=2, ageing_rates=[0, 1]
    ... )
    >>> agevi.model.CellTypeClock.setup_anndata(adata, age_key="age", subject_key="donor", cell_type_key="cell_type")
    >>> model = agevi.model.CellTypeClock(adata, min_cells=3)
    >>> model.train()
    >>> agevi.tl.explain_age(adata, model, n_boot=100)
    >>> agevi.get.explanation_df(adata)["part"].tolist()
    ['type0', 'type1', 'baseline']
    """
    keys, high = _keys.Keys(key_added), check_level(level)
    n_boot = _checks.count(n_boot, "n_boot")
    begin(_checks.anndata(adata))
    parts = _held_out(adata, keys) if model is None else _of_model(adata, model, sample_key)
    if BASELINE in parts.types:
        raise ValueError(f"a type of cells is called {BASELINE!r}, which names what no type adds; rename it and train.")
    groups = _groups(adata, parts, groupby, sample_key, model, keys)
    means = np.array([_mean(column, parts.reference) for column in parts.ages.T])
    there = np.isfinite(parts.ages)
    of_types = np.where(there, parts.weights * (parts.ages - means), 0.0)
    baseline = (np.where(there, parts.weights, 0.0) * means).sum(axis=1, where=there)
    values = np.column_stack([of_types, baseline])
    known = there.any(axis=1)
    generator = _checks.generator(rng)
    rows = [
        row
        for name, chosen in groups.items()
        for row in _summary(name, values, chosen & known, parts, n_boot, high, generator)
    ]
    tables = {"samples": _samples(parts, values, known), "groups": pd.DataFrame(rows)}
    params = {
        "groupby": groupby,
        "held_out": model is None,
        "level": level,
        "n_boot": n_boot,
        "rng": rng,
        "age_unit": parts.unit,
    }
    return store_table(adata, keys, "explanation", tables, params, copy=copy)


def _mean(ages: np.ndarray, reference: np.ndarray) -> float:
    """Mean age of a type over the reference samples that have it, else over all."""
    known = np.isfinite(ages)
    chosen = known & reference if (known & reference).any() else known
    return float(ages[chosen].mean()) if chosen.any() else 0.0


def _of_model(adata: AnnData, model: Any, sample_key: str | None) -> _Parts:
    """Ages by type from a clock."""
    require_clock(model)
    if not model.of_types:
        raise TypeError(
            f"model is a {type(model).__name__}, which has no clock per type of cells; train an "
            "agevi.model.CellTypeClock, or attribute the genes of this one with agevi.tl.attribute_genes."
        )
    model.check_trained("tl.explain_age")
    found = model.predict_parts(adata, sample_key=sample_key)
    first = np.unique(found.sample_of_cell, return_index=True)[1]
    key = model.setup_args["subject_key"]
    subject = found.samples
    if key in adata.obs:
        subject = _checks.labels(adata, key, "subject_key").to_numpy(dtype=object)[first]
    role = np.asarray([model.split_.get(name, _keys.NEW) for name in subject], dtype=object)
    weights = np.where(np.isfinite(found.ages), found.weights, 0.0)
    reference = role == _keys.TRAIN
    setup, age = model.setup_args, np.full(len(found.samples), np.nan)
    if setup["age_key"] in adata.obs:
        of_cell = _units.ages(adata, setup["age_key"], min_age=setup["min_age"], unit=setup["age_unit"])
        age = of_cell[first]
    return _Parts(
        found.samples, subject, found.columns, found.ages, weights, found.n_cells, age, reference, str(model.unit)
    )


def _held_out(adata: AnnData, keys: _keys.Keys) -> _Parts:
    """The same from the table that cross-validation by type left."""
    call = "agevi.tl.cross_validate(adata, agevi.model.CellTypeClock, ...)"
    table = _checks.slot(adata, keys.by_group, "uns", f"{call}, or pass a trained model,")
    wide = {
        name: table.pivot(index="sample", columns="group", values=name) for name in ("predicted", "weight", "n_cells")
    }
    index, types = wide["predicted"].index, [str(name) for name in wide["predicted"].columns]
    of_sample = table.drop_duplicates("sample").set_index("sample").loc[index]
    weights = np.nan_to_num(wide["weight"].to_numpy(dtype=np.float64))
    return _Parts(
        index.to_numpy(dtype=object),
        of_sample["subject"].to_numpy(dtype=object),
        types,
        wide["predicted"].to_numpy(dtype=np.float64),
        weights,
        wide["n_cells"].fillna(0).to_numpy(dtype=np.int64),
        of_sample["age"].to_numpy(dtype=np.float64),
        np.ones(len(index), dtype=bool),
        str(adata.uns[keys.uns]["age_unit"]),
    )


def _groups(
    adata: AnnData, parts: _Parts, groupby: str | None, sample_key: str | None, model: Any, keys: _keys.Keys
) -> dict[str, np.ndarray]:
    """Samples of all and of every group, (n_samples,) each."""
    out = {OVERALL: np.ones(len(parts.samples), dtype=bool)}
    if groupby is None:
        return out
    values = _checks.column(adata, groupby, "groupby")
    if model is None:
        sample_key = str(adata.uns[keys.uns]["sample_key"])
    else:
        sample_key = _units.sample_column(model.setup_args, sample_key)
    advice = "groupby takes a column with one value per sample."
    sample = _checks.labels(adata, str(sample_key), "sample_key")
    found = _units.one_per_unit(values, sample, groupby, advice).reindex(parts.samples)
    names = _names.names(found)
    levels = _names.levels(values)
    if OVERALL in levels:
        raise ValueError(f"adata.obs[{groupby!r}] has a group {OVERALL!r}, the name of all samples; rename it.")
    return out | {name: (names == name).to_numpy() for name in levels}


def _summary(
    group: str,
    values: np.ndarray,
    chosen: np.ndarray,
    parts: _Parts,
    n_boot: int,
    high: float,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """One row per part for the samples of one group, from sums over each subject's samples."""
    c = values[chosen]
    predicted = c.sum(axis=1)
    code, subjects = pd.factorize(parts.subjects[chosen])
    n = len(subjects)
    if not n:
        return []
    age = parts.age[chosen]
    aged = np.isfinite(age).astype(np.float64)
    age = np.where(aged > 0, age, 0.0)
    of_age = [aged, age, age**2, c * aged[:, None], c * age[:, None]]
    columns = np.column_stack([np.ones(len(c)), predicted, predicted**2, c, np.abs(c), c * predicted[:, None], *of_age])
    sums = np.zeros((n, columns.shape[1]))
    np.add.at(sums, code, columns)
    draws = rng.multinomial(n, np.full(n, 1 / n), size=n_boot).astype(np.float64)
    of_all = _quantities(sums.sum(axis=0)[None], c.shape[1])
    of_draws = _quantities(draws @ sums, c.shape[1])
    rows = []
    for i, part in enumerate([*parts.types, BASELINE]):
        row: dict[str, Any] = {"group": group, "part": part, "n_samples": len(c), "n_subjects": n}
        for name in QUANTITIES:
            row[name] = float(of_all[name][0, i])
            row[f"{name}_low"], row[f"{name}_high"] = interval(of_draws[name][:, i], high)
        rows.append(row)
    return rows


def _quantities(sums: np.ndarray, n_parts: int) -> dict[str, np.ndarray]:
    """Mean, mean absolute value, share of the variance and slope of every part, (n_draws, n_parts), from sums."""
    of_all, of_aged = sums[:, : 3 + 3 * n_parts], sums[:, 3 + 3 * n_parts :]
    means = of_all[:, 1:] / of_all[:, :1]
    mean, size, product = np.split(means[:, 2:], [n_parts, 2 * n_parts], axis=1)
    share = _slopes(means[:, :1], means[:, 1:2], mean, product)
    with np.errstate(divide="ignore", invalid="ignore"):
        aged = of_aged[:, 1:] / of_aged[:, :1]
    slope = _slopes(aged[:, :1], aged[:, 1:2], *np.split(aged[:, 2:], 2, axis=1))
    return {"mean": mean, "size": size, "share": share, "slope": slope}


def _slopes(x: np.ndarray, square: np.ndarray, y: np.ndarray, product: np.ndarray) -> np.ndarray:
    """Slopes of ``y`` on ``x`` from means of them, of the square of ``x`` and of products; NaN for constant ``x``."""
    variance = square - x**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 1e-9, (product - y * x) / variance, np.nan)


def _samples(parts: _Parts, values: np.ndarray, known: np.ndarray) -> pd.DataFrame:
    """One row per sample and part that it has."""
    names = [*parts.types, BASELINE]
    n = len(parts.samples)
    empty = np.full((n, 1), np.nan)
    there = np.column_stack([np.isfinite(parts.ages), np.ones(n, dtype=bool)]) & known[:, None]
    sample, part = np.nonzero(there)
    return pd.DataFrame(
        {
            "sample": parts.samples[sample],
            "subject": parts.subjects[sample],
            "part": np.asarray(names, dtype=object)[part],
            "contribution": values[sample, part],
            "age": np.column_stack([parts.ages, empty])[sample, part],
            "weight": np.column_stack([parts.weights, empty])[sample, part],
            "n_cells": np.column_stack([parts.n_cells, np.zeros((n, 1), dtype=np.int64)])[sample, part],
        }
    )
