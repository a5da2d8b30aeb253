"""Variational autoencoders with an age head."""

from agevi.model.vae._model import PoissonVAE

__all__ = ["PoissonVAE"]
