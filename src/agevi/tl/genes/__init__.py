"""Which genes a clock reads: attribution, perturbation, programs."""

from __future__ import annotations
