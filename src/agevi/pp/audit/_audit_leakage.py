"""What could make a clock look better than it is."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import spearmanr

from agevi import _checks, _keys, _units
from agevi._compat import written_to
from agevi._progress import Bar, progress
from agevi._source import place, read, resolved
from agevi.dataloaders._summed import refuse_sums
from agevi.pp.audit import _columns, _copies, _split
from agevi.pp.audit._design import HIGH, LOW, MEDIUM, NONE, SEVERITIES, Finding, design_findings

logger = logging.getLogger(__name__)

N_PERMUTATIONS = 1000
OBS = "obs:"
"""What tells columns of ``adata.obs`` from those that the values themselves make."""
_SPLIT_COMPONENTS = {50_000: 512, np.inf: 256}
"""Combinations of genes for the comparison of splits, up to numbers of cells, so that they stay below 200 MB."""
_LARGE_GAIN, _SMALL_GAIN, _NO_GAIN = 0.2, 0.05, 0.01
"""Shares of the median's error that knowing a column takes away."""
_SAME_AS_AGE, _READS_AS_AGE = 0.98, 0.9
"""Correlations with the age above which a column is the age: of any column, and of text that reads as ages or bins."""
_LEVELS = "Hold out whole levels of it to see what is left."
_LIKELY = 0.05
_DENSE = 0.9  # share of values that are not zero, from which profiles are averages and not cells


class _Units(NamedTuple):
    """Cells by subject and sample."""

    subject: np.ndarray  # (n_cells,) names
    subject_of: np.ndarray  # (n_samples,) position of the subject, labelled samples only
    sample: np.ndarray  # (n_cells,) position of the labelled sample, -1 for others
    age: np.ndarray  # (n_samples,)


def audit_leakage(  # noqa: PLR0913
    adata: AnnData,
    *,
    subject_key: str,
    age_key: str,
    sample_key: str | None = None,
    batch_key: str | None = None,
    columns: str | Sequence[str] | None = None,
    layer: str | None = None,
    obsm_key: str | None = None,
    random_split: bool = False,
    key_added: str | None = None,
    rng: int | np.random.Generator | None = 0,
) -> pd.DataFrame:
    """Findings that could make a clock look better on these data than on new ones, with what to do.

    Looks for cells that occur under two subjects (exact copies, and copies that lost counts or gained noise), for
    columns that tell the age without any gene, for subjects in two roles of ``obs["agevi_split"]``, and for a cohort
    that is too small or uneven to judge a clock. No finding means that nothing of this kind was seen; leakage through
    tuning on test subjects leaves no trace in the data. Nothing is written unless
    ``key_added`` is given. Time grows with the square of the number of cells: minutes for 200,000 on one core.

    Parameters
    ----------
    adata
        Annotated data, cells x genes, in memory or on disk; counts or any other values.
    subject_key
        Column of ``adata.obs`` with the person or animal, the unit that is held out.
    age_key
        Column with the age, NaN where unlabelled.
    sample_key
        Column with the visit or biopsy, the unit with one age. Default: the subject.
    batch_key
        Column with the batch, which is examined more closely.
    columns
        Columns that may tell the age. Default: all but those above and agevi's own.
    layer
        Layer that holds the values; default X.
    obsm_key
        Table of ``adata.obsm`` to examine in place of X, such as ``"X_scVI"``, for clocks that read it. Its dimensions
        take the place of genes; the number of genes and of counts, which an embedding does not have, are left out.
    random_split
        Also fit one linear model twice, with folds of random cells and with folds of subjects: how much would a random
        split of cells overstate its accuracy?
    key_added
        Column of ``adata.obs`` to write: name of the cell of another subject that a cell is a copy of, "" for others.
        Not written by default.
    rng
        Seed or generator.

    Returns
    -------
    DataFrame with one row per finding, the most severe first, which is also logged

        - ``check``: what was looked at.
        - ``finding``: what was seen.
        - ``value``: the number behind it (cells, subjects, or an error in the unit of age), float64.
        - ``severity``: "high" (do not trust a score before this is settled), "medium" (compare with it), "low" (good to
          know) or "none" (looked at, and nothing found).
        - ``advice``: what to do.

    Raises
    ------
    KeyError
        A column, the layer or the table is absent.
    ValueError
        Ages, units or values are unusable, or ``layer`` and ``obsm_key`` are both given.

    Examples
    --------
    >>> import agevi, anndata
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=30, n_cells=20, n_genes=100)
    >>> stolen = adata[adata.obs["donor"] == "d03"].copy()
    >>> stolen.obs = stolen.obs.assign(donor="x03", age=61.0)
    >>> adata = anndata.concat([adata, stolen], index_unique="-")
    >>> found = agevi.pp.audit_leakage(adata, subject_key="donor", age_key="age")
    >>> print(found.loc[0, "check"], found.loc[0, "value"], found.loc[0, "severity"])
    exact copies 40.0 high
    """
    advice = "Pass the cells that were summed, before anything is trained on their sums."
    refuse_sums(_checks.anndata(adata), "pp.audit_leakage compares", advice)
    subject, sample = _units.units(adata, subject_key, sample_key)
    age = _units.ages(adata, age_key, min_age=-np.inf, clock=_keys.clock_of(adata.uns, age_key))
    by_sample, owner = _units.ages_of_samples(age, subject, sample, age_key)
    _units.learnable(by_sample, owner, age_key)
    known = by_sample.dropna()
    units = _Units(
        subject=subject.to_numpy(),
        subject_of=np.unique(owner.loc[known.index].to_numpy(), return_inverse=True)[1],
        sample=known.index.get_indexer(pd.Index(sample)),
        age=known.to_numpy(dtype=np.float64),
    )
    if batch_key is not None:
        _checks.column(adata, batch_key, "batch_key")
    own = {subject_key, age_key, sample_key, key_added}
    names = _examined(adata, columns, own, batch_key)
    generator = np.random.default_rng(rng)
    rows = _copies.read_rows(_values(adata, layer, obsm_key))
    of_cells = obsm_key is None and _is_sparse(rows)
    table = _table(adata, names, rows, units, of_cells)
    n_steps = _copies.n_parts(rows) + len(table.columns) + random_split
    with progress(n_steps, "audit, copies of cells", "steps") as bar:
        exact, near = _copies.exact_copies(rows), _copies.near_copies(rows, generator, bar)
        found = [*_copy_findings(exact, near, units.subject, is_sparse=of_cells)]
        batch = None if batch_key is None else adata.obs[batch_key]
        split = adata.obs[_keys.SPLIT] if _keys.SPLIT in adata.obs else None
        found += design_findings(subject, by_sample, owner, rows.n_genes, batch, split)
        samples = _columns.make_samples(units.age, units.subject_of, generator)
        named = {f"{OBS}{name}" for name in names if columns is not None or name == batch_key}
        found += _columns_that_tell(table, units, samples, named, generator, bar)
        if random_split:
            bar.doing("audit, random split")
            n_components = next(n for cells, n in _SPLIT_COMPONENTS.items() if adata.n_obs <= cells)
            z = _copies.project(rows, min(n_components, rows.x.shape[1]), generator)
            found.append(_random_split(z, units, samples, generator))
            bar.step()
    if key_added is not None:
        written_to(adata).obs[key_added] = _twins(adata, units.subject, exact, near)
    return _report(found)


def _values(adata: AnnData, layer: str | None, obsm_key: str | None) -> Any:
    """The matrix that a clock would read, (n_cells, n_features)."""
    setup = resolved({"layer": layer, "obsm_key": obsm_key, "normalize": None})
    x = _checks.matrix(read(adata, setup), layer)
    _checks.finite(x, place(setup))
    return x


def _examined(
    adata: AnnData, columns: str | Sequence[str] | None, own: set[str | None], batch_key: str | None
) -> list[str]:
    """Columns to examine, the batch first."""
    if columns is None:
        ours = (_keys.DEFAULT_KEY, "_scvi")
        named = [c for c in adata.obs if c not in own and not str(c).startswith(ours)]
    else:
        named = [columns] if isinstance(columns, str) else list(columns)
        for name in named:
            _checks.column(adata, name, "columns")
    first = [] if batch_key is None else [batch_key]
    return [*first, *(name for name in named if name != batch_key)]


def _table(adata: AnnData, names: list[str], rows: _copies.Rows, units: _Units, of_cells: bool) -> pd.DataFrame:
    """The columns to examine, and what the values themselves say about depth."""
    out = adata.obs[names].copy()
    out.columns = [f"{OBS}{name}" for name in names]
    out["number of cells"] = np.bincount(units.sample[units.sample >= 0])[units.sample]
    if of_cells:
        out["number of genes"] = rows.n_genes
        out["library size"] = np.log1p(rows.total)
    return out


def _is_sparse(rows: _copies.Rows) -> bool:
    """Whether rows are cells, to judge by their zeros, and not averages or arrays."""
    return rows.non_negative and bool(rows.detected.mean() < _DENSE)


def _copy_findings(
    exact: _copies.Pairs, near: _copies.Pairs, subject: np.ndarray, *, is_sparse: bool
) -> Iterator[Finding]:
    """Cells that occur twice, across and within subjects."""
    kin = np.arange(len(subject))
    for first, second in zip(exact.first, exact.second, strict=True):
        kin[second] = kin[first]  # exact copies stand for each other, so near copies of them are not news
    near = near.where(kin[near.first] != kin[near.second])
    remove = "Keep one of each pair of subjects, or name both subjects alike; key_added=... marks the cells."
    look = remove if is_sparse else f"Compare sex and age: outlying profiles can look alike too. {remove}"
    unit = "cells" if len(set(subject.tolist())) < len(subject) else "samples"
    for pairs, check, what, severity, advice in (
        (exact, "exact copies", "that equal one", HIGH, remove),
        (near, "near copies", "far too similar to one", HIGH if is_sparse else MEDIUM, look),
    ):
        across = pairs.where(subject[pairs.first] != subject[pairs.second])
        n = len(np.union1d(across.first, across.second))
        if n:
            yield Finding(
                check, f"{n:,} {unit} {what} of another subject: {_shared(across, subject)}", n, severity, advice
            )
        else:
            yield Finding(check, f"no {unit} {what} of another subject", 0, NONE, "")
    first = np.r_[exact.first, near.first]
    within = first[subject[first] == subject[np.r_[exact.second, near.second]]]
    if len(within):
        finding = f"{len(within):,} {unit} that occur twice in one subject, such as {str(subject[within[0]])!r}"
        yield Finding("copies in a subject", finding, len(within), LOW, "Drop them: they count twice.")


def _shared(pairs: _copies.Pairs, subject: np.ndarray) -> str:
    """The pairs of subjects that share most cells."""
    names = np.sort(np.column_stack([subject[pairs.first], subject[pairs.second]]).astype(str), axis=1)
    both, counts = np.unique(names, axis=0, return_counts=True)
    most = np.argsort(-counts, kind="stable")
    shown = [f"{both[i, 0]!s} and {both[i, 1]!s} ({counts[i]:,})" for i in most[:3]]
    return ", ".join(shown) + (", ..." if len(most) > len(shown) else "")


def _twins(adata: AnnData, subject: np.ndarray, exact: _copies.Pairs, near: _copies.Pairs) -> np.ndarray:
    """Name of a cell of another subject that each cell is a copy of, (n_cells,) of text."""
    out = np.full(adata.n_obs, "", dtype=object)
    names = adata.obs_names.to_numpy(dtype=object)
    for pairs in (near, exact):
        across = pairs.where(subject[pairs.first] != subject[pairs.second])
        out[across.first], out[across.second] = names[across.second], names[across.first]
    return out


def _columns_that_tell(
    table: pd.DataFrame,
    units: _Units,
    samples: _columns.Samples,
    named: set[str],
    rng: np.random.Generator,
    bar: Bar,
) -> list[Finding]:
    """Columns that predict the age of subjects who were held out, better than chance; the user named some of them."""
    tested = list(_columns.features(table, units.sample, table.columns, len(units.age)))
    out: list[Finding] = []
    silent = []
    for column, feature in tested:
        shown = repr(column.removeprefix(OBS)) if column.startswith(OBS) else column
        bar.doing(f"audit, age from {shown}")
        found = _columns.age_error(samples, feature.values, N_PERMUTATIONS, rng)
        bar.step()
        if found.p * len(tested) > _LIKELY or found.mae > (1 - _NO_GAIN) * found.mae_median:
            silent.append(shown)
            continue
        finding = (
            f"{shown} alone predicts the age of new subjects with an error of {found.mae:.2f}, the median age with "
            f"{found.mae_median:.2f} (p = {found.p:.2g})"
        )
        severity, advice = _judge(feature, found, units, is_depth=not column.startswith(OBS), is_named=column in named)
        out.append(Finding(f"age from {shown}", finding, found.mae, severity, advice))
    bar.step(table.shape[1] - len(tested))
    if silent:
        listed = ", ".join(silent[:8]) + (", ..." if len(silent) > 8 else "")
        out.append(Finding("age from other columns", f"no more than chance: {listed}", len(silent), NONE, ""))
    return out


def _judge(
    feature: _columns.Feature, found: _columns.AgeError, units: _Units, *, is_depth: bool, is_named: bool
) -> tuple[str, str]:
    """Severity and advice for a column that tells the age."""
    beat = "A clock must beat this error, not that of the median."
    gain = 1 - found.mae / found.mae_median
    limit = _READS_AS_AGE if feature.reads_as_age else _SAME_AS_AGE
    if feature.order is not None and abs(spearmanr(feature.order, units.age, nan_policy="omit")[0]) > limit:
        advice = "It is the age in another form: never give it to a model."
        if not is_named:
            return MEDIUM, f"{advice} Clocks read no column that you do not name."
        return HIGH, f"{advice} {_LEVELS}" if feature.reads_as_age else advice
    if is_depth:
        return LOW if gain < _SMALL_GAIN else MEDIUM, f"Normalise for depth. {beat}"
    if not feature.is_design:
        return LOW, f"It differs between cells: composition or quality that changes with age. {beat}"
    if feature.order is not None or gain < _SMALL_GAIN:
        return LOW if gain < _SMALL_GAIN else MEDIUM, beat
    return HIGH if gain >= _LARGE_GAIN else MEDIUM, f"{beat} {_LEVELS}"


def _random_split(z: np.ndarray, units: _Units, samples: _columns.Samples, rng: np.random.Generator) -> Finding:
    """What a random split of cells would claim."""
    if np.bincount(units.sample[units.sample >= 0]).max() < 2:
        return Finding("random split", "every sample is one row, so there are no cells to split", 0, NONE, "")
    found = _split.compare_splits(z, units.sample, units.age, units.subject_of, samples.fold, rng)
    finding = (
        f"with random cells held out a linear model has an error of {found.mae_cells:.2f}, with subjects held out "
        f"{found.mae_subjects:.2f} (median age {found.mae_median:.2f}); with ages shuffled between subjects "
        f"{found.shuffled_cells:.2f} and {found.shuffled_subjects:.2f}"
    )
    severity, advice = NONE, ""
    if found.recognises:
        large = found.shuffled_cells < (1 - _SMALL_GAIN) * found.shuffled_subjects
        severity = HIGH if large else LOW
        advice = "It recognises subjects: hold out whole ones, as agevi.pp.split_subjects does. Networks do it better."
    return Finding("random split", finding, found.mae_subjects - found.mae_cells, severity, advice)


def _report(found: Sequence[Finding]) -> pd.DataFrame:
    """The findings as a table, the most severe first, and in the log."""
    table = pd.DataFrame([row._asdict() for row in found]).astype({"value": np.float64})
    rank = table["severity"].map(SEVERITIES.index)
    table = table.iloc[np.argsort(rank.to_numpy(), kind="stable")].reset_index(drop=True)
    for row in table[table["severity"] != NONE].itertuples():
        level = logging.WARNING if row.severity == HIGH else logging.INFO
        finding = re.sub(r"\s+", " ", str(row.finding))
        logger.log(level, "%s (%s): %s. %s", row.check, row.severity, finding, row.advice)
    counts = table["severity"].value_counts()
    logger.info("Audit: %s.", ", ".join(f"{counts.get(s, 0)} {s}" for s in SEVERITIES))
    return table
