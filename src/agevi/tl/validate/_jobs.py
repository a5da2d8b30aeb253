"""From an AnnData and a recipe to the fits of a cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks
from agevi._compat import version
from agevi._source import read
from agevi.dataloaders._measured import feature_sets, has_sets
from agevi.dataloaders._register import check_setup, covariate_columns
from agevi.dataloaders._summed import RowSums
from agevi.io._folder import as_text, digest, matrix_digest
from agevi.model.base._query import refuse_draws, refuse_training
from agevi.model.celltype._fit import type_seed
from agevi.tl.validate._arguments import CALLS, as_called
from agevi.tl.validate._checkpoint import Checkpoint
from agevi.tl.validate._cohort import Cohort
from agevi.tl.validate._fit_fold import FoldData, FoldJob
from agevi.tl.validate._per_type import Groups
from agevi.tl.validate._recipe import Recipe

FOLDS, FITS, NULL, CURVE = range(4)
"""What a stream of random numbers is for: its first key."""


def stream(seed: int, *key: int) -> np.random.SeedSequence:
    """Random numbers that depend on the seed and on what they are for, never on the order of use."""
    return np.random.SeedSequence(seed, spawn_key=key)


def check_data(adata: AnnData, recipe: Recipe) -> tuple[pd.Series, pd.Series]:
    """Subject and sample of every cell, after every gate of ``setup_anndata``; nothing is registered."""
    for part in recipe.parts:
        cls = part.model_cls
        with as_called(part, CALLS[:1]):
            setup, disk = part.full_setup, bool(cls.unit_from_disk)
            units = check_setup(adata, setup, counts=cls.expects == "counts", model=cls.__name__, from_disk=disk)
            refuse_training(cls, part.model_kwargs, adata)
            if setup.get("obsm_key") is None:
                refuse_draws(cls, part.model_kwargs, _checks.matrix(adata, setup["layer"]))
    return units


def check_outputs(inputs: Sequence[str | None], outputs: Sequence[str], key_added: str) -> None:
    """Refuse to write over a column that is read."""
    both = [name for name in inputs if name in outputs]
    if both:
        raise ValueError(
            f"key_added={key_added!r} would replace adata.obs[{both[0]!r}], which is read; choose another."
        )


def read_data(adata: AnnData, setup: Mapping[str, Any], cohort: Cohort, *, rows: np.ndarray | None = None) -> FoldData:
    """The parts of ``adata`` that clocks read, without a copy of its values; log-ratios are left to each fold."""
    setup = {**setup, "normalize": "none"}
    adata = read(adata, setup)
    kept = [c for c in adata.obs if not str(c).startswith("_scvi")]
    obs, sets = adata.obs[kept], feature_sets(adata) if has_sets(adata) else None
    if rows is not None:
        obs, sets = obs.iloc[rows], sets and replace(sets, codes=sets.codes[rows])
    return FoldData(
        x=_checks.matrix(adata, setup["layer"]),
        setup=setup,
        obs=obs,
        genes=adata.var_names,
        sample=cohort.sample,
        age=cohort.age,
        age_key=setup["age_key"],
        sets=sets,
        rows=rows,
        of_rows=RowSums.of(adata),
    )


def make_job(
    cohort: Cohort,
    recipe: Recipe,
    fold: int,
    *,
    seed: int,
    groups: Groups | None = None,
    group: int = -1,
    **changes: Any,
) -> FoldJob:
    """The fit of one fold, of all cells or of the type at position ``group``, with ``changes`` of its fields."""
    name, train_cells, test_cells = f"fold_{fold:03d}", None, None
    if groups is not None:
        name, test_cells = f"{name}_group_{group:03d}", groups.code == group
        train_cells = test_cells & groups.may_train
    train, test = cohort.training(fold, train_cells), cohort.held_out(fold, test_cells)
    for_validation, for_weights = stream(seed, FITS, fold, group + 1).spawn(2)
    validation = np.zeros(len(train), dtype=bool)
    if recipe.selects_epochs or recipe.weighs_members or groups is not None:
        validation = cohort.validation(train, for_validation)
    of_fit = int(for_weights.generate_state(1)[0] >> 1)  # fits in 31 bits
    if groups is not None:  # the seed that a CellTypeClock with the seed of the fold gives its member
        of_fold = stream(seed, FITS, fold, 0).spawn(2)[1]
        of_fit = type_seed(int(of_fold.generate_state(1)[0] >> 1), groups.names[group])
    job = FoldJob(name, fold, recipe, train, validation, test, of_fit, group, weigh=groups is not None)
    return replace(job, **{"what": "" if groups is None else groups.names[group]} | changes)


def open_checkpoint(
    directory: str | Path | None, data: FoldData, cohort: Cohort, recipe: Recipe, *, seed: int, **parts: Any
) -> Checkpoint | None:
    """Where the fits of a run are kept, refused where those of another run are there; None without a directory."""
    if directory is None:
        return None
    return Checkpoint(directory, run_fingerprint(data, cohort, recipe, seed=seed, **parts))


def run_fingerprint(
    data: FoldData,
    cohort: Cohort,
    recipe: Recipe,
    *,
    seed: int,
    groups: Groups | None = None,
    variants: Sequence[Recipe] = (),
    **parts: Any,
) -> dict[str, Any]:
    """Everything that the results of a run depend on, by the name that a message gives it."""
    setup = recipe.full_setup
    cls = recipe.model_cls
    arguments = {
        "version of agevi": version("agevi"),
        "model_cls": f"{cls.__module__}.{cls.__qualname__}",
        "setup_kwargs": as_text(recipe.setup),
        "model_kwargs": as_text(recipe.model_kwargs),
        "train_kwargs": as_text(recipe.train_kwargs),
        "rng": seed,
        **{name: as_text(value) for name, value in parts.items()},
    }
    columns = {
        f"adata.obs[{setup['subject_key']!r}]": cohort.subjects[cohort.subject],
        "the samples": cohort.samples[cohort.sample],
        f"adata.obs[{setup['age_key']!r}]": cohort.age,
        "the folds": np.asarray(cohort.folds, dtype=object)[cohort.fold],
        "the cells that train": cohort.trains,
    }
    if cohort.named is not None and not np.array_equal(cohort.named, cohort.fold):
        columns["the folds that cells name"] = cohort.named
    if data.of_rows is not None:
        columns["the cells of every row"] = cohort.size
    if data.sets is not None:
        arguments["feature sets"] = as_text([data.sets.names, data.sets.masks])
        columns["the feature set of every cell"] = data.sets.codes
    if recipe.members:
        arguments["members"] = as_text([member.described() for member in recipe.members])
    for key in _columns([*recipe.parts, *variants]):
        if key in data.obs:
            columns[f"adata.obs[{key!r}]"] = data.obs[key].to_numpy(dtype=object)
    if groups is not None:
        columns["the types of the cells"] = np.asarray([*groups.names, ""], dtype=object)[groups.code]
    digests = {name: digest(np.asarray(values)) for name, values in columns.items()}
    values, genes = matrix_digest(data.x, data.rows), digest(data.genes.to_numpy())
    return {**arguments, **digests, "values": values, "genes": genes}


def _columns(recipes: Sequence[Recipe]) -> list[str]:
    """Columns of ``adata.obs`` that clocks read beside ages and units."""
    read = [key for recipe in recipes for _, keys in covariate_columns(recipe.full_setup) for key in keys]
    read += [key for recipe in recipes if (key := recipe.full_setup.get("cell_type_key"))]
    read += [key for recipe in recipes if (key := recipe.model_kwargs.get("pseudocell_groupby"))]
    return list(dict.fromkeys(read))
