"""Training plan of the autoencoders: annealed KL weight and the parts of the ELBO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch

from agevi._compat.scvi import LossOutput
from agevi.model.base._plan import AgeTrainingPlan, schedule_of
from agevi.nn.schedules import KL_SCHEDULES


class ClockTrainingPlan(AgeTrainingPlan):
    """The plan of every network clock, with the KL weight of the neuron clock."""

    terms: ClassVar[tuple[str, ...]] = ("reconstruction_loss", "kl_local")

    def __init__(
        self,
        module: Any,
        *,
        kl_schedule: str | Callable[[int], float] = "cyclical",
        kl_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.kl_at = schedule_of(kl_schedule, KL_SCHEDULES, "kl_schedule", kl_kwargs)
        super().__init__(module, **kwargs)

    @property
    def kl_weight(self) -> float:
        """KL weight of the current epoch."""
        return self.kl_at(self.current_epoch)

    def _step(self, batch: dict[str, torch.Tensor], mode: str) -> torch.Tensor:
        self.loss_kwargs["kl_weight"] = self.kl_weight
        return super()._step(batch, mode)

    def _outputs(self, batch: dict[str, torch.Tensor]) -> LossOutput:
        """The loss without the distribution of the values, which no loss needs."""
        return self.forward(batch, loss_kwargs=self.loss_kwargs, generative_kwargs={"decode": False})[2]

    def epoch_metrics(self, means: dict[str, torch.Tensor], mode: str) -> dict[str, torch.Tensor]:
        """The parts of the ELBO beside what every plan logs."""
        reconstruction, kl = means["reconstruction_loss"], means["kl_local"]
        return super().epoch_metrics(means, mode) | {
            f"elbo_{mode}": reconstruction + kl,
            f"reconstruction_loss_{mode}": reconstruction,
            f"kl_local_{mode}": kl,
        }

    def on_train_epoch_end(self) -> None:
        """Log the weight of the epoch beside its means."""
        super().on_train_epoch_end()
        self.log("kl_weight", float(self.kl_weight))
