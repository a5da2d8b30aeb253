"""All that agevi takes from scvi-tools and Lightning; imported only where a model or its loaders are made.

tests/test_compat.py watches private hooks.
"""

from __future__ import annotations

import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from scvi import REGISTRY_KEYS, settings
from scvi.data import AnnDataManager
from scvi.data.fields import (
    CategoricalJointObsField,
    CategoricalObsField,
    LayerField,
    NumericalJointObsField,
    NumericalObsField,
)
from scvi.dataloaders import AnnDataLoader
from scvi.distributions import NegativeBinomial, Normal, Poisson, ZeroInflatedNegativeBinomial
from scvi.model._utils import parse_device_args
from scvi.model.base import BaseModelClass, RNASeqMixin, VAEMixin
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from scvi.train import Trainer, TrainingPlan, TrainRunner

__all__ = [
    "REGISTRY_KEYS",
    "AnnDataLoader",
    "AnnDataManager",
    "BaseModelClass",
    "BaseModuleClass",
    "Callback",
    "CategoricalJointObsField",
    "CategoricalObsField",
    "LayerField",
    "Logger",
    "LossOutput",
    "NegativeBinomial",
    "Normal",
    "NumericalJointObsField",
    "NumericalObsField",
    "Poisson",
    "RNASeqMixin",
    "TrainRunner",
    "Trainer",
    "TrainingPlan",
    "VAEMixin",
    "ZeroInflatedNegativeBinomial",
    "auto_move_data",
    "parse_device",
    "settings",
]


def parse_device(accelerator: str, device: int | str) -> torch.device:
    """The torch device that scvi-tools would choose."""
    return parse_device_args(accelerator, device, return_device="torch", validate_single_device=True)[2]
