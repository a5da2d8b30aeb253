"""Training with whole subjects held out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from agevi import _keys
from agevi._compat import TrainRunner
from agevi.dataloaders._fields import SUBJECT
from agevi.dataloaders._splitter import SubjectSplitter
from agevi.model._plan import AgeTrainingPlan, BestWeights
from agevi.model._quiet import quiet
from agevi.model._roles import RoleMixin
from agevi.model._seed import seeded

_MONITOR = "age_mae_validation"


class SubjectTrainingMixin(RoleMixin):
    """``train`` for clocks that are torch modules."""

    _data_splitter_cls = SubjectSplitter
    _training_plan_cls: Any = AgeTrainingPlan
    default_steps = 2400
    default_batch_size = 512
    default_plan_kwargs: dict[str, Any] = {}

    def train(
        self,
        max_epochs: int | None = None,
        *,
        split_key: str = _keys.SPLIT,
        train_roles: tuple[str, ...] = (_keys.TRAIN,),
        batch_size: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        early_stopping: bool = True,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train on the subjects of the training roles; no cell of any other subject shapes the weights.

        ``history`` holds, per epoch, the ELBO and ``age_mae_train`` and ``age_mae_validation``: mean absolute
        error over samples, each the mean over its cells. The training figure is taken while weights move and
        dropout is on. With ``early_stopping`` the weights of the best epoch on validation subjects are kept
        (``best_epoch_``, counted from 1 through all of ``history``). A second call goes on from the current
        weights if every subject keeps its role; if any role differs, training starts anew from the initial
        weights, so that no subject that once trained the clock can later count as held out.

        Parameters
        ----------
        max_epochs
            Epochs at most. Default: as many as make about 2,400 steps, between 40 (one cycle of the KL weight) and
            400.
        split_key
            Column of ``adata.obs`` with the roles of :func:`agevi.pp.split_subjects`. Where the default column
            is absent, subjects are split 70/15/15, which is logged and kept in ``split_``.
        train_roles
            Roles that train. For the final clock after selection:
            ``model.train(model.best_epoch_, train_roles=("train", "validation"))``.
        batch_size
            Cells per step at most. Default: 512, less for fewer than 8,192 training cells.
        accelerator, devices
            As in scvi-tools.
        early_stopping
            Stop when validation subjects have not improved for a quarter of the epochs (20 at least; set
            ``early_stopping_patience`` otherwise), and keep the best weights. Without validation subjects all
            epochs are run.
        plan_kwargs
            Arguments of the training plan: ``lr``, ``weight_decay``, ``optimizer``, ``kl_schedule``,
            ``lr_schedule``, ...
        **trainer_kwargs
            Arguments of scvi-tools' trainer: ``enable_progress_bar``, ``early_stopping_patience``,
            ``callbacks``, ...

        Raises
        ------
        KeyError
            If ``split_key`` is not a column.
        ValueError
            If the split puts a subject on two sides or leaves nothing to train on.
        RuntimeError
            If the clock was loaded without data, or the loss becomes infinite.
        """
        self._data(None)
        if trainer_kwargs.get("enable_checkpointing"):
            raise ValueError(
                "enable_checkpointing=True would write scvi-tools' pickles; the best weights are kept in memory. "
                "Leave it out, and save the clock with model.save(path)."
            )
        roles = self._split(split_key, train_roles)
        cell_roles = self._unit_names(SUBJECT).map(roles).to_numpy()
        if not self._starts_from(roles):
            self._reset()
        if not self.is_trained_:
            self._fit_buffers(cell_roles == _keys.TRAIN)
            self.age_summary_ = self._summarise_ages(cell_roles == _keys.TRAIN)
        n_train = int((cell_roles == _keys.TRAIN).sum())
        batch_size = batch_size or int(np.clip(n_train // 16, 64, self.default_batch_size))
        max_epochs = max_epochs or int(np.clip(self.default_steps * batch_size / n_train, 40, 400))
        validates = self._has_labelled(cell_roles == _keys.VALIDATION)
        best = BestWeights(_MONITOR) if early_stopping and validates else None
        if best is not None:
            trainer_kwargs.setdefault("early_stopping_monitor", _MONITOR)
            trainer_kwargs.setdefault("early_stopping_patience", max(20, max_epochs // 4))
            trainer_kwargs["callbacks"] = [*trainer_kwargs.get("callbacks", ()), best]
        trainer_kwargs.setdefault("log_every_n_steps", 1)
        if validates:
            trainer_kwargs.setdefault("check_val_every_n_epoch", 1)
        self._run(
            cell_roles,
            max_epochs=max_epochs,
            batch_size=batch_size,
            plan_kwargs={**self.default_plan_kwargs, **(plan_kwargs or {})},
            accelerator=accelerator,
            devices=devices,
            early_stopping=best is not None,
            **trainer_kwargs,
        )
        n_run = int(self.trainer.current_epoch)
        n_before = _n_epochs(self.history_) - n_run
        self.best_epoch_ = n_before + (best.best_epoch if best is not None and best.best_epoch else n_run)
        self.split_ = {str(subject): str(role) for subject, role in roles.items()}
        self.n_trainings_ += 1

    def _reset(self) -> None:
        """New weights, as the constructor made them."""
        self.module = self._make_module()
        self._start()

    # --- the fit ---------------------------------------------------------------------------------------------

    def _run(
        self,
        cell_roles: np.ndarray,
        *,
        max_epochs: int,
        batch_size: int,
        plan_kwargs: dict[str, Any],
        **trainer_kwargs: Any,
    ) -> None:
        """One run of scvi-tools' runner, seeded, with its history joined to that of earlier runs."""
        seed = self.init_params_["non_kwargs"]["rng"] + self.n_trainings_
        was_trained, earlier = self.is_trained_, self.history_
        with seeded(seed), quiet():
            splitter = self._data_splitter_cls(self.adata_manager, cell_roles, batch_size=batch_size)
            plan = self._training_plan_cls(
                self.module,
                sample_ages=self._sample_ages(),
                subject_weights=self._subject_weights(cell_roles == _keys.TRAIN),
                **plan_kwargs,
            )
            runner = TrainRunner(
                self, training_plan=plan, data_splitter=splitter, max_epochs=max_epochs, **trainer_kwargs
            )
            self.module.train()
            self.is_trained_, self._touched = False, True  # scvi-tools would drop metrics that are new in this run
            runner()
        later = {name: frame.astype(float) for name, frame in self.history_.items()}
        self.history_ = _joined(earlier, later) if was_trained and earlier else later


def _n_epochs(history: dict[str, pd.DataFrame]) -> int:
    """Epochs in a history."""
    return max((len(frame) for frame in history.values()), default=0)


def _joined(earlier: dict[str, pd.DataFrame], later: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Histories of two trainings, epochs counted through; metrics of one alone are kept."""
    offset = _n_epochs(earlier)
    out = dict(earlier)
    for name, frame in later.items():
        moved = frame.set_axis(pd.RangeIndex(offset, offset + len(frame), name=frame.index.name))
        out[name] = pd.concat([earlier[name], moved]) if name in earlier else moved
    return out
