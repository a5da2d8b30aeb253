"""Training with whole subjects held out."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
import torch

from agevi import _checks, _keys
from agevi._compat import Host, TrainRunner
from agevi.dataloaders._assign import assign_roles, role_counts
from agevi.dataloaders._fields import AGE, SAMPLE, SUBJECT
from agevi.dataloaders._splitter import SubjectSplitter, roles_from_column
from agevi.model._quiet import quiet
from agevi.model._seed import seeded

logger = logging.getLogger(__name__)

_MONITOR = "age_mae_validation"


class SubjectTrainingMixin(Host):
    """``train`` for clocks that are torch modules."""

    _data_splitter_cls = SubjectSplitter
    _training_plan_cls: Any
    _best_weights_cls: Any
    default_steps = 2400
    default_batch_size = 512
    default_plan_kwargs: dict[str, Any] = {}
    split_: dict[str, str]
    best_epoch_: int | None
    history_: Any

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
        best = self._best_weights_cls(_MONITOR) if early_stopping and validates else None
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

    # --- who trains ------------------------------------------------------------------------------------------

    def _unit_names(self, field: str) -> pd.Series:
        """Subject or sample of every registered cell, as text."""
        state = self.adata_manager.get_state_registry(field)
        codes = self.adata_manager.get_from_registry(field).ravel().astype(int)
        return pd.Series(np.asarray(state["names"])[codes], dtype=object)

    def _cell_ages(self) -> np.ndarray:
        ages: np.ndarray = self.adata_manager.get_from_registry(AGE).ravel()
        return ages

    def _split(self, split_key: str, train_roles: tuple[str, ...]) -> pd.Series:
        """Role of every subject in this training, indexed by subject."""
        for role in [train_roles] if isinstance(train_roles, str) else train_roles:
            _checks.choice(role, _keys.SPLIT_ROLES, "train_roles")
        train_roles = (train_roles,) if isinstance(train_roles, str) else tuple(train_roles)
        adata, subject = self.adata, self._unit_names(SUBJECT)
        if split_key in adata.obs or split_key != _keys.SPLIT:
            roles = roles_from_column(adata, split_key, subject)
        else:
            roles = self._own_split(subject)
        roles = roles.where(~roles.isin(train_roles), _keys.TRAIN)
        ages = pd.Series(self._cell_ages()).groupby(subject.to_numpy()).mean()
        trained = ages[roles.index[roles == _keys.TRAIN]].dropna()
        if trained.nunique() < 2:
            raise ValueError(
                f"{len(trained)} subjects with an age have a role in train_roles={train_roles} (column {split_key!r}: "
                f"{roles.value_counts().to_dict()}); a clock needs two or more, of different ages."
            )
        return roles

    def _own_split(self, subject: pd.Series) -> pd.Series:
        """A 70/15/15 split of the labelled subjects, the same in every call."""
        age = pd.Series(self._cell_ages()).groupby(subject.to_numpy()).mean().sort_index()
        roles = pd.Series(_keys.TRAIN, index=age.index, dtype=object)
        known = age.dropna()
        n_test, n_validation = role_counts(len(known), 0.15, 0.15)
        roles[known.index] = assign_roles(
            known.to_numpy(),
            np.zeros(len(known), dtype=int),
            n_test,
            n_validation,
            np.random.default_rng(self.init_params_["non_kwargs"]["rng"]),
        )
        logger.info(
            "adata.obs has no %r; %d subjects train, %d validate and %d test (model.split_). Make your own split with "
            "agevi.pp.split_subjects.",
            _keys.SPLIT, *((roles == r).sum() for r in _keys.SPLIT_ROLES),
        )  # fmt: skip
        return roles

    def _has_labelled(self, cells: np.ndarray) -> bool:
        return bool(np.isfinite(self._cell_ages()[cells]).any())

    def _starts_from(self, roles: pd.Series) -> bool:
        """Whether the current weights may be trained on: they are new, or every subject keeps its role."""
        if not self.is_trained_:
            return not self._touched
        same = self.split_ == roles.to_dict()
        if not same:
            logger.info("The roles of subjects differ from the last training; training starts from new weights.")
        return same

    def _reset(self) -> None:
        """New weights, as the constructor made them."""
        self.module = self._make_module()
        self.is_trained_, self.history_, self.split_, self.best_epoch_ = False, None, {}, None
        self.n_trainings_ = 0
        self._touched = False

    # --- the fit ---------------------------------------------------------------------------------------------

    def _sample_ages(self, cells: np.ndarray | None = None) -> torch.Tensor:
        """Age of every sample by code, (n_samples,), NaN where unlabelled or without any of ``cells``."""
        codes = self.adata_manager.get_from_registry(SAMPLE).ravel().astype(int)
        chosen = np.ones(len(codes), dtype=bool) if cells is None else cells
        out = np.full(codes.max() + 1, np.nan)
        out[codes[chosen]] = self._cell_ages()[chosen]
        return torch.from_numpy(out)

    def _summarise_ages(self, train: np.ndarray) -> dict[str, Any]:
        """On whom the clock is trained, for its card."""
        ages = self._sample_ages(train)
        ages = ages[torch.isfinite(ages)]
        labelled = train & np.isfinite(self._cell_ages())
        return {
            "unit": self.setup_args["age_unit"],
            "transform": self.age_transform,
            "min": float(ages.min()),
            "max": float(ages.max()),
            "n_subjects": int(self._unit_names(SUBJECT)[labelled].nunique()),
            "n_samples": len(ages),
            "n_cells": int(train.sum()),
        }

    def _subject_weights(self, train: np.ndarray) -> torch.Tensor:
        """Weight of a cell by its subject's code: every subject sums to the same, mean 1 over training cells."""
        codes = self.adata_manager.get_from_registry(SUBJECT).ravel().astype(int)
        labelled, n_codes = np.isfinite(self._cell_ages()), codes.max() + 1
        if self.subject_weight == "cells":
            return torch.ones(n_codes)
        cells = np.bincount(codes[labelled], minlength=n_codes)
        trained = np.unique(codes[labelled & train])
        return torch.from_numpy(cells[trained].mean() / np.maximum(cells, 1)).float()

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
