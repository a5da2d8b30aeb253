"""What tl.tune varies by default, per class, as plain dictionaries.

The name of an entry is an argument of the constructor, of ``train`` or of ``setup_anndata``; a dot leads into a
dictionary (``"plan_kwargs.lr"``). The value is a list of choices, or bounds: ``{"low": 1e-4, "high": 1e-2}`` with
``"log": True`` or ``"step"`` if wanted; whole numbers where both bounds are. A choice that is a dictionary sets several
arguments at once, for those that make sense together only. Of such choices, those remain that agree with the arguments
that the user fixes.

A new clock needs an entry under the name of its class; a class without one takes that of the class it derives from.
"""

from __future__ import annotations

from typing import Any

Space = dict[str, Any]

_NETWORK: Space = {
    "dropout_rate": {"low": 0.0, "high": 0.5, "step": 0.1},
    "age_loss": ["huber", "mse", "mae"],
    "batch_size": [None, 64, 128, 256, 512, 1024],
    "plan_kwargs.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "plan_kwargs.weight_decay": {"low": 1e-6, "high": 1e-1, "log": True},
    "plan_kwargs.optimizer": ["Adam", "AdamW"],
    "train_unit": [
        {"train_unit": "pseudocell"},
        {"train_unit": "cell"},
        {"train_unit": "cell", "max_epochs": 100},
        {"train_unit": "cell", "max_epochs": 200},
        {"train_unit": "cell", "max_epochs": 500},
        {"train_unit": "cell", "max_epochs": 1000},
    ],
}
"""Urban et al. (2023) varied the penalty, dropout, batch size, widths and optimizer; Su and Mukundan, who train on single
cells, the epochs. Early stopping ends most of the long trainings."""

_VAE: Space = {
    **_NETWORK,
    "n_latent": {"low": 20, "high": 150, "log": True},
    "n_hidden": [[128, 128], [300, 100], [300, 150], [512, 256], [600, 150, 75]],
    "n_head": [[], [20, 20], [30, 20]],
    "age_weight": {"low": 0.01, "high": 10.0, "log": True},
}
"""Latent dimensions, encoders and heads of Su and Mukundan, and what decides how much the age shapes the latent space."""

SPACES: dict[str, Space] = {
    "PoissonVAE": {
        **_VAE,
        "gene_likelihood": ["poisson", "nb", "zip", "zinb"],
        "rate": ["softmax", "softplus"],
    },
    "GaussianVAE": {**_VAE, "standardize": [True, False]},
    "DenoisingVAE": {
        **_VAE,
        "gene_likelihood": ["poisson", "nb", "normal"],
        "noise": [
            {"noise": "gaussian", "noise_level": 0.5, "noise_relative_to": "input_sd"},
            {"noise": "gaussian", "noise_level": 5.0, "noise_relative_to": "input_sd"},
            {"noise": "gaussian", "noise_level": 0.5, "noise_relative_to": "max"},
            {"noise": "binomial", "noise_level": 0.1},
            {"noise": "binomial", "noise_level": 0.3},
            {"noise": "binomial", "noise_level": 0.5},
            {"noise": "poisson", "noise_level": 0.5},
        ],
    },
    "ElasticNetClock": {
        "train_unit": ["sample", "pseudocell"],
        "l1_ratios": [[0.05, 0.2, 0.5, 1.0], [0.01, 0.05, 0.1], [1.0]],
        "subject_weight": ["equal", "cells"],
    },
    "PLSClock": {
        "method": ["pls", "ridge"],
        "weights": ["reliability", "zscore"],
        "age_transform": ["auto", "none"],
    },
    "MLPClock": {
        **_NETWORK,
        "n_hidden": [[128, 128], [500, 500], [1000, 1000], [128, 2048, 128], [5000, 5000, 5000]],
    },
    "TransformerClock": {
        "architecture": ["ft", "tab"],
        "n_hidden": [None, [64], [128, 128], [128, 2048, 128]],
        "skip": ["auto", "none", "ridge"],
        "l1": [0.0, 1e-7, 1e-6, 1e-5],
        "l2": [0.0, 1e-6, 1e-5, 1e-4],
        "activation": ["elu", "relu", "gelu", "silu"],
        "dropout_rate": {"low": 0.0, "high": 0.5, "step": 0.1},
        "age_loss": ["huber", "mse", "mae"],
        "batch_size": [None, 32, 96, 256],
        "n_token": [16, 32, 64],
        "n_layers": {"low": 1, "high": 4},
        "plan_kwargs.lr": {"low": 1e-5, "high": 1e-2, "log": True},
        "plan_kwargs.weight_decay": {"low": 1e-6, "high": 1e-1, "log": True},
        "plan_kwargs.optimizer": ["Adam", "AdamW"],
    },
    "NMFClock": {
        **_NETWORK,
        "n_components": {"low": 20, "high": 150, "log": True},
        "n_hidden": [[20, 20], [64], [128, 128]],
    },
}


def default_space(model_cls: Any) -> Space:
    """What is varied for a class, or for the nearest class that it derives from.

    Parameters
    ----------
    model_cls
        Class of a clock.
    """
    for cls in model_cls.__mro__:
        if cls.__name__ in SPACES:
            return dict(SPACES[cls.__name__])
    raise ValueError(
        f"{model_cls.__name__} has no default space; pass space={{'<argument>': [choices]}} (there are spaces for "
        f"{', '.join(SPACES)})."
    )
