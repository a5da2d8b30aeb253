"""Gene sets: enrichment, and the ranking of drug targets."""

from __future__ import annotations
