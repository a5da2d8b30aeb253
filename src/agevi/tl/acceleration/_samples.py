"""The held-out samples of a comparison: who they are, what they are adjusted for, and who is left out."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _names, _subjects, _units
from agevi.tl.acceleration._design import Covariate
from agevi.tl.predict._evaluate_by import OVERALL, sample_values
from agevi.tl.predict._judged import TYPE, of_types, types_key

logger = logging.getLogger(__name__)

_MOST_LEVELS = 6  # of columns that are offered as groups
CROSS_VALIDATED = "n_folds"
"""Argument that tl.cross_validate records and other tools do not."""
_CODES = 10  # different whole numbers up to which a covariate may be a code


@dataclass(frozen=True)
class Samples:
    """Samples that count."""

    tables: dict[str, pd.DataFrame]  # "overall" and each type: subject, age, predicted, role, fold, group by sample
    levels: list[str]  # groups other than the reference
    reference: str
    covariates: list[Covariate]  # indexed by sample
    n_left_out: int  # samples that lack a value or shaped a recalibration


def held_out_samples(
    adata: AnnData,
    *,
    groupby: str | None,
    reference: Any,
    covariates: str | Sequence[str] | None,
    composition_key: str | None,
    by: str | None,
    keys: _keys.Keys,
) -> Samples:
    """The samples to compare, or the error that says why there are none; arguments of ``tl.age_acceleration``."""
    table = _subjects.subject_table(adata, keys).rename_axis(None)
    if groupby is None:
        raise ValueError(
            "groupby=None; pass the column with the groups to compare, such as "
            f"{_checks.listed(_candidates(adata, keys))}."
        )
    values = sample_values(adata, table, groupby, "groupby", keys=keys)
    group = _names.names(values, f"groupby={groupby!r}")
    levels = _names.levels(values)
    reference = _reference(reference, levels, groupby)
    known = _covariates(adata, table, covariates, composition_key, groupby, keys)
    missing = {"an age": table["age"].isna(), "a prediction": table["predicted"].isna(), f"a {groupby}": group.isna()}
    missing |= {f"a value of {c.name}": c.values.isna().any(axis=1) for c in known}
    missing |= {"a role that allows it": ~table["role"].isin([*_keys.HELD_OUT_ROLES, *_keys.FITTED_ROLES])}
    complete = ~pd.DataFrame(missing).any(axis=1)
    _subjects.refuse_fitted(table[complete], keys, "which hides differences")
    used = table[complete].assign(group=group[complete]).sort_index()
    _say_left_out(len(table), missing)
    _check_groups(used, levels, reference, groupby)
    for covariate in known:
        first = covariate.values.loc[used.index].iloc[:, 0]
        if covariate.kind != "composition" and first.nunique() < 2:
            raise ValueError(
                f"covariates: {covariate.name!r} is {str(first.iloc[0])!r} in all {len(used)} samples that count; "
                "a covariate needs two values. Leave it out."
            )
    if "fold" not in used:
        used["fold"] = ""
    trains = _trains(adata, keys)
    if trains is not None:
        used["trains"] = used["subject"].isin(trains)
    tables = {OVERALL: used} | _strata(adata, used, table, by, reference, keys)
    levels = [level for level in levels if level != reference and (used["group"] == level).any()]
    return Samples(tables, levels, reference, known, int((~complete).sum()))


def _candidates(adata: AnnData, keys: _keys.Keys) -> list[str]:
    """Columns with a few values, one in each sample."""
    sample_key = adata.uns.get(keys.uns, {}).get("sample_key")
    if sample_key not in adata.obs:
        return []
    sample = adata.obs[sample_key].astype(str).to_numpy()
    own = [column for column in adata.obs if not str(column).startswith((f"{keys.key_added}_", "_scvi"))]
    found = []
    for column in own:
        values = adata.obs[column]
        if 2 <= values.nunique() <= _MOST_LEVELS and values.groupby(sample).nunique().max() == 1:
            found.append(str(column))
    return found or ["condition"]


def _reference(reference: Any, levels: list[str], groupby: str) -> str:
    """Name of the reference, which is one of the levels."""
    if len(levels) < 2:
        there = f"{_checks.listed(levels)} alone" if levels else "no values"
        raise ValueError(f"groupby={groupby!r} has {there}; a comparison needs two groups.")
    name = None if reference is None else _names.name(reference)
    if name not in levels:
        hint = "" if reference is None else _checks.closest(reference, levels)
        raise ValueError(
            f"reference={reference!r} is not a group of groupby={groupby!r}{hint}. Pass the group that others are "
            f"compared with, one of {_checks.listed(levels, 9)}."
        )
    return str(name)


def _covariates(
    adata: AnnData,
    table: pd.DataFrame,
    covariates: str | Sequence[str] | None,
    composition_key: str | None,
    groupby: str,
    keys: _keys.Keys,
) -> list[Covariate]:
    """Adjustments with a value for each sample of ``table``."""
    if not isinstance(covariates, Iterable | None):
        raise TypeError(
            f"covariates={covariates!r} is a {type(covariates).__name__}; pass the name of a column, or a list of them."
        )
    names = [covariates] if isinstance(covariates, str) else list(covariates or ())
    _refuse_names(names, groupby, adata.uns.get(keys.uns, {}))
    out = [
        _covariate(sample_values(adata, table, name, "covariates", keys=keys), name, table["subject"].nunique())
        for name in _unique(names)
    ]
    if composition_key is not None:
        out.append(_composition(adata, table, composition_key, keys))
    for covariate in out:
        if covariate.values.isna().all(axis=None):
            raise ValueError(
                f"covariates: {covariate.name!r} is missing in all {len(table)} samples; leave it out, or fill it in."
            )
    return out


def _unique(names: list[Any]) -> list[Any]:
    """Names without repeats, also where one cannot be a name and is refused later."""
    return [name for i, name in enumerate(names) if name not in names[:i]]


def _refuse_names(names: list[Any], groupby: str, record: dict[str, Any]) -> None:
    """Refuse columns that the model has already, and names of subjects."""
    if groupby in names:
        raise ValueError(f"covariates={names!r} has groupby={groupby!r}, which is what is compared; leave it out.")
    for name in names:
        if name in ("age", record.get("age_key")):
            raise ValueError(f"covariates={names!r} has {name!r}, and age is in the model already; leave it out.")
        if name in ("subject", record.get("subject_key"), record.get("sample_key")):
            raise ValueError(
                f"covariates={names!r} has {name!r}, the names of subjects or samples, which measure nothing; leave it "
                "out."
            )


def _covariate(values: pd.Series, name: str, n_subjects: int) -> Covariate:
    """Numbers as one slope, everything else as one term per level."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        number = values.astype(np.float64)
        if np.isinf(number).any():
            raise ValueError(
                f"covariates: {name!r} is infinite in {np.isinf(number).sum()} samples; set unknown values to NaN."
            )
        n = number.nunique()
        whole = bool((number.dropna() % 1 == 0).all())
        if n > _CODES and n in (n_subjects, number.count()) and whole:
            logger.warning(
                "covariates: %r holds %d whole numbers, another for every subject, and enters as one slope; if they "
                "are ids, which measure nothing, leave it out.", name, n,
            )  # fmt: skip
        if 2 < n <= _CODES and whole:
            logger.warning(
                "covariates: %r holds %d whole numbers and enters as one slope; if they are codes, pass a column of "
                "categories: adata.obs[%r].astype('category').", name, n, name,
            )  # fmt: skip
        return Covariate(name, "continuous", number.to_frame(name))
    return Covariate(name, "categorical", _names.names(values, f"covariates: {name!r}").to_frame(name))


def _composition(adata: AnnData, table: pd.DataFrame, key: str, keys: _keys.Keys) -> Covariate:
    """Number of cells of each type in each sample."""
    types = _names.names(_checks.column(adata, key, "composition_key"), f"adata.obs[{key!r}]")
    sample_key = adata.uns.get(keys.uns, {}).get("sample_key")
    if not sample_key:
        raise KeyError(f"adata.uns[{keys.uns!r}] names no sample column; run agevi.tl.predict_age again.")
    sample = _checks.labels(adata, sample_key, "sample_key")
    cells = pd.crosstab(sample.to_numpy(), types.to_numpy(dtype=object), dropna=True)
    if cells.shape[1] < 2:
        raise ValueError(f"composition_key={key!r} has {cells.shape[1]} type of cells; a composition needs two.")
    cells = cells.reindex(table.index).astype(np.float64)
    return Covariate(key, "composition", cells)


def _say_left_out(n: int, missing: dict[str, pd.Series]) -> None:
    """One line with the samples that do not count, each under the first thing that it lacks."""
    counts, seen = {}, None
    for what, lacks in missing.items():
        fresh = lacks if seen is None else lacks & ~seen
        seen = lacks if seen is None else seen | lacks
        if fresh.any():
            counts[what] = int(fresh.sum())
    if counts:
        why = ", ".join(f"{k} without {what}" for what, k in counts.items())
        logger.info("%d of %d samples are left out of the comparison: %s.", sum(counts.values()), n, why)


def _check_groups(used: pd.DataFrame, levels: list[str], reference: str, groupby: str) -> None:
    """Refuse a reference that selects nobody or everybody, or too few subjects."""
    n = used.groupby("group")["subject"].nunique().reindex(levels, fill_value=0)
    counts = ", ".join(f"{level!r}: {k}" for level, k in n.items())
    if n[reference] == 0:
        raise ValueError(
            f"reference={reference!r} selects none of the {len(used)} held-out samples with age, prediction and "
            f"covariates (subjects per group of groupby={groupby!r}: {counts}); predict them out of fold, or pass "
            "another reference."
        )
    if n.drop(reference).max() == 0:
        raise ValueError(
            f"reference={reference!r} selects all {len(used)} held-out samples with age, prediction and covariates "
            f"(subjects per group of groupby={groupby!r}: {counts}), so there is no group to compare with it."
        )
    least = _units.MIN_LABELLED_SUBJECTS
    if n[reference] < least or n.drop(reference).max() < least:
        raise ValueError(
            f"a comparison needs {least} subjects in each of two groups, and groupby={groupby!r} has {counts} held out "
            "with age, prediction and covariates; merge groups, or predict more subjects."
        )


def _strata(
    adata: AnnData, used: pd.DataFrame, table: pd.DataFrame, by: str | None, reference: str, keys: _keys.Keys
) -> dict[str, pd.DataFrame]:
    """The samples of each type of cells with its own clock's predictions, or of each value of a column of samples."""
    if by is None:
        return {}
    if isinstance(by, Hashable) and by == types_key(adata, keys):
        long = of_types(adata, keys).rename(columns={TYPE: "type"})
        shared = used[[name for name in ("group", "role", "trains") if name in used]].rename_axis("sample")
        long = long[long["predicted"].notna()].drop(columns=[*shared], errors="ignore")
        long = long.set_index("sample").join(shared, how="inner")
        name, levels, whole = long["type"], _names.levels(long["type"]), long
    else:
        if isinstance(by, Hashable) and by in adata.obs and by not in table:
            _refuse_types(adata, by, keys)
        values = sample_values(adata, table, by, "by", keys=keys).loc[used.index]
        name, levels, whole = _names.names(values, f"by={by!r}"), _names.levels(values), used
    if OVERALL in levels:
        raise ValueError(f"by={by!r} has a value {OVERALL!r}, which names the row of all samples; rename it.")
    out = {level: whole[(name == level).to_numpy()].sort_index() for level in levels}
    if not any(_comparable(part, reference) for part in out.values()):
        least = _units.MIN_LABELLED_SUBJECTS
        raise ValueError(
            f"by={by!r} has {len(out)} values, and none has {least} subjects of {reference!r} and {least} of another "
            "group; pass a column whose values have subjects of both, or leave it out."
        )
    return out


def _comparable(part: pd.DataFrame, reference: str) -> bool:
    """Whether a stratum has subjects enough of the reference and of another group."""
    n = part.groupby("group")["subject"].nunique()
    least = _units.MIN_LABELLED_SUBJECTS
    return bool(n.get(reference, 0) >= least and n.drop(reference, errors="ignore").max() >= least)


def _trains(adata: AnnData, keys: _keys.Keys) -> set[str] | None:
    """Subjects that trained the clocks of other folds, None where that is not recorded or can no longer be told."""
    stored = adata.uns.get(keys.uns, {})
    params, subject_key = stored.get("params", {}), stored.get("subject_key")
    query = params.get("train_on")
    if subject_key not in adata.obs or not (query or CROSS_VALIDATED in params):
        return None
    if not query:
        return set(_names.names(adata.obs[subject_key]).dropna())
    try:
        cells = adata.obs.query(str(query))
    except Exception:  # columns were dropped or renamed since
        return None
    return set(_names.names(cells[subject_key]).dropna())


def _refuse_types(adata: AnnData, by: str, keys: _keys.Keys) -> None:
    """Refuse types of cells that have no clock."""
    sample_key = adata.uns.get(keys.uns, {}).get("sample_key")
    if sample_key in adata.obs and adata.obs[by].groupby(adata.obs[sample_key].to_numpy()).nunique().max() > 1:
        own = types_key(adata, keys)
        there = f"the clocks there are those of {own!r}" if own else "the predictions are those of one clock"
        raise ValueError(
            f"by={by!r} has several values in a sample, as types of cells do, and {there}; run "
            f"agevi.tl.cross_validate(adata, ..., groupby={by!r}) first, which fits a clock for each type."
        )
