"""Training with whole subjects held out."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys
from agevi._compat.scvi import TrainRunner
from agevi._progress import silent
from agevi._threads import n_threads, n_weights, threads
from agevi.dataloaders._cells import values_of
from agevi.dataloaders._fields import SUBJECT
from agevi.dataloaders._pseudocells import MIN_STEPS, ROWS, SAMPLES, PseudocellSplitter
from agevi.dataloaders._splitter import SubjectSplitter
from agevi.dataloaders._sums import sum_stats
from agevi.model.base._history import History
from agevi.model.base._plan import AgeTrainingPlan, BestWeights
from agevi.model.base._plan_kwargs import check_plan, check_steps
from agevi.model.base._quiet import epochs_bar, interruptible, quiet
from agevi.model.base._resume import Kept, Resume, check_alone, fingerprint_of
from agevi.model.base._roles import SUBJECT_WEIGHTS, RoleMixin, all_or_nothing
from agevi.model.base._seed import seeded
from agevi.nn.heads import AGE_LOSSES
from agevi.nn.inputs import GeneInput
from agevi.nn.products import PRECISIONS

TRAIN_UNITS = ("cell", "pseudocell")
_MONITOR = "age_mae_validation"


class SubjectTrainingMixin(RoleMixin):
    """``train`` for clocks that are torch modules."""

    _training_plan_cls: Any = AgeTrainingPlan
    train_unit = "cell"
    pseudocell_size = 0.5
    reads_cells = True
    """Whether training on pseudocells reads single cells beside them."""
    default_steps = {"cell": 2400, "pseudocell": 400}
    default_batch_size = 512
    plan_kwargs_of_unit: ClassVar[dict[str, dict[str, Any]]] = {
        "cell": {},
        "pseudocell": {"optimizer": "AdamW", "lr": 2e-3, "weight_decay": 1e-2, "lr_schedule": "one_cycle"},
    }

    # Urban et al. (2023) varied the penalty, dropout, batch size, widths and optimizer; Su and Mukundan, who train on
    # single cells, the epochs. Early stopping ends most of the long trainings.
    search_space: ClassVar[dict[str, Any]] = {
        "dropout_rate": {"low": 0.0, "high": 0.5, "step": 0.1},
        "age_loss": ["huber", "mse", "mae"],
        "batch_size": [None, 64, 128, 256, 512, 1024],
        "plan_kwargs.lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "plan_kwargs.weight_decay": {"low": 1e-6, "high": 1e-1, "log": True},
        "plan_kwargs.optimizer": ["Adam", "AdamW"],
        "train_unit": [
            {"train_unit": "pseudocell"},
            {"train_unit": "cell"},
            *({"train_unit": "cell", "max_epochs": n} for n in (100, 200, 500, 1000)),
        ],
    }

    @classmethod
    def chooses_epochs(cls, init: dict[str, Any] | None = None) -> bool:
        """Whether a clock made with the arguments ``init`` chooses its epoch on validation subjects."""
        default = inspect.signature(cls.__init__).parameters.get("train_unit")
        unit = (init or {}).get("train_unit", default.default if default else cls.train_unit)
        return bool(unit == "cell")

    def __init__(
        self,
        adata: AnnData,
        age_loss: str,
        subject_weight: str,
        train_unit: str,
        pseudocell_size: float,
        pseudocell_groupby: str | None,
    ) -> None:
        _checks.choice(age_loss, AGE_LOSSES, "age_loss")
        self.subject_weight = _checks.choice(subject_weight, SUBJECT_WEIGHTS, "subject_weight")
        self.train_unit = _checks.choice(train_unit, TRAIN_UNITS, "train_unit")
        self.pseudocell_size = _checks.share_or_count(pseudocell_size, "pseudocell_size")
        self.predicts_sums = train_unit == "pseudocell"
        self.pseudocell_groupby = pseudocell_groupby
        _checks.anndata(adata)
        if pseudocell_groupby is not None:
            if not self.predicts_sums:
                raise ValueError(
                    f"pseudocell_groupby={pseudocell_groupby!r} with train_unit='cell'; single cells are not grouped. "
                    "Leave it out, or train on pseudocells with train_unit='pseudocell'."
                )
            _checks.labels(adata, pseudocell_groupby, "pseudocell_groupby")
        super().__init__(adata)
        self._start()

    @all_or_nothing
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
        precision: str = "auto",
        plan_kwargs: dict[str, Any] | None = None,
        checkpoint_dir: str | Path | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train on the subjects of the training roles; no cell of any other subject shapes the weights.

        ``history`` holds, per epoch, the ELBO and ``age_mae_train`` and ``age_mae_validation``: mean absolute
        error over samples, each the mean over its cells. The training figure is taken while weights move and
        dropout is on; the ELBO of validation is that of about 1,024 cells, evenly spread, its ages are of all.
        With ``early_stopping`` the weights of the best epoch on validation subjects are kept (``best_epoch_``,
        counted from 1 through all of ``history``; where none is chosen it is the last). A second call continues
        from the current weights if every subject keeps its role; if any role differs, training starts anew from
        the initial weights, so that no subject that once trained the clock can later count as held out.

        With ``train_unit="pseudocell"`` a step takes two pseudocells or more of each of 64 samples, drawn anew, for the
        age, and as many single cells for the reconstruction. The learning rate goes through one cycle, so training
        runs to its end, no epoch is chosen, and validation subjects are only watched: give them to the training with
        ``train_roles=("train", "validation")``.

        Parameters
        ----------
        max_epochs
            Epochs at most. Default for cells: as many as make about 2,400 steps, between 40 (one cycle of the KL
            weight) and 400; for pseudocells: 400 steps, or ten passes over the samples if these are more.
        split_key
            Column of ``adata.obs`` with the roles of :func:`agevi.pp.split_subjects`. Where the default column
            is absent, subjects are split 70/15/15, which is logged and kept in ``split_``.
        train_roles
            Roles that train. For the final clock after selection:
            ``model.train(model.best_epoch_, train_roles=("train", "validation"))``.
        batch_size
            Cells per step at most. Default: 512, less for fewer than 8,192 training cells; 128 pseudocells.
        accelerator, devices
            As in scvi-tools. With ``devices=2, strategy="ddp"`` each of two processes reads half of every batch, and
            normalises it by itself (BatchNorm); the clock and the history are those of the first process.
        early_stopping
            Stop when validation subjects have not improved for a quarter of the epochs (20 at least; set
            ``early_stopping_patience`` otherwise), and keep the best weights. Without validation subjects, and with
            pseudocells, all epochs are run.
        precision
            Of the factors of matrix products with all genes: ``"float32"``, ``"bfloat16"``, or ``"auto"``, which is
            bfloat16 on hardware that multiplies in it (x86 with AMX or AVX512-BF16, recent CUDA). Weights, sums and
            everything else are float32.
        plan_kwargs
            Arguments of the training plan: ``lr``, ``weight_decay``, ``optimizer``, ``kl_schedule``,
            ``lr_schedule``, ...
        checkpoint_dir
            Directory, new or empty, that keeps the training. Where the process is killed, the same call in a new one
            goes on from the end of an epoch (written at most every ten seconds), and on a CPU ends with the same
            weights, history and predictions, bit for bit, as without a break; after the end it gives the finished clock
            at once. Any other call is refused: another version, argument, subject or value. For one process and device.
        **trainer_kwargs
            Arguments of scvi-tools' trainer: ``enable_progress_bar``, ``early_stopping_patience``,
            ``callbacks``, ... With a progress bar of Lightning in ``callbacks``, that one is shown.

        Raises
        ------
        KeyError
            If ``split_key`` is not a column.
        ValueError
            If the split puts a subject on two sides or leaves nothing to train on, a number is too small, or
            ``checkpoint_dir`` holds another training or a damaged one.
        TypeError
            If ``plan_kwargs`` holds what the training plan does not take.
        RuntimeError
            If the clock was loaded without data, or the loss becomes infinite.
        OSError
            If ``checkpoint_dir`` cannot be written.
        """
        given = dict(locals())
        self._registered()
        _checks.choice(precision, ("auto", *PRECISIONS), "precision")
        check_steps(max_epochs, batch_size)
        own_plan = check_plan(plan_kwargs, self._training_plan_cls)
        if trainer_kwargs.get("enable_checkpointing"):
            raise ValueError(
                "enable_checkpointing=True would write scvi-tools' pickles; the best weights are kept in memory. "
                "Leave it out, and save the clock with model.save(path)."
            )
        roles = self._split(split_key, train_roles)
        cell_roles = self._unit_names(SUBJECT).map(roles).to_numpy()
        if not self._starts_from(roles):
            self.module = self._make_module()  # new weights, as the constructor made them
            self._start()
        kept = None if checkpoint_dir is None else self._kept(given, roles)
        if not self.is_trained_:
            n = _threads(kept, "statistics", len(cell_roles) * n_weights(self.module))
            with silent(not trainer_kwargs.get("enable_progress_bar", True)), threads(n):
                self._fit_buffers(cell_roles == _keys.TRAIN)
            self.age_summary_ = self._summarise_ages(cell_roles == _keys.TRAIN)
        of_cells = int(np.clip((cell_roles == _keys.TRAIN).sum() // 16, 64, self.default_batch_size))
        batch_size = batch_size or (ROWS if self.train_unit == "pseudocell" else of_cells)
        max_epochs = max_epochs or self._default_epochs(cell_roles, batch_size)
        validates = bool(np.isfinite(self._cell_ages()[cell_roles == _keys.VALIDATION]).any())
        best = BestWeights(_MONITOR) if early_stopping and validates and self.train_unit == "cell" else None
        if best is not None:
            trainer_kwargs.setdefault("early_stopping_monitor", _MONITOR)
            trainer_kwargs.setdefault("early_stopping_patience", max(20, max_epochs // 4))
            trainer_kwargs["callbacks"] = [*trainer_kwargs.get("callbacks", ()), best]
        trainer_kwargs.setdefault("log_every_n_steps", 1)
        if not trainer_kwargs.keys() & {"log_save_dir", "strategy"}:  # for which scvi-tools' logger writes files
            trainer_kwargs.setdefault("logger", History())
        trainer_kwargs.setdefault("use_distributed_sampler", False)  # the loaders share their batches out
        if validates:
            trainer_kwargs.setdefault("check_val_every_n_epoch", 1)
        self._run(
            cell_roles,
            max_epochs=max_epochs,
            batch_size=batch_size,
            plan_kwargs={"precision": precision, **self.plan_kwargs_of_unit[self.train_unit], **own_plan},
            accelerator=accelerator,
            devices=devices,
            early_stopping=best is not None,
            kept=kept,
            **trainer_kwargs,
        )
        n_run = int(self.trainer.current_epoch)
        n_before = max(_n_epochs(self.history_) - n_run, 0)  # of processes that train together one has a history
        self.best_epoch_ = n_before + (best.best_epoch if best is not None and best.best_epoch else n_run)
        self.split_ = {str(subject): str(role) for subject, role in roles.items()}
        self.n_trainings_ += 1

    def _kept(self, given: dict[str, Any], roles: pd.Series) -> Kept:
        """What is kept of the training that a call asks for, by the arguments that were ``given`` to it."""
        directory, more = given.pop("checkpoint_dir"), given.pop("trainer_kwargs")
        check_alone(given["devices"], more)
        arguments = {name: value for name, value in given.items() if name != "self"}
        return Kept(directory, fingerprint_of(self, roles, arguments | more))

    def _default_epochs(self, cell_roles: np.ndarray, batch_size: int) -> int:
        """Epochs that make the default number of steps."""
        n_steps = self.default_steps[self.train_unit]
        train = cell_roles == _keys.TRAIN
        if self.train_unit == "cell":
            return int(np.clip(n_steps * batch_size / train.sum(), 40, 400))
        n_units = len(np.unique(self._units_of_sums()[train & np.isfinite(self._cell_ages())]))
        per_pass = -(-n_units // max(1, batch_size * SAMPLES // ROWS))
        return int(np.ceil(max(n_steps, 10 * per_pass) / max(MIN_STEPS, per_pass)))

    def _splitter(self, cell_roles: np.ndarray, batch_size: int) -> Any:
        """Loaders of the unit in which ages are learnt."""
        if self.train_unit == "cell":
            return SubjectSplitter(self.adata_manager, cell_roles, batch_size=batch_size, decodes=self.reads_cells)
        return PseudocellSplitter(
            self.adata_manager, cell_roles, units=self._units_of_sums(), batch_size=batch_size,
            size=self.pseudocell_size, averaged=self.normalize == "none", with_cells=self.reads_cells,
        )  # fmt: skip

    def _fit_sums(self, train: np.ndarray, module: GeneInput) -> None:
        """Moments over the sums of training samples, or of their groups."""
        if self.train_unit == "cell":
            return
        codes = self._units_of_sums()
        x = values_of(self.adata_manager)
        codes = np.where(train, codes, -1)
        sum_stats(x, codes, codes.max() + 1, normalize=self.normalize).fill(module)

    # --- the fit ---------------------------------------------------------------------------------------------

    def _run(
        self,
        cell_roles: np.ndarray,
        *,
        max_epochs: int,
        batch_size: int,
        plan_kwargs: dict[str, Any],
        kept: Kept | None,
        **trainer_kwargs: Any,
    ) -> None:
        """One run of scvi-tools' runner, seeded, with its history joined to that of earlier runs."""
        seed = self.init_args["rng"] + self.n_trainings_
        was_trained, earlier = self.is_trained_, self.history_
        n = _threads(kept, "steps", batch_size * n_weights(self.module))
        resume = None if kept is None else Resume(kept)
        if resume is not None:
            trainer_kwargs["callbacks"] = [*(trainer_kwargs.get("callbacks") or ()), resume]
        with seeded(seed), quiet(), threads(n), epochs_bar(type(self).__name__, max_epochs, trainer_kwargs):
            splitter = self._splitter(cell_roles, batch_size)
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
            with interruptible():
                runner()
            if resume is not None:
                resume.finish(runner.trainer, plan)
        later = {name: frame.astype(float) for name, frame in self.history_.items()}
        self.history_ = _joined(earlier, later) if was_trained and earlier else later


def _threads(kept: Kept | None, part: str, work: float) -> int:
    """Threads for steps of ``work`` multiplications in a part of a training, as it began with."""
    n = n_threads(work)
    return n if kept is None else kept.threads(part, n)


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
