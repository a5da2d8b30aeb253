"""Gates of matrices: what can be read, and what its values must be. Nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from agevi._stored import Stored, stored
from agevi._stored import is_stored as is_stored

_BLOCK = 1 << 22  # values looked at in one step, so that no gate copies X
_FILL = "remove or fill them first."
_ROUNDING = 1e-6  # of float32 values near 1
_NEARLY, _RELATIVE = 1e-3, 1e-4  # how far from whole numbers counts are that were recovered from normalised values


def is_sparse(x: Any) -> bool:
    """Whether rows of ``x``, in memory or on disk, are sparse."""
    return x.is_sparse if isinstance(x, Stored) else bool(sp.issparse(x))


def readable(x: Any, where: str) -> Any:
    """``x`` when it is a matrix that blocks of rows can be read from, of numbers that scipy and torch take."""
    if is_stored(x):
        x = stored(x, where)
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{where} is a masked array; fill it first, for example {where} = {where}.filled(0).")
    if not (isinstance(x, np.ndarray) or (sp.issparse(x) and x.format in ("csr", "csc")) or isinstance(x, Stored)):
        raise TypeError(
            f"{where} is a {type(x).__module__}.{type(x).__name__}; agevi reads numpy arrays and scipy's csr and csc "
            "matrices. Convert it first, for example with adata = adata.to_memory()."
        )
    if is_number(x.dtype):
        return x
    name = x.dtype.name if x.dtype.isnative else f"{x.dtype.newbyteorder('=').name} of another byte order"
    real = ".real" if x.dtype.kind == "c" else ""
    raise TypeError(
        f"{where} holds {name}; agevi reads bool, integers, float32 and float64 in the byte order of this computer. "
        f"Convert it first: {where} = {where}{real}.astype('float32')."
    )


def is_number(dtype: np.dtype[Any]) -> bool:
    """Whether scipy and torch take values of ``dtype``."""
    return dtype.isnative and (dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize in (4, 8)))


def dense(block: Any, dtype: Any = np.float32) -> np.ndarray:
    """Some rows as a dense array; values that a sparse matrix stores twice are summed in ``dtype``, not their own."""
    return np.asarray(block.astype(dtype, copy=False).toarray() if sp.issparse(block) else block, dtype=dtype)


def value_blocks(x: Any) -> Iterator[np.ndarray]:
    """Stored values in blocks; zeros that a sparse matrix leaves out are left out."""
    if isinstance(x, Stored):
        yield from x.values()
    elif sp.issparse(x):
        for start in range(0, len(x.data), _BLOCK):
            yield x.data[start : start + _BLOCK]
    else:
        step = max(1, _BLOCK // max(1, x.shape[1]))
        for start in range(0, x.shape[0], step):
            yield np.asarray(x[start : start + step])


def finite(x: Any, where: str, *, advice: str = _FILL) -> None:
    """Refuse NaN and infinite values."""
    known = _known(x)
    if known.get("finite"):
        return
    for block in value_blocks(x):
        _refuse_infinite(block, where, advice)
    known["finite"] = True


def _refuse_infinite(block: np.ndarray, where: str, advice: str = _FILL) -> None:
    """The standard error where a value of a block is NaN or infinite."""
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        bad = block[~np.isfinite(block)].flat[0]
        raise ValueError(f"{where} has missing or infinite values (first: {bad}); {advice}")


def _known(x: Any) -> dict[str, Any]:
    """What is known of the values of a file, each of which is read once for it; of others nothing is kept."""
    return x.facts if isinstance(x, Stored) else {}


def within(x: Any, where: str, low: float, high: float, advice: str) -> None:
    """Refuse values outside ``low`` to ``high``; ``advice`` says what they are and what to do."""
    for block in value_blocks(x):
        least, most = (float(block.min()), float(block.max())) if block.size else (low, low)
        if least < low - _ROUNDING or most > high + _ROUNDING:
            worst, bound = (least, low) if least < low - _ROUNDING else (most, high)
            raise ValueError(
                f"{where} has values outside {low:g} to {high:g} (e.g. {_told_from(worst, bound)}); {advice}"
            )


def counts(x: Any, where: str, why: str, *, advice: str, empty_ok: bool = False) -> None:
    """Refuse what is not raw counts, or all zero unless ``empty_ok``; ``why`` says who needs them."""
    known = _known(x)
    total = known.get("total", 0.0)
    for block in () if "total" in known else value_blocks(x):
        _refuse_infinite(block, where)
        _refuse_negative(block, where, why, advice)
        if block.dtype.kind == "f":
            fraction = block != np.floor(block)
            if fraction.any():
                first = float(block[fraction].flat[0])
                shown = f"first: {_told_from(first, np.rint(first))}"
                if rounded := _rounded_off(x):
                    advice = (
                        f"They are whole but for rounding (by {rounded:.1g} at most), so round them: "
                        f"{where} = np.rint({where}). If they are not counts: {advice}"
                    )
                raise ValueError(f"{where} has non-integer values ({shown}); {why}. {advice}")
        total += float(block.sum(dtype=np.float64))
    known["total"], known["finite"] = total, True
    if total == 0 and not empty_ok:
        raise ValueError(f"{where} holds only zeros; {why}. {advice}")


def not_negative(x: Any, where: str, why: str, *, advice: str) -> None:
    """Refuse values below 0; ``why`` and ``advice`` are as in :func:`counts`."""
    for block in value_blocks(x):
        _refuse_negative(block, where, why, advice)


def _refuse_negative(block: np.ndarray, where: str, why: str, advice: str) -> None:
    """The standard error where a value of a block is below 0."""
    if block.size and block.min() < 0:
        raise ValueError(f"{where} has negative values (lowest: {block.min():g}); {why}. {advice}")


def holds_counts(x: Any) -> bool:
    """Whether ``x`` passes for raw counts."""
    try:
        counts(readable(x, ""), "", "", advice="")
    except (TypeError, ValueError):
        return False
    return True


def _told_from(value: float, other: float) -> str:
    """``value`` with 3 digits, or as many more as show that it is not ``other``."""
    texts = (f"{value:.{digits}g}" for digits in range(3, 18))
    return next((text for text in texts if float(text) != other), repr(value))


def _rounded_off(x: Any) -> float:
    """The largest distance from a whole number where all values are nearly whole, else 0."""
    largest = 0.0
    for block in value_blocks(x):
        distance = np.abs(block - np.rint(block))
        if (distance > _NEARLY + _RELATIVE * np.abs(block)).any():
            return 0.0
        largest = max(largest, float(distance.max(initial=0.0)))
    return largest
