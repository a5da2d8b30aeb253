"""What a clock asks of its network, and what networks without a decoder share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from agevi._compat.scvi import REGISTRY_KEYS, BaseModuleClass, LossOutput, auto_move_data
from agevi.dataloaders._fields import AGE, SUBJECT, SUMMED
from agevi.nn.attribution import Reading
from agevi.nn.heads import AgeHead, TargetScale, masked_age_loss

Layers = list[nn.Module]


class ClockModule(BaseModuleClass):
    """Tensors of a clock; ``age_scale`` gives ages, ``present`` masks genes, (n_genes,) or (n_sets, n_genes)."""

    age_scale: TargetScale
    encode_covariates: bool = False
    """Whether the age depends on batch and covariates, which new data must then have."""

    def predict(
        self, tensors: dict[str, torch.Tensor], present: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ages, (n,), and latent representation, (n, n_latent), of a batch; sums with ``SUMMED`` in ``tensors``."""
        raise NotImplementedError(f"{type(self).__name__} defines no predict(tensors).")

    def reading(self, *, summed: bool, present: torch.Tensor | None = None) -> Reading:
        """The network as a function of values of cells, or of sums of cells, for attributions."""
        raise TypeError(f"{type(self).__name__} defines no reading(), without which its genes cannot be attributed.")

    def layers(self) -> tuple[Layers, Layers]:
        """Layers from genes to the latent representation and those of the head behind it, in order, for transfer."""
        return [], []


class AgeModule(ClockModule):
    """The scale of ages and the loss on it; ``generative`` gives ``predicted``, the standardised age, (n,)."""

    def __init__(
        self, *, age_loss: str = "huber", age_transform: str = "none", min_age: float = -1.0, year: float = 1.0
    ) -> None:
        super().__init__()
        self.age_loss = age_loss
        self.age_scale = TargetScale(age_transform, min_age, year=year)

    def penalty(self) -> torch.Tensor | float:
        """What is added to the loss."""
        return 0.0

    def loss(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict[str, torch.Tensor],
        generative_outputs: dict[str, torch.Tensor],
        subject_weights: torch.Tensor | None = None,
    ) -> LossOutput:
        """Loss of the standardised age over labelled rows, weighted by the code of their subject, (n_subjects,)."""
        predicted = generative_outputs["predicted"]
        target = self.age_scale.to_scale(tensors[AGE].squeeze(-1))
        weight = None if subject_weights is None else subject_weights[tensors[SUBJECT].squeeze(-1).long()]
        return LossOutput(
            loss=masked_age_loss(predicted, target, weight, kind=self.age_loss) + self.penalty(),
            n_obs_minibatch=len(predicted),
            extra_metrics={"predicted_age": self.age_scale.to_target(predicted.detach())},
        )


class RegressorModule(AgeModule):
    """Blocks and one linear unit that give the standardised age from ``n_features``."""

    def __init__(self, n_features: int, *, n_hidden: Sequence[int], dropout_rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head = AgeHead(n_features, list(n_hidden), dropout_rate=dropout_rate)

    @abstractmethod
    def latent(self, x: torch.Tensor, present: torch.Tensor | None = None, summed: bool = False) -> torch.Tensor:
        """Latent representation, (n, n_latent), of values, (n, n_genes), of present genes; ``summed`` are sums."""

    @abstractmethod
    def standardized_age(self, latent: torch.Tensor, summed: bool = False) -> torch.Tensor:
        """Standardised age from the latent representation, (n,)."""

    def age(self, latent: torch.Tensor, summed: bool = False) -> torch.Tensor:
        """Predicted age in the user's unit, (n,)."""
        return self.age_scale.to_target(self.standardized_age(latent, summed))

    def predict(
        self, tensors: dict[str, torch.Tensor], present: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ages and latent representation of a batch."""
        latent = self.inference(**self._get_inference_input(tensors), present=present)["latent"]
        return self.age(latent, SUMMED in tensors), latent

    def layers(self) -> tuple[Layers, Layers]:
        """No layer that is trained before the head, and the head."""
        return [], self.head.layers()

    # --- scvi-tools' contract --------------------------------------------------------------------------------

    def _get_inference_input(self, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        return {"x": tensors[REGISTRY_KEYS.X_KEY], "summed": SUMMED in tensors}

    @auto_move_data
    def inference(
        self, x: torch.Tensor, present: torch.Tensor | None = None, summed: bool = False
    ) -> dict[str, torch.Tensor]:
        """Latent representation of a batch."""
        return {"latent": self.latent(x, present, summed)}

    def _get_generative_input(
        self, tensors: dict[str, torch.Tensor], inference_outputs: dict[str, torch.Tensor]
    ) -> dict[str, Any]:
        return {"latent": inference_outputs["latent"], "summed": SUMMED in tensors}

    @auto_move_data
    def generative(self, latent: torch.Tensor, summed: bool = False) -> dict[str, torch.Tensor]:
        """Standardised ages, (n,)."""
        return {"predicted": self.standardized_age(latent, summed)}
