"""How well columns that describe samples predict age, without a look at any gene."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy.sparse as sp

from agevi import _names
from agevi.pp._parse_age import read_age

N_FOLDS = 5
_RIDGE = 1.0  # a level seen in one sample is believed half
_N_BINS = 5
_MAX_CODES = 10  # whole numbers with fewer values are labels
_MAX_SHARES = 100
_PERMUTATIONS_AT_ONCE = 100
_ENOUGH = 30


@dataclass(frozen=True)
class Samples:
    """The labelled samples and their folds."""

    age: np.ndarray  # (n,)
    subject: np.ndarray  # (n,) position of the subject
    fold: np.ndarray  # (n,) fold of the subject


def make_samples(age: np.ndarray, subject: np.ndarray, rng: np.random.Generator) -> Samples:
    """Samples with random folds of whole subjects, drawn regardless of age, so that ages (n,) can be permuted."""
    folds = rng.permutation(np.arange(subject.max() + 1) % N_FOLDS)
    return Samples(age, subject, folds[subject])


@dataclass(frozen=True)
class AgeError:
    """How well a column alone predicts age in subjects that were held out."""

    mae: float
    mae_median: float
    p: float


@dataclass(frozen=True)
class Feature:
    """A column as numbers per sample."""

    values: np.ndarray  # (n, n_features)
    is_design: bool  # one value per sample: batch, cohort, sex; False for shares of cells
    order: np.ndarray | None  # (n,) the numbers themselves where they have an order
    reads_as_age: bool = False  # they were text with a unit, a bin or a bound: "41 years", "60-69", ">89"


def features(columns: pd.DataFrame, sample: np.ndarray, names: Iterable[str], n: int) -> Iterator[tuple[str, Feature]]:
    """What every column says of the ``n`` samples (by cell in ``sample``, -1: none), but for names and constants."""
    used = sample >= 0
    for name in names:
        values = columns[name][used]
        numbers, reads_as_age = _as_numbers(values)
        feature = None if numbers is None else _numeric(numbers, sample[used], n)
        if numbers is None or (numbers is not values and not (feature and feature.is_design)):  # not such as barcodes
            feature, reads_as_age = _labels(values, sample[used], n), False
        if feature is not None:
            yield name, replace(feature, reads_as_age=reads_as_age)


def _as_numbers(values: pd.Series) -> tuple[pd.Series | None, bool]:
    """A column that measures something as numbers, None for labels; and whether it was text that reads as ages."""
    if _is_number(values):
        return values, False
    if values.dtype.kind in "mM":
        return (values - values.min()) / pd.Timedelta(days=1), False
    codes, levels = pd.factorize(_names.names(values), use_na_sentinel=True)
    read = [read_age(level, "midpoint", "years") for level in levels]
    is_bare = all(str(level).strip().lstrip("+-").replace(".", "", 1).isdigit() for level in levels)
    if not read or any(kind == "unreadable" for _, kind in read) or (is_bare and len(levels) <= _MAX_CODES):
        return None, False
    ages = np.array([*(age for age, _ in read), np.nan])
    return pd.Series(ages[codes], values.index), not is_bare


def _is_number(values: pd.Series) -> bool:
    """Whether a column measures something, other than codes of a few batches."""
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return False
    known = values.dropna()
    return not (known.nunique() <= _MAX_CODES and (known % 1 == 0).all())


def _numeric(values: pd.Series, sample: np.ndarray, n: int) -> Feature | None:
    """Mean of the sample's cells: standardised, and in five bins."""
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    known = np.isfinite(numbers)
    size = np.bincount(sample[known], minlength=n)
    mean = np.bincount(sample[known], weights=numbers[known], minlength=n) / np.maximum(size, 1)
    there = size > 0
    if not there.any() or np.ptp(mean[there]) == 0:
        return None
    scaled = np.where(there, (mean - mean[there].mean()) / mean[there].std(), 0.0)
    edges = np.quantile(mean[there], np.linspace(0, 1, _N_BINS + 1)[1:-1])
    bins = np.where(there, np.searchsorted(edges, mean, side="right"), _N_BINS)
    one_hot = np.eye(_N_BINS + 1)[bins]
    lowest, highest = pd.Series(numbers).groupby(sample).agg(["min", "max"]).to_numpy().T
    constant = bool(np.nanmax(highest - lowest, initial=0.0) == 0)
    return Feature(np.column_stack([scaled, one_hot]), constant, np.where(there, mean, np.nan))


def _labels(values: pd.Series, sample: np.ndarray, n: int) -> Feature | None:
    """Share of every label among the sample's cells."""
    codes, levels = pd.factorize(_names.names(values).fillna(""), sort=True)
    counts = sp.csr_matrix((np.ones(len(codes)), (sample, codes)), shape=(n, len(levels)))
    counts.sum_duplicates()
    is_design = bool((np.diff(counts.indptr) <= 1).all())
    shared = np.bincount(counts.indices, minlength=len(levels)) > 1  # labels of one sample tell nothing of another
    too_many = len(levels) > _MAX_SHARES and not is_design
    if len(levels) < 2 or not shared.any() or too_many:
        return None
    total = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
    return Feature(counts[:, np.flatnonzero(shared)].toarray() / total[:, None], is_design, None)


def age_error(samples: Samples, values: np.ndarray, n_permutations: int, rng: np.random.Generator) -> AgeError:
    """Out-of-fold error of ridge regression of age on ``values`` (n, n_features) and of the median age, with p."""
    found, median = _errors(samples, values, samples.age[:, None])
    mean = np.bincount(samples.subject, weights=samples.age) / np.bincount(samples.subject)
    own = samples.age - mean[samples.subject]
    as_good = done = 0
    while done < n_permutations and as_good < _ENOUGH:  # stopping at a number of successes keeps the p-value valid
        n = min(_PERMUTATIONS_AT_ONCE, n_permutations - done)
        # Ages within a subject stay together.
        shuffled = np.stack([rng.permutation(mean)[samples.subject] + own for _ in range(n)], axis=1)
        as_good += int((_errors(samples, values, shuffled)[0] <= found[0] + 1e-9).sum())
        done += n
    return AgeError(float(found[0]), float(median[0]), (1 + as_good) / (1 + done))


def _errors(samples: Samples, values: np.ndarray, age: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean absolute error of the regression and of the median, for every column of ages (n, k): (k,) each."""
    error, plain = np.zeros(age.shape), np.zeros(age.shape)
    for fold in np.unique(samples.fold):
        test = samples.fold == fold
        f, y = values[~test], age[~test]
        centre = y.mean(axis=0)
        gram = f.T @ f + _RIDGE * np.eye(f.shape[1])
        slopes = np.linalg.solve(gram, f.T @ (y - centre))  # n_features x k
        shift = np.median(y - f @ slopes, axis=0)  # the absolute error is least around the median
        error[test] = age[test] - values[test] @ slopes - shift
        plain[test] = age[test] - np.median(y, axis=0)
    return np.abs(error).mean(axis=0), np.abs(plain).mean(axis=0)
