"""A clock's network as a classifier: its layers in order, what of them is frozen, and its log-odds."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from agevi import _checks
from agevi.model.base._clock import is_clock

FREEZE = ("all_but_last", "encoder", "none")


def check_network(clock: Any) -> None:
    """Refuse everything but a trained clock whose network can be taken apart."""
    if not is_clock(clock):
        raise TypeError(
            f"clock is a {type(clock).__name__}; pass a trained network clock, for example agevi.model.MLPClock."
        )
    clock.check_ages("CaseControlClassifier.from_clock")
    if not clock.module.layers()[1]:
        raise TypeError(
            f"clock is a {type(clock).__name__}, which has no network of layers to freeze and train on; pass a trained "
            "PoissonVAE, GaussianVAE, DenoisingVAE, MLPClock, NMFClock or TransformerClock. agevi.tl.compare_transfer "
            "has a row for a linear model of the features."
        )


def trained_layers(module: Any, freeze: str) -> list[nn.Module]:
    """Layers that are trained: the last unit, the head (two layers at least, but not the first), or all."""
    _checks.choice(freeze, FREEZE, "freeze")
    encoder, head = module.layers()
    layers = [*encoder, *head]
    if freeze == "none":
        return layers
    if freeze == "all_but_last":
        return layers[-1:]
    n = max(len(head), 2)
    return layers[-min(n, len(layers) - 1) :] if encoder else layers[-n:]


@torch.no_grad()
def renew_last(module: Any) -> None:
    """Start the last linear unit at 0, a probability of one half for all."""
    last: Any = module.layers()[1][-1]
    last.weight.zero_()
    last.bias.zero_()
