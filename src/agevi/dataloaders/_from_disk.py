"""Backed data for clocks that learn from sums of cells: the sums, from one pass over the file, take their place."""

from __future__ import annotations

import logging
from typing import Any

from anndata import AnnData

from agevi import _checks, _units
from agevi._compat import on_disk
from agevi._source import inner, place
from agevi.dataloaders._cell_sums import sums_of
from agevi.dataloaders._own_copies import chosen_features, of_features
from agevi.dataloaders._register import check_tables
from agevi.dataloaders._summed import is_summed

logger = logging.getLogger(__name__)


def is_on_disk(adata: Any, setup: dict[str, Any]) -> bool:
    """Whether the cells that a clock would read are on disk; tables of ``obsm`` never are."""
    if not isinstance(adata, AnnData) or setup.get("obsm_key") is not None or not on_disk(adata) or is_summed(adata):
        return False
    layer = setup["layer"]
    source = adata._adata_ref if adata.is_view else adata
    return _checks.is_stored(source.X if layer is None else source.layers.get(layer))


def to_register(cls: Any, adata: AnnData, features: Any, setup: dict[str, Any], *, require_ages: bool) -> AnnData:
    """What a clock registers of ``adata``: its ``features``, or the sums of its cells where these are on disk."""
    if cls.trains_on_sums() and is_on_disk(adata, setup):
        return summed(adata, features, setup, model=cls.__name__, require_ages=require_ages)
    return adata if features is None else of_features(adata, features, setup)


def summed(adata: AnnData, features: Any, setup: dict[str, Any], *, model: str, require_ages: bool) -> AnnData:
    """Sums of the cells by sample, and by each column of names that ``model`` registers; every gate comes first."""
    tables = AnnData(obs=_checks.anndata(adata).obs, var=adata.var)
    _checks.not_a_view_on_disk(adata)
    _checks.by_rows(_checks.matrix(adata, setup["layer"]), place(setup))
    genes = None if features is None else chosen_features(tables, features, setup)
    check_tables(tables, setup, require_ages=require_ages)
    by = [setup[key] for key in ("cell_type_key", "batch_key") if setup.get(key)]
    by = list(dict.fromkeys([_units.sample_column(setup), *by, *(setup["categorical_covariate_keys"] or [])]))
    counted = inner(setup["normalize"]) != "none"
    sums = sums_of(
        adata,
        by,
        setup["layer"],
        counts=counted,
        why=f"{model} normalises raw counts itself",
        advice="Pass them with layer=..., or set normalize='none' for values that are normalised already.",
        genes=genes,
    )
    for key in setup["continuous_covariate_keys"] or []:
        if key not in sums.obs:
            raise ValueError(
                f"adata.obs[{key!r}] differs within samples, of which {model} reads the sums alone while the data are "
                "on disk. Leave it out of continuous_covariate_keys, or call adata = adata.to_memory() first."
            )
    logger.info(
        "adata is on disk: its cells were summed in one pass, and %s is trained on the %d sums. agevi.pp.sum_samples("
        "path, by=%s) keeps them for further calls.",
        model, sums.n_obs, by,
    )  # fmt: skip
    return sums
