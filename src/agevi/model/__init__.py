"""Ageing clocks."""

from __future__ import annotations

from agevi.model.vae import PoissonVAE

MODELS = (PoissonVAE,)
"""Every clock class, in the order in which docs and leaderboards show them."""

__all__ = ["MODELS", "PoissonVAE"]
