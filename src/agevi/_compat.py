"""Everything that agevi takes from scvi-tools, and every switch between versions.

Public names are imported here once. Underscore hooks of scvi-tools that agevi relies on, each with a canary in
``tests/test_compat.py``:

- ``BaseModelClass._get_setup_method_args``, ``_get_init_params``, ``_make_data_loader``, ``_validate_anndata``
- ``BaseModelClass._adata``, ``_adata_manager``, ``_model_summary_string``
- ``TrainingPlan.kl_weight`` and ``TrainRunner._update_history`` (called by ``TrainRunner``)
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version
from typing import Any

import torch
from lightning.pytorch import Callback
from scvi import REGISTRY_KEYS
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
    "Absent",
    "AnnDataLoader",
    "AnnDataManager",
    "BaseModelClass",
    "BaseModuleClass",
    "Callback",
    "CategoricalJointObsField",
    "CategoricalObsField",
    "Host",
    "LayerField",
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
    "version",
]


Host: Any = object
"""Base of mixins whose other half is scvi-tools' base class; a type checker lets them use its attributes."""


class Absent:
    """Takes the place of an inherited verb that a clock cannot honour, so that ``hasattr`` is False."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> Any:
        raise AttributeError(f"{owner.__name__} has no {self.name}: {self.reason}")


def parse_device(accelerator: str, device: int | str) -> torch.device:
    """The torch device that scvi-tools would choose."""
    return parse_device_args(accelerator, device, return_device="torch", validate_single_device=True)[2]


def version(package: str) -> str:
    """Installed version of a package, "" where it is not installed."""
    try:
        return _version(package)
    except PackageNotFoundError:
        return ""
