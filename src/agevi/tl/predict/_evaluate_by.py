"""Accuracy in groups of samples: per tissue, modality, cohort, sex, age bin and their crossings."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _names, _subjects, _units
from agevi._docs import shared
from agevi.metrics._register import ROW
from agevi.metrics._rows import metrics_row
from agevi.tl._store import store_table
from agevi.tl.predict._judged import REFERENCE, TYPE, of_types, references, say_left_out, types_key

logger = logging.getLogger(__name__)

AGE_BIN = "age_bin"
"""Name of the column that ``age_bins`` makes."""
JOIN = ";"
OVERALL = "overall"
_OWN = ("subject", "age", "predicted", "n_cells", "sd_cells", "role", "fold", "lower", "upper")
"""Columns that agevi writes to the subject table; others were put there by the user, who means them."""
_FIRST = ROW.index("mae_median") + 1
COLUMNS = ["groupby", "group", *ROW[:_FIRST], "mse", *ROW[_FIRST:]]


@shared
def evaluate_by(
    adata: AnnData,
    groupby: str | Sequence[str | Sequence[str]] = (),
    *,
    age_bins: Sequence[float] | None = None,
    roles: str | Sequence[str] | None = _keys.HELD_OUT_ROLES,
    sample_key: str | None = None,
    level: float = 0.95,
    n_boot: int = 2000,
    rng: int | np.random.Generator | None = 0,
    key_added: str = _keys.DEFAULT_KEY,
    copy: bool = False,
) -> AnnData | None:
    """Accuracy of predicted ages over all held-out samples and per group of them, errors in the unit of age.

    One row for all samples, one per value of each column, and one per combination for columns that are crossed, as in
    the supplementary table of Urban et al. (2023): ``groupby=["modality", ("tissue", "modality")]``. Read ``mae``
    beside ``mae_median`` of the same row, the error of predicting the median training age for all, since a group with a
    narrow range of ages is easy to predict; ``r2`` and the correlations do not compare between groups for the same
    reason. With many small groups some look good or bad by chance, which the intervals show.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.aggregate_subjects`.
    groupby
        Columns that make the rows, from :func:`agevi.get.subjects_df` or ``adata.obs``; a tuple in the list is crossed.
        A column of ``adata.obs`` must have one value per sample, or be that of ``tl.cross_validate(groupby=...)``: rows
        are then the types of cells, of their own clocks. Numbers are groups as they are; make bins of them first.
    age_bins
        Edges of age bins, rising: ``[0, 20, 40]`` makes "0 to 20" (20 not included) and "20 to 40" (40 included). The
        bins become a column ``"age_bin"`` that can be crossed in ``groupby``, and have rows of their own otherwise.
    roles
        Samples of these roles are pooled. By default those that did not shape the clock: test, out_of_fold and new.
        Naming others warns; None takes all samples but those of role recalibration, also those whose role was not
        recorded.
    sample_key
        Column of ``adata.obs`` with the sample. Default: that of the predictions.
    level
        Coverage of the bootstrap interval of the mean absolute error.
    n_boot
        Draws of the bootstrap, of whole subjects.
    rng
        Seed or generator of the bootstrap.
    %(key_read)s
    %(copy)s

    Returns
    -------
    None, or the copy. Sets:

    ``adata.uns[f"{key_added}_metrics"]``
        DataFrame with the columns ``groupby`` ("overall", or the columns joined with ";"), ``group`` (their values
        joined with ";"), ``n`` (samples with age and prediction), ``n_subjects``, ``mae``, ``mae_low``, ``mae_high``,
        ``mae_median``, ``mse`` (the unit of age squared), ``rmse``, ``mdae``, ``mad``, ``r2``, ``pearson``,
        ``spearman``, and ``slope`` and ``intercept`` of the fitted line with their intervals. All but the numbers are
        NaN in groups of one sample. :func:`agevi.get.metrics_by_df` returns it.
    ``adata.uns[f"{key_added}_metrics_params"]``
        The parameters.

    Raises
    ------
    KeyError
        The subject table or a column is absent.
    ValueError
        A column has several values in a sample, no sample of these roles has an age and a prediction, or
        ``age_bins`` are not rising.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=5, n_genes=50)
    >>> adata.obs["agevi_predicted"] = adata.obs["age"] + 2  # stands for tl.predict_age(adata, model)
    >>> adata.obs["agevi_role"] = "new"
    >>> adata.uns["agevi"] = {"subject_key": "donor", "sample_key": "donor", "age_key": "age"}
    >>> agevi.tl.aggregate_subjects(adata)
    >>> agevi.tl.evaluate_by(adata, ["sex", ("sex", "age_bin")], age_bins=[20, 60, 90])
    >>> agevi.get.metrics_by_df(adata)[["groupby", "group", "n", "mae"]].round(3)
           groupby            group   n  mae
    0      overall                   12  2.0
    1          sex           female   9  2.0
    2          sex             male   3  2.0
    3  sex;age_bin  female;20 to 60   5  2.0
    4  sex;age_bin  female;60 to 90   4  2.0
    5  sex;age_bin    male;20 to 60   3  2.0
    """
    _checks.anndata(adata)
    keys = _keys.Keys(key_added)
    wanted = _wanted_roles(roles)
    table = _subjects.subject_table(adata, keys)
    entries = _entries(groupby, age_bins)
    by_type = types_key(adata, keys)
    columns = _group_columns(adata, keys, table, entries, sample_key, age_bins)
    kept = _kept(table, wanted, keys)
    judged = table.assign(**{REFERENCE: references(adata, table, keys)})[kept]
    whole = judged, columns[kept]
    say_left_out(table, wanted)
    typed = _of_types(adata, keys, columns, wanted) if any(by_type in entry for entry in entries) else None
    rows = []
    for entry in [(), *entries]:
        of_entry, values = whole if typed is None or by_type not in entry else typed
        for group, chosen in _groups(values, entry):
            part = of_entry[chosen]
            row = metrics_row(
                part["age"].to_numpy(dtype=np.float64),
                part["predicted"].to_numpy(dtype=np.float64),
                subject=part["subject"].to_numpy(),
                reference=part[REFERENCE].to_numpy(),
                level=level,
                n_boot=n_boot,
                rng=rng,
            )
            rows.append({"groupby": JOIN.join(entry) or OVERALL, "group": group, **row})
    result = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(COLUMNS[4:], np.float64))
    params = {
        "groupby": [JOIN.join(entry) for entry in entries],
        "age_bins": None if age_bins is None else [float(edge) for edge in age_bins],
        "roles": wanted,
        "level": level,
        "n_boot": n_boot,
        "rng": rng,
    }
    return store_table(adata, keys, "metrics", result, params, copy=copy)


def _wanted_roles(roles: str | Sequence[str] | None) -> list[str] | None:
    """Known roles as a list, None for all; a warning where the clock was shaped by one that is named."""
    if roles is None:
        return None
    wanted = [_checks.choice(role, _keys.ROLES, "roles") for role in ([roles] if isinstance(roles, str) else roles)]
    fitted = [role for role in wanted if role not in _keys.HELD_OUT_ROLES]
    if fitted:
        warnings.warn(
            f"metrics on role {_checks.listed(fitted)} show how well these subjects were fitted, not how well new ones "
            "are predicted; leave roles at its default for that.",
            UserWarning,
            stacklevel=3,
        )
    return wanted


def _entries(groupby: str | Sequence[str | Sequence[str]], age_bins: Sequence[float] | None) -> list[tuple[str, ...]]:
    """What makes rows: one tuple of columns each."""
    given = [groupby] if isinstance(groupby, str) else list(groupby)
    entries = [(entry,) if isinstance(entry, str) else tuple(str(column) for column in entry) for entry in given]
    for entry in entries:
        if not entry or len(set(entry)) < len(entry):
            raise ValueError(f"groupby has {entry!r}; a crossing names different columns, such as ('tissue', 'sex').")
    if age_bins is not None and not any(AGE_BIN in entry for entry in entries):
        entries.append((AGE_BIN,))
    return list(dict.fromkeys(entries))


def _group_columns(
    adata: AnnData,
    keys: _keys.Keys,
    table: pd.DataFrame,
    entries: list[tuple[str, ...]],
    sample_key: str | None,
    age_bins: Sequence[float] | None,
) -> pd.DataFrame:
    """Group of every sample in every column that is asked for, indexed as ``table``; missing where it has none."""
    out = pd.DataFrame(index=table.index)
    by_type = types_key(adata, keys)
    for column in dict.fromkeys(column for entry in entries for column in entry if column != by_type):
        if column == AGE_BIN and age_bins is not None:
            out[column] = binned(table["age"], age_bins)
        else:
            out[column] = sample_values(adata, table, column, "groupby", keys=keys, sample_key=sample_key)
    return out


def _of_types(
    adata: AnnData, keys: _keys.Keys, columns: pd.DataFrame, wanted: list[str] | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Samples of each type that count, and their groups: those of the sample, and the type."""
    typed = of_types(adata, keys)
    say_left_out(typed, wanted, lacking="a clock of the type or enough cells")
    typed = typed[_kept(typed, wanted, keys)]
    groups = columns.reindex(typed["sample"]).set_axis(typed.index)
    return typed, groups.assign(**{str(types_key(adata, keys)): typed[TYPE]})


def sample_values(
    adata: AnnData, table: pd.DataFrame, column: str, argument: str, *, keys: _keys.Keys, sample_key: str | None = None
) -> pd.Series:
    """The one value of every sample in a column, called ``argument``, of the subject table or of ``adata.obs``."""
    sample_key = sample_key or adata.uns.get(keys.uns, {}).get("sample_key")
    if isinstance(column, Hashable) and column in table:
        values: pd.Series = table[column]
        if column in _OWN and column in adata.obs and sample_key in adata.obs:
            _refuse_two_columns(adata, values, column, argument, _checks.labels(adata, sample_key, "sample_key"))
        return values
    values = _checks.column(adata, column, argument)
    if not sample_key:
        raise KeyError(f"adata.uns[{keys.uns!r}] names no sample column; pass sample_key='<column of adata.obs>'.")
    sample = _checks.labels(adata, sample_key, "sample_key")
    advice = (
        f"{argument} takes columns with one value per sample; for cell types see agevi.tl.cross_validate(groupby=...)."
    )
    found = _units.one_per_unit(values, sample, column, advice)
    absent = table.index.difference(found.index)
    if len(absent):
        raise ValueError(
            f"{len(absent)} samples of adata.uns[{keys.subjects!r}] ({_checks.listed(absent, 3)}) have no cells in "
            f"adata.obs[{sample_key!r}]{_names.difference(absent, found.index)}; run agevi.tl.aggregate_subjects "
            "again, or pass its sample_key."
        )
    return found.loc[table.index]


def _refuse_two_columns(adata: AnnData, of_table: pd.Series, column: str, argument: str, sample: pd.Series) -> None:
    """Refuse a column of ``adata.obs`` that has other values than that of the same name in the subject table."""
    known = sample.isin(of_table.index).to_numpy()
    own, other = adata.obs[column][known], of_table.loc[sample[known]]
    if all(pd.api.types.is_numeric_dtype(values) for values in (own, other)):
        a, b = (values.to_numpy(dtype=np.float64, na_value=np.nan) for values in (own, other))
        differ = ~np.isclose(a, b, rtol=1e-6, equal_nan=True)
    else:
        a, b = (_names.names(values).fillna("").to_numpy() for values in (own, other))
        differ = a != b
    if differ.any():
        i = int(differ.argmax())
        raise ValueError(
            f"{argument}={column!r} is a column of the subject table and another one of adata.obs (sample "
            f"{sample[known].iloc[i]!r}: {other.iloc[i]!s} and {own.iloc[i]!s}); rename that of adata.obs, or run "
            "agevi.tl.aggregate_subjects again where it changed since."
        )


def binned(age: pd.Series, edges: Sequence[float]) -> pd.Series:
    """Age bin of every sample as ordered text, missing outside; bins hold lower edges, the last its upper one."""
    bounds = np.asarray(list(edges), dtype=np.float64)
    if len(bounds) < 2 or not (np.diff(bounds) > 0).all():
        raise ValueError(f"age_bins={list(edges)!r} are not bins; pass two or more rising edges, such as [0, 20, 40].")
    values = age.to_numpy(dtype=np.float64)
    codes = np.searchsorted(bounds, values, side="right") - 1
    codes = np.where(values == bounds[-1], len(bounds) - 2, codes)
    inside = (values >= bounds[0]) & (values <= bounds[-1])  # False where the age is NaN
    names = pd.Index([f"{low:g} to {high:g}" for low, high in zip(bounds[:-1], bounds[1:], strict=True)], dtype=object)
    bins = pd.Categorical.from_codes(np.where(inside, codes, -1), names, ordered=True)
    return pd.Series(bins, index=age.index)


def _kept(table: pd.DataFrame, wanted: list[str] | None, keys: _keys.Keys) -> np.ndarray:
    """Which samples count, (n_samples,)."""
    counted = table["role"] != _keys.RECALIBRATION if wanted is None else table["role"].isin(wanted)
    keep: np.ndarray = (table["age"].notna() & table["predicted"].notna() & counted).to_numpy()
    if not keep.any():
        there = _checks.listed(sorted(set(table["role"])))
        raise ValueError(
            f"no sample{f' of the roles {_checks.listed(wanted)}' if wanted is not None else ''} has an age and a "
            f"prediction in adata.uns[{keys.subjects!r}] (roles there: {there}). Predict held-out subjects, or pass "
            "roles=...; train and validation shaped the clock, so their errors are too small."
        )
    return keep


def _groups(columns: pd.DataFrame, entry: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Name of each group of an entry, and its samples as a mask; without columns all samples."""
    if not entry:
        yield "", np.ones(len(columns), dtype=bool)
        return
    parts = columns[list(entry)]
    known = parts.notna().all(axis=1).to_numpy()
    if not known.all():
        logger.info("%d samples have no value of %s and are in the overall row only.", (~known).sum(), entry)
    # The groups in the order of the categories or of the values, the first column slowest.
    coded = [_names.coded(parts[column], f"column {column!r}") for column in entry]
    codes = np.stack([code for code, _ in coded], axis=1)  # n_samples x n_columns
    for combination in np.unique(codes[known], axis=0):
        names = [levels[i] for (_, levels), i in zip(coded, combination, strict=True)]
        yield JOIN.join(names), known & (codes == combination).all(axis=1)
