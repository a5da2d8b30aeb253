"""scvi-tools fields for ages and for the units (subject, sample) that cells belong to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys
from agevi._compat import NumericalObsField
from agevi.dataloaders._measured import feature_sets

AGE = "agevi_age"
SUBJECT = "agevi_subject"
SAMPLE = "agevi_sample"
SUMMED = "agevi_summed"
"""Mask of the rows of a batch that are sums of cells."""
CATEGORY = "agevi_category_"
"""Start of the names of the fields of categorical columns; their position follows."""
ROW = "agevi_row"
UNKNOWN = 0
"""Code of a category that the clock never saw."""


class AgeField(NumericalObsField):
    """Ages per cell; missing ages are unlabelled, and data without the column is unlabelled altogether.

    The user's column is never touched: a float64 copy goes to ``obs["_scvi_agevi_age"]``.
    """

    def __init__(self, age_key: str, *, min_age: float) -> None:
        super().__init__(AGE, f"_scvi_{AGE}")
        self.age_key, self.min_age = age_key, min_age

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Copy the ages, or fill NaN where the column is absent."""
        known = self.age_key in adata.obs
        adata.obs[self.attr_key] = _checks.ages(adata, self.age_key, min_age=self.min_age) if known else np.nan
        super().register_field(adata)
        return {"original_key": self.age_key}


class UnitField(NumericalObsField):
    """Codes of the subject or sample of every cell, numbered within each AnnData on its own.

    Codes are only used to weigh and to average cells, never as model input, so new data may hold any names and
    needs none. This is where scvi-tools' categorical field would refuse unseen subjects.
    """

    def __init__(self, registry_key: str, unit_key: str) -> None:
        super().__init__(registry_key, f"_scvi_{registry_key}")
        self.unit_key = unit_key

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Number the units in the order of their names."""
        if self.unit_key in adata.obs:
            names, codes = np.unique(adata.obs[self.unit_key].astype(str).to_numpy(dtype=str), return_inverse=True)
        else:
            names, codes = np.array([], dtype=str), np.zeros(adata.n_obs, dtype=np.int64)
        adata.obs[self.attr_key] = codes
        super().register_field(adata)
        return {"original_key": self.unit_key, "names": names.astype(object)}

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        """Number of units."""
        return {f"n_{self.registry_key}": len(state_registry["names"])}


class CategoryField(NumericalObsField):
    """Codes of a categorical column: known values from 1 in their order, 0 for values that the clock never saw.

    scvi-tools' categorical field would refuse these.
    """

    def __init__(self, position: int, column: str) -> None:
        super().__init__(f"{CATEGORY}{position}", f"_scvi_{CATEGORY}{position}")
        self.column = column

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Number the values in the order of their names."""
        return self._coded(adata, sorted(set(adata.obs[self.column].astype(str))))

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Number the values as in the data that the clock was made with."""
        return self._coded(adata_target, list(state_registry["categories"]))

    def _coded(self, adata: AnnData, categories: list[str]) -> dict[str, Any]:
        adata.obs[self.attr_key] = pd.Index(categories).get_indexer(adata.obs[self.column].astype(str)) + 1
        super().register_field(adata)
        return {"original_key": self.column, "categories": np.asarray(categories, dtype=object)}


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
