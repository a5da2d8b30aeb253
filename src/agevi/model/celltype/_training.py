"""How a clock of cell types is trained: its members, and how they are combined."""

from __future__ import annotations

import inspect
import itertools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys
from agevi._compat import Host
from agevi._progress import progress, silent
from agevi.dataloaders._fields import SAMPLE, SUBJECT
from agevi.dataloaders._register import cell_types
from agevi.io._folder import check_path
from agevi.model.base._for_ages import is_for_ages_alone
from agevi.model.base._roles import all_or_nothing
from agevi.model.celltype._anchor import fit_contrasts, say_contrasts, targets_of
from agevi.model.celltype._combine import MIN_SAMPLES, Errors
from agevi.model.celltype._composition import NAME, Composition, fit_composition
from agevi.model.celltype._fit import TypedCells, can_train, fit_type, say_one_type, type_seed, types_to_fit
from agevi.model.celltype._module import CellTypeModule

logger = logging.getLogger(__name__)


class TypeTraining(Host):
    """``train`` for a clock per type."""

    type_clocks: dict[str, Any]
    errors_: pd.DataFrame
    """Predicted minus true age of training samples while held out, samples x types; empty with ``combine="mean"``."""
    contrast_clocks: Mapping[str, Any]
    """The clock of every type against the anchor, without data; empty without an anchor."""
    contrast_r_: dict[str, float]
    """Correlation of each with the age of training subjects held out, also of those that are left out."""
    _clock_cls: Any

    @all_or_nothing
    def train(
        self,
        max_epochs: int | Mapping[str, int] | None = None,
        *,
        split_key: str = _keys.SPLIT,
        train_roles: tuple[str, ...] = (_keys.TRAIN,),
        **train_kwargs: Any,
    ) -> None:
        """Train the clock of every type, and learn how to combine them, on the subjects of the training roles.

        With ``combine="precision"`` each member is trained ``n_folds`` times on some of the training subjects first, to
        see its errors on the others. ``split_`` tells the subjects by role, and ``errors_`` the held-out errors.

        Parameters
        ----------
        max_epochs
            Epochs of the members, or those of each type by its name. ``best_epoch_`` has this form after training where
            the members choose their epochs, and is 1 where they do not.
        split_key
            Column of ``adata.obs`` with the roles of :func:`agevi.pp.split_subjects`. Where the default column is
            absent, subjects are split 70/15/15, which is logged.
        train_roles
            Roles that train.
        **train_kwargs
            Further arguments of the members' ``train``. ``checkpoint_dir`` has a folder for each fit of a network, so
            that those that are finished are not run again.

        Raises
        ------
        KeyError
            If ``split_key`` is not a column.
        TypeError
            If an argument is not one of the members' ``train``.
        ValueError
            If the split leaves nothing to train on, no type has enough subjects, or ``max_epochs`` an unknown one.
        RuntimeError
            If the clock was loaded without data.
        """
        own, init = self._registered(), self.init_args
        train_kwargs = self._kwargs_of_training(train_kwargs)
        roles = self._split(split_key, train_roles)
        cells = self._typed_cells(own, roles)
        if isinstance(max_epochs, Mapping):
            for name in max_epochs:
                _checks.choice(name, cells.names, "a type in max_epochs")
        every = cells.folds(init["n_folds"], init["rng"])
        folds = every if init["combine"] == "precision" else None
        clocks, held, contrasts = self._fit_types(cells, folds, every, max_epochs, train_kwargs)
        composition = None
        if init["composition"]:
            composition, ages = _fit_composition(cells, folds)
            held.append(ages)
        n_cells = cells.n_of_type[:, [cells.names.index(name) for name in clocks]]
        if composition:
            n_cells = np.column_stack([n_cells, cells.n_of_type.sum(axis=1)])
        columns = [*clocks, *([NAME] if composition else [])]
        errors = pd.DataFrame(np.stack(held, axis=1) - cells.age[:, None], self._sample_names(), columns)
        found = _errors(errors.to_numpy(), n_cells, cells)
        self._start()
        self._take(cells.names, cells.usual, clocks, columns, found, composition, contrasts)
        self.errors_ = errors.dropna(how="all")
        self.is_trained_, self.split_ = True, {str(subject): str(role) for subject, role in roles.items()}
        trained = (self._unit_names(SUBJECT).map(roles) == _keys.TRAIN).to_numpy()
        self.age_summary_ = self._summarise_ages(trained)
        chooses = self.chooses_epochs(init)
        self.best_epoch_: Any = {name: clock.best_epoch_ for name, clock in clocks.items()} if chooses else 1
        self.history_: Any = {}

    def _fit_types(
        self,
        cells: TypedCells,
        folds: np.ndarray | None,
        every: np.ndarray,
        max_epochs: int | Mapping[str, int] | None,
        train_kwargs: dict[str, Any],
    ) -> tuple[dict[str, Any], list[np.ndarray], dict[str, Any]]:
        """The clock of every type, held-out ages of samples by each, (n_samples,), and the clocks against the anchor.

        ``folds`` hold out subjects from the types, where they do; ``every`` from the contrasts.
        """
        anchor, key = self.init_args["anchor"], self.setup_args["cell_type_key"]
        if key is None and not is_for_ages_alone():
            say_one_type(logger)
        able = types_to_fit(cells, key)
        targets = [] if anchor is None else targets_of(anchor, cells, able, key)
        n_held_out = int(every.max()) + 1
        kwargs = _with_folders(train_kwargs)
        n_fits = len(able) + len(targets) + n_held_out * (len(targets) + (len(able) if folds is not None else 0))

        def train(model: Any, name: str) -> None:
            epochs = max_epochs.get(name) if isinstance(max_epochs, Mapping) else max_epochs
            model.train(epochs, **next(kwargs))

        clocks: dict[str, Any] = {}
        contrasts: dict[str, Any] = {}
        told: dict[str, float] = {}
        held: list[np.ndarray] = []
        show = train_kwargs.get("enable_progress_bar", True)
        with progress(n_fits, type(self).__name__, "fits", show=show) as bar, silent():
            for of_type in able:
                clock, ages = fit_type(cells, of_type, self._make_member, train, folds, bar)
                clocks[cells.names[of_type]] = clock
                held.append(ages)
            if anchor is not None:
                contrasts, told = fit_contrasts(
                    cells, targets, anchor, self.setup_args, self.init_args["rng"], every, bar
                )
        if anchor is not None and not is_for_ages_alone():
            say_contrasts(anchor, contrasts, told)
        self.contrast_r_ = told
        return clocks, held, contrasts

    def _typed_cells(self, own: AnnData, roles: pd.Series) -> TypedCells:
        """The registered cells by type."""
        code, names = cell_types(own, self.setup_args["cell_type_key"], "cell_type_key")
        if self.init_args["composition"] and NAME in names:
            raise ValueError(
                f"adata.obs[{self.setup_args['cell_type_key']!r}] has a type called {NAME!r}, which is what "
                "composition=True calls the shares of types; rename it."
            )
        subject, sample = (self.adata_manager.get_from_registry(k).ravel().astype(int) for k in (SUBJECT, SAMPLE))
        owner = np.zeros(sample.max() + 1, dtype=int)
        owner[sample] = subject
        by_code = pd.Series(self._unit_names(SUBJECT).to_numpy(), index=subject).groupby(level=0).first()
        role = by_code.map(roles).reindex(range(subject.max() + 1)).to_numpy(dtype=object)
        age = self._sample_ages().numpy()
        return TypedCells(own, names, code, sample, owner, age, role, self.init_args["min_cells"])

    def _sample_names(self) -> pd.Index:
        """Names of the registered samples by code."""
        names = self.adata_manager.get_state_registry(SAMPLE)["names"]
        return pd.Index(np.asarray(names, dtype=object), name="sample")

    def _make_member(self, shell: AnnData, name: str) -> Any:
        """An untrained clock for the cells of one type."""
        setup = {k: v for k, v in self.setup_args.items() if k != "cell_type_key"}
        self._clock_cls.setup_anndata(shell, **setup)
        own = {} if "rng" not in inspect.signature(self._clock_cls).parameters else {"rng": 0}
        own = {key: type_seed(self.init_args["rng"], name) for key in own}
        return self._clock_cls(shell, **(own | dict(self.init_args["clock_kwargs"])))

    def _kwargs_of_training(self, given: dict[str, Any]) -> dict[str, Any]:
        """Arguments of the members' ``train``, without a bar of their own."""
        parameters = inspect.signature(self._clock_cls.train).parameters
        takes_more = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
        for name in given:
            if name not in parameters and not takes_more:
                raise TypeError(
                    f"{self._clock_cls.__name__}.train takes no {name!r}{_checks.closest(name, list(parameters))}."
                )
        return given

    def _take(
        self,
        types: list[str],
        usual: list[str],
        clocks: dict[str, Any],
        columns: list[str],
        errors: Errors,
        composition: Composition | None,
        contrasts: dict[str, Any],
    ) -> None:
        """Be made of these members."""
        self.types_, self._usual, self.type_clocks, self._columns = types, usual, clocks, columns
        self._composition, self.errors_, self.contrast_clocks = composition, pd.DataFrame(), contrasts
        for clock in (*clocks.values(), *contrasts.values()):
            clock._gene_names = self._kept_names()
        modules = ([clock.module for clock in part.values()] for part in (clocks, contrasts))
        self.module = CellTypeModule(next(modules), errors, composition, next(modules)).eval()


def _with_folders(train_kwargs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Arguments of ``train`` for one fit after the other, each with its part of a ``checkpoint_dir``."""
    directory = train_kwargs.get("checkpoint_dir")
    if directory is None:
        return itertools.repeat(train_kwargs)
    check_path(directory)
    return (train_kwargs | {"checkpoint_dir": Path(directory) / f"fit_{i:03d}"} for i in itertools.count())


def _fit_composition(cells: TypedCells, folds: np.ndarray | None) -> tuple[Composition, np.ndarray]:
    """The map from the shares of types to age, and the ages of samples that were held out from it, (n_samples,)."""
    counts = cells.n_of_type
    trains = cells.trains & (counts.sum(axis=1) >= cells.min_cells)
    out = np.full(len(cells.age), np.nan)
    for held_out in [] if folds is None else [folds == fold for fold in range(int(folds.max()) + 1)]:
        held = trains & held_out[cells.owner]
        kept = trains & ~held
        if held.any() and can_train(cells, kept):
            out[held] = fit_composition(counts[kept], cells.age[kept], cells.owner[kept]).ages(counts[held])
    return fit_composition(counts[trains], cells.age[trains], cells.owner[trains]), out


def _errors(errors: np.ndarray, n_cells: np.ndarray, cells: TypedCells) -> Errors:
    """What the held-out errors say of the types, (n_samples, n_types); all have equal weight where none were taken."""
    used = (n_cells >= cells.min_cells) & cells.trains[:, None]
    usual = np.array([np.median(n[u]) if u.any() else 1.0 for n, u in zip(n_cells.T, used.T, strict=True)])
    held_out = np.isfinite(errors).any(axis=1)
    if held_out.sum() >= MIN_SAMPLES:
        return Errors.of(errors[held_out], n_cells[held_out], usual)
    if held_out.any() and not is_for_ages_alone():
        logger.warning(
            "%d samples were held out, too few to tell how the errors of types go together (%d are needed); all types "
            "have equal weight.", held_out.sum(), MIN_SAMPLES,
        )  # fmt: skip
    return Errors.equal(usual)
