"""Predicted ages of cells."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _units
from agevi._compat import version, written_to
from agevi._docs import shared
from agevi.dataloaders._query import begin
from agevi.dataloaders._summed import is_summed
from agevi.model.base import _fingerprint
from agevi.model.base._clock import require_clock
from agevi.model.base._kept_sums import summed_once
from agevi.tl.predict._check_transport import check_transport
from agevi.tl.predict._stale import forget

logger = logging.getLogger(__name__)


@shared
def predict_age(
    adata: AnnData,
    model: Any,
    *,
    sample_key: str | None = None,
    cell_type_key: str | None = None,
    by: str | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    batch_size: int | None = None,
    min_gene_coverage: float = 0.8,
    overwrite: bool = False,
    copy: bool = False,
) -> AnnData | None:
    """Predicted age of every cell or of its sample, in the unit of the age column the clock was trained on.

    Runs the clock on the cells and writes its predictions beside the role that each cell's subject had in training. The
    true age is never read. A clock that was trained on sums of cells, which is the default of most classes, predicts
    samples: all cells of a sample get the age of their sum. What it would give for single cells depends on their type
    far more than on their age and is written only on request, relative to the mean of the type (``cell_type_key``).
    Tabulate samples with :func:`agevi.tl.aggregate_subjects`, and judge a clock by roles other than ``train`` and
    ``validation``.

    Parameters
    ----------
    adata
        Cells with the clock's genes, in any order and any matrix format.
    model
        A trained clock.
    sample_key
        Column with the visit or biopsy, whose cells are summed. Default: that of the clock, else the subject; pass it
        for data with several samples per subject where the training data had one.
    cell_type_key
        Column with the type of each cell. With it, how much older or younger each cell looks than the mean of its type
        in these data is written too.
    by
        Column with the cohort of each cell's sample: the verdict of :func:`agevi.tl.check_transport` on each new one is
        logged.
    %(key_added)s
    batch_size
        Cells per step.
    min_gene_coverage
        Share of the clock's genes that must be present. Absent genes enter at their training mean.
    overwrite
        Replace out-of-fold predictions that :func:`agevi.tl.cross_validate` wrote under the same key.
    %(copy)s

    Returns
    -------
    None, or the copy. Sets:

    ``adata.obs[f"{key_added}_predicted"]``
        Predicted age, float32, in the clock's age unit: of the cell, or of its sample where the clock was trained on
        sums. Published linear clocks predict every row.
    ``adata.obs[f"{key_added}_predicted_sample"]``
        Age predicted from the summed counts of the cell's sample, float32, the same for all its cells; from clocks that
        predict sums, where ``adata.obs`` names the samples.
    ``adata.obs[f"{key_added}_cell_deviation"]``
        With ``cell_type_key``: the clock's prediction for the single cell minus the mean over its type, float32, in the
        age unit; NaN for cells without a type. Differences between types are removed, since they say nothing about age.
    ``adata.obs[f"{key_added}_role"]``
        Categorical: ``train``, ``validation``, ``test`` or ``new``.
    ``adata.obsm[f"X_{key_added}"]``
        Latent representation, float32 (n_cells, n_latent), when the clock has one.
    ``adata.uns[key_added]``
        Parameters, model class, version, gene coverage, keys, unit and scale of ages, and the median age of the
        training samples.

    ``adata.uns[f"{key_added}_anchor"]``
        From a :class:`agevi.model.CellTypeClock` with an anchor: DataFrame, index sample, with the column ``anchor``,
        the age by which :func:`agevi.tl.recalibrate` with ``anchor=key_added`` finds the level of a cohort.
    ``adata.uns[f"{key_added}_calibration_params"]``
        What gives samples their intervals in :func:`agevi.tl.aggregate_subjects`, where the clock has a calibration
        (``model.set_calibration``).

    Everything made from earlier predictions under the same key is removed: the tables of subjects, metrics,
    calibration, posterior, acceleration, normative scores and trend, and columns that this clock does not write.

    Raises
    ------
    KeyError
        If ``sample_key`` or ``cell_type_key`` is not a column, or a clock of sums finds no column of samples.
    TypeError
        If ``model`` is not a clock.
    RuntimeError
        If the clock is not trained.
    ValueError
        If genes are missing, values are of the wrong kind, or out-of-fold predictions would be lost.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.model.PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.PoissonVAE(adata)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> agevi.tl.predict_age(adata, model)
    >>> adata.obs["agevi_predicted"].dtype
    dtype('float32')
    """
    keys = _keys.Keys(key_added)
    require_clock(model)
    model.check_ages("tl.predict_age")
    begin(_checks.anndata(adata))
    if not overwrite and keys.role in adata.obs and (adata.obs[keys.role] == _keys.OUT_OF_FOLD).any():
        raise ValueError(
            f"adata.obs[{keys.predicted!r}] holds out-of-fold predictions of tl.cross_validate; pass another "
            "key_added, or overwrite=True to replace them."
        )
    setup = model.setup_args
    if sample_key is not None:
        model.sample_codes(adata, None, sample_key)  # its gates, also for clocks that sum nothing
    sample_key = _units.sample_column(setup, sample_key)
    if sample_key not in adata.obs and not model.predicts_rows:
        raise KeyError(
            f"adata.obs has no {sample_key!r}, by which the cells of a sample are summed, and this "
            f"{type(model).__name__} predicts sums; pass sample_key='<column with the donor or visit>'. For bulk data "
            "it differs in every row."
        )
    cell_type = None if cell_type_key is None else _checks.column(adata, cell_type_key, "cell_type_key")
    options = {"batch_size": batch_size, "min_gene_coverage": min_gene_coverage}
    summed = model.predicts_sums and sample_key in adata.obs
    with summed_once():
        sample_ages, anchor = _of_samples(adata, model, sample_key, options) if summed else (None, None)
        by_row = sample_ages is None or (model.predicts_rows and not is_summed(adata))
        of_cells = by_row or cell_type is not None or model.has_latent  # else a pass over cells is not needed
        prediction: Any = model.predict_rows(adata, **options) if of_cells else None
        coverage = prediction.gene_coverage if prediction else model.gene_coverage(adata, min_gene_coverage)
        roles = _roles(adata, model)
        if by is not None and not np.isin(roles, _keys.FITTED_ROLES).all():
            check_transport(adata, model, by=by, anchor=anchor, sample_key=sample_key)
    adata = written_to(adata, copy=copy)
    adata.obs[keys.predicted] = prediction.value if by_row else sample_ages
    forget(adata, keys)
    if sample_ages is not None:
        adata.obs[keys.predicted_sample] = sample_ages
    if cell_type is not None:
        adata.obs[keys.cell_deviation] = _within(prediction.value, cell_type)
    adata.obs[keys.role] = pd.Categorical(roles, categories=[r for r in _keys.ROLES if r in set(roles)])
    if prediction and prediction.latent is not None:
        adata.obsm[keys.latent] = prediction.latent
    if anchor is not None:
        adata.uns[keys.anchor] = _keys.to_uns(anchor.to_frame())
    if model.calibration is not None:
        adata.uns[keys.calibration_params] = _keys.to_uns(model.calibration)
    adata.uns[keys.uns] = _keys.to_uns(
        {
            "params": {**options, "key_added": key_added},
            "model": type(model).__name__,
            "version": version("agevi"),
            "gene_coverage": coverage,
            "subject_key": setup["subject_key"],
            "sample_key": sample_key,
            "age_key": setup["age_key"],
            "age_unit": model.unit,
            "age_transform": model.age_transform,
            "min_age": float(setup["min_age"]),
            "clock": _fingerprint.of_model(model),
            "median_age": model.age_summary_.get("median"),
        }
    )
    return adata if copy else None


def _of_samples(
    adata: AnnData, model: Any, sample_key: str, options: dict[str, Any]
) -> tuple[np.ndarray, pd.Series | None]:
    """Age of every cell's sample, (n_cells,), and that of samples by the anchor of the clock, where it has one."""
    if not model.contrast_clocks:
        return model.predict_samples(adata, **options, sample_key=sample_key), None
    parts = model.predict_parts(adata, **options, sample_key=sample_key)
    return parts.age_of_cell, parts.anchor_ages


def _within(ages: np.ndarray, group: pd.Series) -> np.ndarray:
    """Ages minus the mean of their group, (n_cells,) float32, NaN where there is no group."""
    codes = pd.factorize(group.to_numpy(dtype=object))[0]
    grouped = pd.Series(ages, dtype=np.float64).groupby(np.where(codes < 0, np.nan, codes))
    return (ages - grouped.transform("mean")).to_numpy(dtype=np.float32)


def _roles(adata: AnnData, model: Any) -> np.ndarray:
    """Role of every cell; ``new`` throughout where the data do not name subjects."""
    subject_key = model.setup_args["subject_key"]
    if subject_key not in adata.obs:
        if model.split_:  # unlike a published clock, which knows nobody
            warnings.warn(
                f"adata.obs has no {subject_key!r}, so training subjects cannot be recognised; all roles are 'new'.",
                UserWarning,
                stacklevel=3,
            )
        return np.full(adata.n_obs, _keys.NEW, dtype=object)
    roles: np.ndarray = model.roles(adata)
    n_train = int((roles == _keys.TRAIN).sum())
    if n_train and not (roles == _keys.NEW).any() and not _of_training(adata, model):
        subject = adata.obs[subject_key]
        logger.warning(
            "The ids of all %d subjects in adata.obs[%r] are those of subjects that the clock knows; %d have the role "
            "'train' and are left out of every figure and test. If these are other people, make their ids different "
            "and predict again: adata.obs[%r] = 'cohort2_' + adata.obs[%r].astype(str).",
            subject.nunique(), subject_key, subject[roles == _keys.TRAIN].nunique(), subject_key, subject_key,
        )  # fmt: skip
    elif n_train:
        logger.info("%d of %d cells belong to subjects that trained the clock (role 'train').", n_train, adata.n_obs)
    return roles


def _of_training(adata: AnnData, model: Any) -> bool:
    """Whether all cells are, by name and subject, known to have been those of the clock's setup or of a member's."""
    subject_key = model.setup_args["subject_key"]
    known = [getattr(clock, "adata", None) for clock in model.all_clocks()]
    return any(own is not None and (own is adata or _are_cells_of(adata, own, subject_key)) for own in known)


def _are_cells_of(adata: AnnData, whole: AnnData, subject_key: str) -> bool:
    """Whether the cells, by name and subject, are some of another AnnData."""
    if subject_key not in whole.obs or not whole.obs_names.is_unique:
        return False
    place = whole.obs_names.get_indexer(adata.obs_names)
    of_whole = whole.obs[subject_key].to_numpy(dtype=object)[place]
    return bool((place >= 0).all() and (of_whole == adata.obs[subject_key].to_numpy(dtype=object)).all())
