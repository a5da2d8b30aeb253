"""scvi-tools fields for ages, for the units (subject, sample) that cells belong to, and for categories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _names, _units
from agevi._compat.scvi import REGISTRY_KEYS, CategoricalJointObsField, CategoricalObsField, NumericalObsField
from agevi.dataloaders._measured import feature_sets

AGE = "agevi_age"
TARGET = "agevi_target"
"""Column of agevi's own copies of data, with what a classifier learns in place of ages."""
SUBJECT = "agevi_subject"
SAMPLE = "agevi_sample"
SUMMED = "agevi_summed"
"""True in a batch whose values are of sums of cells."""
CELLS = "agevi_cells"
"""Values of single cells in a batch of sums, (n_cells, n_genes); the rows of other fields are the sums, then these."""
DECODED = "agevi_decoded"
"""Values of the last rows of a batch, (n_decoded, n_genes), where these alone are reconstructed."""
CATEGORY = "agevi_category_"
"""Start of the names of the fields of categorical columns; their position follows."""
ROW = "agevi_row"
UNKNOWN = 0
"""Code of a category that the clock never saw."""


class AgeField(NumericalObsField):
    """Ages per cell, float64, in a column of their own; missing ages, or a missing column, are unlabelled."""

    def __init__(self, age_key: str, *, min_age: float) -> None:
        super().__init__(AGE, f"_scvi_{AGE}")
        self.age_key, self.min_age = age_key, min_age

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Copy the ages, or another target, or fill NaN where neither is there."""
        if TARGET in adata.obs:
            adata.obs[self.attr_key] = adata.obs[TARGET].to_numpy(dtype=np.float64)
        elif self.age_key in adata.obs:
            adata.obs[self.attr_key] = _units.ages(adata, self.age_key, min_age=self.min_age)
        else:
            adata.obs[self.attr_key] = np.nan
        super().register_field(adata)
        return {"original_key": self.age_key}


class UnitField(NumericalObsField):
    """Codes of the subject or sample of every cell, numbered within each AnnData on its own."""

    def __init__(self, registry_key: str, unit_key: str) -> None:
        super().__init__(registry_key, f"_scvi_{registry_key}")
        self.unit_key = unit_key

    # Codes weigh and average cells and are never model input, so new data may hold any names and need none, where
    # scvi-tools' categorical field would refuse unseen subjects.
    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Number the units in the order of their names."""
        if self.unit_key in adata.obs:
            text = _names.names(adata.obs[self.unit_key], f"adata.obs[{self.unit_key!r}]").fillna("")
            codes, names = pd.factorize(text.to_numpy(dtype=object), sort=True)
        else:
            names, codes = np.array([], dtype=object), np.zeros(adata.n_obs, dtype=np.int64)
        adata.obs[self.attr_key] = codes
        super().register_field(adata)
        return {"original_key": self.unit_key, "names": names}

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        """Number of units."""
        return {f"n_{self.registry_key}": len(state_registry["names"])}


def coded(adata: AnnData, column: str, known: Sequence[Any] | None) -> tuple[np.ndarray, np.ndarray]:
    """Code of every cell's name, (n_cells,), -1 where unknown, and the names: ``known``, or else alphabetical."""
    text = _names.names(adata.obs[column], f"adata.obs[{column!r}]")
    names = sorted(set(text)) if known is None else _names.names(np.asarray(known, dtype=object), f"known {column!r}")
    index = pd.Index(names, dtype=object)
    return index.get_indexer(pd.Index(text, dtype=object)), index.to_numpy(dtype=object)


def _coded_or_refused(adata: AnnData, column: str, known: Sequence[Any] | None) -> tuple[np.ndarray, np.ndarray]:
    """The same for columns whose values must be known."""
    codes, names = coded(adata, column, known)
    if (codes < 0).any():
        raise ValueError(unknown_values(column, _names.names(adata.obs[column][codes < 0], column), names))
    return codes, names


def unknown_values(column: str, found: Iterable[str], known: Iterable[str]) -> str:
    """The message for values that a clock never saw."""
    new, known = _names.in_order(found), list(known)
    return (
        f"adata.obs[{column!r}] holds {_checks.listed(new)}, which the clock never saw; it knows "
        f"{_checks.listed(known)}{_names.difference(new, known)}. Map the column to known values, or train with these "
        "cells."
    )


class BatchField(CategoricalObsField):
    """Codes of the batch of every cell. scvi-tools' own field compares values, for which 1 and "1" differ."""

    def __init__(self, batch_key: str | None, known: Sequence[Any] | None = None) -> None:
        super().__init__(REGISTRY_KEYS.BATCH_KEY, batch_key)
        self.known = known

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Number the batches in the order of their names."""
        return self._coded(adata, self.known)

    def transfer_field(
        self, state_registry: dict[str, Any], adata_target: AnnData, extend_categories: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Number the batches as in the data that the clock was made with."""
        return self._coded(adata_target, state_registry[self.CATEGORICAL_MAPPING_KEY])

    def _coded(self, adata: AnnData, known: Sequence[Any] | None) -> dict[str, Any]:
        if self.is_default:
            self._setup_default_attr(adata)
            return {self.CATEGORICAL_MAPPING_KEY: np.array(["0"], dtype=object), self.ORIGINAL_ATTR_KEY: self.attr_key}
        self.validate_field(adata)
        codes, names = _coded_or_refused(adata, self._original_attr_key, known)
        adata.obs[self.attr_key] = codes
        return {self.CATEGORICAL_MAPPING_KEY: names, self.ORIGINAL_ATTR_KEY: self._original_attr_key}


class CovariatesField(CategoricalJointObsField):
    """Codes of the categorical covariates of every cell, by name, as those of :class:`BatchField`."""

    def __init__(self, columns: Sequence[str] | None, known: Mapping[str, Sequence[Any]] | None = None) -> None:
        super().__init__(REGISTRY_KEYS.CAT_COVS_KEY, None if columns is None else list(columns))
        self.known = known or {}

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Number the values of every column in the order of their names."""
        return self._coded(adata, self.known)

    def transfer_field(
        self, state_registry: dict[str, Any], adata_target: AnnData, extend_categories: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Number the values as in the data that the clock was made with."""
        return self._coded(adata_target, state_registry[self.MAPPINGS_KEY])

    def _coded(self, adata: AnnData, known: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        self.validate_field(adata)
        found = {column: _coded_or_refused(adata, column, known.get(column)) for column in self.attr_keys}
        codes = {column: code for column, (code, _) in found.items()}
        adata.obsm[self.attr_key] = pd.DataFrame(codes, index=adata.obs_names)
        mappings = {column: names for column, (_, names) in found.items()}
        return {
            self.MAPPINGS_KEY: mappings,
            self.FIELD_KEYS_KEY: self.attr_keys,
            self.N_CATS_PER_KEY: [len(names) for names in mappings.values()],
        }


class CategoryField(NumericalObsField):
    """Codes of a categorical column: known names from 1 in their order, 0 for values that the clock never saw."""

    def __init__(self, position: int, column: str, known: Sequence[Any] | None = None) -> None:
        super().__init__(f"{CATEGORY}{position}", f"_scvi_{CATEGORY}{position}")
        self.column, self.known = column, known

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Number the values in the order of their names."""
        return self._coded(adata, self.known)

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Number the values as in the data that the clock was made with."""
        return self._coded(adata_target, state_registry["categories"])

    def _coded(self, adata: AnnData, known: Sequence[Any] | None) -> dict[str, Any]:
        codes, names = coded(adata, self.column, known)
        adata.obs[self.attr_key] = codes + 1
        super().register_field(adata)
        return {"original_key": self.column, "categories": names}


class FeatureSetField(NumericalObsField):
    """Position of every row's feature set among the columns of the mask, 0 where there is no mask."""

    def __init__(self) -> None:
        super().__init__(_keys.FEATURE_SET, f"_scvi_{_keys.FEATURE_SET}")

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Number the sets in the order of the mask's columns."""
        sets = feature_sets(adata)
        adata.obs[self.attr_key] = sets.codes
        super().register_field(adata)
        return {"names": np.asarray(sets.names, dtype=object)}

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """The same: other data have masks of their own."""
        return self.register_field(adata_target)


class RowField(NumericalObsField):
    """Position of every row."""

    def __init__(self) -> None:
        super().__init__(ROW, f"_scvi_{ROW}")

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Number the rows."""
        adata.obs[self.attr_key] = np.arange(adata.n_obs)
        super().register_field(adata)
        return {}
