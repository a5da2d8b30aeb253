"""Bulk samples normalised as the training samples tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData

from agevi import _checks, _keys, _names
from agevi.pp.bulk._normalizer import BulkNormalizer


def normalize_bulk(
    adata: AnnData,
    *,
    batch_key: str | None = None,
    covariates: Sequence[str] = (),
    age_key: str | None = None,
    quantile: bool = True,
    layer: str | None = None,
    split_key: str = _keys.SPLIT,
    reference_batch: str | None = None,
    key_added: str = "normalized",
) -> BulkNormalizer:
    """Values without batch effects and of one distribution, learnt from the training samples, as a new layer.

    Fits a :class:`agevi.pp.BulkNormalizer` on the samples whose role is train and applies it to all. In a
    cross-validation the training samples differ from fold to fold, so fit a normaliser in each; what one fit saw of the
    test samples of another fold makes its accuracy look better than it is.

    Parameters
    ----------
    adata
        Annotated data, samples x features, on a scale on which effects add up: logarithms or M values.
    batch_key, covariates, age_key, quantile, layer
        As for :class:`agevi.pp.BulkNormalizer`.
    split_key
        Column of ``adata.obs`` with the role of each sample, as :func:`agevi.pp.split_subjects` writes it.
    reference_batch
        Training batch whose effects are removed from samples of batches without a training sample. Default: such
        samples are an error.
    key_added
        Layer to write, to be named in ``setup_anndata(adata, layer=...)``.

    Returns
    -------
    The fitted normaliser, for new samples. Sets ``layers[key_added]``: float32, dense, (n_samples, n_features).

    Raises
    ------
    KeyError
        A column or the layer is absent.
    TypeError
        A covariate holds fractions that are stored as text or categories.
    ValueError
        No sample is for training, values are missing, a batch has one training sample, a batch or category occurs in
        held-out samples only, or batches and covariates cannot be told apart.

    Examples
    --------
    >>> import agevi, scanpy as sc
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=40, n_cells=1, n_genes=50)
    >>> sc.pp.log1p(adata)
    >>> agevi.pp.split_subjects(adata, subject_key="donor", age_key="age")
    >>> normalizer = agevi.pp.normalize_bulk(adata, batch_key="batch", age_key="age")
    >>> normalizer.n_samples_
    28
    """
    _checks.anndata(adata)
    normalizer = BulkNormalizer(
        batch_key=batch_key, covariates=covariates, age_key=age_key, quantile=quantile, layer=layer
    )
    if split_key not in adata.obs:
        raise KeyError(
            f"split_key={split_key!r} is not a column of adata.obs; run agevi.pp.split_subjects first, so that "
            f"held-out samples do not shape the normaliser. Available: {_checks.listed(adata.obs.columns)}."
        )
    roles = _names.names(adata.obs[split_key], f"adata.obs[{split_key!r}]")
    rows = np.flatnonzero((roles == _keys.TRAIN).to_numpy())
    if not len(rows):
        held = _checks.listed(roles.unique())
        raise ValueError(f"no sample of adata.obs[{split_key!r}] has the role 'train' (there are {held}).")
    normalizer._fit(adata, rows)
    normalizer.apply(adata, reference_batch=reference_batch, key_added=key_added)
    return normalizer
