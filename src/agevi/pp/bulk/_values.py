"""Values of bulk samples in blocks of rows, and the two scales of methylation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from agevi import _checks
from agevi._compat import written_to
from agevi._source import where

_BLOCK = 1 << 22  # values of one block: 32 MB in float64
_WIDEST = 30.0  # beyond log2 of what float64 resolves next to 1, so no M value
_EDGE = 1e-6  # betas are kept this far from 0 and 1, so that M values stay within 20


def row_blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Slices of rows that are small enough to be held densely."""
    step = max(1, _BLOCK // max(1, n_columns))
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def dense(block: Any, dtype: Any) -> np.ndarray:
    """Some rows as a new dense array."""
    return _checks.dense(block, dtype) if sp.issparse(block) else np.array(block, dtype=dtype)


def value_range(x: Any, place: str) -> tuple[float, float]:
    """Lowest and highest value, NaN left out; refuses infinite values."""
    low, high = np.inf, -np.inf
    for block in _checks.value_blocks(x):
        if not block.size:
            continue
        block_low, block_high = float(np.fmin.reduce(block, axis=None)), float(np.fmax.reduce(block, axis=None))
        if np.isinf([block_low, block_high]).any():
            raise ValueError(f"{place} has infinite values; no beta and no M value is infinite. Set them to NaN.")
        low, high = np.fmin(low, block_low), np.fmax(high, block_high)
    if not np.isfinite(low):
        raise ValueError(f"{place} holds no values: all are missing; check how the data were read.")
    # The zeros of a sparse matrix are values too, and are not among those that it stores.
    return (min(low, 0.0), max(high, 0.0)) if sp.issparse(x) else (float(low), float(high))


def betas(x: Any, place: str, *, advice: str) -> None:
    """Refuse values outside [0, 1], and name the scale that they seem to have; ``advice`` is for M values."""
    low, high = value_range(x, place)
    if low >= 0 and high <= 1:
        return
    if 10 < high <= 100 and low >= 0:
        kind = "as percentages do; divide them by 100"
    elif low < 0 and max(-low, high) < _WIDEST:
        kind = f"as M values do; {advice}"
    else:
        kind = "and betas are shares of methylated copies; check how the data were read"
    raise ValueError(f"{place} has values outside [0, 1] (lowest {low:g}, highest {high:g}), {kind}.")


def m_values(x: Any, place: str, *, advice: str) -> None:
    """Refuse values that cannot be M values, or that all are betas; ``advice`` is for betas."""
    low, high = value_range(x, place)
    # M values of real data are negative somewhere, while betas that pass for M values would become 0.5 to 0.67.
    if low >= 0 and high <= 1:
        raise ValueError(f"{place} lies within [0, 1] (lowest {low:g}, highest {high:g}), as betas do; {advice}.")
    if max(-low, high) >= _WIDEST:
        raise ValueError(
            f"{place} has values from {low:g} to {high:g}; M values are log2 ratios, mostly between -8 and 8. Check "
            "how the data were read."
        )


def as_beta(m: np.ndarray) -> np.ndarray:
    """Betas of M values, in the dtype of ``m``."""
    return 1 / (1 + np.exp2(-m))


def as_m(beta: np.ndarray) -> np.ndarray:
    """M values of betas, in the dtype of ``beta``."""
    kept = np.clip(beta, _EDGE, 1 - _EDGE)
    return np.log2(kept) - np.log2(1 - kept)


def beta_to_m(adata: AnnData, *, layer: str | None = None, key_added: str = "m", copy: bool = False) -> AnnData | None:
    """M values, log2(beta / (1 - beta)), of methylation betas, as a new layer.

    M values have a more even variance than betas, which linear models and ComBat assume. Betas are kept 1e-6 away from
    0 and 1, so that no M value is beyond 20 (Du et al. 2010). NaN stays NaN.

    Parameters
    ----------
    adata
        Annotated data, samples x probes or genes.
    layer
        Layer with the betas; default X.
    key_added
        Layer to write.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets ``layers[key_added]``: float32, dense, (n_samples, n_features).

    Raises
    ------
    KeyError
        The layer is absent.
    ValueError
        A value is outside [0, 1].

    Examples
    --------
    >>> import agevi, anndata, numpy as np
    >>> adata = anndata.AnnData(np.array([[0.5, 0.8]]))
    >>> agevi.pp.beta_to_m(adata)
    >>> adata.layers["m"].tolist()
    [[0.0, 2.0]]
    """
    return _converted(adata, layer, key_added, copy, betas, as_m)


def m_to_beta(
    adata: AnnData, *, layer: str | None = None, key_added: str = "beta", copy: bool = False
) -> AnnData | None:
    """Methylation betas, the share of methylated copies from 0 to 1, of M values, as a new layer.

    The inverse of :func:`agevi.pp.beta_to_m`. Published methylation clocks take betas. NaN stays NaN.

    Parameters
    ----------
    adata
        Annotated data, samples x probes or genes.
    layer
        Layer with the M values; default X.
    key_added
        Layer to write.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets ``layers[key_added]``: float32, dense, (n_samples, n_features).

    Raises
    ------
    KeyError
        The layer is absent.
    ValueError
        All values lie within [0, 1], as betas do, or some are too large for M values.

    Examples
    --------
    >>> import agevi, anndata, numpy as np
    >>> adata = anndata.AnnData(np.array([[0.0, 2.0]]))
    >>> agevi.pp.m_to_beta(adata)
    >>> adata.layers["beta"].round(3).astype(str).tolist()
    [['0.5', '0.8']]
    """
    return _converted(adata, layer, key_added, copy, m_values, as_beta)


def _converted(
    adata: AnnData,
    layer: str | None,
    key_added: str,
    copy: bool,
    check: Callable[..., None],
    convert: Callable[[np.ndarray], np.ndarray],
) -> AnnData | None:
    """Write ``convert`` of the checked values to a layer."""
    _checks.anndata(adata)
    _checks.in_memory(adata, "pp.beta_to_m and pp.m_to_beta convert", "")
    if key_added == layer:
        raise ValueError(f"key_added={key_added!r} is the layer that is read; choose another name.")
    x = _checks.matrix(adata, layer)
    check(x, where(layer), advice="they need no conversion")
    values = np.empty(adata.shape, dtype=np.float32)
    for rows in row_blocks(*adata.shape):
        values[rows] = convert(dense(x[rows], np.float64))
    out = written_to(adata, copy=copy)
    out.layers[key_added] = values
    return out if copy else None
