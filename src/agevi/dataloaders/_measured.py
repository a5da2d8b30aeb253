"""Which features were measured in which rows: a mask of features by feature set, and the set of every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks, _keys, _names
from agevi.dataloaders._query import GeneMatch, match_genes

_ALL = "all"  # the one set of data without a mask
_MAKER = "agevi.pp.concat_modalities"


@dataclass(frozen=True)
class FeatureSets:
    """The mask of an AnnData."""

    names: list[str]
    masks: np.ndarray  # (n_sets, n_vars) bool
    codes: np.ndarray  # (n_obs,) set of every row

    @property
    def tensor(self) -> torch.Tensor:
        """The mask as a tensor, (n_sets, n_vars)."""
        return torch.from_numpy(np.ascontiguousarray(self.masks))

    @property
    def used(self) -> np.ndarray:
        """Positions of the sets that have rows."""
        return np.unique(self.codes)


def has_sets(adata: AnnData) -> bool:
    """Whether the data say what was measured."""
    return _keys.MEASURED in adata.varm


def feature_sets(adata: AnnData) -> FeatureSets:
    """The mask of ``adata``; everything is measured where it has none."""
    if not has_sets(adata):
        return FeatureSets([_ALL], np.ones((1, adata.n_vars), dtype=bool), np.zeros(adata.n_obs, dtype=np.int64))
    names, key = _described(adata)
    masks = np.asarray(adata.varm[_keys.MEASURED])
    if masks.dtype != bool or masks.shape != (adata.n_vars, len(names)):
        raise ValueError(
            f"adata.varm[{_keys.MEASURED!r}] is {masks.dtype} of shape {masks.shape}; the mask is bool, one row per "
            f"feature ({adata.n_vars:,}) and one column per feature set ({_checks.listed(names)}). Make it with "
            f"{_MAKER}."
        )
    values = _checks.labels(adata, key, f"adata.uns[{_keys.MEASURED!r}]['key']")
    codes = pd.Index(names).get_indexer(pd.Index(values))
    if (codes < 0).any():
        unknown = sorted(set(values[codes < 0]))
        raise ValueError(
            f"adata.obs[{key!r}] holds {_checks.listed(unknown)}, which is none of the feature sets of "
            f"adata.uns[{_keys.MEASURED!r}] ({_checks.listed(names)}). Make both with {_MAKER}."
        )
    return FeatureSets(names, masks.T, codes)


def _described(adata: AnnData) -> tuple[list[str], str]:
    """Names of the sets and the column of ``obs`` that holds them."""
    entry: Any = adata.uns.get(_keys.MEASURED)
    if not hasattr(entry, "keys") or "sets" not in entry:
        raise KeyError(
            f"adata.varm has {_keys.MEASURED!r}, and adata.uns[{_keys.MEASURED!r}]['sets'] with the names of its "
            f"columns is absent; make both with {_MAKER}, or delete the mask where everything was measured."
        )
    return _names.several(np.atleast_1d(entry["sets"])), str(entry.get("key", _keys.FEATURE_SET))


def check_sets(adata: AnnData) -> None:
    """Refuse a mask that cannot be read, or rows of a set without features."""
    sets = feature_sets(adata)
    empty = [sets.names[i] for i in sets.used if not sets.masks[i].any()]
    if empty:
        raise ValueError(
            f"feature set {empty[0]!r} of adata.varm[{_keys.MEASURED!r}] has rows and no measured feature; correct the "
            "mask, or drop these rows."
        )


def write_sets(adata: AnnData, sets: FeatureSets) -> None:
    """Set the slots of a mask in an AnnData of agevi's own."""
    adata.varm[_keys.MEASURED] = sets.masks.T.copy()
    adata.uns[_keys.MEASURED] = {"sets": list(sets.names), "key": _keys.FEATURE_SET}
    adata.obs[_keys.FEATURE_SET] = pd.Categorical.from_codes(sets.codes, categories=pd.Index(sets.names))


def copy_sets(adata: AnnData, out: AnnData, chosen: Any = slice(None)) -> None:
    """Give ``out``, which has the ``chosen`` features and the same rows, the mask of ``adata`` and every row's set."""
    if not has_sets(adata):
        return
    out.varm[_keys.MEASURED] = np.array(adata.varm[_keys.MEASURED][chosen])
    entry = adata.uns.get(_keys.MEASURED)
    if entry is None:
        return
    out.uns[_keys.MEASURED] = entry
    key = str(entry.get("key", _keys.FEATURE_SET)) if hasattr(entry, "keys") else ""
    if key in adata.obs and key not in out.obs:
        out.obs[key] = adata.obs[key].to_numpy()


def aligned(sets: FeatureSets, match: GeneMatch) -> FeatureSets:
    """The mask over a clock's genes; those that the data lack are not measured."""
    masks = sets.masks[:, np.maximum(match.columns, 0)] & match.present
    return FeatureSets(sets.names, masks, sets.codes)


def match_sets(
    genes: np.ndarray, known: FeatureSets, adata: AnnData, *, min_coverage: float, names: pd.DataFrame | None = None
) -> GeneMatch:
    """Find a clock's genes in ``adata``; each feature set with rows must cover ``min_coverage`` of one clock's set."""
    own = feature_sets(adata)
    if len(known.names) == 1 and len(own.names) == 1 and own.masks.all():
        return match_genes(genes, adata, min_coverage=min_coverage, known=names)
    smallest = min_coverage * known.masks.sum(axis=1).min() / len(genes)  # fewer cover no set
    match = match_genes(genes, adata, min_coverage=0.0, known=names, enough=smallest)
    found = aligned(own, match)
    size = np.maximum(known.masks.sum(axis=1), 1)
    share = found.masks[found.used].astype(np.float64) @ known.masks.T / size  # sets with rows x the clock's sets
    best = share.max(axis=1)
    worst = int(best.argmin())
    if best[worst] < min_coverage:
        nearest = int(share[worst].argmax())
        absent = genes[known.masks[nearest] & ~found.masks[found.used[worst]]]
        whose = f"feature set {own.names[found.used[worst]]!r} of adata" if len(own.names) > 1 else "adata"
        raise ValueError(
            f"{whose} has {best[worst]:.0%} of the {size[nearest]:,} features of {known.names[nearest]!r}, the "
            f"nearest of the clock's feature sets ({_checks.listed(known.names)}); absent are e.g. "
            f"{_checks.listed(absent, 2)}, and adata has {_checks.listed(adata.var_names, 2)}. A clock needs "
            f"{min_coverage:.0%} of one of its sets."
        )
    return GeneMatch(match.columns, match.identical, covered=float(best[worst]))
