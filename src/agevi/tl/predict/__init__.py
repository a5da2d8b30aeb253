"""Predicted ages of cells and samples, and their accuracy within groups."""

from __future__ import annotations
