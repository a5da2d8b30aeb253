"""How a classifier is trained."""

from __future__ import annotations

import logging
import numbers
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks, _keys, _units
from agevi._compat.scvi import parse_device
from agevi._threads import n_threads, n_weights, threads
from agevi.dataloaders._fields import TARGET
from agevi.dataloaders._pseudocells import Rows
from agevi.model.base._roles import RoleMixin, all_or_nothing
from agevi.model.base._seed import seeded
from agevi.model.transfer import _condition, _network
from agevi.model.transfer._condition import roles_of
from agevi.model.transfer._draws import Draws, Units
from agevi.model.transfer._fit import fit

logger = logging.getLogger(__name__)

_EPOCHS = 40
_ROWS = 256  # of a step, about


class TransferTrainingMixin(RoleMixin):
    """``train`` of a classifier."""

    clock: Any
    module: Any
    freeze: str
    _adata: AnnData | None
    _initial: dict[str, torch.Tensor] | None

    def train(
        self,
        max_epochs: int | None = None,
        *,
        split_key: str = _keys.SPLIT,
        train_roles: tuple[str, ...] = (_keys.TRAIN,),
        early_stopping: bool = False,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        accelerator: str = "auto",
    ) -> None:
        """Train on the subjects of the training roles that have a condition; every call starts from the clock anew.

        A step takes 64 samples: two to four sums of cells of each, drawn anew, for a clock of sums, and 32 cells of
        each for a clock of single cells, whose log-odds are averaged before the loss. The loss is the log-loss, in
        which subjects of a class have equal weight. ``history`` holds ``log_loss_train`` and ``log_loss_validation`` by
        epoch.

        Parameters
        ----------
        max_epochs
            Epochs of 10 steps, or of one pass over the samples if these are more; 40 by default.
        split_key
            Column of ``adata.obs`` with the roles of :func:`agevi.pp.split_subjects`. Where the default column is
            absent, subjects are split 70/15/15 within cases and controls, which is logged and kept in ``split_``.
        train_roles
            Roles that train.
        early_stopping
            Keep the weights of the epoch with the lowest log-loss on validation subjects, and stop a quarter of the
            epochs after it (10 at least). By default, and without validation subjects of both classes, all epochs are
            run.
        lr, weight_decay
            Of AdamW, the learning rate at its peak in one cycle.
        accelerator
            As in scvi-tools.

        Raises
        ------
        KeyError
            If ``split_key`` is not a column.
        RuntimeError
            If the classifier was loaded, or the loss becomes infinite.
        ValueError
            If the split puts a subject on two sides, one class has no training subject, or an argument is out of range.
        """
        self._train_until(
            None,
            max_epochs=max_epochs,
            split_key=split_key,
            train_roles=train_roles,
            early_stopping=early_stopping,
            lr=lr,
            weight_decay=weight_decay,
            accelerator=accelerator,
        )

    @all_or_nothing
    def _train_until(
        self,
        last_epoch: int | None,
        max_epochs: int | None = None,
        *,
        split_key: str = _keys.SPLIT,
        train_roles: tuple[str, ...] = (_keys.TRAIN,),
        early_stopping: bool = False,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        accelerator: str = "auto",
    ) -> None:
        """As :meth:`train`, but a cycle of ``max_epochs`` ends after ``last_epoch`` of them."""
        if self._initial is None or self._adata is None:
            raise RuntimeError(
                "this CaseControlClassifier was loaded, without the weights that its clock had; make a new one with "
                "CaseControlClassifier.from_clock(clock, adata, ...) to train it."
            )
        adata = self._adata
        max_epochs = _EPOCHS if max_epochs is None else _checks.count(max_epochs, "max_epochs")
        if not isinstance(lr, numbers.Real) or not lr > 0:
            raise ValueError(f"lr={lr!r} is not a learning rate; pass a positive number, such as 2e-3.")
        subject, sample = _units.units(adata, self.setup_args["subject_key"], self.setup_args["sample_key"])
        names = (self.control, self.case)
        case = _condition.case_by_subject(adata, self.condition_key, names, subject)
        _condition.check_both(case, f"subjects in adata.obs[{self.condition_key!r}]", names)
        roles = roles_of(adata, case, subject, split_key=split_key, train_roles=train_roles, rng=self.seed)
        of_role = {role: case[roles.index[roles == role]].dropna() for role in _keys.SPLIT_ROLES}
        _condition.check_both(of_role[_keys.TRAIN], "training subjects with a condition", names)
        if accelerator != "auto":
            self.to_device(parse_device(accelerator, "auto"))
        validates = of_role[_keys.VALIDATION].nunique() == 2
        shell, match = self._shell_of(adata, subject, sample, case)
        learner = self.clock._learning(shell)
        try:
            with seeded(self.seed), threads(n_threads(_ROWS * n_weights(self.module))):
                self._renew(
                    learner, (subject.map(roles) == _keys.TRAIN).to_numpy() & subject.map(case).notna().to_numpy()
                )
                rng = np.random.default_rng(self.seed)
                rows = Rows(learner.adata_manager, averaged=self.normalize == "none")
                draws = {
                    role: Draws(rows, self._units(learner._units_of_sums(), chosen, subject), size=self._size, rng=rng)
                    for role, chosen in of_role.items()
                    if role == _keys.TRAIN or (role == _keys.VALIDATION and validates)
                }
                present = learner.present_genes(shell, match)
                self._fit(draws, present, max_epochs, last_epoch, early_stopping, lr, weight_decay)
        finally:
            self.clock._forget(shell)
        self.split_ = {str(name): str(role) for name, role in roles.items()}
        self.age_summary_ = {"n_subjects": len(of_role[_keys.TRAIN]), "n_cases": int(of_role[_keys.TRAIN].sum())}
        self.is_trained_ = True
        self.n_trainings_ += 1
        held_out = [name for name, role in self.split_.items() if role == _keys.TEST]
        known = sum(self.clock.split_.get(name) in _keys.FITTED_ROLES for name in held_out)
        if known and not self.from_scratch:
            logger.info(
                "%d of %d test subjects trained the clock or chose its epochs: it knows their ages and values, but not "
                "their condition (model.clock.split_).", known, len(held_out),
            )  # fmt: skip

    @contextmanager
    def _kept_unless_done(self) -> Iterator[None]:
        """The same, with the module that the clock shares."""
        try:
            with super()._kept_unless_done():
                yield
        except BaseException:
            self.clock.module = self.module
            raise

    def train_on_all(self, kwargs: dict[str, Any], *, choose: bool) -> None:
        """Train on training and validation subjects, and stop at the epoch that the latter choose if they are to.

        The cycle of the learning rate is that of the training in which they chose.
        """
        last_epoch = None
        if choose:
            self.train(**kwargs)
            last_epoch = self.best_epoch_
        self._train_until(last_epoch, **(kwargs | {"early_stopping": False, "train_roles": _keys.FITTED_ROLES}))

    def _fit(
        self,
        draws: dict[str, Draws],
        present: torch.Tensor | None,
        max_epochs: int,
        last_epoch: int | None,
        early_stopping: bool,
        lr: float,
        weight_decay: float,
    ) -> None:
        """Train the layers that are not frozen."""
        trained = _network.trained_layers(self.module, self.freeze)
        self.module.requires_grad_(False)
        for layer in trained:
            layer.requires_grad_(True)
        found = fit(
            self.module,
            trained,
            train=draws[_keys.TRAIN],
            validation=draws.get(_keys.VALIDATION),
            max_epochs=max_epochs,
            last_epoch=last_epoch,
            patience=max(10, max_epochs // 4) if early_stopping else None,
            lr=lr,
            weight_decay=weight_decay,
            whole=self.freeze == "none",
            present=present,
        )
        self.module.requires_grad_(True).eval()
        self.best_epoch_ = found.best_epoch
        self.history_ = {
            name: pd.DataFrame({name: values}, index=pd.RangeIndex(len(values), name="epoch"), dtype=np.float64)
            for name, values in found.history.items()
        }

    @property
    def _size(self) -> float | None:
        """Cells of a sum, None where the clock reads single cells."""
        size: float = self.clock.pseudocell_size
        return size if self.predicts_sums else None

    def _shell_of(self, adata: AnnData, subject: pd.Series, sample: pd.Series, case: pd.Series) -> tuple[AnnData, Any]:
        """The data as the clock reads them, registered with the condition as their target."""
        clock = self.clock
        shell, match = clock.query(adata, min_gene_coverage=0.8, conditioned=False)
        setup = clock.setup_args
        shell.obs[setup["subject_key"]] = subject.to_numpy()
        if setup["sample_key"] is not None:
            shell.obs[setup["sample_key"]] = sample.to_numpy()
        if clock.pseudocell_groupby is not None:
            shell.obs[clock.pseudocell_groupby] = _checks.labels(
                adata, clock.pseudocell_groupby, "pseudocell_groupby"
            ).to_numpy()
        shell.obs[TARGET] = subject.map(case).to_numpy(dtype=np.float64)
        clock._remember(shell)
        return shell, match

    def _renew(self, learner: Any, train: np.ndarray) -> None:
        """The weights that training starts from."""
        if not self.from_scratch:
            self.module.load_state_dict(self._initial)
            _network.renew_last(self.module)
            return
        learner.init_params_["non_kwargs"]["rng"] = self.seed
        learner.module = learner._make_module()
        learner.module.age_scale.target = "condition"
        learner._fit_buffers(train)
        self.clock.module = self.module = learner.module.to(self.device)

    def _units(self, codes: np.ndarray, case: pd.Series, subject: pd.Series) -> Units:
        """What is drawn, by its code in every cell, of the subjects of ``case``; weights sum to the same by class."""
        used = np.flatnonzero(subject.isin(case.index).to_numpy())
        order = used[np.argsort(codes[used], kind="stable")]
        cells = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
        owner = subject.to_numpy()[[c[0] for c in cells]]
        label = case[owner].to_numpy()
        weight = 1 / pd.Series(owner).map(pd.Series(owner).value_counts()).to_numpy(dtype=np.float64)
        if self.class_weight == "balanced":
            weight = weight / np.where(label == 1, weight[label == 1].sum(), weight[label == 0].sum())
        return Units(cells, *(torch.tensor(v, dtype=torch.float32) for v in (label, weight / weight.mean())))
