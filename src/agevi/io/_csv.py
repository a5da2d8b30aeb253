"""Tables as CSV files whose text stays text in a spreadsheet."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd

from agevi.io._folder import write

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""How a cell begins that spreadsheets take for a formula, or whose beginning they pass over."""


def safe(value: Any) -> Any:
    """The same, with an apostrophe before text that a spreadsheet would run; numbers stay as they are."""
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA) else value


def csv_text(table: pd.DataFrame) -> str:
    """A table without its index as CSV, names of columns and text without formulas."""
    columns = {}
    for i in range(table.shape[1]):
        values = table.iloc[:, i]
        numeric = pd.api.types.is_numeric_dtype(values)
        columns[i] = values.to_numpy() if numeric else [safe(v) for v in values.astype(object)]
    out, names = pd.DataFrame(columns, index=range(len(table))), [safe(str(name)) for name in table.columns]
    text = str(out.to_csv(index=False, header=names, lineterminator="\n"))
    if "\r" in text:  # which is quoted only where it ends lines
        text = str(out.to_csv(index=False, header=names, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC))
    return text


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as such a file, which is there whole or not at all."""
    write(path, csv_text(table).encode())
