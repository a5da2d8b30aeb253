"""Ageing clocks."""

from __future__ import annotations

from agevi.model.vae import DenoisingVAE, GaussianVAE, PoissonVAE

MODELS = (PoissonVAE, GaussianVAE, DenoisingVAE)
"""Every clock class, in the order in which docs and leaderboards show them."""

__all__ = ["MODELS", "DenoisingVAE", "GaussianVAE", "PoissonVAE"]
