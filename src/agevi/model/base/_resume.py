"""Trainings that go on where they were killed: their state at the end of an epoch, in a folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from agevi._compat import version
from agevi._compat.scvi import REGISTRY_KEYS, Callback
from agevi.dataloaders._cells import values_of
from agevi.dataloaders._device import state_of
from agevi.dataloaders._fields import SAMPLE
from agevi.io._folder import as_text, digest, matrix_digest
from agevi.io._kept import KeptState
from agevi.io._state import pack
from agevi.model.base._fingerprint import weights_of

logger = logging.getLogger(__name__)

_PACKAGES = ("agevi", "scvi-tools", "lightning", "torch", "numpy")
_OF_SHOW = ("enable_progress_bar", "log_every_n_steps")  # arguments that leave the weights as they are


class Kept(KeptState):
    """The state of one training in a folder, refused where the folder holds that of another."""

    manifest, kind, call = "training.json", "the state of another training", "train"

    def __init__(self, directory: str | Path, fingerprint: Mapping[str, Any]) -> None:
        super().__init__(directory, fingerprint)
        self.n_threads: dict[str, int] = {} if self.state is None else self.state["n_threads"]

    def threads(self, part: str, n: int) -> int:
        """``n`` threads for a part of the training, or those with which it began: others sum in another order."""
        return self.n_threads.setdefault(part, n)

    def write(self, state: Mapping[str, Any]) -> None:
        """Put a state in the place of the earlier one, whole or not at all."""
        super().write({**state, "n_threads": self.n_threads})


def check_alone(devices: Any, trainer_kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments with which not all of the state is in this process."""
    advice = "Leave it out, or train without checkpoint_dir."
    for name in ("strategy", "log_save_dir", "logger"):
        if name in trainer_kwargs:
            raise ValueError(
                f"{name}={trainer_kwargs[name]!r} with checkpoint_dir, which keeps trainings in one process, with the "
                f"history that agevi takes. {advice}"
            )
    n = len(devices) if isinstance(devices, list | tuple) else int(devices) if str(devices).lstrip("-").isdigit() else 1
    if n > 1 or n < 0:
        raise ValueError(f"devices={devices!r} with checkpoint_dir, which keeps trainings on one device. {advice}")


def fingerprint_of(model: Any, roles: pd.Series, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All that the training of a clock depends on, by the name that a message gives it."""
    cls, manager = type(model), model.adata_manager
    trainer = {k: v for k, v in arguments.items() if k not in _OF_SHOW}
    out = {f"version of {package}": version(package) for package in _PACKAGES}
    out["class"] = f"{cls.__module__}.{cls.__qualname__}"
    calls = {cls.__name__: model.init_args, "setup_anndata": model.setup_args, "train": trainer}
    out |= {f"{call}({name})": as_text(value) for call, given in calls.items() for name, value in given.items()}
    out["trainings before"] = model.n_trainings_
    values = {"roles of subjects": roles.to_numpy(dtype=object), "genes": np.asarray(model.genes, dtype=object)}
    for key in manager.data_registry:
        if key != REGISTRY_KEYS.X_KEY:
            values[_said(key, manager.get_state_registry(key))] = _named(manager, key)
    values["groups of pseudocells"] = model._units_of_sums()
    out |= {name: digest(np.asarray(value)) for name, value in values.items()}
    out["values"] = matrix_digest(values_of(manager))
    out["weights before"] = f"sha256:{weights_of(model.module)}"
    return out


def _said(key: str, state: Mapping[str, Any]) -> str:
    """What a message calls a registered field."""
    column = state.get("original_key")
    return f"adata.obs[{column!r}]" if isinstance(column, str) and key != SAMPLE else key.removeprefix("agevi_")


def _named(manager: Any, key: str) -> np.ndarray:
    """Values of a registered field, (n_cells, ...), codes as the names that they stand for."""
    values, state = np.asarray(manager.get_from_registry(key)), manager.get_state_registry(key)
    names = state.get("names", state.get("categorical_mapping"))
    return values if names is None else np.asarray(names, dtype=object)[values.ravel().astype(int)]


class Resume(Callback):
    """Writes the state of a training between epochs, and begins with a state that is there."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse several processes."""
        if trainer.world_size > 1:
            check_alone(trainer.world_size, {})

    def on_train_start(self, trainer: Any, plan: Any) -> None:
        """Take the state that is there, but for what is random."""
        self._check_callbacks(trainer)
        state = self.kept.state
        if state is None:
            return
        said = "is finished; the clock is taken from there" if state["finished"] else "goes on"
        logger.info("The training in %s (%d epochs) %s.", self.kept.path.parent, state["epoch"], said)
        plan.module.load_state_dict(state["module"])
        for part, own in zip(_movers(trainer), state["movers"], strict=False):
            part.load_state_dict(own)
        for callback in trainer.callbacks:
            if callback.state_key in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][callback.state_key])
        trainer.logger.go_on(state["history"])
        _count(trainer, state["epoch"], state["step"])
        trainer.should_stop = state["finished"]

    def on_train_epoch_start(self, trainer: Any, plan: Any) -> None:
        """The end of an epoch, with all that it changes: write, or take what is random, which is drawn from here on."""
        state, self.kept.state = self.kept.state, None
        if state is not None:
            put_random(state["random"], plan.device)
            if state["loader"]:
                trainer.train_dataloader.go_on(state["loader"])
        elif trainer.current_epoch and self.kept.due:
            random, loader = random_state(plan.device), state_of(trainer.train_dataloader)
            movers = [part.state_dict() for part in _movers(trainer)]
            self.kept.write(_at_end(trainer, plan) | {"random": random, "loader": loader, "movers": movers})

    def finish(self, trainer: Any, plan: Any) -> None:
        """Keep the finished clock, if it is not there."""
        if self.kept.state is None:
            self.kept.write(_at_end(trainer, plan) | {"finished": True, "movers": []})

    def _check_callbacks(self, trainer: Any) -> None:
        """Refuse callbacks whose state could not be kept, before the first step."""
        for callback in trainer.callbacks:
            try:
                pack(callback.state_dict())
            except TypeError as error:
                raise TypeError(
                    f"callbacks holds a {type(callback).__name__} whose state_dict() cannot be kept without a pickle "
                    f"({error}). Train without checkpoint_dir, or without it."
                ) from None


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Random states of torch."""
    out = {"cpu": torch.get_rng_state()}
    return out | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def put_random(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Draw from here on as after :func:`random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _movers(trainer: Any) -> list[Any]:
    """Optimizers and schedules of learning rates."""
    return [*trainer.optimizers, *(config.scheduler for config in trainer.lr_scheduler_configs)]


def _at_end(trainer: Any, plan: Any) -> dict[str, Any]:
    """What is left when the last epoch ends."""
    own = {callback.state_key: state for callback in trainer.callbacks if (state := callback.state_dict())}
    return {
        "epoch": trainer.current_epoch,
        "step": trainer.global_step,
        "finished": False,
        "module": plan.module.state_dict(),
        "callbacks": own,
        "history": trainer.logger.state(),
    }


def _count(trainer: Any, epoch: int, step: int) -> None:
    """Let Lightning have counted epochs and steps."""
    loop = trainer.fit_loop
    steps = loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
    for at in (loop.epoch_progress.current, loop.epoch_progress.total):
        at.ready = at.started = at.processed = at.completed = epoch
    steps.ready = steps.completed = loop.epoch_loop._batches_that_stepped = step
