"""What is attributed: the rows in which a clock predicts, who they belong to, and what they are compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _names, _units
from agevi.model.celltype._ages import types_of_cells

ALL = "all"
UNITS = ("auto", "sample", "cell")


@dataclass(frozen=True)
class RowSet:
    """Rows of one kind of unit."""

    cells: np.ndarray  # (n_used,) positions of the cells that are used
    codes: np.ndarray | None  # (n_used,) row of every used cell; None: every cell is a row
    subject: np.ndarray  # (n_rows,) code
    kind: np.ndarray  # (n_rows,) code; rows are compared with background rows of their own kind
    targets: list[tuple[np.ndarray, np.ndarray]]  # position in Units.groups (-1: none) and weight, (n_rows,) each
    clock: Any = None  # what reads them, where it is not the whole clock but that of their type


@dataclass(frozen=True)
class Units:
    """All rows of one attribution."""

    summed: bool
    subjects: np.ndarray  # names, (n_subjects,)
    trained: np.ndarray  # (n_subjects,) whether the clock trained on the subject
    groups: list[str]  # "all", and those of groupby
    sets: list[RowSet]


def draw_cells(adata: AnnData, model: Any, n_cells_per_subject: int | None, rng: np.random.Generator) -> np.ndarray:
    """Positions of the cells that are used: all, or ``n_cells_per_subject`` of each subject at most, at random."""
    if n_cells_per_subject is None:
        return np.arange(adata.n_obs)
    n, setup = _checks.count(n_cells_per_subject, "n_cells_per_subject"), model.setup_args
    subject = _units.units(adata, setup["subject_key"], setup["sample_key"])[0].to_numpy()
    return np.flatnonzero(_rank(subject, rng) < n)


def make_units(adata: AnnData, model: Any, *, groupby: str | None, unit: str, cells: np.ndarray | None = None) -> Units:
    """The rows in which ``model`` predicts the samples of ``adata``, of all cells or the positions ``cells``."""
    setup = model.setup_args
    summed, kind_key = _unit(model, unit)
    subject, sample = _units.units(adata, setup["subject_key"], setup["sample_key"])
    cells = np.arange(adata.n_obs) if cells is None else cells
    subject_code, subjects = pd.factorize(subject.to_numpy()[cells], sort=True)
    sample_code = pd.factorize(sample.to_numpy()[cells], sort=True)[0]
    table = pd.DataFrame({"cell": cells, "subject": subject_code, "sample": sample_code})
    table["kind"] = 0
    if kind_key is not None:
        table["kind"] = pd.factorize(_checks.labels(adata, kind_key, "pseudocell_groupby").to_numpy()[cells])[0]
    names: list[str] = []
    table["group"] = -1
    if groupby is not None:
        table["group"], names = _groups(_checks.column(adata, groupby, "groupby").iloc[cells], groupby)
    role = pd.Series(subjects).map(model.split_).to_numpy()
    if model.of_types:
        names, sets = _sets_of_types(table, adata, model, groupby, summed)
    else:
        sets = _row_sets(table, summed, grouped=groupby is not None)
    return Units(
        summed=summed,
        subjects=np.asarray(subjects, dtype=object),
        trained=role == _keys.TRAIN,
        groups=[ALL, *names],
        sets=sets,
    )


def _unit(model: Any, unit: str) -> tuple[bool, str | None]:
    """Whether rows are sums, and the column of the groups that are summed apart."""
    _checks.choice(unit, UNITS, "unit")
    members = model.members()
    typed = _clock_of_types(model)
    if typed is not None:
        raise ValueError(
            f"this {type(model).__name__} holds a {type(typed).__name__}, whose clocks read one type of cells each; "
            "attribute each of model.clocks under its own key_added."
        )
    if unit == "cell" or (unit == "auto" and not any(clock.predicts_sums for clock in members)):
        return False, next((clock.compared_within for clock in members if clock.compared_within), None)
    of_cells = [type(clock).__name__ for clock in members if not clock.predicts_sums]
    if of_cells:
        what = f"this {type(model).__name__}" if len(members) == 1 else f"its member {of_cells[0]}"
        raise ValueError(
            f"unit={unit!r} needs a clock that was trained on sums of cells, and {what} was trained on single cells. "
            "Pass unit='cell'."
        )
    keys = sorted({str(clock.pseudocell_groupby) for clock in members})
    if len(keys) > 1:
        raise ValueError(
            f"the members of this {type(model).__name__} sum different cells (pseudocell_groupby: "
            f"{_checks.listed(keys)}); attribute each of model.clocks under its own key_added."
        )
    return True, members[0].pseudocell_groupby


def _clock_of_types(model: Any) -> Any:
    """The first clock of types in an ensemble, or in an ensemble of it."""
    for clock in model.own_clocks:
        found = clock if clock.of_types else _clock_of_types(clock)
        if found is not None:
            return found
    return None


def _groups(values: pd.Series, groupby: str) -> tuple[np.ndarray, list[str]]:
    """Group of every cell, -1 where it is missing, and the names."""
    if values.isna().all():
        raise ValueError(f"adata.obs[{groupby!r}] is missing in all cells; groupby needs the group of each cell.")
    code, names = _names.coded(values, f"adata.obs[{groupby!r}]")
    if ALL in names:
        raise ValueError(f"adata.obs[{groupby!r}] has a group {ALL!r}, the name of all cells together; rename it.")
    return code, names


def _row_sets(table: pd.DataFrame, summed: bool, *, grouped: bool) -> list[RowSet]:
    """Rows of whole samples, and rows of the groups where these divide samples."""
    whole = ["sample", "kind"]
    divided = grouped and bool((table.groupby(whole)["group"].nunique() > 1).any())
    sets = [_row_set(table, whole, summed, ["all", "group"] if grouped and not divided else ["all"])]
    if divided:
        sets.append(_row_set(table[table["group"] >= 0], [*whole, "group"], summed, ["group"]))
    return sets


def _sets_of_types(
    table: pd.DataFrame, adata: AnnData, model: Any, groupby: str | None, summed: bool
) -> tuple[list[str], list[RowSet]]:
    """Names of the types that a clock reads, and the rows of each; of all, a row has the weight of its type."""
    key = model.setup_args["cell_type_key"]
    if groupby not in (None, key):
        raise ValueError(
            f"groupby={groupby!r} with a {type(model).__name__}, whose groups are the types in {_names.in_types(key)}; "
            "leave it out, or attribute one of model.type_clocks."
        )
    code, found = types_of_cells(model, adata)
    types = [name for name in model.type_clocks if name in found]
    if ALL in types:
        raise ValueError(
            f"this {type(model).__name__} has a type {ALL!r}, the name of the weighted sum of the types; attribute its "
            f"clock, model.type_clocks[{ALL!r}], or rename the type and train again."
        )
    place = np.append(pd.Index(types, dtype=object).get_indexer(pd.Index(model.types_, dtype=object)), -1)
    table = table.assign(group=place[code[table["cell"].to_numpy()]])
    n_cells = table.groupby(["sample", "group"])["cell"].transform("size")
    table = table[(table["group"] >= 0) & (n_cells >= model.init_args["min_cells"])]
    n = np.zeros((int(table["sample"].to_numpy().max(initial=-1)) + 1, len(types)))
    np.add.at(n, (table["sample"].to_numpy(), table["group"].to_numpy()), 1)
    of_type, sets = model.type_weights(n, types), []
    for group, name in enumerate(types):
        own = table[table["group"] == group]
        if not len(own):
            continue
        rows = _row_set(own, ["sample", "kind"], summed, ["all", "group"])
        sample = own["sample"].to_numpy()
        if rows.codes is not None:
            sample = sample[np.unique(rows.codes, return_index=True)[1]]
        (of_all, weight), of_group = rows.targets
        targets = [(of_all, weight * of_type[sample, group]), of_group]
        sets.append(replace(rows, targets=targets, clock=model.type_clocks[name]))
    if not sets:
        raise ValueError(
            f"no sample has {model.init_args['min_cells']} cells (min_cells) of a type of the clock "
            f"({_checks.listed(list(model.type_clocks))})."
        )
    return types, sets


def _row_set(table: pd.DataFrame, keys: list[str], summed: bool, targets: list[str]) -> RowSet:
    """Rows of the cells that have ``keys`` in common."""
    codes = table.groupby(keys, sort=True).ngroup().to_numpy() if summed else None
    rows = table.assign(size=1)
    if codes is not None:
        rows = rows.groupby(codes, sort=True).agg(dict.fromkeys(table, "first") | {"size": "sum"})
    return RowSet(
        cells=table["cell"].to_numpy(),
        codes=codes,
        subject=rows["subject"].to_numpy(),
        kind=rows.groupby([key for key in keys if key != "sample"], sort=True).ngroup().to_numpy(),
        targets=[_target(rows, of) for of in targets],
    )


def _target(rows: pd.DataFrame, of: str) -> tuple[np.ndarray, np.ndarray]:
    """Group that every row counts for (-1: none), and its weight, by cells and samples, in its subject's mean."""
    group = rows["group"].to_numpy() + 1 if of == "group" else np.zeros(len(rows), dtype=np.int64)
    frame = rows.assign(target=group)
    size = frame["size"].to_numpy(dtype=np.float64)
    n_samples = frame.groupby(["subject", "target"])["sample"].transform("nunique").to_numpy()
    weight = size / frame.groupby(["sample", "target"])["size"].transform("sum").to_numpy() / n_samples
    return np.where(group > 0, group, -1) if of == "group" else group, weight


def _rank(unit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Place of every row among the rows of its unit, from 0, in random order."""
    codes = np.unique(unit, return_inverse=True)[1]
    order = np.lexsort((rng.random(len(codes)), codes))
    sizes = np.bincount(codes)
    rank = np.empty(len(codes), dtype=np.int64)
    rank[order] = np.arange(len(codes)) - (np.cumsum(sizes) - sizes)[codes[order]]
    return rank


def evenly(subject: np.ndarray, rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """``n`` of the positions ``rows`` at most, as equally many of every subject (its code by row) as there are."""
    rank = _rank(subject[rows], rng)
    first = np.lexsort((rng.random(len(rank)), rank))[:n]  # one of every subject before a second of any
    return np.sort(rows[first])
