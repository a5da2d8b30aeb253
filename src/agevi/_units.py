"""Units that cells belong to, subjects and samples: their names, and gates of what each has one of, such as an age."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from agevi import _ages, _checks, _names

MIN_LABELLED_SUBJECTS = 3


class PerUnit:
    """The one value of every unit; cells of the units ``several`` differ, only some of those in ``part`` have one."""

    def __init__(self, values: Any, unit: pd.Series) -> None:
        self._values, self._unit = pd.Series(values), unit.to_numpy()
        of, self.units = pd.factorize(self._unit, sort=True)
        code = pd.factorize(self._values)[0]  # (n_cells,), -1 where missing
        known = code >= 0
        # Of repeated indices the last assignment stays: here the first cell with a value, else the first cell.
        rows = np.concatenate([np.flatnonzero(known), np.flatnonzero(~known)])[::-1]
        self.first = np.empty(len(self.units), dtype=np.int64)  # a cell that has the value of its unit
        self.first[of[rows]] = rows
        of_unit = code[self.first][of]
        self.several = self.units[np.unique(of[known & (code != of_unit)])]
        self.part = self.units[np.unique(of[~known & (of_unit >= 0)])]

    @property
    def values(self) -> pd.Series:
        """Value of every unit, indexed by unit in the order of their names; missing where none of its cells has one."""
        return self._values.iloc[self.first].set_axis(pd.Index(self.units))

    def cells(self, unit: Any) -> pd.Series:
        """Values of the cells of one unit."""
        return self._values[self._unit == unit]


def ages(
    adata: ad.AnnData, age_key: str, *, min_age: float = -1.0, unit: str | None = None, clock: str | None = None
) -> np.ndarray:
    """Ages per cell, (n_cells,), NaN where unlabelled, in ``unit`` or that which ``adata.uns[clock]`` records."""
    recorded = ""
    if unit is None and clock is not None:
        unit, recorded = adata.uns.get(clock, {}).get("age_unit"), f"adata.uns[{clock!r}]['age_unit']"
    values = _checks.column(adata, age_key, "age_key")
    numeric = pd.api.types.is_numeric_dtype(values) and values.dtype.kind not in "bc"
    if not numeric:
        if values.isna().all():
            raise ValueError(f"adata.obs[{age_key!r}] has no ages: all {adata.n_obs:,} values are missing.")
        if values.dtype.kind in "mM":
            span = (
                f"collection_date - adata.obs[{age_key!r}]" if values.dtype.kind == "M" else f"adata.obs[{age_key!r}]"
            )
            raise TypeError(
                f"adata.obs[{age_key!r}] holds {'dates' if values.dtype.kind == 'M' else 'spans of time'}, not "
                f"numbers; in years: adata.obs['age'] = ({span}).dt.days / 365.25."
            )
        raise TypeError(
            f"adata.obs[{age_key!r}] holds {values.dtype} values (e.g. {_checks.listed(values.dropna().unique(), 3)}), "
            f"not numbers; turn text, bins and censored ages into numbers with agevi.pp.parse_age(adata, {age_key!r})."
        )
    out = values.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(out).any():
        raise ValueError(
            f"adata.obs[{age_key!r}] is infinite in {np.isinf(out).sum():,} cells (first: "
            f"{adata.obs_names[np.isinf(out).argmax()]!r}); set unknown ages to NaN, which means unlabelled."
        )
    if np.isnan(out).all():
        raise ValueError(f"adata.obs[{age_key!r}] has no ages: all {adata.n_obs:,} values are missing.")
    if np.nanmin(out) < min_age:
        raise ValueError(
            f"adata.obs[{age_key!r}] has an age of {np.nanmin(out):g}, below min_age={min_age:g}; correct it, set it "
            "to NaN, or pass a lower min_age."
        )
    _ages.check(out, age_key, unit, recorded)
    return out


def units(adata: ad.AnnData, subject_key: str, sample_key: str | None) -> tuple[pd.Series, pd.Series]:
    """Subject and sample of every cell, as text, each sample inside one subject."""
    subject = _checks.labels(adata, subject_key, "subject_key")
    if sample_key is None or sample_key == subject_key:
        return subject, subject
    sample = _checks.labels(adata, sample_key, "sample_key")
    found = PerUnit(subject, sample)
    if len(found.several):
        name, owners = found.several[0], found.cells(found.several[0]).unique()
        raise ValueError(
            f"sample {name!r} belongs to {len(owners)} subjects ({_checks.listed(owners, 3)}); a sample is one visit "
            f"or biopsy of one subject. Make the names unique: {_visits(subject_key, sample_key)}, and pass "
            "sample_key='sample'."
        )
    return subject, sample


def sample_column(setup: Mapping[str, Any], sample_key: str | None = None) -> str:
    """Column of the samples: the given one, else that of a set-up, where a subject is its only sample without one."""
    key: str = sample_key or setup["sample_key"] or setup["subject_key"]
    return key


def _visits(subject_key: Any, visit_key: Any) -> str:
    """Code that names the visits of subjects uniquely."""
    return f"adata.obs['sample'] = adata.obs[{subject_key!r}].astype(str) + '_' + adata.obs[{visit_key!r}].astype(str)"


def age_per_unit(age: np.ndarray, unit: pd.Series, age_key: str, *, is_sample: bool) -> pd.Series:
    """The one age of every unit, indexed by unit; NaN where unlabelled."""
    if unit.name == age_key:
        raise ValueError(
            f"age_key={age_key!r} is also the column of the {'samples' if is_sample else 'subjects'}; pass the column "
            "with the names of the donors or animals as subject_key."
        )
    kind, found = "sample" if is_sample else "subject", PerUnit(age, unit)
    if len(found.several):
        fix = "A sample has one age."
        if not is_sample:
            visits = _visits(unit.name, "<visit>")
            fix = f"If these are visits, set {visits}, and pass sample_key='sample'; subjects are held out whole."
        name, own = found.several[0], found.cells(found.several[0])
        raise ValueError(
            f"{kind} {name!r} has two ages ({own.min().round(2)}, {own.max().round(2)}) in adata.obs[{age_key!r}]. "
            f"{fix}"
        )
    if len(found.part):
        name, own = found.part[0], found.cells(found.part[0])
        raise ValueError(
            f"{kind} {name!r} has an age in {own.count():,} of its {len(own):,} cells in adata.obs[{age_key!r}]; give "
            "all its cells the age, or none."
        )
    return found.values.rename("age").rename_axis("unit")


def ages_of_samples(
    age: np.ndarray, subject: pd.Series, sample: pd.Series, age_key: str
) -> tuple[pd.Series, pd.Series]:
    """Age of every sample, NaN where unlabelled, and its subject, both indexed by sample in the order of their names.

    ``age``, (n_cells,), ``subject`` and ``sample`` are of cells.
    """
    by_sample = age_per_unit(age, sample, age_key, is_sample=sample is not subject)
    return by_sample, PerUnit(subject, sample).values


def one_per_unit(values: pd.Series, unit: pd.Series, key: str, advice: str) -> pd.Series:
    """The one value of every unit in a column, indexed by unit in the order of their names, in the column's dtype."""
    numeric = pd.api.types.is_numeric_dtype(values)
    found = PerUnit(values if numeric else _names.names(values, f"adata.obs[{key!r}]"), unit)
    several = found.units[np.isin(found.units, [*found.several, *found.part])]
    if len(several):
        own = values[(unit == several[0]).to_numpy()].unique()
        raise ValueError(
            f"adata.obs[{key!r}] has {len(own)} values ({_checks.listed(own, 3)}) in sample {several[0]!r} and several "
            f"in {len(several)} of {len(found.units)} samples; {advice}"
        )
    return values.iloc[found.first].set_axis(pd.Index(found.units))


def label_of_subject(adata: ad.AnnData, key: str, argument: str, subject: pd.Series, advice: str) -> pd.Series:
    """The one label of every subject in a column (a role, a fold), indexed by subject in the order of their names."""
    found = PerUnit(_checks.labels(adata, key, argument), subject)
    if len(found.several):
        own = found.cells(found.several[0]).unique()
        raise ValueError(
            f"subject {found.several[0]!r} is in {' and '.join(map(repr, own))} of adata.obs[{key!r}]; a subject is "
            f"held out as a whole. {advice}"
        )
    return found.values


def learnable(age_by_unit: pd.Series, subject_of: pd.Series, age_key: str) -> None:
    """Refuse ages that no clock can be trained on: too few subjects, or one age for all."""
    known = age_by_unit.dropna()
    n = subject_of.loc[known.index].nunique()
    if n < MIN_LABELLED_SUBJECTS:
        raise ValueError(
            f"only {n} subjects have an age in adata.obs[{age_key!r}]; a clock that holds subjects out needs at least "
            f"{MIN_LABELLED_SUBJECTS}."
        )
    if known.nunique() < 2:
        raise ValueError(
            f"adata.obs[{age_key!r}] is {known.iloc[0]:g} for every subject; a clock needs subjects of different ages."
        )


def constant_columns(obs: pd.DataFrame, codes: np.ndarray, used: np.ndarray, first: np.ndarray) -> list[Any]:
    """Columns with one value, or none at all, in the cells of every unit; those of scvi-tools are left out."""
    out = []
    for name in obs:
        if not str(name).startswith("_scvi"):
            value = pd.factorize(obs[name])[0]  # -1 where missing
            if (value[used] == value[first[codes[used]]]).all():
                out.append(name)
    return out
