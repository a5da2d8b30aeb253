"""Whether predicted ages rise or fall along an ordered process: days of reprogramming, weeks of gestation, a dose."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import rankdata

from agevi import _checks, _keys, _names, _subjects, _units, metrics
from agevi.tl._store import store_table
from agevi.tl.predict._evaluate_by import OVERALL, sample_values
from agevi.tl.trends._permute import p_value

logger = logging.getLogger(__name__)

MIN_SAMPLES = 3
COLUMNS = ["groupby", "group", "n", "n_subjects", "n_levels", "spearman", "spearman_low", "spearman_high"]
COLUMNS += ["slope", "slope_low", "slope_high", "p"]


def trend_test(
    adata: AnnData,
    *,
    order_key: str,
    groupby: str | None = None,
    sample_key: str | None = None,
    level: float = 0.95,
    n_boot: int = 2000,
    n_permutations: int = 2000,
    rng: int | np.random.Generator | None = 0,
    key_added: str = _keys.DEFAULT_KEY,
    copy: bool = False,
) -> AnnData | None:
    """Trend of predicted ages along an ordered covariate: rank correlation, and slope in ages per unit of order.

    The samples of :func:`agevi.tl.aggregate_subjects` are compared, never cells. A positive Spearman correlation says
    that predicted ages rise along the order. ``p`` is the share of permutations of the order whose correlation is as
    far from zero. Only samples that did not shape the clock count: out_of_fold, test and new. The test does not see
    what else changes along the order, such as a batch for each day, nor whether the cells age or only look older. With
    ``groupby`` the p values are not corrected for the number of groups.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.aggregate_subjects`.
    order_key
        Column of :func:`agevi.get.subjects_df` or ``adata.obs`` with one value per sample: numbers, or an ordered
        category, whose levels are counted 0, 1, 2, ... in their order (levels that are numbers stay numbers). A level
        that no cell of ``adata`` has does not count as a step; one whose samples are all left out, such as those that
        trained the clock, still is. Samples without a value are left out.
    groupby
        Column that makes a row for each of its values, such as the cell line or the treatment, below the row of all
        samples.
    sample_key
        Column of ``adata.obs`` with the sample. Default: that of the predictions.
    level
        Coverage of the bootstrap intervals.
    n_boot
        Draws of the bootstrap, of whole subjects. 0: no intervals.
    n_permutations
        Permutations. The smallest ``p`` is ``1 / (n_permutations + 1)``.
    rng
        Seed or generator of both.
    key_added
        Prefix of the slots that are read and written.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets:

    ``adata.uns[f"{key_added}_trend"]``
        DataFrame with the columns ``groupby`` ("overall", or the column), ``group``, ``n`` (samples), ``n_subjects``
        and ``n_levels`` (different values of the order; all int64), ``spearman``, ``slope`` (least squares; per step
        where levels are counted), both with their intervals ``_low`` and ``_high``, and ``p`` (two-sided, of
        ``spearman``). Groups of fewer than 3 samples or of one level have NaN; so have intervals of fewer than 3
        subjects or no draws, and ``spearman`` and ``p`` where all predictions are equal. :func:`agevi.get.trend_df`
        returns it.
    ``adata.uns[f"{key_added}_trend_params"]``
        The arguments, the names of counted ``levels``, and ``n_left_out``, the samples of role train, validation or
        recalibration.

    Raises
    ------
    KeyError
        The subject table or a column is absent.
    TypeError
        The order is text, dates or durations, or of a category without order.
    ValueError
        The order has several values in a sample, has none at all, is infinite or has one level, fewer than 3 samples
        count, or an argument is out of range.

    Notes
    -----
    Samples of a subject are not exchangeable with those of others. As in :func:`agevi.tl.age_correlation` each
    permutation lets subjects exchange the mean of their (ranked) orders, and the samples of a subject exchange their
    deviations from it. For one sample per subject that permutes subjects; for subjects that were all followed over the
    same days it permutes days within subjects; for several samples of one dose per subject it permutes the doses of
    subjects. With one subject, such as one line of cells over time, samples are permuted within it, and what is shown
    is a trend of this line.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=5, n_genes=50)
    >>> adata.obs["agevi_predicted"] = adata.obs["age"] / 2  # stands for tl.predict_age(adata, model)
    >>> adata.obs["agevi_role"] = "new"
    >>> adata.uns["agevi"] = {"subject_key": "donor", "sample_key": "donor", "age_key": "age"}
    >>> agevi.tl.aggregate_subjects(adata)
    >>> agevi.tl.trend_test(adata, order_key="age", n_permutations=999)
    >>> agevi.get.trend_df(adata)[["n", "spearman", "slope", "p"]].round(3).values.tolist()
    [[12.0, 1.0, 0.5, 0.001]]
    """
    _checks.anndata(adata)
    keys = _keys.Keys(key_added)
    n_boot = _checks.count(n_boot, "n_boot", low=0)
    n_permutations = _checks.count(n_permutations, "n_permutations")
    generator = _checks.generator(rng)
    samples, levels, n_left_out = samples_in_order(adata, order_key, groupby, keys=keys, sample_key=sample_key)
    if samples["order"].nunique() < 2:
        raise ValueError(
            f"order_key={order_key!r} is {str(samples['level'].iloc[0])!r} in all {len(samples)} samples that count; a "
            "trend needs two levels or more."
        )
    seed = int(generator.integers(2**32))  # the same draws for both intervals
    rows = []
    parts = [(OVERALL, "", samples)]
    if groupby is not None:
        parts += [
            (groupby, _names.name(name), part) for name, part in samples.groupby("group", sort=True, observed=True)
        ]
    for by, group, part in parts:
        row: dict[str, Any] = {"groupby": by, "group": group, "n": len(part), "n_subjects": part["subject"].nunique()}
        row["n_levels"] = part["order"].nunique()
        if len(part) >= MIN_SAMPLES and row["n_levels"] > 1:
            row |= _estimates(part, level, n_boot, seed)
            row["p"] = permutation_p(part, n_permutations, generator)
        rows.append(row)
    table = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(COLUMNS[5:], np.float64))
    params = {
        "order_key": order_key,
        "groupby": groupby,
        "sample_key": sample_key,
        "levels": levels,
        "n_left_out": n_left_out,
        "level": level,
        "n_boot": n_boot,
        "n_permutations": n_permutations,
        "rng": rng,
    }
    return store_table(adata, keys, "trend", table, params, copy=copy)


def samples_in_order(
    adata: AnnData, order_key: str, groupby: str | None, *, keys: _keys.Keys, sample_key: str | None = None
) -> tuple[pd.DataFrame, list[str] | None, int]:
    """Held-out samples with a prediction and a place in the order, names of counted levels, number left out."""
    table = _subjects.subject_table(adata, keys)
    given = sample_values(adata, table, order_key, "order_key", keys=keys, sample_key=sample_key)
    where = f"adata.uns[{keys.subjects!r}]" if order_key in table else "adata.obs"
    if given.isna().all():
        raise ValueError(
            f"order_key={order_key!r} has no values in {where}: it is missing in all {len(given)} samples. Fill the "
            "column in, or name another."
        )
    if isinstance(given.dtype, pd.CategoricalDtype):
        present = table[order_key] if order_key in table else adata.obs[order_key]
        given = given.cat.set_categories(present.cat.remove_unused_categories().cat.categories)
    out = table[["subject", "predicted"]].assign(level=given.astype(object), order=_numbers(given, order_key, where))
    if groupby is not None:
        out["group"] = sample_values(adata, table, groupby, "groupby", keys=keys, sample_key=sample_key)
        if not isinstance(out["group"].dtype, pd.CategoricalDtype):
            out["group"] = _names.names(out["group"], f"adata.obs[{groupby!r}]")
    held_out = table["role"].isin(_keys.HELD_OUT_ROLES)
    usable = out["predicted"].notna() & out["order"].notna()
    n_left_out = int((usable & table["role"].isin(_keys.SHAPED_ROLES)).sum())
    if n_left_out:
        logger.info(
            "%d samples of role train, validation or recalibration shaped the clock and are left out.", n_left_out
        )
    n = int((usable & held_out).sum())
    if n < MIN_SAMPLES:
        raise ValueError(
            f"{n} samples of the roles {_checks.listed(_keys.HELD_OUT_ROLES)} have a prediction and a value of "
            f"order_key={order_key!r}, and a trend needs {MIN_SAMPLES} (roles there: "
            f"{_checks.listed(sorted(set(table['role'])))}). Predict held-out samples; train and validation shaped the "
            "clock."
        )
    levels = None
    if isinstance(given.dtype, pd.CategoricalDtype) and not pd.api.types.is_numeric_dtype(given.cat.categories):
        levels = _names.several(given.cat.categories)
    return out[usable & held_out], levels, n_left_out


def _numbers(values: pd.Series, order_key: str, where: str) -> np.ndarray:
    """The place of every sample in the order, (n_samples,) float64, NaN where it has none."""
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype) and not pd.api.types.is_numeric_dtype(dtype.categories):
        if dtype.ordered:
            return values.cat.codes.where(values.notna()).to_numpy(dtype=np.float64)
    elif isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_numeric_dtype(dtype):
        out: np.ndarray = values.astype(np.float64).to_numpy(na_value=np.nan)
        if np.isinf(out).any():
            raise ValueError(
                f"order_key={order_key!r} is infinite in {np.isinf(out).sum()} samples (first: "
                f"{values.index[np.isinf(out).argmax()]!r}); set unknown values to NaN."
            )
        return out
    raise TypeError(
        f"order_key={order_key!r} holds {_checks.listed([str(name) for name in values.dropna().unique()])}, "
        + _advice(values, f"{where}[{order_key!r}]")
    )


def _advice(values: pd.Series, column: str) -> str:
    """What values without a place are, and how to turn them into numbers, or else into an ordered category."""
    day = "pandas.Timedelta(days=1)"
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        days = f"({column} - {column}.min()) / {day}"
        return f"which are dates; pass the days since the first, {days}, in a column of its own."
    if pd.api.types.is_timedelta64_dtype(values.dtype):
        return f"which are durations; pass them in days, {column} / {day}, in a column of its own."
    if pd.to_numeric(values.astype(object).dropna(), errors="coerce").notna().all():
        cast = ".astype(object)" if isinstance(values.dtype, pd.CategoricalDtype) else ""
        return f"numbers stored as {values.dtype}; turn them into numbers with pandas.to_numeric({column}{cast})."
    return (
        "text without an order; turn it into numbers, or into "
        f"pandas.Categorical({column}, categories=[<the levels in their order>], ordered=True)."
    )


def _estimates(samples: pd.DataFrame, level: float, n_boot: int, seed: int) -> dict[str, float]:
    """Correlation and slope with their intervals."""
    order, predicted = samples["order"].to_numpy(), samples["predicted"].to_numpy(dtype=np.float64)
    subject = samples["subject"].to_numpy()
    enough = n_boot > 0 and len(set(subject)) >= _units.MIN_LABELLED_SUBJECTS
    out: dict[str, float] = {}
    for name, metric in (("spearman", metrics.spearman), ("slope", slope)):
        out[name] = metric(order, predicted)
        interval = (np.nan, np.nan)
        if enough:
            interval = metrics.bootstrap_interval(
                metric, order, predicted, groups=subject, level=level, n_boot=n_boot, rng=seed
            )
        out[f"{name}_low"], out[f"{name}_high"] = interval
    return out


def slope(order: np.ndarray, predicted: np.ndarray) -> float:
    """Slope of the least-squares line, NaN where the order is constant."""
    if np.ptp(order) == 0:
        return np.nan
    centred = order - order.mean()
    return float(centred @ predicted / (centred @ centred))


def permutation_p(samples: pd.DataFrame, n_permutations: int, rng: np.random.Generator) -> float:
    """Two-sided p value of Spearman's correlation, NaN where predictions are constant."""
    codes = pd.factorize(samples["subject"].astype(str), sort=True)[0]
    rows = np.argsort(codes, kind="stable")
    predicted = rankdata(samples["predicted"].to_numpy(dtype=np.float64)[rows])
    rank = rankdata(samples["order"].to_numpy()[rows])

    def statistic(order: np.ndarray) -> np.ndarray:
        return np.abs(metrics.pearson.kernel(order, predicted))

    found = float(statistic(rank))
    return np.nan if np.isnan(found) else p_value(statistic, rank, codes[rows], found, n_permutations, rng)
