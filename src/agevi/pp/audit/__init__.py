"""The audit for leakage between subjects."""

from __future__ import annotations
