"""Trends of ages and representations along ordered covariates."""

from __future__ import annotations
