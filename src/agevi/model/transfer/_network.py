"""A clock's network as a classifier: its layers in order, what of them is frozen, and its log-odds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from anndata import AnnData
from torch import nn

from agevi import _checks
from agevi.dataloaders._fields import SUMMED
from agevi.dataloaders._measured import feature_sets
from agevi.model.base._clock import is_clock
from agevi.model.mlp._module import MLPModule
from agevi.model.nmf._module import NMFModule
from agevi.model.transformer._module import TransformerModule
from agevi.model.vae._module import ClockVAEModule
from agevi.nn.heads import AgeScale
from agevi.nn.transformer import TabTransformer

FREEZE = ("all_but_last", "encoder", "none")


class LogOdds(AgeScale):
    """Takes the place of a clock's scale of ages, whose buffers it keeps: what the head gives is the log-odds."""

    def fit(self, age: torch.Tensor) -> None:
        """Nothing: log-odds have no scale."""

    def to_scale(self, age: torch.Tensor) -> torch.Tensor:
        """The same as float32."""
        return age.float()

    def to_age(self, z: torch.Tensor) -> torch.Tensor:
        """The same as float32."""
        return z.float()


def give_log_odds(module: Any) -> None:
    """Let ``module`` predict log-odds where it predicted ages."""
    old = module.age_scale
    new = LogOdds(old.transform, old.min_age, year=old.year)
    new.load_state_dict(old.state_dict())
    module.age_scale = new.to(old.mean.device)
    if isinstance(module, TransformerModule):
        module.adds_line = False


def check_network(clock: Any) -> None:
    """Refuse what is no trained clock whose network can be taken apart."""
    if not is_clock(clock):
        raise TypeError(
            f"clock is a {type(clock).__name__}; pass a trained network clock, for example agevi.model.MLPClock."
        )
    if clock.predicts != "age":
        raise TypeError(
            f"clock is a {type(clock).__name__}, which predicts {clock.predicts}; pass the clock that it was made from."
        )
    if not isinstance(clock.module, tuple(_LAYERS)):
        raise TypeError(
            f"clock is a {type(clock).__name__}, which has no network of layers to freeze and train on; pass a trained "
            "PoissonVAE, GaussianVAE, DenoisingVAE, MLPClock, NMFClock or TransformerClock. agevi.tl.compare_transfer has a "
            "row for a linear model of the features."
        )
    clock._check_trained("CaseControlClassifier.from_clock")


# --- layers ------------------------------------------------------------------------------------------------------


def _head(module: Any) -> list[nn.Module]:
    return [*module.head.stack.blocks, module.head.output]


def _of_vae(module: ClockVAEModule) -> tuple[list[nn.Module], list[nn.Module]]:
    return [*module.encoder.stack.blocks, module.encoder.mean], _head(module)


def _of_mlp(module: MLPModule) -> tuple[list[nn.Module], list[nn.Module]]:
    return list(module.head.stack.blocks), [module.head.output]


def _of_nmf(module: NMFModule) -> tuple[list[nn.Module], list[nn.Module]]:
    return [], _head(module)  # the components are no weights that are trained


def _of_transformer(module: TransformerModule) -> tuple[list[nn.Module], list[nn.Module]]:
    net, last = module.net, list[nn.Module]([module.output])
    if isinstance(net, TabTransformer):
        start = nn.ModuleList([net.categories, net.attention, net.of_features, net.of_context, net.first])
        return [start, *net.stack], last
    start = nn.ModuleList([net.categories, net.features, nn.ParameterList([net.readout, net.of_line])])
    norm, perceptron = net.stack
    *attention, final = net.attention
    return [start, *attention, nn.ModuleList([final, norm]), *perceptron], last


_LAYERS: dict[type, Any] = {
    ClockVAEModule: _of_vae,
    MLPModule: _of_mlp,
    NMFModule: _of_nmf,
    TransformerModule: _of_transformer,
}
"""By kind of module: layers from genes to the latent representation, and those of the head behind it."""


def layers_of(module: Any) -> tuple[list[nn.Module], list[nn.Module]]:
    """Layers of the encoder and of the head, in the order in which values pass them."""
    return next((layers(module) for kind, layers in _LAYERS.items() if isinstance(module, kind)), ([], []))


def trained_layers(module: Any, freeze: str) -> list[nn.Module]:
    """Layers that are trained.

    Parameters
    ----------
    module
        A clock's module.
    freeze
        ``"all_but_last"``: the last linear unit; ``"encoder"``: the head, and where it is one unit alone the last layer
        before it too, but never the first of several; ``"none"``: all.
    """
    _checks.choice(freeze, FREEZE, "freeze")
    encoder, head = layers_of(module)
    layers = [*encoder, *head]
    if freeze == "none":
        return layers
    if freeze == "all_but_last":
        return layers[-1:]
    n = max(len(head), 2)
    return layers[-min(n, len(layers) - 1) :] if encoder else layers[-n:]


def set_trainable(module: Any, trained: list[nn.Module]) -> list[nn.Parameter]:
    """Parameters of the ``trained`` layers, which alone get gradients.

    Parameters
    ----------
    module
        A clock's module.
    trained
        From :func:`trained_layers`.
    """
    module.requires_grad_(False)
    for layer in trained:
        layer.requires_grad_(True)
    return [p for layer in trained for p in layer.parameters()]


def set_modes(module: Any, trained: list[nn.Module], *, whole: bool) -> None:
    """Training mode for the ``trained`` layers alone: BatchNorm and dropout of frozen ones stay as in predictions.

    Parameters
    ----------
    module
        A clock's module.
    trained
        From :func:`trained_layers`.
    whole
        Whether nothing is frozen; then noise on the input is on too.
    """
    module.train(whole)
    for layer in trained:
        layer.train()


@torch.no_grad()
def renew_last(module: Any) -> None:
    """Start the last linear unit at 0, a probability of one half for all."""
    last: Any = layers_of(module)[1][-1]
    last.weight.zero_()
    last.bias.zero_()


# --- what the network gives ----------------------------------------------------------------------------------------


def log_odds(module: Any, tensors: dict[str, torch.Tensor], known: dict[str, torch.Tensor]) -> torch.Tensor:
    """Log-odds of every row of a batch, (n,).

    Parameters
    ----------
    module
        A clock's module after :func:`give_log_odds`.
    tensors
        The batch, with a mask of the rows that are sums.
    known
        From :func:`known_genes`.
    """
    inputs = module._get_inference_input(tensors) | known
    if isinstance(module, ClockVAEModule):
        out: torch.Tensor = module.age(module.latent_mean(**inputs))
        return out
    found = module.inference(**inputs)
    beside = found["line"] if isinstance(module, TransformerModule) else tensors.get(SUMMED)
    of_rows: torch.Tensor = module.age(found["latent"], beside)
    return of_rows


def known_genes(module: Any, shell: AnnData, present: np.ndarray) -> dict[str, torch.Tensor]:
    """What :func:`log_odds` is told of genes that the data lack.

    Parameters
    ----------
    module
        A clock's module.
    shell
        The data with the clock's genes.
    present
        Mask of the genes that they have, (n_genes,).
    """
    device = module.age_scale.mean.device
    if isinstance(module, TransformerModule):
        return {"masks": feature_sets(shell).tensor.to(device)}
    return {} if present.all() else {"present": torch.from_numpy(present).to(device)}
