"""What every cell adds to the predicted age of its sample."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _names, _units
from agevi._compat import written_to
from agevi._docs import shared
from agevi._progress import progress
from agevi.dataloaders._query import begin
from agevi.model.base._clock import require_clock
from agevi.model.base._kept_sums import summed_once
from agevi.model.base._left_out import METHODS

logger = logging.getLogger(__name__)


@shared
def cell_age_signal(
    adata: AnnData,
    model: Any,
    *,
    groupby: str | None = None,
    method: str = "auto",
    sample_key: str | None = None,
    min_gene_coverage: float = 0.8,
    key_added: str = _keys.DEFAULT_KEY,
    copy: bool = False,
) -> AnnData | None:
    """What every cell adds to the predicted age of its sample, relative to the sample's other cells, in years.

    For clocks that predict the sum (or mean) of a sample's cells: the predicted age of the sample minus that of the
    sample without the cell, and of that the deviation from the mean over the sample's cells, or over those of the
    cell's type with ``groupby``. A high value says that the cell carries more of what the clock reads as old than the
    cells beside it.

    It is not the age of the cell. The values of a sample sum to zero, whatever its age, and say nothing about
    differences between samples. They grow with the depth of the cell, and become smaller with the number of cells of
    the sample. Most of what differs between cells of one sample is noise and states that have nothing to do with age,
    to which the clock gives values too, since it never had to tell cells apart. Without ``groupby`` differences between
    cell types are among them. For claims, take samples that did not train the clock, and compare groups of cells within
    samples, with samples as the unit.

    Parameters
    ----------
    adata
        Cells with the clock's genes, in any order and any matrix format.
    model
        A trained clock of sums. Where members of an ensemble predict single cells, a sample has the mean of these.
    groupby
        Column of ``adata.obs`` such as the type of each cell, within which values are centred beside the sample.
    method
        ``"exact"``: the sample is predicted again without each cell, which takes as long as a prediction of all cells.
        ``"first_order"``: along the tangent at the sum, in a pass over the nonzero counts; rough where a network bends
        or a sample has few cells. ``"auto"``: exact, but for linear clocks in sums of 500 cells or more, where the
        first order is off by about 0.3 % of the values' standard deviation.
    sample_key
        Column with the visit or biopsy, whose cells are summed. Default: that of the clock, else the subject.
    min_gene_coverage
        Share of the clock's genes that must be present. Absent genes enter at their training mean.
    %(key_added)s
    %(copy)s

    Returns
    -------
    None, or the copy. Sets:

    ``adata.obs[f"{key_added}_cell_signal"]``
        float32, in the clock's age unit; NaN for a cell that is alone in its sample (or of its type in it), or that has
        no type.
    ``adata.uns[f"{key_added}_cell_signal_params"]``
        Arguments, and the unit.

    :func:`agevi.tl.predict_age` under the same key removes both.

    Raises
    ------
    KeyError
        If ``groupby`` or the column of the samples is absent.
    TypeError
        If ``model`` is not a clock, or predicts something other than ages.
    RuntimeError
        If the clock is not trained.
    ValueError
        If the clock was trained on single cells, whose own predictions :func:`agevi.tl.predict_age` writes, or has a
        clock for each cell type, or no sample has two cells to compare, genes are missing, or values are of the wrong
        kind.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.PLSClock(adata)
    >>> model.train()
    >>> agevi.tl.cell_age_signal(adata, model, groupby="cell_type")
    >>> adata.obs["agevi_cell_signal"].dtype
    dtype('float32')
    """
    keys = _keys.Keys(key_added)
    require_clock(model)
    model.check_ages("tl.cell_age_signal")
    _of_sums(model)
    begin(_checks.anndata(adata))
    _checks.choice(method, METHODS, "method")
    centred_in = _centred_in(adata, model, sample_key, groupby)
    with progress(adata.n_obs * len(model.members()), "cells left out", "cells") as bar, summed_once():
        ages = model.predict_left_out(
            adata, method=method, sample_key=sample_key, min_gene_coverage=min_gene_coverage, bar=bar
        )
    added = pd.Series(ages.whole - ages.without)
    signal = (added - added.groupby(centred_in).transform("mean")).to_numpy(dtype=np.float32)
    params = {
        "groupby": groupby,
        "method": method,
        "sample_key": _units.sample_column(model.setup_args, sample_key),
        "min_gene_coverage": min_gene_coverage,
        "model": type(model).__name__,
        "unit": model.unit,
    }
    adata = written_to(adata, copy=copy)
    adata.obs[keys.cell_signal] = signal
    adata.uns[keys.cell_signal_params] = _keys.to_uns(params)
    return adata if copy else None


def _of_sums(model: Any) -> None:
    """Refuse clocks that predict ages of single cells, and those with a clock per type in them."""
    per_type = next((clock for clock in model.all_clocks() if clock.of_types), None)
    if per_type is not None:
        kind, key = type(per_type).__name__, per_type.setup_args["cell_type_key"]
        cells = "adata" if key is None else f"adata[adata.obs[{key!r}] == name].copy()"
        raise ValueError(
            f"this {kind} has a clock for each type of cells; for each name and clock of model.type_clocks.items(), "
            f"call agevi.tl.cell_age_signal(cells, clock) with cells = {cells}."
        )
    if not model.predicts_sums:
        raise ValueError(
            f"this {type(model).__name__} was trained on single cells, so that it has an age for each: call "
            "agevi.tl.predict_age(adata, model), which writes them to adata.obs['agevi_predicted']."
        )


def _centred_in(adata: AnnData, model: Any, sample_key: str | None, groupby: str | None) -> np.ndarray:
    """Unit within which the value of each cell is centred, (n_cells,), NaN for cells without others to compare with."""
    sample = model.sample_codes(adata, None, sample_key)
    group, names = (np.zeros(adata.n_obs, dtype=np.int64), [""])
    if groupby is not None:
        group, names = _names.coded(_checks.column(adata, groupby, "groupby"), f"adata.obs[{groupby!r}]")
    unit = sample * (len(names) + 1) + group
    alone = (group < 0) | (pd.Series(unit).groupby(unit).transform("size").to_numpy() < 2)
    what = "their sample" if groupby is None else f"their sample and adata.obs[{groupby!r}], or have no value there"
    if alone.all():
        raise ValueError(
            f"all {adata.n_obs:,} cells are alone in {what}; a cell is compared with others of its sample, which bulk "
            "samples do not have."
        )
    if alone.any():
        logger.info("%d of %d cells are alone in %s; their signal is NaN.", alone.sum(), adata.n_obs, what)
    return np.where(alone, np.nan, unit)
