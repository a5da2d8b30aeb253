"""Ageing clocks for single-cell data."""

from __future__ import annotations
