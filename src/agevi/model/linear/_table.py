"""Tables of published coefficients, in the layouts in which they are published, as one linear map."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agevi import _checks

FEATURE = tuple("feature feature_name features gene genes gene_name probe cpg cpgmarker name id".split())
COEFFICIENT = tuple("coef coefs coefficient coefficients coef_scaled coefficienttraining weight weights".split())
MODEL = ("model", "model_key", "clock")
FOLD = "fold"
MEAN, SD = ("mean",), ("scale", "sd", "std")
USUAL = ("ref_mean", "model_mean", "mean", "medianbycpg", "median")
"""Columns with the value at which a feature that the data lack enters."""
INTERCEPT = ("intercept", "(intercept)", "bias", "const")
SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_SHOWN = 40  # models that a message names: to choose one, its name has to be seen


@dataclass(frozen=True)
class Coefficients:
    """The sum over features of weight * (value - shift) / scale, plus the intercept."""

    features: np.ndarray  # (n_features,) names
    weight: np.ndarray  # (n_features,)
    shift: np.ndarray  # (n_features,)
    scale: np.ndarray  # (n_features,)
    usual: np.ndarray  # (n_features,) value of a feature that the data lack, NaN where not known
    intercept: float


def read_coefficients(table: Any, *, intercept: float | None, scale: Any, fill: Any, model: str | None) -> Coefficients:
    """The linear map in a table: a path, or a DataFrame or Series with the features in a column or in the index."""
    path = Path(table).expanduser() if isinstance(table, str | Path) else None
    frame = _frame(table if path is None else path, "table_or_path")
    if path is not None:
        _refuse_ranks(path)
    frame = _one_model(frame, model)
    names = _names(frame)
    weight = _numbers(frame, _column(frame, COEFFICIENT, "coefficients"), names)
    is_intercept = np.asarray(names.str.lower().isin(INTERCEPT))
    if intercept is None:
        found = weight[is_intercept]
        intercept = _mean_of_folds(frame, found) if len(found) else _beside(path, names)
    columns = _standards(frame, names, ~is_intercept, scale)
    combined = _combined(names[~is_intercept], weight[~is_intercept], _n_folds(frame))
    own = {key: values.reindex(combined.index).to_numpy(dtype=np.float64, copy=True) for key, values in columns.items()}
    bad = ~(np.isfinite(own["scale"]) & (own["scale"] > 0))
    if bad.any():
        raise ValueError(
            f"{bad.sum():,} features have a standard deviation that is missing or not above 0 (e.g. "
            f"{_checks.listed(combined.index[bad], 2)}); drop them, or set it to 1 where a feature does not vary."
        )
    return Coefficients(
        features=combined.index.to_numpy(dtype=object),
        weight=combined.to_numpy(dtype=np.float64, copy=True),
        shift=own["shift"],
        scale=own["scale"],
        usual=_filled(own["usual"], combined.index, fill),
        intercept=_finite_number(intercept, "intercept"),
    )


# --- files and columns -----------------------------------------------------------------------------------------


def _frame(table: Any, argument: str) -> pd.DataFrame:
    """The table as a DataFrame with one row per feature at least."""
    if isinstance(table, str | Path):
        path = Path(table).expanduser()
        if not path.name.lower().endswith(SUFFIXES):
            raise ValueError(
                f"{argument}={str(table)!r} ends in none of {', '.join(SUFFIXES)}; pass such a file or a DataFrame."
            )
        if not path.is_file():
            there = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
            hint = _checks.closest(path.name, there)
            raise FileNotFoundError(
                f"{argument}={str(table)!r} does not exist{hint}. Pass the file of the coefficients."
            )
        table = pd.read_csv(path, sep="," if ".csv" in path.name.lower() else "\t")
    elif isinstance(table, pd.Series):
        table = table.rename("coef").rename_axis("feature").reset_index()
    elif not isinstance(table, pd.DataFrame):
        raise TypeError(f"{argument} is a {type(table).__name__}; pass a path or a pandas DataFrame or Series.")
    if not len(table):
        raise ValueError(f"{argument} is a table without rows; pass one row per feature.")
    return table


def _known(frame: pd.DataFrame, names: Iterable[str]) -> str | None:
    """The first of ``names`` that is a column, whatever its case."""
    lower = {str(c).lower(): c for c in reversed(frame.columns)}
    return next((lower[name] for name in names if name in lower), None)


def _column(frame: pd.DataFrame, names: tuple[str, ...], what: str) -> str:
    column = _known(frame, names)
    if column is None:
        raise ValueError(
            f"the table has no column of {what} ({_checks.listed(names, len(names))}); it has "
            f"{_checks.listed(frame.columns)}. Rename the column."
        )
    return column


def _names(frame: pd.DataFrame) -> pd.Index:
    """Name of the feature of every row."""
    column = _known(frame, FEATURE)
    if column is None and frame.index.inferred_type == "string":
        values = frame.index.to_series()
    else:
        text = [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]
        values = frame[column if column is not None else text[0] if text else _column(frame, FEATURE, "features")]
    if values.isna().any():
        raise ValueError(
            f"the table has {values.isna().sum():,} rows without the name of a feature; drop or name them."
        )
    return pd.Index(values.astype(str).str.strip().to_numpy(dtype=object))


def _numbers(frame: pd.DataFrame, column: str, names: pd.Index) -> np.ndarray:
    """A column of finite numbers, (n_rows,)."""
    try:
        values = frame[column].to_numpy(dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"column {column!r} of the table holds {frame[column].dtype} values; coefficients are numbers."
        ) from None
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(
            f"column {column!r} of the table is missing or infinite in {bad.sum():,} rows (e.g. "
            f"{_checks.listed(names[bad], 2)}); drop features without a coefficient."
        )
    return values


def _finite_number(value: Any, argument: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{argument}={value!r} is a {type(value).__name__}; pass a number.") from None
    if not np.isfinite(number):
        raise ValueError(f"{argument}={number} is not finite; pass a number.")
    return number


# --- one model of several --------------------------------------------------------------------------------------


def _one_model(frame: pd.DataFrame, model: str | None) -> pd.DataFrame:
    """The rows of one model."""
    column = _known(frame, MODEL)
    if column is None:
        if model is not None:
            raise ValueError(
                f"model={model!r}, but the table holds one model: it has no column {MODEL[0]!r}. Leave model out."
            )
        return frame
    there = [str(name) for name in frame[column].unique()]
    if model is None and len(there) > 1:
        raise ValueError(
            f"the table holds {len(there)} models in its column {str(column)!r}; pass model=..., one of "
            f"{_checks.listed(there, _SHOWN)}."
        )
    if model is not None and model not in there:
        hint = _checks.closest(model, there)
        raise ValueError(
            f"model={model!r} is not in the table's column {str(column)!r}{hint}. Available: "
            f"{_checks.listed(there, _SHOWN)}."
        )
    return frame if model is None else frame[frame[column].astype(str) == model]


def _n_folds(frame: pd.DataFrame) -> int:
    column = _known(frame, (FOLD,))
    return 1 if column is None else int(frame[column].nunique())


def _mean_of_folds(frame: pd.DataFrame, found: np.ndarray) -> float:
    """The intercept, one of every fold."""
    if len(found) not in (1, _n_folds(frame)):
        raise ValueError(
            f"the table has {len(found)} rows of an intercept; it holds several models. Pass the rows of one."
        )
    return float(found.sum()) / _n_folds(frame) if len(found) > 1 else float(found[0])


def _combined(names: pd.Index, weight: np.ndarray, n_folds: int) -> pd.Series:
    """Weight by feature: rows of one feature add up, and folds are averaged, as their predictions would be."""
    if not len(names):
        raise ValueError("the table names no feature beside the intercept; pass the whole table.")
    weights = pd.Series(weight, index=names)
    if n_folds == 1 and not names.is_unique:
        twice = names[names.duplicated()].unique()
        warnings.warn(
            f"the table names {len(twice):,} features more than once (e.g. {_checks.listed(twice, 2)}); their "
            "coefficients are added up.",
            UserWarning,
            stacklevel=_checks.stack_depth(),
        )
    return weights.groupby(level=0, sort=False).sum() / n_folds


# --- the intercept, and how features are standardised ----------------------------------------------------------


def _stem(path: Path) -> str:
    name = re.sub(r"\.(csv|tsv|txt)(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    return re.sub(r"_(coefs?|coefficients|weights)$", "", name, flags=re.IGNORECASE)


def _refuse_ranks(path: Path) -> None:
    """Refuse the coefficients of PASTA, which multiply ranks of genes."""
    meta = path.with_name(f"{_stem(path)}_meta.csv")
    if meta.is_file() and "scaling_factor" in pd.read_csv(meta, nrows=1):
        raise ValueError(
            f"{path.name!r} has a scaling factor in {meta.name!r}: its score is one of the ranks of all genes in a "
            "sample, and LinearClock adds up values as they are. Use the clock's own software."
        )


def _beside(path: Path | None, names: pd.Index) -> float:
    """The intercept in a file beside the table."""
    key = "" if path is None else _stem(path)
    if path is not None:
        for suffix in (".txt", ".csv", ".tsv"):
            file = path.with_name(f"{key}_intercept{suffix}")
            if file.is_file():
                return _finite_number(file.read_text().strip(), f"the intercept in {file.name}")
            file = path.with_name(f"intercepts{suffix}")
            if file.is_file():
                rows = pd.read_csv(file, header=None, index_col=0, sep="," if suffix == ".csv" else "\t").iloc[:, 0]
                rows.index = [_plain(name) for name in rows.index]
                if _plain(key) in rows.index:
                    return _finite_number(rows[_plain(key)], f"the intercept in {file.name}")
    where = "" if path is None else f", nor a file {key + '_intercept.txt'!r} or 'intercepts.tsv' beside it"
    raise ValueError(
        f"the table has no row {INTERCEPT[1]!r} or 'intercept' (it begins with {_checks.listed(names, 2)}){where}; "
        "pass intercept=..., 0 if the clock has none."
    )


def _plain(name: Any) -> str:
    return re.sub(r"[\s_-]+", " ", str(name)).strip().lower()


def _standards(frame: pd.DataFrame, names: pd.Index, rows: np.ndarray, scale: Any) -> dict[str, pd.Series]:
    """What is subtracted from each feature, what it is divided by, and the value that a missing one is given."""
    own = _of_features(frame, names, rows)
    usual = _get(own, USUAL, np.nan)
    if scale is not None:
        other = _frame(scale, "scale")
        given = _of_features(other, _names(other), np.ones(len(other), dtype=bool))
        if _known(given, MEAN + SD) is None:
            raise ValueError(
                f"scale has none of the columns {_checks.listed(MEAN + SD)}; it has {_checks.listed(other.columns)}."
            )
        absent = own.index.difference(given.index)
        if len(absent):
            raise ValueError(
                f"scale lacks {len(absent):,} of the {len(own):,} features of the table (e.g. "
                f"{_checks.listed(absent, 2)}); give every feature its mean and sd."
            )
        given = given.loc[own.index]
        return {
            "shift": _get(given, MEAN, 0.0),
            "scale": _get(given, SD, 1.0),
            "usual": _get(given, MEAN, np.nan).fillna(usual),
        }
    scaled = _known(own, SD)
    if scaled is None and str(_known(frame, COEFFICIENT)).lower() == "coef_scaled":
        raise ValueError(
            "the column 'coef_scaled' refers to standardised features, and the table has no columns 'mean' and "
            "'scale'; pass scale=..., a table of them."
        )
    shift = _get(own, MEAN, 0.0) if scaled else pd.Series(0.0, index=own.index)
    return {"shift": shift, "scale": _get(own, SD, 1.0), "usual": usual}


def _of_features(frame: pd.DataFrame, names: pd.Index, rows: np.ndarray) -> pd.DataFrame:
    """The first row of every feature."""
    own = frame[rows].set_axis(names[rows])
    return own[~own.index.duplicated()]


def _get(frame: pd.DataFrame, names: tuple[str, ...], default: float) -> pd.Series:
    column = _known(frame, names)
    if column is None:
        return pd.Series(default, index=frame.index)
    return pd.to_numeric(frame[column], errors="coerce").astype(np.float64)


def _filled(usual: np.ndarray, names: pd.Index, fill: Any) -> np.ndarray:
    """The value of every feature that the data may lack, what was passed first."""
    if fill is None:
        return usual
    if isinstance(fill, Mapping | pd.Series):
        values = names.to_series().map(pd.Series(fill, dtype=np.float64)).to_numpy(dtype=np.float64)
        return np.where(np.isfinite(values), values, usual)
    return np.full(len(names), _finite_number(fill, "fill"))
