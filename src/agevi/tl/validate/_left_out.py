"""What the clocks of cell types leave out in the fits of one call, said once for all of them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from agevi import _checks, _names
from agevi.model.celltype._ages import say_samples
from agevi.model.celltype._combine import MIN_SAMPLES
from agevi.model.celltype._fit import say_one_type, what_types_need
from agevi.tl.validate._arguments import as_model_kwargs
from agevi.tl.validate._fit_fold import FoldData, FoldJob, FoldResult

logger = logging.getLogger(__name__)

Fit = tuple[FoldData, FoldJob, FoldResult]


def warn_of_rare(lacking: Mapping[str, int], n: str, key: str, needs: str, so: str) -> None:
    """Name the types that lack what a clock needs in some of the ``n`` fits, and what happens to their cells."""
    rare = [f"{name!r} (in {count} of {n})" for name, count in lacking.items() if count]
    if rare:
        more = ", ..." if len(rare) > 5 else ""
        warnings.warn(
            f"these types in adata.obs[{key!r}] lack {needs}, and their cells are not {so}: "
            f"{', '.join(rare[:5])}{more}.",
            UserWarning,
            stacklevel=_checks.stack_depth(),
        )


def tell(jobs: Sequence[tuple[FoldData, FoldJob]], results: Sequence[FoldResult]) -> None:
    """Say what clocks of types left out, in one line of each kind for each recipe; of shuffled ages nothing."""
    fits: dict[int, list[Fit]] = {}
    for (data, job), result in zip(jobs, results, strict=True):
        if result.types is not None and job.age is None:
            fits.setdefault(id(job.recipe), []).append((data, job, result))
    for of_recipe in fits.values():
        _tell_types(of_recipe)
        _tell_samples(of_recipe)


def _tell_types(fits: Sequence[Fit]) -> None:
    """Types without a clock."""
    data, job, _ = fits[0]
    part, n = job.recipe.typed, f"{len(fits)} fits"
    key = part.setup.get("cell_type_key")
    if key is None:
        say_one_type(logger)
        return
    code, names = _names.coded(data.obs[key])
    lacking = dict.fromkeys(names, 0)
    for _, job, result in fits:
        own = set() if result.types is None else set(result.types.tolist())
        there = np.unique(code[np.concatenate([job.train, job.test])])
        for i in there[there >= 0]:
            lacking[names[i]] += names[i] not in own
    needs = as_model_kwargs(what_types_need(part.argument("min_cells")), part)
    warn_of_rare(lacking, n, key, needs, "read")


def _tell_samples(fits: Sequence[Fit]) -> None:
    """Samples with few cells, with none, and without a composition; and types that could not be weighed."""
    part = fits[0][1].recipe.typed
    min_cells, composition = part.argument("min_cells"), part.argument("composition")
    found: dict[str, set[str]] = {name: set() for name in ("all", "few", "none", "incomparable")}
    equal = 0
    for _, _, result in fits:
        if result.type_ages is None or result.type_samples is None:
            continue
        ages, n_cells, weights = result.type_ages
        of_types = np.isfinite(ages[:, :-1] if composition else ages).any(axis=1)
        none = weights.sum(axis=1) < 0.5  # they sum to 1 otherwise
        incomparable = np.isnan(ages[:, -1]) & (n_cells[:, -1] >= min_cells) & composition
        masks = {"all": none | ~none, "few": ~of_types & ~none, "none": none, "incomparable": incomparable}
        for name, mask in masks.items():
            found[name] |= set(result.type_samples[mask].tolist())
        several = weights[(weights != 0).sum(axis=1) > 1]
        equal += bool(len(several)) and all(np.ptp(row[row != 0]) == 0 for row in several)
    n, few, none, incomparable = len(found["all"]), *(sorted(found[k]) for k in ("few", "none", "incomparable"))
    say_samples(logger, n, few, none, as_model_kwargs(f"min_cells={min_cells}", part))
    if incomparable:
        logger.warning(
            "%d of %d samples (%s) have no cells of types that nearly all training samples have, so their composition "
            "is not read.", len(incomparable), n, _checks.listed(incomparable, 3),
        )  # fmt: skip
    if equal and part.argument("combine") == "precision":
        logger.warning(
            "In %d of %d fits too few samples were held out to tell how the errors of types go together (%d are "
            "needed); all types have equal weight there.", equal, len(fits), MIN_SAMPLES,
        )  # fmt: skip
