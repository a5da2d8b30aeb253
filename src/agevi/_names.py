"""Names of subjects, samples, batches, groups and other labels: the one way in which they are read and compared."""

from __future__ import annotations

import datetime
import numbers
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

_LARGEST = 2**64  # of whole numbers in columns; larger floats are written with an exponent
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)\.0")
_ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")  # in front of a number, not behind its point

ALL_CELLS = "all cells"
"""Name of the one type of all cells, where none are told apart."""
ALL_TYPES = "all"
"""Type of the rows that combine all types of a sample."""
BASELINE = "baseline"
"""Part of a predicted age that every sample has: the age if each of its types were at the mean of that type."""


def name(value: Any) -> str:
    """The name that a label stands for, whatever its type; two labels are equal when their names are."""
    # 7, 7.0 and "7" are one name, since an integer column becomes one of floats beside a missing value; "12.0" is how a
    # table writes a whole number as a float. Other text keeps its spaces, case and zeros ("007", "1e3", "nan").
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return value[:-2] if value.endswith(".0") and _WHOLE.fullmatch(value) else str(value)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return name(value.item())
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real | Decimal) and abs(float(value)) < _LARGEST and float(value).is_integer():
        return str(int(float(value)))
    if isinstance(value, datetime.datetime) and value == value and value.time() == datetime.time():
        return str(value.date())
    return str(value)


def names(values: Any, where: str = "") -> pd.Series:
    """Names of a column of labels, (n,), missing ones kept; ``where``, if given, refuses a name in two spellings."""
    values = values if isinstance(values, pd.Series) else pd.Series(values)
    code, found = _found(values)
    text = np.array([*(name(value) if pd.isna(value) is not True else np.nan for value in found), np.nan], dtype=object)
    if where:
        _refuse_two_spellings(found, text[:-1], where)
    return pd.Series(text[code], index=values.index, name=values.name, dtype=object)


def levels(values: pd.Series, where: str = "") -> list[str]:
    """Names that a column of labels has: in the order of its categories, else numbers by size and text by letters."""
    text = names(values, where)
    found = text.dropna().unique()
    if isinstance(values.dtype, pd.CategoricalDtype):
        there = set(found)
        return [level for level in dict.fromkeys(map(name, values.cat.categories)) if level in there]
    return in_order(found)


def coded(values: pd.Series, where: str = "") -> tuple[np.ndarray, list[str]]:
    """Position of every label's name among the :func:`levels`, (n,), -1 where it is missing, and these."""
    found = levels(values, where)
    return pd.Index(found, dtype=object).get_indexer(pd.Index(names(values, where), dtype=object)), found


def several(values: Any) -> list[str]:
    """Names of one label or of a list of them, as an argument gives them."""
    one = isinstance(values, str | bytes) or not isinstance(values, Iterable)
    return [name(values)] if one else [name(value) for value in values]


def in_order(found: Iterable[str]) -> list[str]:
    """Names without repeats: by size where all are numbers, else by letters."""
    unique = sorted(set(found))
    size = pd.to_numeric(pd.Series(unique, dtype=object), errors="coerce").to_numpy(dtype=np.float64)
    return unique if np.isnan(size).any() else [unique[i] for i in np.argsort(size, kind="stable")]


def lookalikes(new: Iterable[str], known: Iterable[str]) -> list[tuple[str, str]]:
    """Names among ``new`` with the one of ``known`` from which they differ only in zeros, spaces, case or ".0"."""
    # Only names that the other side lacks: what one side tells apart is not taken for one.
    new, known = dict.fromkeys(new), dict.fromkeys(known)
    plain = {_plain(other): other for other in reversed(known) if other not in new}
    return [(own, plain[_plain(own)]) for own in new if own not in known and _plain(own) in plain]


def difference(new: Iterable[str], known: Iterable[str]) -> str:
    """What a message adds where names are absent for their spelling alone, or nothing; see :func:`lookalikes`."""
    pairs = lookalikes(new, known)
    return f" (only zeros, spaces, case or '.0' differ in {shown(pairs)})" if pairs else ""


def twins(found: Iterable[str]) -> list[tuple[str, str]]:
    """Names of one column that differ from an earlier one only in zeros, spaces, case or ".0", with that one."""
    first: dict[str, str] = {}
    return [(own, first[_plain(own)]) for own in dict.fromkeys(found) if first.setdefault(_plain(own), own) != own]


def shown(pairs: list[tuple[str, str]]) -> str:
    """Two pairs of lookalikes for a message."""
    return ", ".join(f"{own!r} for {other!r}" for own, other in pairs[:2])


def _plain(text: str) -> str:
    """A name without what spelling changes by accident."""
    return _ZEROS.sub("", re.sub(r"\.0+$", "", re.sub(r"\s+", "", text))).casefold()


def _found(values: pd.Series) -> tuple[np.ndarray, list[Any]]:
    """Code of every label, -1 where missing, and the labels that occur."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        code, of = pd.factorize(values.cat.codes.to_numpy())
        return np.where(of[code] < 0, -1, code), [None if i < 0 else values.cat.categories[int(i)] for i in of]
    if values.dtype == object and pd.api.types.infer_dtype(values, skipna=True).startswith("mixed"):
        # 1, 1.0 and True are equal in Python, so that the types of a mixed column are told apart by their text.
        there = np.flatnonzero(values.notna())
        code = np.full(len(values), -1)
        code[there] = pd.factorize(values.iloc[there].astype(str).to_numpy(dtype=object))[0]
        first = np.unique(code[there], return_index=True)[1]
        return code, values.iloc[there[first]].tolist()
    code, found = pd.factorize(values)
    return code, list(found)


def _refuse_two_spellings(found: list[Any], text: np.ndarray, where: str) -> None:
    """Refuse texts such as "1" and "1.0" in one column: they would be one name, and whoever wrote them meant two."""
    cut = [
        (value, label) for value, label in zip(found, text, strict=True) if isinstance(value, str) and value != label
    ]
    spelt = {value for value in found if isinstance(value, str)} if cut else set()
    for value, label in cut:
        if label in spelt:
            raise ValueError(
                f"{where} has both {label!r} and {value!r} as text, which agevi reads as one name; spell it in one way "
                "where it is one, or rename one of them."
            )


def in_types(key: str | None) -> str:
    """Where the types of cells are named, for messages."""
    return "the data" if key is None else f"adata.obs[{key!r}]"


def in_words(names: Sequence[str]) -> str:
    """Names as a sentence lists them: ``a``, ``a and b``, ``a, b and c``; "" without any."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
