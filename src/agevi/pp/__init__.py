"""What happens to AnnData before a clock sees it: splits of subjects, ages that are text, leaks, cohorts, sums of cells."""

from __future__ import annotations

from agevi.pp._align_genes import align_genes
from agevi.pp._audit_leakage import audit_leakage
from agevi.pp._centre_genes import centre_genes
from agevi.pp._parse_age import parse_age
from agevi.pp._pseudocells import pseudocells
from agevi.pp._split_subjects import split_subjects

__all__ = ["align_genes", "audit_leakage", "centre_genes", "parse_age", "pseudocells", "split_subjects"]
