"""Writing results: whole or not at all, never over the input, and over nothing else unless asked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd

from agevi.io._csv import csv_text
from agevi.io._folder import write


def check_apart(out: Path, inputs: list[Path]) -> None:
    """Refuse to write into what is read, or over it."""
    place = out.resolve()
    for path in inputs:
        own = path.resolve()
        if place == own or own in place.parents or (out.is_dir() and place in own.parents):
            raise click.UsageError(f"--out={str(out)!r} is {str(path)!r}, which is read, or around it; choose another.")
    if not place.parent.is_dir():
        raise click.UsageError(f"--out={str(out)!r}: the folder {str(out.parent)!r} does not exist.")


def check_new(out: Path, inputs: list[Path], *, force: bool, folder: bool = False) -> None:
    """Refuse to write over what is there, or into what is read."""
    check_apart(out, inputs)
    if out.is_dir() and not folder:
        raise click.UsageError(f"--out={str(out)!r} is a folder; pass the path of a file.")
    if out.exists() and not force:
        raise click.UsageError(f"--out={str(out)!r} exists; pass --force to replace it, or another path.")


def write_table(out: Path | None, table: pd.DataFrame) -> None:
    """Write a table as CSV, or print it."""
    if out is None:
        click.echo(csv_text(table), nl=False)
    else:
        write(out, csv_text(table).encode())


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table for JSON."""
    return [{str(k): plain(v) for k, v in row.items()} for row in table.to_dict("records")]


def plain(value: Any) -> Any:
    """A value as JSON has it; what is not a number there is null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, pd.DataFrame):
        return rows(value)
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, str | int | float | bool) else str(value)


def say_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(plain(value), indent=1, ensure_ascii=False))
