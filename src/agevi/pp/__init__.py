"""What happens to AnnData before a clock sees it: splits of subjects, ages that are text."""

from __future__ import annotations

from agevi.pp._align_genes import align_genes
from agevi.pp._parse_age import parse_age
from agevi.pp._split_subjects import split_subjects

__all__ = ["align_genes", "parse_age", "split_subjects"]
