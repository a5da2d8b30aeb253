"""Variational autoencoders with an age head."""

from __future__ import annotations

from agevi.model.vae._model import DenoisingVAE, GaussianVAE, PoissonVAE

__all__ = ["DenoisingVAE", "GaussianVAE", "PoissonVAE"]
