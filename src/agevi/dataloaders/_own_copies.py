"""What ``setup_anndata`` registers: an AnnData of agevi's own, which shares the user's values and nothing else."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from torch.utils.weak import WeakIdKeyDictionary

from agevi import _checks, _gene_names, _source, _symbols
from agevi._compat.scvi import AnnDataManager
from agevi._stored import Stored
from agevi.dataloaders._measured import copy_sets
from agevi.dataloaders._summed import copy_sums, is_summed
from agevi.io._matrix_file import Stamp

logger = logging.getLogger(__name__)

_REGISTERED: WeakIdKeyDictionary = WeakIdKeyDictionary()  # user's data: {class: manager}, for as long as the data live
_ON_DISK: WeakIdKeyDictionary = WeakIdKeyDictionary()  # registered sums of cells on disk: their source
_ROWS = 4096  # compared in one step
_TYPED = 100  # names; longer lists are of drug targets and the like, most of which any data lack


def own_copy(adata: AnnData, columns: Iterable[str], setup: Mapping[str, Any]) -> AnnData:
    """A new AnnData of the same values, copied only from views, with copies of some columns and the names of genes."""
    # Registrations write columns: where each has an AnnData of its own, none changes another or the user's data.
    layer, kept = setup["layer"], dict.fromkeys(c for c in columns if c in adata.obs)
    obs, var = adata.obs[list(kept)].copy(), _gene_names.kept(adata.var)
    out = _of_values(_checks.matrix(adata, layer), obs, var, layer)
    copy_sets(adata, out)
    return _source.mark(copy_sums(adata, out), setup)


class Source(NamedTuple):
    """The cells on disk that were summed."""

    cells: pd.Index
    x: Stored
    stamp: Stamp | None


def sums_a_file(own: AnnData) -> bool:
    """Whether registered data are sums of cells on disk, so that rows of the user's data are others."""
    return own in _ON_DISK


def remember(cls: type, adata: AnnData, manager: AnnDataManager) -> None:
    """Let :func:`recall` find what ``cls`` registered for ``adata``: its values, or sums of its cells on disk."""
    own = manager.adata
    if own is not adata and is_summed(own) and not is_summed(adata):
        x = _checks.matrix(adata, manager.registry["setup_args"]["layer"])
        _ON_DISK[own] = Source(adata.obs_names, x, None if x.path is None else Stamp.of(Path(x.path)))
    _REGISTERED[adata] = {**_REGISTERED.get(adata, {}), cls: manager}


def forget(adata: AnnData) -> None:
    """Undo :func:`remember`, for data that are their own registration, which would never be freed."""
    _REGISTERED.pop(adata, None)


def is_registered(cls: type, adata: AnnData) -> bool:
    """Whether ``cls`` registered ``adata``."""
    return cls in _REGISTERED.get(adata, {})


def recall(cls: type, adata: AnnData) -> AnnDataManager:
    """Manager of the last registration of ``adata`` by ``cls``."""
    managers = _REGISTERED.get(adata, {})
    if cls not in managers:
        known = f" It is set up for {_checks.listed([c.__name__ for c in managers])}." if managers else ""
        raise ValueError(
            f"adata is not set up for {cls.__name__}; call {cls.__name__}.setup_anndata(adata, age_key=..., "
            f"subject_key=...) first.{known} Copies, slices and files that were read again are set up by themselves."
        )
    manager: AnnDataManager = managers[cls]
    check_unchanged(adata, manager, cls.__name__)
    return manager


def check_unchanged(adata: AnnData, manager: AnnDataManager, name: str) -> None:
    """Refuse data that got other cells or genes in place after they were set up."""
    own, setup = manager.adata, manager.registry["setup_args"]
    source = _ON_DISK.get(own)
    compared = [("cells", adata.obs_names, own.obs_names if source is None else source.cells)]
    if setup.get("obsm_key") is None:
        compared.append(("genes", adata.var_names, own.var_names))
    elif _source.is_there(adata, setup):
        _source.read(adata, setup, own.var_names)  # which finds the dimensions by name
    for what, now, then in compared:
        same = (
            (now.equals(then) or now.astype(str).equals(then))
            if what == "cells" or len(now) == len(then)
            else then.isin(now).all()
        )
        if not same:
            raise ValueError(
                f"adata has other {what} ({len(now):,}, e.g. {_checks.listed(now, 2)}) than when it was set up for "
                f"{name} ({len(then):,}, e.g. {_checks.listed(then, 2)}), or in another order; call "
                f"{name}.setup_anndata again and make the clock anew."
            )


def check_values_kept(adata: AnnData, own: AnnData, setup: Mapping[str, Any], name: str) -> None:
    """Refuse data whose matrix was replaced after set-up: one would be predicted, and the other trained on."""
    if not _source.is_there(adata, setup):
        return  # dropped, and not replaced
    adata, layer = _source.read(adata, setup, own.var_names), setup["layer"]
    source = _ON_DISK.get(own)
    if source is not None:
        now = _checks.matrix(adata, layer)
        if not _are_same(now, source.x) or (now.path and Stamp.of(Path(now.path)) != source.stamp):
            raise ValueError(_others(setup, name))
        return
    then = _checks.matrix(own, layer)
    if not adata.is_view and _are_same(_checks.matrix(adata, layer), then):
        return
    columns = slice(None) if adata.var_names.equals(own.var_names) else adata.var_names.get_indexer(own.var_names)
    for start in range(0, adata.n_obs, _ROWS):
        rows = slice(start, start + _ROWS)
        now = _checks.matrix(adata[rows], layer)[:, columns]
        differ = now != then[rows]
        if differ.nnz if sp.issparse(differ) else np.any(differ):
            raise ValueError(_others(setup, name))


def _others(setup: Mapping[str, Any], name: str) -> str:
    """What to say of values that were replaced."""
    return (
        f"{_source.place(setup)} holds other values than when it was set up for {name}; call {name}.setup_anndata "
        "again and make the clock anew."
    )


def _are_same(now: Any, then: Any) -> bool:
    """Whether two matrices are one, in memory or in a file."""
    return now is then or (isinstance(now, Stored) and now.same(then))


def _of_values(values: Any, obs: pd.DataFrame, var: pd.DataFrame, layer: str | None) -> AnnData:
    """An AnnData with ``values`` in X or in one layer; names of cells become text, as anndata would make them."""
    if isinstance(values, Stored):
        values = values.as_anndata()
    if getattr(values, "_view_args", None) is not None:
        values._view_args = None  # anndata's values of a view, a copy, refer to all data, which would never be freed
    if obs.index.inferred_type != "string":
        obs = obs.set_axis(obs.index.astype(str))
    if layer is None:
        return AnnData(values, obs=obs, var=var)
    return AnnData(obs=obs, var=var, layers={layer: values}, shape=values.shape)


def of_features(adata: AnnData, features: Any, setup: Mapping[str, Any]) -> AnnData:
    """Values of some genes, in the order of the data, with all columns of cells; warns where few are named."""
    _checks.anndata(adata)
    key, layer = setup.get("obsm_key"), setup["layer"]
    if key is not None and key in adata.obsm and not isinstance(adata.obsm[key], pd.DataFrame):
        raise ValueError(
            f"features with obsm_key={key!r}, which is an array without names; leave features out, or pass a table of "
            "the dimensions that are meant."
        )
    adata = _source.read(adata, {**setup, "normalize": "none"})
    _checks.in_memory(adata, "a choice of features copies values of")
    chosen = chosen_features(adata, features, setup)
    out = _of_values(_checks.matrix(adata, layer)[:, chosen], adata.obs.copy(), adata.var.loc[chosen].copy(), layer)
    copy_sets(adata, out, chosen)
    return _source.copy_mark(adata, copy_sums(adata, out, chosen))


def chosen_features(adata: AnnData, features: Any, setup: Mapping[str, Any]) -> np.ndarray:
    """Mask of the columns of data that ``features`` names, (n_vars,); says which are absent."""
    key = setup.get("obsm_key")
    where = "adata.var_names" if key is None else f"the columns of {_source.place(setup)}"
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
        why, said = _symbols.mismatch(names, adata.var_names, "the features are", "the data use")
        said += f", which {_symbols.CUT} cuts off" if why == "version" else ""
        raise ValueError(
            f"none of the {len(names):,} features{f' (e.g. {_checks.listed(names, 2)})' if len(names) else ''} is "
            f"among {where} (e.g. {_checks.listed(adata.var_names, 2)}){said}. Pass names as in {where}."
        )
    absent = names[~names.isin(adata.var_names)]
    if len(absent) and len(names) <= _TYPED:
        warnings.warn(
            f"{len(absent):,} of the {len(names):,} features are absent from {where} (e.g. "
            f"{_checks.listed(absent, 3)}); {chosen.sum():,} train the clock. Correct those names, or leave them out.",
            UserWarning,
            stacklevel=_checks.stack_depth(),
        )
    else:
        logger.info("%d of %d features are in the data, and train the clock.", chosen.sum(), len(names))
    return np.asarray(chosen)
