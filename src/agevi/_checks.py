"""Input gates. Each raises one message that says what was given, what is there and what to do."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from agevi import _names
from agevi._compat import on_disk
from agevi._options import choice as choice
from agevi._options import closest as closest
from agevi._options import count as count
from agevi._options import generator as generator
from agevi._options import listed as listed
from agevi._options import share_or_count as share_or_count
from agevi._settings import settings
from agevi._stored import Stored
from agevi._values import counts as counts
from agevi._values import dense as dense
from agevi._values import finite as finite
from agevi._values import holds_counts as holds_counts
from agevi._values import is_sparse as is_sparse
from agevi._values import is_stored as is_stored
from agevi._values import not_negative as not_negative
from agevi._values import readable as readable
from agevi._values import value_blocks as value_blocks
from agevi._values import within as within

_OR_PREDICT = " (tl.predict_age and model.get_latent_representation read data on disk)"


def stack_depth() -> int:
    """The stack level, as a warning of the caller counts it, of the first frame outside agevi."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "agevi":
        frame, depth = frame.f_back, depth + 1
    return depth


def group(value: Any, groups: Sequence[str], where: str) -> str:
    """``value`` when it is one of the ``groups`` that stand in ``where``, else a ValueError that names the closest."""
    name = _names.name(value)
    if name in groups:
        return name
    hint = closest(value, groups)
    raise ValueError(f"group={value!r} is not in {where}{hint}. Available: {listed(groups)}.")


def positions(indices: Any, n: int) -> Any:
    """``indices`` as positions among ``n`` cells, or None; a mask of all cells stands for those where it is True."""
    if indices is None:
        return None
    given = np.asarray(indices)
    if given.dtype == bool and given.shape == (n,):
        given = np.flatnonzero(given)
    whole = given.ndim == 1 and given.dtype.kind in "iu" and given.size > 0
    if not whole or given.min() < -n or given.max() >= n:
        what = f"from {given.min()} to {given.max()}" if whole else f"{given.dtype} of shape {given.shape}"
        raise IndexError(
            f"indices is {what} with {n:,} cells; pass valid positions, or a boolean mask of length n_obs."
        )
    return np.where(given < 0, given + n, given).astype(np.int64)


def rows(indices: Any, n: int) -> tuple[Any, Any]:
    """Cells of ``indices``, each once in rising order (None for all), and the place of each given one among them."""
    chosen = positions(indices, n)
    return (None, slice(None)) if chosen is None else np.unique(chosen, return_inverse=True)


def anndata(adata: Any, argument: str = "adata") -> ad.AnnData:
    """``adata`` when it is a non-empty AnnData."""
    settings.apply()  # every public function passes here, and scanpy's verbosity may have changed since the last one
    if not isinstance(adata, ad.AnnData):
        raise TypeError(f"{argument} is a {type(adata).__name__}; pass an anndata.AnnData of cells x genes.")
    if not (isinstance(adata.obs, pd.DataFrame) and isinstance(adata.var, pd.DataFrame)):
        raise TypeError(
            f"the tables of {argument} are on disk, as anndata.experimental.read_lazy leaves them; call {argument} = "
            f"{argument}.to_memory() first."
        )
    if adata.n_obs == 0 or (adata.n_vars == 0 and not len(adata.obsm)):
        raise ValueError(f"{argument} is empty ({adata.n_obs} cells x {adata.n_vars} genes); check the last filter.")
    return adata


def unique_names(adata: ad.AnnData) -> None:
    """Refuse missing and repeated names of genes and cells, and names of genes that are not text."""
    for axis, names in (("var", adata.var_names), ("obs", adata.obs_names)):
        missing = np.asarray(names.isna())
        if missing.any():
            first = int(missing.argmax())
            raise ValueError(
                f"adata.{axis}_names is missing in {missing.sum():,} of {len(names):,} places (first: position "
                f"{first}); name them, or drop those " + ("genes." if axis == "var" else "cells.")
            )
        if not names.is_unique:
            twice = names[names.duplicated()].unique()
            raise ValueError(
                f"adata.{axis}_names has {len(twice):,} repeated names (e.g. {listed(twice, 3)}); "
                f"call adata.{axis}_names_make_unique() first."
            )
    kind = pd.api.types.infer_dtype(adata.var_names.astype(object))
    if kind != "string":
        convert = "str.decode('utf-8')" if kind == "bytes" else "astype(str)"
        raise TypeError(
            f"adata.var_names holds {kind} values (e.g. {listed(adata.var_names, 2)}); a clock finds genes by their "
            f"names as text. Call adata.var_names = adata.var_names.{convert} first."
        )


def column(adata: ad.AnnData, key: str, argument: str) -> pd.Series:
    """The column of ``adata.obs``, or a KeyError that names the closest one."""
    if not isinstance(key, Hashable):
        raise TypeError(f"{argument}={key!r} is a {type(key).__name__}; pass the name of one column of adata.obs.")
    if key in adata.obs:
        return adata.obs[key]
    names = [str(c) for c in adata.obs.columns if not str(c).startswith("_scvi")]
    there = f"Available: {listed(names)}." if names else "adata.obs has no columns."
    raise KeyError(f"{argument}={key!r} is not a column of adata.obs{closest(key, names)}. {there}")


def slot(adata: ad.AnnData, key: str, where: str, call: str) -> Any:
    """What is stored in ``adata.<where>[key]``, or a KeyError that names the call that writes it."""
    store = getattr(adata, where)
    if key not in store:
        unpredicted = where == "uns" and key.endswith("_subjects") and key.removesuffix("_subjects") not in store
        after = ", after agevi.tl.cross_validate(adata, ...), which predicts every subject" if unpredicted else ""
        raise KeyError(f"adata.{where}[{key!r}] is absent; run {call} first{after}. Available: {listed(store.keys())}.")
    return store[key]


def labels(adata: ad.AnnData, key: str, argument: str) -> pd.Series:
    """Names in a column of units (subject, sample, group), without missing values; see :mod:`agevi._names`."""
    values = column(adata, key, argument)
    missing = values.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"adata.obs[{key!r}] is missing in {missing.sum():,} cells (first: {adata.obs_names[missing.argmax()]!r}); "
            f"{argument} must name every cell's unit. Fill it, or drop those cells."
        )
    return _names.names(values, f"adata.obs[{key!r}]")


def warn_of_spelling(found: pd.Series, known: Iterable[str], key: str, what: str) -> None:
    """Warn once where names of a column differ from the ``known`` ones in spelling alone; ``what`` says so of them."""
    pairs = _names.lookalikes(found.unique(), known)
    if pairs:
        warnings.warn(
            f"{len(pairs):,} names in adata.obs[{key!r}] {what}, and differ from those it knows only in zeros, spaces, "
            f"case or '.0' ({_names.shown(pairs)}); if they are the same, write them as the clock knows them.",
            UserWarning,
            stacklevel=stack_depth(),
        )


def warn_of_twins(found: Iterable[str], key: str, what: str) -> None:
    """Warn once where two ``what`` of one column differ in their spelling alone."""
    pairs = _names.twins(found)
    if pairs:
        warnings.warn(
            f"{what} in adata.obs[{key!r}] differ only in zeros, spaces, case or '.0' ({_names.shown(pairs)}); if they "
            "are the same, write them in one way.",
            UserWarning,
            stacklevel=stack_depth(),
        )


def matrix(adata: ad.AnnData, layer: str | None) -> Any:
    """``adata.X`` or the layer, or the standard error where there is none."""
    names = [k for k in adata.layers.keys() if k is not None]  # newer anndata keeps X there, under None
    if layer is None:
        if adata.X is None:
            raise ValueError(f"adata.X is absent; pass layer=..., one of {listed(names) or 'none'}.")
        return readable(adata.X, "adata.X")
    if layer not in adata.layers:
        hint = closest(layer, names)
        there = listed(names) or "none"
        raise KeyError(f"layer={layer!r} is not in adata.layers{hint}. Available: {there}.")
    return readable(adata.layers[layer], f"adata.layers[{layer!r}]")


def representation(adata: ad.AnnData, use_rep: str, argument: str = "use_rep") -> tuple[Any, list[str]]:
    """``adata.obsm[use_rep]`` as a finite array or sparse matrix (n_cells, n_components), and its components' names."""
    if use_rep not in adata.obsm:
        names = list(adata.obsm.keys())
        hint = closest(use_rep, names)
        there = f"Available: {listed(names)}." if names else "adata.obsm is empty; run sc.pp.pca(adata) first."
        raise KeyError(f"{argument}={use_rep!r} is not in adata.obsm{hint}. {there}")
    values, where = adata.obsm[use_rep], f"adata.obsm[{use_rep!r}]"
    names = [str(i) for i in range(values.shape[1])] if np.ndim(values) == 2 else []
    if isinstance(values, pd.DataFrame):
        names, values = [str(c) for c in values.columns], values.to_numpy()
    known = sp.issparse(values) or isinstance(values, np.ndarray)
    if not names or not known or values.dtype.kind not in "fiub":
        kind = f"{values.dtype} values" if known else type(values).__name__
        raise TypeError(f"{where} holds {kind} of shape {values.shape}; pass a table of numbers, cells x components.")
    finite(values, where)
    return values, names


def in_memory(
    adata: ad.AnnData, reader: str = "training and scvi-tools' verbs read", advice: str = _OR_PREDICT
) -> None:
    """Refuse an AnnData whose matrix is on disk; ``reader`` says, with its verb, who needs it in memory."""
    if not on_disk(adata):
        return
    where = f"backed by {str(adata.filename)!r}" if adata.isbacked else "on disk"
    raise ValueError(
        f"adata is {where}; {reader} cells at random, which needs them in memory. Call adata = adata.to_memory() "
        f"first{advice}."
    )


def not_a_view_on_disk(adata: ad.AnnData) -> None:
    """Refuse some cells or genes of data on disk, which anndata would read into memory each time."""
    if adata.is_view and on_disk(adata):
        raise ValueError(
            "adata is a view of data on disk, and training reads whole files. Call adata = adata.to_memory() first, or "
            "write these cells to a file of their own."
        )


def by_rows(x: Any, where: str) -> None:
    """Refuse a matrix on disk of which blocks of rows cannot be read."""
    if isinstance(x, Stored) and not x.by_rows:
        raise ValueError(
            f"{where} is stored by columns (CSC) in {str(x.path)!r}, from which training cannot read blocks of cells; "
            "write it by rows (CSR), or call adata = adata.to_memory() first."
        )
