"""Networks that map features of a cell to its age: what the classes without a decoder share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from anndata import AnnData

from agevi import _checks
from agevi._compat import REGISTRY_KEYS, BaseModelClass, BaseModuleClass, LossOutput, auto_move_data
from agevi.dataloaders._fields import AGE, SUBJECT, SUMMED
from agevi.model.base._clock import ClockMixin
from agevi.model.base._train import SubjectTrainingMixin
from agevi.nn.heads import AgeHead, AgeScale, masked_age_loss


class AgeModule(BaseModuleClass):
    """The scale of ages and the loss on it; ``generative`` gives ``predicted``, the standardised age, (n,).

    Parameters
    ----------
    age_loss
        Loss on the standardised age.
    age_transform, min_age, year
        See :class:`agevi.nn.heads.AgeScale`.
    """

    def __init__(
        self, *, age_loss: str = "huber", age_transform: str = "none", min_age: float = -1.0, year: float = 1.0
    ) -> None:
        super().__init__()
        self.age_loss = age_loss
        self.age_scale = AgeScale(age_transform, min_age, year=year)

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
        """Loss of the standardised age over the cells that have one.

        Parameters
        ----------
        tensors
            A batch.
        inference_outputs, generative_outputs
            From ``inference`` and ``generative``.
        subject_weights
            Weight of a cell by the code of its subject, (n_subjects,).
        """
        predicted = generative_outputs["predicted"]
        target = self.age_scale.to_scale(tensors[AGE].squeeze(-1))
        weight = None if subject_weights is None else subject_weights[tensors[SUBJECT].squeeze(-1).long()]
        return LossOutput(
            loss=masked_age_loss(predicted, target, weight, kind=self.age_loss) + self.penalty(),
            n_obs_minibatch=len(predicted),
            extra_metrics={"predicted_age": self.age_scale.to_age(predicted.detach())},
        )


class RegressorModule(AgeModule):
    """Blocks and one linear unit that give the standardised age.

    Parameters
    ----------
    n_features
        Features that the blocks read.
    n_hidden, dropout_rate
        Widths of the blocks, and their dropout.
    **kwargs
        See :class:`AgeModule`.
    """

    def __init__(self, n_features: int, *, n_hidden: Sequence[int], dropout_rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head = AgeHead(n_features, list(n_hidden), dropout_rate=dropout_rate)

    @abstractmethod
    def latent(
        self, x: torch.Tensor, present: torch.Tensor | None = None, summed: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Latent representation, (n, n_latent).

        Parameters
        ----------
        x
            Values of cells or of sums of cells, (n, n_genes).
        present
            Mask of the genes that the data have, (n_genes,).
        summed
            Mask of the rows that are sums, (n,).
        """

    @abstractmethod
    def standardized_age(self, latent: torch.Tensor, summed: torch.Tensor | None = None) -> torch.Tensor:
        """Standardised age from the latent representation, (n,)."""

    def age(self, latent: torch.Tensor, summed: torch.Tensor | None = None) -> torch.Tensor:
        """Predicted age in the user's unit, (n,)."""
        return self.age_scale.to_age(self.standardized_age(latent, summed))

    # --- scvi-tools' contract --------------------------------------------------------------------------------

    def _get_inference_input(self, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        return {"x": tensors[REGISTRY_KEYS.X_KEY], "summed": tensors.get(SUMMED)}

    @auto_move_data
    def inference(
        self, x: torch.Tensor, present: torch.Tensor | None = None, summed: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Latent representation of a batch."""
        return {"latent": self.latent(x, present, summed)}

    def _get_generative_input(
        self, tensors: dict[str, torch.Tensor], inference_outputs: dict[str, torch.Tensor]
    ) -> dict[str, Any]:
        return {"latent": inference_outputs["latent"], "summed": tensors.get(SUMMED)}

    @auto_move_data
    def generative(self, latent: torch.Tensor, summed: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Standardised ages, (n,)."""
        return {"predicted": self.standardized_age(latent, summed)}


class RegressorClock(SubjectTrainingMixin, ClockMixin, BaseModelClass):
    """A clock whose module is a :class:`RegressorModule`; it reads neither batch nor covariates."""

    reads_cells = False
    module: Any

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Latent representation of every cell.

        Parameters
        ----------
        adata
            Cells with the clock's genes in any order; default: the data of the model.
        indices
            Positions of the cells; default all.
        batch_size
            Cells per step.

        Returns
        -------
        float32 of shape (n_cells, n_latent).
        """
        data = self._data(adata)
        rows, place = _checks.rows(indices, data.n_obs)
        return np.asarray(self._predict(data, indices=rows, batch_size=batch_size).latent)[place]

    @torch.inference_mode()
    def _predict_batches(
        self, loader: Any, present: torch.Tensor | None, *, summed: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Ages and latent representation of the cells in ``loader``."""
        self.module.eval()
        ages, latents = [], []
        for tensors in loader:
            x = tensors[REGISTRY_KEYS.X_KEY]
            mask = torch.ones(len(x), dtype=torch.bool, device=self.device) if summed else None
            latent = self.module.inference(x, present=present, summed=mask)["latent"]
            ages.append(self.module.age(latent, mask).cpu())
            latents.append(latent.cpu())
        return torch.cat(ages).numpy(), torch.cat(latents).numpy()
