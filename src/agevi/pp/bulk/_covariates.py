"""Batches and covariates of samples as numbers, and how far they can be told apart."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import contingency

from agevi import _checks, _names

_SHARED = 0.25  # of the variance of a number that lies between batches, above which a warning says so
_MANY = 0.2  # categories per training sample from which on whole numbers are hardly names
_ASSOCIATED = 0.5  # Cramer's V of a category and the batches, above which a warning says so


@dataclass(frozen=True)
class Covariate:
    """A column of ``adata.obs`` and what training samples hold in it."""

    key: str
    levels: list[str] | None  # its categories; None for numbers
    centre: list[float]  # mean over the training samples of each of its columns in the design

    def columns(self, adata: AnnData, rows: np.ndarray) -> np.ndarray:
        """The centred columns of some samples in the design, (n_rows, 1) for numbers, else one less than levels."""
        if self.levels is None:
            return _numbers(adata, self.key, rows)[:, None] - self.centre[0]
        values = _labels(adata, self.key, rows)
        code = pd.Index(_names.several(self.levels)).get_indexer(pd.Index(values))
        if (code < 0).any():
            unseen = sorted(set(values[code < 0]))
            raise ValueError(
                f"adata.obs[{self.key!r}] holds {_checks.listed(unseen)}, which no training sample has "
                f"({_checks.listed(self.levels)}); its effect is unknown. Leave those samples out, or fit without it."
            )
        return np.eye(len(self.levels))[code][:, 1:] - self.centre


def learn(adata: AnnData, key: str, rows: np.ndarray) -> Covariate:
    """What the training samples ``rows`` hold in a column."""
    values = _checks.column(adata, key, "covariates")
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return Covariate(key, None, [float(_numbers(adata, key, rows).mean())])
    labels = _labels(adata, key, rows)
    share = labels.value_counts(normalize=True).sort_index()
    _check_categories(key, values.dtype, share.index, len(labels))
    return Covariate(key, share.index.tolist(), share.to_list()[1:])


def _check_categories(key: str, dtype: object, levels: pd.Index, n: int) -> None:
    """Refuse fractions as categories, and say where a column of whole numbers has too many of them to be categories."""
    numbers = pd.to_numeric(pd.Series(levels, dtype=object), errors="coerce")
    if numbers.isna().any():
        return
    remedy = f"adata.obs[{key!r}] = adata.obs[{key!r}].astype(float)"
    if (numbers % 1 != 0).any():
        raise TypeError(
            f"adata.obs[{key!r}] holds numbers stored as {dtype} ({_checks.listed(levels)}), which would make a "
            f"category of every value; run {remedy}."
        )
    if len(levels) > _MANY * n:
        warnings.warn(
            f"adata.obs[{key!r}] holds whole numbers stored as {dtype}, and its {len(levels)} values in {n} training "
            f"samples are taken as categories; if they are amounts, run {remedy}.",
            UserWarning,
            stacklevel=_checks.stack_depth(),
        )


def _labels(adata: AnnData, key: str, rows: np.ndarray) -> pd.Series:
    """Some rows of a column of categories, as text."""
    column = _checks.column(adata, key, "covariates").iloc[rows]
    if column.isna().any():
        raise ValueError(_missing(key, int(column.isna().sum()), "value"))
    return _names.names(column, f"adata.obs[{key!r}]")


def _missing(key: str, n: int, what: str) -> str:
    return (
        f"adata.obs[{key!r}] is missing or infinite in {n:,} of the samples; a covariate needs a {what} in each. Fill "
        "it, or leave it out."
    )


def _numbers(adata: AnnData, key: str, rows: np.ndarray) -> np.ndarray:
    """Some rows of a column of numbers."""
    column = _checks.column(adata, key, "covariates").iloc[rows]
    if not pd.api.types.is_numeric_dtype(column):
        raise TypeError(f"adata.obs[{key!r}] holds {column.dtype} values, and the training samples had numbers there.")
    values: np.ndarray = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(values).all():
        raise ValueError(_missing(key, int((~np.isfinite(values)).sum()), "number"))
    return values


def check_batches(batch: pd.Series, key: str) -> None:
    """Refuse batches of training samples from which nothing can be learnt."""
    size = batch.value_counts()
    if len(size) == 1:
        raise ValueError(
            f"adata.obs[{key!r}] holds one value, {size.index[0]!r}, in the training samples, so there is no batch "
            "effect to remove; leave batch_key out."
        )
    if size.min() < 2:
        alone = sorted(size.index[size < 2])
        raise ValueError(
            f"{len(alone)} batches of adata.obs[{key!r}] have one training sample ({_checks.listed(alone)}), and a "
            "batch's spread needs two or more; merge them into similar batches, or leave them out."
        )


def check_identifiable(batch: np.ndarray, parts: dict[str, np.ndarray], batch_key: str) -> None:
    """Refuse a covariate whose effect cannot be told from that of the batches or of those before it."""
    design = np.eye(batch.max() + 1)[batch]
    for key, columns in parts.items():
        spread = columns.std(0)
        # The tolerance of the rank is relative to the largest column, so units must not decide it.
        scaled = columns / np.where(spread > 0, spread, 1)
        design = np.hstack([design, scaled])
        rank = np.linalg.matrix_rank(design)
        if rank < design.shape[1]:
            raise ValueError(
                f"adata.obs[{key!r}] cannot be told from adata.obs[{batch_key!r}] in the training samples: the design "
                f"of batches and covariates has {design.shape[1]} columns and rank {rank}. Every batch may have one "
                "value of it; then ComBat cannot keep its effect and remove that of the batch. Leave one of the two "
                "out."
            )


def warn_of_confounding(batch: np.ndarray, covariates: list[Covariate], adata: AnnData, rows: np.ndarray) -> None:
    """Say where batches and a covariate go together so far that removing one touches the other."""
    for covariate in covariates:
        if covariate.levels is None:
            shared = variance_between(batch, _numbers(adata, covariate.key, rows))
            words = f"batches explain {shared:.0%} of the variance of adata.obs[{covariate.key!r}]"
            bad = shared > _SHARED
        else:
            shared = cramers_v(batch, pd.factorize(adata.obs[covariate.key].iloc[rows])[0])
            words = f"batches and adata.obs[{covariate.key!r}] go together (Cramér's V {shared:.2f})"
            bad = shared > _ASSOCIATED
        if bad:
            warnings.warn(
                f"{words} in the training samples, so that ComBat can hardly tell one from the other and may remove "
                "part of both; compare the accuracy with that of batch_key=None.",
                UserWarning,
                stacklevel=4,
            )


def variance_between(group: np.ndarray, values: np.ndarray) -> float:
    """Share of the variance of ``values`` that lies between groups, adjusted for their number (epsilon squared)."""
    size = np.bincount(group)
    mean = np.bincount(group, weights=values) / size
    within, total = np.sum((values - mean[group]) ** 2), np.sum((values - values.mean()) ** 2)
    n, k = len(values), len(size)
    if total == 0 or n == k:
        return 0.0
    return float(max(0.0, 1 - within / (n - k) * (n - 1) / total))


def cramers_v(first: np.ndarray, second: np.ndarray) -> float:
    """Cramer's V of two groupings, from 0 (independent) to 1 (one tells the other)."""
    table = pd.crosstab(first, second).to_numpy()
    return float(contingency.association(table, method="cramer")) if min(table.shape) > 1 else 0.0
