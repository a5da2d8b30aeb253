"""scvi-tools fields for ages and for the units (subject, sample) that cells belong to."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData

from agevi import _checks
from agevi._compat import NumericalObsField

AGE = "agevi_age"
SUBJECT = "agevi_subject"
SAMPLE = "agevi_sample"
SUMMED = "agevi_summed"
"""Mask of the rows of a batch that are sums of cells."""


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
