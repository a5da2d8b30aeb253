"""Bulk profiles: values, batches, modalities, probes."""

from __future__ import annotations
