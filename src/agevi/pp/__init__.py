"""Preparation of AnnData for clocks: splits of subjects, ages from text, leakage, cohorts and bulk samples."""

from __future__ import annotations

from agevi.pp._align_genes import align_genes
from agevi.pp._centre_genes import centre_genes
from agevi.pp._contrast_types import contrast_types
from agevi.pp._from_obsm import from_obsm
from agevi.pp._parse_age import parse_age
from agevi.pp._pseudocells import pseudocells
from agevi.pp._split_subjects import split_subjects
from agevi.pp.audit._audit_leakage import audit_leakage
from agevi.pp.bulk._aggregate_probes import aggregate_probes
from agevi.pp.bulk._concat_modalities import concat_modalities
from agevi.pp.bulk._normalize_bulk import normalize_bulk
from agevi.pp.bulk._normalizer import BulkNormalizer
from agevi.pp.bulk._values import beta_to_m, m_to_beta

__all__ = [
    "BulkNormalizer",
    "aggregate_probes",
    "align_genes",
    "audit_leakage",
    "beta_to_m",
    "centre_genes",
    "contrast_types",
    "concat_modalities",
    "from_obsm",
    "m_to_beta",
    "normalize_bulk",
    "parse_age",
    "pseudocells",
    "split_subjects",
]


def __dir__() -> list[str]:
    """Public names alone, for tab completion."""
    return sorted(__all__)
