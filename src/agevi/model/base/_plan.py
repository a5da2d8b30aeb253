"""Training plan of every network clock: learning-rate schedule, metrics once per epoch at the level of subjects."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from agevi import _checks
from agevi._compat.scvi import Callback, LossOutput, TrainingPlan
from agevi.dataloaders._cells import processes
from agevi.dataloaders._fields import SAMPLE
from agevi.nn.optimizers import OPTIMIZERS
from agevi.nn.products import factors_for, factors_in
from agevi.nn.schedules import LR_SCHEDULES


class _EpochSums:
    """Sums over one pass, kept on the device so that no step waits for it."""

    def __init__(self, age: torch.Tensor, terms: tuple[str, ...]) -> None:
        self.age, self.terms = age, terms  # age: (n_samples,), NaN where unlabelled
        self.reset()

    def reset(self) -> None:
        self.sums = torch.zeros(len(self.terms) + 2, dtype=torch.float64, device=self.age.device)
        self.predicted = torch.zeros(2, len(self.age), dtype=torch.float64, device=self.age.device)

    def add(self, output: LossOutput, sample: torch.Tensor) -> None:
        n = output.n_obs_minibatch
        parts = [output.loss.detach() * n, *(getattr(output, f"{term}_sum").detach() for term in self.terms)]
        count = torch.full((), float(n), dtype=torch.float64, device=self.age.device)
        self.sums += torch.stack([*(p.double() for p in parts), count])
        predicted = output.extra_metrics["predicted_age"].double()
        self.predicted.index_add_(1, sample, torch.stack([predicted, torch.ones_like(predicted)]))

    def over_processes(self) -> None:
        """Add what other processes of the same training saw."""
        if processes()[1] > 1:
            for sums in (self.sums, self.predicted):
                torch.distributed.all_reduce(sums)

    def means(self) -> dict[str, torch.Tensor]:
        values = self.sums[:-1] / self.sums[-1].clamp_min(1)
        seen = (self.predicted[1] > 0) & torch.isfinite(self.age)
        error = self.predicted[0, seen] / self.predicted[1, seen] - self.age[seen]
        return dict(zip(("loss", *self.terms), values, strict=True)) | {"age_mae": error.abs().mean()}


class AgeTrainingPlan(TrainingPlan):
    """scvi-tools' plan with errors over samples: ``sample_ages`` (n_samples,), ``subject_weights`` (n_subjects,)."""

    terms: ClassVar[tuple[str, ...]] = ()
    """Parts of the loss that are logged by themselves."""

    def __init__(
        self,
        module: Any,
        *,
        sample_ages: torch.Tensor,
        subject_weights: torch.Tensor,
        lr_schedule: str | Callable[[int], float] = "cosine_restarts",
        lr_kwargs: dict[str, Any] | None = None,
        optimizer: str = "Adam",
        lr: float = 1e-3,
        weight_decay: float = 1e-6,
        # torch's default: scvi-tools' 0.01 damps the age head
        eps: float = 1e-8,
        precision: str = "auto",  # of the factors of wide products in training steps
        **loss_kwargs: Any,
    ) -> None:
        self.precision = precision
        # Up to lr and down again over the whole training (Smith & Topin 2019); others are functions of the epoch.
        self.one_cycle = lr_schedule == "one_cycle"
        if not self.one_cycle:
            self.lr_at = schedule_of(lr_schedule, LR_SCHEDULES, "lr_schedule", lr_kwargs, more=("one_cycle",))
        super().__init__(
            module, optimizer=optimizer, lr=lr, weight_decay=weight_decay, eps=eps, **loss_kwargs
        )  # fmt: skip
        self.sample_ages, self.subject_weights = sample_ages, subject_weights

    def get_optimizer_creator(self) -> Any:
        """Optimizer by name, with all parameters updated in one pass over them."""
        if self.optimizer_name not in OPTIMIZERS:
            return super().get_optimizer_creator()
        kind = OPTIMIZERS[self.optimizer_name]
        return partial(kind, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay, fused=True)

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimizer with the schedule of the learning rate, stepped once per epoch (one cycle: once per step)."""
        config = super().configure_optimizers()
        if self.one_cycle:
            n_steps = int(self.trainer.estimated_stepping_batches)
            schedule = OneCycleLR(config["optimizer"], max_lr=self.lr, total_steps=n_steps)
            config["lr_scheduler"] = {"scheduler": schedule, "interval": "step"}
            return config
        config["lr_scheduler"] = {"scheduler": LambdaLR(config["optimizer"], self.lr_at), "interval": "epoch"}
        return config

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The batch on the device; on a CPU it is there, and looking for its tensors would take time."""
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_fit_start(self) -> None:
        """Move what the metrics need to the device."""
        self.factors = factors_for(self.precision, self.device)
        ages = self.sample_ages.to(self.device)
        self._sums = {mode: _EpochSums(ages, self.terms) for mode in ("train", "validation")}
        self.loss_kwargs["subject_weights"] = self.subject_weights.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Switch to training mode: scvi-tools and Lightning leave a module of an earlier fit in evaluation mode."""
        self.module.train()
        self._sums["train"].reset()

    def on_validation_epoch_start(self) -> None:
        """Start the sums of a validation pass."""
        self._sums["validation"].reset()

    def _step(self, batch: dict[str, torch.Tensor], mode: str) -> torch.Tensor:
        with factors_in(self.factors if mode == "train" else None):  # validation sees what predictions will be
            output = self._outputs(batch)
        sample = batch[SAMPLE].squeeze(-1).long()
        self._sums[mode].add(output, sample[: len(output.extra_metrics["predicted_age"])])  # cells come after sums
        return output.loss

    def _outputs(self, batch: dict[str, torch.Tensor]) -> LossOutput:
        """The loss of a batch."""
        return self.forward(batch, loss_kwargs=self.loss_kwargs)[2]

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Loss of a training batch."""
        return self._step(batch, "train")

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Loss of a validation batch."""
        return self._step(batch, "validation")

    def epoch_metrics(self, means: dict[str, torch.Tensor], mode: str) -> dict[str, torch.Tensor]:
        """What is logged of one pass, by name."""
        return {f"{mode}_loss": means["loss"], f"age_mae_{mode}": means["age_mae"]}

    def _log_epoch(self, mode: str) -> None:
        shown = f"age_mae_{mode}"
        for name, value in self.epoch_metrics(self._sums[mode].means(), mode).items():
            self.log(name, value.float(), prog_bar=name == shown, sync_dist=self.use_sync_dist)

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch; stop when the loss is not a number."""
        self._sums["train"].over_processes()
        loss = self._sums["train"].means()["loss"]
        if not torch.isfinite(loss):
            raise RuntimeError(
                f"the training loss became {loss.item()} in epoch {self.current_epoch}; lower the learning rate with "
                "train(plan_kwargs={'lr': 1e-4}), or look for extreme values in the data."
            )
        self._log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        """Log the means of the validation pass."""
        self._sums["validation"].over_processes()
        self._log_epoch("validation")


class BestWeights(Callback):
    """Keeps the weights of the best epoch in memory and puts them back when training ends."""

    def __init__(self, monitor: str = "age_mae_validation") -> None:
        self.monitor = monitor
        self.best_value = float("inf")
        self.best_epoch: int | None = None
        self._weights: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, plan: Any) -> None:
        """Keep the weights when the monitored value fell."""
        value = float(trainer.callback_metrics[self.monitor])
        if value < self.best_value:
            self.best_value, self.best_epoch = value, trainer.current_epoch + 1
            self._weights = {k: v.detach().clone() for k, v in plan.module.state_dict().items()}

    def on_train_end(self, trainer: pl.Trainer, plan: Any) -> None:
        """Put the best weights back."""
        if self._weights:
            plan.module.load_state_dict(self._weights)
            self._weights = {}

    def state_dict(self) -> dict[str, Any]:
        """The best epoch, its value and its weights."""
        return {"value": self.best_value, "epoch": self.best_epoch, "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state."""
        self.best_value, self.best_epoch = state_dict["value"], state_dict["epoch"]
        self._weights = state_dict["weights"]


def schedule_of(
    schedule: str | Callable[[int], float],
    known: dict[str, Callable[..., float]],
    argument: str,
    kwargs: dict[str, Any] | None,
    more: tuple[str, ...] = (),
) -> Callable[[int], float]:
    """The function that a name stands for; ``more`` are names that a message lists beside the known ones."""
    if callable(schedule):
        return schedule
    return partial(known[_checks.choice(schedule, [*known, *more], argument)], **(kwargs or {}))
