"""One predicted age per sample from the predictions of its cells."""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _names, _units
from agevi._compat import written_to
from agevi._docs import shared
from agevi._units import PerUnit
from agevi.dataloaders._summed import cells_of_units
from agevi.tl.intervals._report import recalibrated_again, with_intervals
from agevi.tl.predict._judged import announce, say_left_out

logger = logging.getLogger(__name__)

LEVELS = ("auto", "sum", "cells")
STATISTICS = ("mean", "median", "trimmed_mean")
TRIM = 0.1
"""Share of cells that the trimmed mean leaves out at each end."""
_SUM_TOLERANCE = 1e-3


@shared
def aggregate_subjects(
    adata: AnnData,
    *,
    level: Literal["auto", "sum", "cells"] = "auto",
    statistic: Literal["mean", "median", "trimmed_mean"] = "mean",
    subject_key: str | None = None,
    sample_key: str | None = None,
    age_key: str | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    copy: bool = False,
) -> AnnData | None:
    """Predicted age of every sample, in the unit of the predictions, from those of its cells.

    No model runs here: the slots of :func:`agevi.tl.predict_age` are read and averaged, each sample on its own, so the
    result for a sample does not depend on the others. A sample of few cells is uncertain, which ``n_cells`` shows, and
    ``sd_cells`` for clocks of single cells. Su and Mukundan take the mean over cells as a donor's age, as this does
    where the clock predicts single cells; a clock of sums predicts the sample itself. If held-out subjects are not
    predicted better than by the median age, one line of the log says so.

    Parameters
    ----------
    adata
        Annotated data with predictions.
    level
        ``"cells"`` averages cells, which needs a clock of single cells (or one clock per type of cells), ``"sum"``
        takes the prediction from the summed counts of the sample, ``"auto"`` takes that where it exists.
    statistic
        How cells are averaged. ``"trimmed_mean"`` leaves out the lowest and the highest tenth of the cells.
    subject_key
        Column with the subject. Default: that of the predictions; where ``adata.obs`` lacks it, that of the samples.
    sample_key
        Column with the visit or biopsy. Default: that of the predictions, else the subject.
    age_key
        Column with the age. Default: that of the predictions, if ``adata.obs`` has it.
    %(key_read)s
    %(copy)s

    Returns
    -------
    None, or the copy. Sets ``adata.uns[f"{key_added}_subjects"]``, a DataFrame with one row per sample and the columns

    - ``subject``, text.
    - ``age``, float64, NaN where unknown.
    - ``predicted``, float64, NaN for samples without predictions.
    - ``n_cells``, int64, cells with a prediction.
    - ``sd_cells``, float64, standard deviation of the cells' predictions, NaN with one cell and where the clock
      predicted the sample and not its cells.
    - ``role``, text: how the clock used the subject; empty where that was not recorded.
    - ``fold``, the fold in which the subject was held out, if ``adata.obs`` has it.
    - ``lower`` and ``upper``, float64, limits of the age, where these predictions or their clock are calibrated
      (:func:`agevi.tl.calibrate`, ``model.set_calibration``, :func:`agevi.tl.recalibrate`); NaN for the roles train and
      validation.

    Raises
    ------
    KeyError
        A column or the predictions are absent.
    ValueError
        A sample has two ages, roles, folds or subjects, or only a part in the sum whose age was predicted, or
        ``level="cells"`` is asked of predictions of sums.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=4, n_cells=5, n_genes=50)
    >>> adata.obs["agevi_predicted"] = adata.obs["age"] + 2  # stands for tl.predict_age(adata, model)
    >>> agevi.tl.aggregate_subjects(adata, subject_key="donor", age_key="age")
    >>> table = adata.uns["agevi_subjects"]
    >>> (table["predicted"] - table["age"]).round(3).tolist(), table["n_cells"].tolist()
    ([2.0, 2.0, 2.0, 2.0], [5, 5, 5, 5])
    """
    _checks.anndata(adata)
    _checks.choice(level, LEVELS, "level")
    _checks.choice(statistic, STATISTICS, "statistic")
    keys = _keys.Keys(key_added)
    summed = level == "sum" or (level == "auto" and keys.predicted_sample in adata.obs)
    cells = _cells(adata, keys, summed)
    subject_key, sample_key, age_key = _unit_keys(adata, keys, subject_key, sample_key, age_key)
    subject, sample = _units.units(adata, subject_key, sample_key)
    used = ~np.isnan(cells["value"].to_numpy())
    codes, names = pd.factorize(sample.to_numpy(dtype=object), sort=True)
    n = len(names)
    by_sample = cells["cell"].groupby(codes)
    differ = (by_sample.min() < by_sample.max()).to_numpy()
    if level == "cells" and not differ.any() and keys.predicted_sample in adata.obs and np.bincount(codes).max() > 1:
        raise ValueError(
            f"level='cells' averages predictions of single cells, and adata.obs[{keys.predicted!r}] holds those of "
            "sums of cells. Take level='auto', or train the clock with train_unit='cell'."
        )
    spread = by_sample.std().where(differ).to_numpy()
    if summed:
        _check_sums(adata, keys, sample_key or subject_key, sample)
        predicted = _one_sum(cells["value"].to_numpy(), codes, names, keys, sample_key or subject_key)
    else:
        predicted = per_group(cells["value"].to_numpy()[used], codes[used], n, statistic)
    table = pd.DataFrame(
        {
            "subject": subject.groupby(codes).first().to_numpy(dtype=object),
            "age": _ages(adata, keys, age_key, sample, is_sample=sample is not subject),
            "predicted": predicted,
            "n_cells": cells_of_units(adata, codes[used], n, used),
            "sd_cells": spread,
            "role": _one_label(adata, keys.role, codes, names, used),
        },
        index=pd.Index(names, dtype=object, name="sample"),
    )
    if keys.fold in adata.obs:
        table["fold"] = _folds(_one_label(adata, keys.fold, codes, names, used))
    if not used.all():
        logger.info("%d of %d cells have no prediction and are left out.", (~used).sum(), adata.n_obs)
    if keys.calibration_params in adata.uns:
        table = with_intervals(table, adata.uns[keys.calibration_params])
    elif "recalibrated_from" in adata.uns.get(keys.uns, {}) and keys.subjects in adata.uns:
        table = recalibrated_again(table, adata.uns[keys.subjects])
    say_left_out(table)
    announce(adata, table, keys)
    out = written_to(adata, copy=copy)
    out.uns[keys.subjects] = _keys.to_uns(table)
    return out if copy else None


def _cells(adata: AnnData, keys: _keys.Keys, summed: bool) -> pd.DataFrame:
    """Per cell: the value that makes the sample's age, and the cell's own prediction; float64, NaN where none."""
    call = f"agevi.tl.predict_age(adata, model, key_added={keys.key_added!r})"
    wanted = keys.predicted_sample if summed else keys.predicted
    value = np.asarray(_checks.slot(adata, wanted, "obs", call), dtype=np.float64)
    cell = np.asarray(adata.obs[keys.predicted], dtype=np.float64) if keys.predicted in adata.obs else np.nan
    return pd.DataFrame({"value": value, "cell": cell})


def _unit_keys(
    adata: AnnData, keys: _keys.Keys, subject_key: str | None, sample_key: str | None, age_key: str | None
) -> tuple[str, str | None, str | None]:
    """The columns to read: those given, else those that the predictions were made with."""
    stored = adata.uns.get(keys.uns, {})
    of_subject, of_sample = stored.get("subject_key"), stored.get("sample_key")
    if subject_key is None and of_subject not in adata.obs and of_sample in adata.obs:  # new data without the column
        logger.info("adata.obs has no %r: every sample of %r is a subject of its own.", of_subject, of_sample)
        of_subject = of_sample
    subject_key = subject_key or of_subject
    if not subject_key:
        raise KeyError(f"adata.uns[{keys.uns!r}] names no subject column; pass subject_key='<column of adata.obs>'.")
    if sample_key is None and of_sample != of_subject:  # else samples were subjects, and stay so
        sample_key = of_sample or None
    if age_key is None:
        age_key = stored.get("age_key")
        return subject_key, sample_key, age_key if age_key in adata.obs else None
    return subject_key, sample_key, age_key


def _ages(adata: AnnData, keys: _keys.Keys, age_key: str | None, sample: pd.Series, *, is_sample: bool) -> np.ndarray:
    """Age of every sample, (n_samples,), NaN where unknown."""
    if age_key is None or _checks.column(adata, age_key, "age_key").isna().all():
        return np.full(sample.nunique(), np.nan)
    age = _units.ages(adata, age_key, min_age=-np.inf, clock=keys.uns)
    return _units.age_per_unit(age, sample, age_key, is_sample=is_sample).to_numpy()


def per_group(values: np.ndarray, codes: np.ndarray, n_groups: int, statistic: str) -> np.ndarray:
    """Mean, median or trimmed mean of finite ``values`` (n,) in every group of ``codes`` (n,), NaN for empty groups."""
    size = np.bincount(codes, minlength=n_groups)
    if statistic == "median":
        # The median is what is left when all but the one or two values in the middle are cut.
        cut = (size - 1) // 2
    elif statistic == "trimmed_mean":
        cut = (TRIM * size).astype(np.int64)
    else:
        cut = np.zeros_like(size)
    order = np.lexsort((values, codes))
    codes = codes[order]
    rank = np.arange(len(codes)) - (np.cumsum(size) - size)[codes]  # place of each value in its group
    keep = (rank >= cut[codes]) & (rank < (size - cut)[codes])
    total = np.bincount(codes[keep], weights=values[order][keep], minlength=n_groups)
    kept = np.bincount(codes[keep], minlength=n_groups)
    return np.divide(total, kept, out=np.full(n_groups, np.nan), where=kept > 0)


def _check_sums(adata: AnnData, keys: _keys.Keys, unit_key: str, sample: pd.Series) -> None:
    """Refuse samples that share a sum with others, whose predicted ages would be the same."""
    summed_by = adata.uns.get(keys.uns, {}).get("sample_key")
    if summed_by == unit_key or summed_by not in adata.obs:
        return
    n_samples = sample.groupby(_checks.labels(adata, summed_by, "sample_key").to_numpy()).nunique()
    if n_samples.max() > 1:
        raise ValueError(
            f"adata.obs[{keys.predicted_sample!r}] has one age for all cells of {summed_by} {n_samples.idxmax()!r}, "
            f"who has {n_samples.max()} samples by sample_key={unit_key!r}; sums were taken over {summed_by!r}. Run "
            f"agevi.tl.predict_age(adata, model, sample_key={unit_key!r}) first, or pass level='cells'."
        )


def _one_sum(values: np.ndarray, codes: np.ndarray, names: np.ndarray, keys: _keys.Keys, unit_key: str) -> np.ndarray:
    """The one prediction that all cells of a sample carry."""
    grouped = pd.Series(values).groupby(codes)
    low, high = grouped.min().to_numpy(), grouped.max().to_numpy()
    differ = high - low > _SUM_TOLERANCE
    if differ.any():
        i = int(differ.argmax())
        raise ValueError(
            f"sample {names[i]!r} has cells with different values ({low[i]:.2f}, {high[i]:.2f}) in "
            f"adata.obs[{keys.predicted_sample!r}]; the sums were taken over other units than adata.obs[{unit_key!r}]. "
            "Pass the sample_key of the predictions, or level='cells'."
        )
    return low


def _one_label(adata: AnnData, key: str, codes: np.ndarray, names: np.ndarray, used: np.ndarray) -> np.ndarray:
    """The one role or fold of every sample's cells as text, (n_samples,), empty where there is none."""
    if key not in adata.obs:
        return np.full(len(names), "", dtype=object)
    counts = used | ~np.isin(codes, codes[used])  # not cells without a prediction, where others of the sample have one
    found = PerUnit(_names.names(adata.obs[key], f"adata.obs[{key!r}]").where(counts), pd.Series(names[codes]))
    if len(found.several):
        raise ValueError(
            f"sample {found.several[0]!r} has cells with different values "
            f"({_checks.listed(found.cells(found.several[0]).dropna().unique())}) in adata.obs[{key!r}]; a sample is "
            "used by a clock as a whole. Predict all its cells in one call."
        )
    return found.values.fillna("").to_numpy(dtype=object)


def _folds(labels: np.ndarray) -> np.ndarray:
    """Folds as whole numbers where they are (float64 with NaN where a sample has none), else as text."""
    known = labels != ""
    numbers = pd.to_numeric(pd.Series(labels), errors="coerce").to_numpy(dtype=np.float64)
    if not (numbers[known] % 1 == 0).all():
        return labels
    return numbers.astype(np.int64) if known.all() else numbers
