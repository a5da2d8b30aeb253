"""What the simulator plants: genes, samples and cells with known properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from agevi import _checks
from agevi.datasets import _parameters

EFFECT_YEARS = 20.0  # effects are log fold changes over this many years
SD_LOG_BASELINE = 1.2  # spread of log baseline means over genes
CELL_TYPE_SHARE, CELL_TYPE_SD = 0.15, 0.8  # share of genes that mark a cell type, sd of their log fold change
BATCH_SHARE = 0.3  # share of genes that a batch shifts
SEX_SHARE, SEX_SD = 0.02, 0.3
MODULE_SHARE, MODULE_LOADING = 0.1, (0.2, 0.6)  # share of genes in one module, size of their loadings
SUBJECT_SHARE = 0.5  # share of a module's variance that lies between subjects
VISIT_GAP = (1.0, 5.0)  # years between two visits


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Checked parameters of :func:`agevi.datasets.simulate_cohort`."""

    n_subjects: int
    n_cells: int | Sequence[int]
    n_genes: int
    n_age_genes: int
    effect_range: tuple[float, float]
    age_range: tuple[float, float]
    n_cell_types: int
    composition_shift: float
    composition_sd: float
    ageing_rates: Sequence[float] | None
    n_modules: int
    subject_sd: float
    n_batches: int
    batch_sd: float
    batch_age_correlation: float
    case_fraction: float
    acceleration: float
    missing_age: float
    n_visits: int
    library_size: float
    library_sd: float
    dispersion: float
    dropout: float

    def __post_init__(self) -> None:
        count, number = _checks.count, _parameters.number
        count(self.n_subjects, "n_subjects", low=2)
        count(self.n_genes, "n_genes", low=2)
        count(self.n_age_genes, "n_age_genes", low=0, high=self.n_genes)
        count(self.n_cell_types, "n_cell_types")
        count(self.n_modules, "n_modules", low=0, high=self.n_genes)
        count(self.n_visits, "n_visits")
        count(self.n_batches, "n_batches", high=self.n_subjects * self.n_visits)
        _parameters.interval(self.age_range, "age_range")
        if _parameters.interval(self.effect_range, "effect_range")[0] < 0:
            raise ValueError(
                f"effect_range={self.effect_range!r} starts below 0; pass sizes, signs are drawn at random."
            )
        number(self.composition_shift, "composition_shift", low=-10, high=10)
        number(self.composition_sd, "composition_sd", high=10)
        rates_of_types(self.ageing_rates, self.n_cell_types)
        number(self.subject_sd, "subject_sd")
        number(self.batch_sd, "batch_sd")
        number(self.batch_age_correlation, "batch_age_correlation", low=-0.85, high=0.85)
        number(self.case_fraction, "case_fraction", high=1)
        number(self.acceleration, "acceleration", low=-1000)
        number(self.missing_age, "missing_age", high=1)
        number(self.library_size, "library_size", open_low=True)
        number(self.library_sd, "library_sd")
        number(self.dispersion, "dispersion")
        number(self.dropout, "dropout", high=0.99)
        cells_per_subject(self.n_cells, self.n_subjects)

    @property
    def reference_age(self) -> float:
        """Age at which age effects are zero, years."""
        return (self.age_range[0] + self.age_range[1]) / 2

    @property
    def cell_types(self) -> np.ndarray:
        """Names of the cell types."""
        return np.array([f"type{i}" for i in range(self.n_cell_types)], dtype=object)


@dataclass(frozen=True)
class Genes:
    """Planted properties of genes: a table, and log fold changes (n_genes, n_cell_types) and (n_genes, n_batches)."""

    table: pd.DataFrame
    cell_type_effect: np.ndarray
    batch_effect: np.ndarray


def cells_per_subject(n_cells: int | Sequence[int], n_subjects: int) -> np.ndarray:
    """Cells of every subject's visit, shape (n_subjects,)."""
    if not isinstance(n_cells, Sequence | np.ndarray) or np.ndim(n_cells) == 0:
        return np.full(n_subjects, _checks.count(n_cells, "n_cells"))
    if len(n_cells) != n_subjects:
        raise ValueError(
            f"n_cells has {len(n_cells)} numbers for {n_subjects} subjects; pass one number, or one per subject."
        )
    return np.array([_checks.count(n, f"n_cells[{i}]") for i, n in enumerate(n_cells)])


def rates_of_types(ageing_rates: Sequence[float] | None, n_cell_types: int) -> np.ndarray:
    """Factor of the age effects in every cell type, shape (n_cell_types,)."""
    if ageing_rates is None:
        return np.ones(n_cell_types)
    if np.ndim(ageing_rates) != 1:
        raise TypeError(f"ageing_rates={ageing_rates!r} is not a list of numbers; pass one number per cell type.")
    if len(ageing_rates) != n_cell_types:
        raise ValueError(
            f"ageing_rates has {len(ageing_rates)} numbers for {n_cell_types} cell types; pass one number per cell "
            "type."
        )
    return np.array([_parameters.number(r, f"ageing_rates[{i}]", low=-10, high=10) for i, r in enumerate(ageing_rates)])


def draw_genes(settings: Settings, rng: np.random.Generator) -> Genes:
    """Baselines, age effects, modules, sex, cell type and batch effects of genes."""
    n = settings.n_genes
    baseline = rng.lognormal(0, SD_LOG_BASELINE, n)
    baseline *= settings.library_size / baseline.sum()
    table = pd.DataFrame({"baseline_mean": baseline}, index=[f"gene{i:0{len(str(n - 1))}d}" for i in range(n)])
    _plant_age(table, settings, rng)
    _plant_modules(table, settings.n_modules, rng)
    table["sex_effect"] = np.where(rng.random(n) < SEX_SHARE, rng.normal(0, SEX_SD, n), 0.0)
    shape = (n, settings.n_cell_types)
    marker = rng.random(shape) < (CELL_TYPE_SHARE if settings.n_cell_types > 1 else 0.0)
    cell_type_effect = np.where(marker, rng.normal(0, CELL_TYPE_SD, shape), 0.0)
    shape = (n, settings.n_batches)
    shifted = rng.random(shape) < (BATCH_SHARE if settings.n_batches > 1 else 0.0)
    batch_effect = np.where(shifted, rng.normal(0, 1, shape) * settings.batch_sd, 0.0)
    return Genes(table, cell_type_effect.astype(np.float32), batch_effect.astype(np.float32))


def _plant_age(table: pd.DataFrame, settings: Settings, rng: np.random.Generator) -> None:
    """Write kind, effect and effect_cell_type, on genes of the upper half of the baselines where these suffice."""
    n, n_age = settings.n_genes, settings.n_age_genes
    candidates = np.argsort(-table["baseline_mean"].to_numpy())[: max(n_age, n // 2)]
    chosen = rng.choice(candidates, n_age, replace=False)
    kinds = ["linear", "saturating"]
    if settings.n_cell_types > 1 and settings.ageing_rates is None:
        kinds.append("cell_type")
    kind, effect, cell_type = np.full(n, "none", object), np.zeros(n), np.full(n, "", object)
    kind[chosen] = np.resize(np.array(kinds, object), n_age)
    effect[chosen] = rng.choice([-1, 1], n_age) * rng.uniform(*settings.effect_range, n_age)
    specific = np.flatnonzero(kind == "cell_type")
    cell_type[specific] = rng.choice(settings.cell_types, len(specific))
    table["kind"], table["effect"], table["effect_cell_type"] = pd.Categorical(kind), effect, pd.Categorical(cell_type)


def _plant_modules(table: pd.DataFrame, n_modules: int, rng: np.random.Generator) -> None:
    """Write module and loading; a gene is in one module at most."""
    n = len(table)
    name, loading = np.full(n, "", object), np.zeros(n)
    if n_modules:
        size = max(1, int(n * min(MODULE_SHARE, 1 / n_modules)))
        members = rng.permutation(n)[: size * n_modules].reshape(n_modules, size)
        for k, genes in enumerate(members):
            name[genes] = f"module{k}"
            loading[genes] = rng.choice([-1, 1], size) * rng.uniform(*MODULE_LOADING, size)
    table["module"], table["loading"] = pd.Categorical(name), loading


def draw_samples(settings: Settings, rng: np.random.Generator) -> pd.DataFrame:
    """One row per visit: subject, ages, sex, condition, batch, number of cells."""
    n, visits = settings.n_subjects, settings.n_visits
    first = rng.uniform(*settings.age_range, n)
    gaps = rng.uniform(*VISIT_GAP, (n, visits - 1))
    age = np.column_stack([first, first[:, None] + np.cumsum(gaps, axis=1)]).ravel()
    case = _some(n, settings.case_fraction, rng)
    subject = np.repeat(np.arange(n), visits)
    digits = len(str(n - 1))
    names = [f"d{i:0{digits}d}" for i in subject]
    samples = pd.DataFrame(
        {
            "subject": names,
            "true_age": age,
            "age": np.where(_some(n, settings.missing_age, rng)[subject], np.nan, age),
            "biological_age": age + settings.acceleration * case[subject],
            "sex": rng.choice(["female", "male"], n)[subject],
            "condition": np.where(case, "case", "control")[subject],
            "batch": _batches(age, settings.n_batches, settings.batch_age_correlation, rng),
            "n_cells": cells_per_subject(settings.n_cells, n)[subject],
        }
    )
    visit = np.tile(np.arange(visits), n)
    samples.index = pd.Index([f"{s}_v{v + 1}" for s, v in zip(names, visit, strict=True)] if visits > 1 else names)
    return samples


def _some(n: int, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Mask (n,) of ``round(n * fraction)`` random places."""
    mask = np.zeros(n, dtype=bool)
    mask[rng.permutation(n)[: round(n * fraction)]] = True
    return mask


def _batches(age: np.ndarray, n_batches: int, correlation: float, rng: np.random.Generator) -> np.ndarray:
    """Batch number (n_samples,) in batches of equal size, correlated with age as near to ``correlation`` as can be."""
    rank = np.argsort(np.argsort(age)) / len(age)
    noise = rng.permutation(len(age)) / len(age)
    if n_batches == 1:
        return np.zeros(len(age), dtype=np.int64)
    best, distance = np.zeros(len(age), dtype=np.int64), np.inf
    for weight in np.linspace(-1, 1, 401):
        order = np.argsort(np.argsort(weight * rank + (1 - abs(weight)) * noise))
        batch = order * n_batches // len(age)
        found = abs(np.corrcoef(batch, age)[0, 1] - correlation)
        if found < distance:
            best, distance = batch, found
    return best


def age_curves(age: float | np.ndarray, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Linear and saturating response to age, both 0 at the reference age."""
    # The linear one rises by 1 in any 20 years, the saturating one in the first 20 after the youngest age.
    start, reference = settings.age_range[0], settings.reference_age

    def rise(a: float | np.ndarray) -> np.ndarray:
        return -np.expm1(-(np.asarray(a) - start) / EFFECT_YEARS) / -np.expm1(-1)

    return (np.asarray(age) - reference) / EFFECT_YEARS, rise(age) - rise(reference)


@dataclass(frozen=True)
class Composition:
    """Share of each cell type (n_samples, n_cell_types), with the log weights and slopes (n_cell_types,) behind it."""

    share: np.ndarray
    log_weight: np.ndarray
    slope: np.ndarray


def draw_composition(settings: Settings, samples: pd.DataFrame, rng: np.random.Generator) -> Composition:
    """Composition of every sample by its biological age, and by its subject."""
    log_weight = np.log(0.6) * np.arange(settings.n_cell_types)
    slope = np.linspace(-1, 1, settings.n_cell_types) * settings.composition_shift
    if settings.n_cell_types == 1:
        slope[:] = 0
    logit = log_weight + age_curves(samples["biological_age"].to_numpy(), settings)[0][:, None] * slope
    of_subject = settings.composition_sd * rng.standard_normal((settings.n_subjects, settings.n_cell_types))
    logit += np.repeat(of_subject, settings.n_visits, axis=0)
    share = np.exp(logit - logit.max(axis=1, keepdims=True))
    return Composition(share / share.sum(axis=1, keepdims=True), log_weight, slope)


@dataclass(frozen=True)
class Cells:
    """Planted properties of cells, each (n_cells,) but for the activity (n_cells, n_modules)."""

    sample: np.ndarray
    cell_type: np.ndarray
    size_factor: np.ndarray
    activity: np.ndarray


def draw_cells(settings: Settings, samples: pd.DataFrame, share: np.ndarray, rng: np.random.Generator) -> Cells:
    """Cell types by their share in the sample, size factors of mean 1, module activities of variance 1."""
    sample = np.repeat(np.arange(len(samples)), samples["n_cells"])
    n, sd = len(sample), settings.library_sd
    bounds = share.cumsum(axis=1)[:, :-1]
    cell_type = (rng.random(n)[:, None] > bounds[sample]).sum(axis=1)
    size_factor = np.exp(rng.normal(-(sd**2) / 2, sd, n)).astype(np.float32)
    of_subject = rng.standard_normal((settings.n_subjects, settings.n_modules), dtype=np.float32)
    of_cell = rng.standard_normal((n, settings.n_modules), dtype=np.float32)
    activity = np.sqrt(SUBJECT_SHARE) * of_subject[sample // settings.n_visits] + np.sqrt(1 - SUBJECT_SHARE) * of_cell
    return Cells(sample, cell_type, size_factor, activity.astype(np.float32))
