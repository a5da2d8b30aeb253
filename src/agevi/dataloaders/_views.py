"""Stand-ins: what is registered in place of a view, which would turn into a copy, or of data of which some genes train."""

from __future__ import annotations

import logging
import warnings
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys
from agevi.dataloaders._query import CUT, VERSIONS, kind_of_name, spelling

logger = logging.getLogger(__name__)

_STAND_INS: dict[tuple[int, type], tuple[weakref.ref[AnnData], AnnData]] = {}
_SOURCES: dict[int, tuple[weakref.ref[AnnData], weakref.ref[AnnData]]] = {}
_TYPED = 100  # names; longer lists are of drug targets and the like, most of which any data lack
_SCVI = ("_scvi_uuid", "_scvi_manager_uuid")  # a stand-in is registered by itself


def to_register(adata: AnnData, data: AnnData, cls: type) -> AnnData:
    """``adata`` itself, or a stand-in that :func:`registered` finds for ``cls`` for as long as ``adata`` lives.

    Parameters
    ----------
    adata
        What the user set up.
    data
        The same, or what :func:`of_features` made of it.
    cls
        Class of the model.
    """
    key = (id(adata), cls)
    if data is adata and not adata.is_view:
        _STAND_INS.pop(key, None)
        return adata
    copy = adata.copy() if data is adata else data
    for name in _SCVI:
        copy.uns.pop(name, None)
    own = id(copy)
    _STAND_INS[key] = (weakref.ref(adata, lambda _: _STAND_INS.pop(key, None)), copy)
    _SOURCES[own] = (weakref.ref(copy, lambda _: _SOURCES.pop(own, None)), weakref.ref(adata))
    return copy


def registered(adata: AnnData, cls: type) -> AnnData:
    """What ``cls.setup_anndata`` registered for ``adata``: itself, or what stands in for it."""
    ref, copy = _STAND_INS.get((id(adata), cls), (None, None))
    return copy if copy is not None and ref is not None and ref() is adata else adata


def source_of(adata: AnnData) -> AnnData:
    """The user's data for which ``adata`` stands in, with columns that were added since, or ``adata`` itself."""
    ref, source = _SOURCES.get(id(adata), (None, None))
    found = source() if source is not None and ref is not None and ref() is adata else None
    return found if found is not None and found.obs_names.equals(adata.obs_names) else adata


def of_features(adata: AnnData, features: Any, layer: str | None) -> AnnData:
    """The values of some genes with all columns of cells, as a new AnnData; genes stay in the order of the data.

    Parameters
    ----------
    adata
        The user's data.
    features
        Names of genes; those that the data lack are left out, with a warning where few are named.
    layer
        Layer that holds the values.
    """
    _checks.anndata(adata)
    _checks.in_memory(adata)
    _checks.unique_names(adata)
    if isinstance(features, str) or not isinstance(features, Iterable):
        raise TypeError(
            f"features is a {type(features).__name__}; pass names of genes in a list, such as ['EGFR', 'KDR']."
        )
    given = list(features)
    if any(isinstance(value, bool | np.bool_) for value in given):
        raise TypeError(
            f"features is a mask of {len(given):,} True and False; pass names of genes, such as adata.var_names[mask]."
        )
    names = pd.Index(pd.Series(given, dtype=object).dropna().astype(str).unique())
    chosen = adata.var_names.isin(names)
    if not chosen.any():
        raise ValueError(
            f"none of the {len(names):,} features{f' (e.g. {_checks.listed(names, 2)})' if len(names) else ''} is among "
            f"adata.var_names (e.g. {_checks.listed(adata.var_names, 2)}){_difference(names, adata.var_names)}. Pass "
            "names as in adata.var_names."
        )
    absent = names[~names.isin(adata.var_names)]
    if len(absent) and len(names) <= _TYPED:
        warnings.warn(
            f"{len(absent):,} of the {len(names):,} features are absent from adata.var_names (e.g. "
            f"{_checks.listed(absent, 3)}); {chosen.sum():,} train the clock. Correct those names, or leave them out.",
            UserWarning,
            stacklevel=_checks.stack_depth(),
        )
    else:
        logger.info("%d of %d features are in the data, and train the clock.", chosen.sum(), len(names))
    values, obs, var = _checks.matrix(adata, layer)[:, chosen], adata.obs.copy(), adata.var.loc[chosen].copy()
    in_layer = {} if layer is None else {layer: values}
    out = AnnData(
        None if in_layer else values, obs=obs, var=var, layers=in_layer, shape=values.shape if in_layer else None
    )
    if _keys.MEASURED in adata.varm:
        out.varm[_keys.MEASURED] = adata.varm[_keys.MEASURED][chosen]
    if _keys.MEASURED in adata.uns:
        out.uns[_keys.MEASURED] = adata.uns[_keys.MEASURED]
    return out


def _difference(features: pd.Index, names: pd.Index) -> str:
    """What sets features apart from all names of the data, as the middle of a message."""
    if not len(features):
        return ""
    ours, theirs = kind_of_name(str(names[0])), kind_of_name(features[0])
    if ours != theirs:
        return f"; the data use {ours}, the features are {theirs}"
    hints = {"version": f"; {VERSIONS}, which {CUT} cuts off", "case": "; the names differ in case"}
    return hints.get(spelling(features, names), "")
