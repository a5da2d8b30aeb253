"""Single cells each of which was registered as a subject of its own."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from agevi import _checks
from agevi._values import dense

MIN_ROWS = 1000  # fewer rows may be bulk samples of any kind
MAX_DEPTH = 20_000  # transcripts of most droplets; bulk libraries hold millions
MIN_ZEROS = 0.5  # share of a row
_LOOKED_AT = 500  # rows


def warn_of_cells(subject: pd.Series, x: Any, subject_key: str) -> None:
    """Warn where nearly every row is its own subject though rows look like single cells: many, shallow and sparse."""
    n = len(subject)
    if n < MIN_ROWS or subject.nunique() < 0.95 * n:
        return
    rows = dense(x[np.linspace(0, n - 1, _LOOKED_AT).astype(int)])
    if np.median(rows.sum(axis=1)) > MAX_DEPTH or np.median((rows == 0).mean(axis=1)) < MIN_ZEROS:
        return
    warnings.warn(
        f"nearly every row is a subject of its own in adata.obs[{subject_key!r}], and rows look like single cells; if "
        "that column holds barcodes, cells of one person are on both sides of every split and errors look too small. "
        "Pass the column with the donors or animals as subject_key.",
        UserWarning,
        stacklevel=_checks.stack_depth(),
    )
