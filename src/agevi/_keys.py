"""Every name that agevi writes to an AnnData, and the form in which values may be stored there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

DEFAULT_KEY = "agevi"
SPLIT = "agevi_split"
FEATURE_SET = "agevi_feature_set"
"""Column of ``obs`` with the data set of every sample, which tells the features that were measured in it."""
MEASURED = "agevi_measured"
"""Slot of ``varm`` (n_vars, n_sets) with what each data set measured, and of ``uns`` with the names of the sets."""

TRAIN = "train"
VALIDATION = "validation"
TEST = "test"
OUT_OF_FOLD = "out_of_fold"
NEW = "new"
RECALIBRATION = "recalibration"
"""Role of the labelled samples of a cohort whose predictions :func:`agevi.tl.recalibrate` moved by them."""
SPLIT_ROLES = (TRAIN, VALIDATION, TEST)
ROLES = (TRAIN, VALIDATION, TEST, OUT_OF_FOLD, NEW, RECALIBRATION)
FITTED_ROLES = (TRAIN, VALIDATION)
SHAPED_ROLES = (*FITTED_ROLES, RECALIBRATION)
"""Roles whose ages shaped their predictions, of which nothing may be judged."""
HELD_OUT_ROLES = (TEST, OUT_OF_FOLD, NEW)
"""Roles whose ages did not shape the fitted weights, so that statistics on age gaps may use them."""


def check(value: Any, argument: str) -> None:
    """Refuse what cannot be the prefix of slots."""
    if not isinstance(value, str):
        raise TypeError(
            f"{argument}={value!r} is a {type(value).__name__}; pass text, the prefix of the slots, such as {DEFAULT_KEY!r}."
        )
    if not value.strip():
        raise ValueError(f"{argument}={value!r} is empty; pass the prefix of the slots, such as {DEFAULT_KEY!r}.")


@dataclass(frozen=True)
class Keys:
    """The slots that belong to one ``key_added``."""

    key_added: str = DEFAULT_KEY

    def __post_init__(self) -> None:
        check(self.key_added, "key_added")

    @property
    def uns(self) -> str:
        return self.key_added

    @property
    def predicted(self) -> str:
        return f"{self.key_added}_predicted"

    @property
    def predicted_sample(self) -> str:
        return f"{self.key_added}_predicted_sample"

    @property
    def cell_deviation(self) -> str:
        return f"{self.key_added}_cell_deviation"

    @property
    def role(self) -> str:
        return f"{self.key_added}_role"

    @property
    def fold(self) -> str:
        return f"{self.key_added}_fold"

    @property
    def latent(self) -> str:
        return f"X_{self.key_added}"

    @property
    def subjects(self) -> str:
        return f"{self.key_added}_subjects"

    def attribution(self, part: str = "") -> str:
        """Slot of ``varm`` with the attributions of genes, or with another ``part`` of them, such as ``"signed"``."""
        return f"{self.key_added}_attribution" + (f"_{part}" if part else "")

    def table(self, noun: str) -> str:
        """Slot of ``uns`` with the table of a tool, such as ``"metrics"``."""
        return f"{self.key_added}_{noun}"

    def table_params(self, noun: str) -> str:
        """Slot of ``uns`` with the parameters of that table."""
        return f"{self.key_added}_{noun}_params"


def clock_of(uns: Mapping[Any, Any], age_key: str, key_added: str = DEFAULT_KEY) -> str | None:
    """Slot of ``uns`` with what predicted from these very ages, whose unit they have; None without one."""
    record = uns.get(key_added)
    return key_added if isinstance(record, Mapping) and record.get("age_key") == age_key else None


def to_uns(value: Any) -> Any:
    """The same value in types that both h5ad and zarr can store.

    Mappings get string keys and lose entries that are None, tuples and sets become lists (homogeneous lists
    become arrays), generators become their seed's text, paths become text. DataFrames pass with a plain string
    index. Anything else is refused, so that a file is never half-written because of it.
    """
    if isinstance(value, Mapping):
        return {str(k): to_uns(v) for k, v in value.items() if v is not None}
    if isinstance(value, pd.DataFrame):
        return _plain_frame(value)
    if isinstance(value, np.random.Generator):
        return f"numpy.random.Generator({type(value.bit_generator).__name__})"
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return to_uns(sorted(value))
    if isinstance(value, (list, tuple)):
        return _plain_sequence(list(value))
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str, np.ndarray)):
        return "" if value is None else value
    raise TypeError(f"a value of type {type(value).__name__} cannot be stored in adata.uns; pass plain values.")


def _plain_sequence(values: list[Any]) -> np.ndarray:
    """A list as a one-dimensional array of one dtype (text where types differ)."""
    plain = [to_uns(v) for v in values]
    kinds = {type(v) for v in plain}
    if kinds <= {int} or kinds <= {float, int} or kinds == {bool}:
        return np.asarray(plain)
    return np.asarray([str(v) for v in plain], dtype=object)


def _plain_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy with a plain string index that is not also a column."""
    out = frame.copy()
    out.index = pd.Index(out.index.astype(str), dtype=object).rename(None if out.index.name in out else out.index.name)
    out.columns = out.columns.astype(str)
    return out
