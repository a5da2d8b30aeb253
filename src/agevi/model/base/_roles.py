"""Who trains: subjects, their ages and the roles that a fit gives them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy, deepcopy
from functools import wraps
from typing import Any, ClassVar, TypeVar

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks, _keys, _units
from agevi._ages import YEAR
from agevi._compat import Host
from agevi.dataloaders._assign import assign_roles, role_counts
from agevi.dataloaders._fields import AGE, SAMPLE, SUBJECT
from agevi.dataloaders._own_copies import sums_a_file
from agevi.dataloaders._splitter import roles_from_column
from agevi.dataloaders._summed import cells_of_rows
from agevi.dataloaders._sums import UnitSums, sample_groups
from agevi.model.base._density import density_weights
from agevi.model.base._seed import in_float32

logger = logging.getLogger(__name__)

Train = TypeVar("Train", bound=Callable[..., None])

SUBJECT_WEIGHTS = ("equal", "cells", "density")


def all_or_nothing(train: Train) -> Train:
    """Let ``train`` leave the clock as it was, an earlier fit included, where it does not come to its end."""

    @wraps(train)
    def whole(self: Any, *args: Any, **kwargs: Any) -> None:
        with self._kept_unless_done(), in_float32():
            train(self, *args, **kwargs)
            self.calibration_ = self.evaluation_ = self.reference_ = None  # which were those of other weights

    return whole  # type: ignore[return-value]


class RoleMixin(Host):
    """Subjects of the registered data and what a fit does with them."""

    split_: dict[str, str]
    best_epoch_: Any
    """Epoch whose weights are kept, from 1; None before a training; by type for a clock of several."""
    subject_weight = "equal"
    predicts_sums: bool
    pseudocell_groupby: str | None = None
    """Column of the groups that are summed apart within a sample."""
    unit_from_disk: ClassVar[str] = ""
    """The ``train_unit`` that is learnt from a matrix on disk, of which blocks of rows are read; "" for none."""
    history_: Any
    age_summary_: dict[str, Any]
    default_age_transform: ClassVar[str] = "none"

    @classmethod
    def trains_on_sums(cls, init: dict[str, Any] | None = None) -> bool:
        """Whether all that a clock made with the arguments ``init`` learns from cells is in their sums and moments."""
        return False

    @property
    def age_transform(self) -> str:
        """Scale on which ages are trained, with ``"auto"`` resolved."""
        return self.transform_of(self.setup_args, self.init_args)

    @classmethod
    def transform_of(cls, setup: Mapping[str, Any], init: dict[str, Any] | None = None) -> str:
        """The same for a clock made with the arguments ``setup`` and ``init``."""
        if setup["age_transform"] != "auto":
            return str(setup["age_transform"])
        # On embeddings of 140 donors a logarithm costs 0.4 years or more (benchmarks/representations.py).
        return cls.auto_transform(init) if setup.get("obsm_key") is None else "none"

    @classmethod
    def auto_transform(cls, init: dict[str, Any] | None = None) -> str:
        """What ``age_transform="auto"`` is, of genes, for a clock made with the arguments ``init``."""
        return cls.default_age_transform

    @property
    def _age_scale_args(self) -> dict[str, Any]:
        """Arguments of a module for its :class:`agevi.nn.heads.TargetScale`."""
        setup = self.setup_args
        year = YEAR.get(setup["age_unit"], 1.0)
        return {"age_transform": self.age_transform, "min_age": setup["min_age"], "year": year}

    def _start(self) -> None:
        """The state of a clock that was never trained."""
        self.is_trained_, self.history_, self.split_, self.best_epoch_ = False, None, {}, None
        self.n_trainings_, self.age_summary_ = 0, {}
        self._touched = False

    @contextmanager
    def _kept_unless_done(self) -> Iterator[None]:
        """What :func:`all_or_nothing` does around a training."""
        state, module = dict(vars(self)), deepcopy(self.module)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(state | {"module": module})
            raise

    def _unit_names(self, field: str) -> pd.Series:
        """Subject or sample of every registered cell, as text."""
        state = self.adata_manager.get_state_registry(field)
        codes = self.adata_manager.get_from_registry(field).ravel().astype(int)
        return pd.Series(np.asarray(state["names"])[codes], dtype=object)

    def lend_sums(self, whole: UnitSums, unit: np.ndarray) -> None:
        """Let trainings read sums of a whole, where each registered cell is of a ``unit``, if they sum cells."""

    def _units_of_sums(self) -> np.ndarray:
        """Code of what is summed, for every registered cell: its sample, or the cells of its group in the sample."""
        codes: np.ndarray = self.adata_manager.get_from_registry(SAMPLE).ravel().astype(np.int64)
        if self.pseudocell_groupby is None:
            return codes
        return sample_groups(codes, _checks.labels(self.adata, self.pseudocell_groupby, "pseudocell_groupby"))

    def _cell_ages(self) -> np.ndarray:
        """Target of every cell, (n_cells,), NaN where unlabelled: its age, or its condition in data with ``TARGET``."""
        return self.adata_manager.get_from_registry(AGE).ravel()

    def _learning(self, shell: AnnData) -> Any:
        """The same clock and module, on other registered data."""
        learner = copy(self)
        learner._adata, learner._adata_manager = shell, self.get_anndata_manager(shell, required=True)
        return learner

    def _split(self, split_key: str, train_roles: tuple[str, ...]) -> pd.Series:
        """Role of every subject in this training, indexed by subject."""
        for role in [train_roles] if isinstance(train_roles, str) else train_roles:
            _checks.choice(role, _keys.SPLIT_ROLES, "train_roles")
        train_roles = (train_roles,) if isinstance(train_roles, str) else tuple(train_roles)
        adata, subject = self.adata, self._unit_names(SUBJECT)
        if split_key in adata.obs or split_key != _keys.SPLIT:
            of_data = subject  # of each cell, where the registered data are sums of cells on disk
            if sums_a_file(self.adata_manager.adata):
                of_data = _units.units(adata, self.setup_args["subject_key"], self.setup_args["sample_key"])[0]
            roles = roles_from_column(adata, split_key, of_data)
            roles = roles[roles.index.isin(subject)]
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
            np.random.default_rng(self.init_args["rng"]),
        )
        logger.info(
            "adata.obs has no %r; %d subjects train, %d validate and %d test (model.split_). Make your own split with "
            "agevi.pp.split_subjects.",
            _keys.SPLIT, *((roles == r).sum() for r in _keys.SPLIT_ROLES),
        )  # fmt: skip
        return roles

    def _starts_from(self, roles: pd.Series) -> bool:
        """Whether the current weights may be trained on: they are new, or every subject keeps its role."""
        if not self.is_trained_:
            return not self._touched
        same = self.split_ == roles.to_dict()
        if not same:
            logger.info("The roles of subjects differ from the last training; training starts from new weights.")
        return same

    def _sample_ages(self, cells: np.ndarray | None = None) -> torch.Tensor:
        """Age of every sample by code, (n_samples,), NaN where unlabelled or without any of ``cells``."""
        codes = self.adata_manager.get_from_registry(SAMPLE).ravel().astype(int)
        chosen = np.ones(len(codes), dtype=bool) if cells is None else cells
        out = np.full(codes.max() + 1, np.nan)
        out[codes[chosen]] = self._cell_ages()[chosen]
        return torch.from_numpy(out)

    def _subject_ages(self) -> np.ndarray:
        """Mean age over the samples of every subject by code, (n_subjects,), NaN where unlabelled."""
        subject, sample = (self.adata_manager.get_from_registry(k).ravel().astype(int) for k in (SUBJECT, SAMPLE))
        ages = self._sample_ages().numpy()
        owner = np.full(len(ages), -1)
        owner[sample] = subject
        return pd.Series(ages).groupby(owner).mean().reindex(range(subject.max() + 1)).to_numpy()

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
            "median": float(np.median(ages.numpy())),
            "n_subjects": int(self._unit_names(SUBJECT)[labelled].nunique()),
            "n_samples": len(ages),
            "n_cells": int(cells_of_rows(self.adata_manager.adata)[labelled].sum()),
        }

    def _subject_weights(self, train: np.ndarray) -> torch.Tensor:
        """Weight of a row by its subject's code, (n_subjects,), mean 1 over training rows (cells, or parts of sums)."""
        subject, unit = self.adata_manager.get_from_registry(SUBJECT).ravel().astype(int), self._units_of_sums()
        labelled, n_codes = np.isfinite(self._cell_ages()), subject.max() + 1
        cells = np.bincount(subject[labelled], minlength=n_codes)
        pairs = np.unique(np.stack([subject[labelled], unit[labelled]]), axis=1)
        rows = np.bincount(pairs[0], minlength=n_codes) if self.predicts_sums else cells
        trained = np.unique(subject[labelled & train])
        # What a subject sums to: its cells, the same as others, or its weight by density of ages.
        wanted = cells if self.subject_weight == "cells" else np.ones(n_codes)
        if self.subject_weight == "density":
            wanted = density_weights(self._subject_ages(), np.isin(np.arange(n_codes), trained))
        weight = wanted / np.maximum(rows, 1)
        return torch.from_numpy(weight * rows[trained].sum() / (weight * rows)[trained].sum()).float()
