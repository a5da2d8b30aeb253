"""Numbers in words and in tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from agevi._report._blocks import Cell, Head, Table

NONE = "\N{EN DASH}"
"""What stands where a number is not known."""


class Column(NamedTuple):
    """How a column of a table is shown: the label of its head, how its values are written, and what it means."""

    label: str
    written: Callable[[Any], str] | None = None  # None for text
    title: str = ""


def number(value: Any, digits: int = 1, *, sign: bool = False) -> str:
    """A number with a minus sign as printers set it, a dash where it is not known."""
    if value is None or not np.isfinite(value):
        return NONE
    text = f"{value:{'+' if sign else ''},.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def counted(n: int, noun: str) -> str:
    """A number of things."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def percent(share: Any, digits: int = 0) -> str:
    """A share in per cent."""
    return NONE if share is None or not np.isfinite(share) else f"{100 * share:.{digits}f} %"


def interval(low: Any, high: Any, digits: int = 1) -> str:
    """Both ends of an interval."""
    if low is None or high is None or not np.isfinite([low, high]).all():
        return NONE
    return f"{number(low, digits)} to {number(high, digits)}"


def p(value: Any) -> str:
    """A p value in a table."""
    if value is None or not np.isfinite(value):
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def p_words(value: float) -> str:
    """A p value in a sentence."""
    return f"p {p(value)}" if value < 0.001 else f"p = {p(value)}"


def whole(value: Any) -> str:
    """A count."""
    return number(value, 0)


def rounded(digits: int, *, sign: bool = False) -> Callable[[Any], str]:
    """Numbers with some digits."""
    return lambda value: number(value, digits, sign=sign)


def digits_of(values: Any) -> int:
    """Digits behind the point that ages of such a range are read with: years one, days none, shares of a year two."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    span = float(np.ptp(known)) if len(known) else 50.0
    return 0 if span > 500 else 1 if span >= 5 else 2


def listing(names: Any, most: int = 8) -> str:
    """Names with commas, the first ones of many."""
    found = [str(name) for name in names]
    return ", ".join(found[:most]) + (f" and {len(found) - most:,} more" if len(found) > most else "")


def table(
    frame: pd.DataFrame, columns: Mapping[str, Column], *, name: str, caption: str, note: str = "", most: int = 0
) -> Table:
    """The columns of a table that it has, in this order; ``most`` rows of it, 0 for all."""
    shown = [column for column in columns if column in frame]
    part = frame.head(most) if most else frame
    heads = [Head(columns[c].label, columns[c].written is not None, columns[c].title) for c in shown]
    cells = [[_cell(value, columns[c].written) for value in part[c]] for c in shown]
    left = len(frame) - len(part)
    note = " ".join(text for text in (note, f"The first {len(part):,} of {len(frame):,} rows." if left else "") if text)
    return Table(name, caption, heads, list(zip(*cells, strict=True)), note)


def _cell(value: Any, written: Callable[[Any], str] | None) -> Cell:
    """What is shown of a value."""
    if written is None:
        missing = value is None or (not isinstance(value, str) and pd.isna(value))
        return Cell(NONE if missing or value == "" else str(value))
    known = value is not None and not pd.isna(value)
    return Cell(written(value) if known else NONE, f"{float(value):.6g}" if known and math.isfinite(value) else "")
