"""From an ageing clock to a classifier of cases and controls."""

from __future__ import annotations
