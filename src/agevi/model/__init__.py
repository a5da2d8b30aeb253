"""Ageing clocks."""

from __future__ import annotations

from agevi.model import presets
from agevi.model.base import _save
from agevi.model.celltype import CellTypeClock
from agevi.model.ensemble import EnsembleClock
from agevi.model.linear import ElasticNetClock, LinearClock, PLSClock
from agevi.model.mlp import MLPClock
from agevi.model.nmf import NMFClock
from agevi.model.transfer import CaseControlClassifier
from agevi.model.transformer import TransformerClock
from agevi.model.vae import DenoisingVAE, GaussianVAE, PoissonVAE

MODELS = (
    PoissonVAE,
    GaussianVAE,
    DenoisingVAE,
    ElasticNetClock,
    PLSClock,
    MLPClock,
    NMFClock,
    TransformerClock,
    CellTypeClock,
    LinearClock,
    EnsembleClock,
    CaseControlClassifier,
)
"""Every clock class, in the order in which docs and leaderboards show them."""
_save.KNOWN.update({cls.__name__: cls for cls in MODELS})

__all__ = [
    "MODELS",
    "CaseControlClassifier",
    "CellTypeClock",
    "DenoisingVAE",
    "ElasticNetClock",
    "EnsembleClock",
    "GaussianVAE",
    "LinearClock",
    "MLPClock",
    "NMFClock",
    "PLSClock",
    "PoissonVAE",
    "TransformerClock",
    "presets",
]


def __dir__() -> list[str]:
    """Public names alone, for tab completion."""
    return sorted(__all__)
