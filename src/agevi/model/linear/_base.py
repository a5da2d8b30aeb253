"""What linear clocks share: cells to rows, one fit instead of epochs, and the offset of single cells."""

from __future__ import annotations

import inspect
import logging
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks, _keys, _units
from agevi._compat.scvi import Trainer
from agevi._progress import silent
from agevi._threads import n_threads, threads
from agevi.dataloaders._cells import values_of
from agevi.dataloaders._fields import SAMPLE, SUBJECT
from agevi.dataloaders._own_copies import sums_a_file
from agevi.dataloaders._stats import gene_stats
from agevi.dataloaders._summed import RowSums
from agevi.dataloaders._sums import LentSums, UnitSums
from agevi.model.base._clock import Clock
from agevi.model.base._for_ages import is_for_ages_alone
from agevi.model.base._roles import all_or_nothing
from agevi.model.linear._module import LinearModule
from agevi.model.linear._scaled_rows import ScaledRows, SomeColumns
from agevi.model.linear._training_cells import TrainingCells, cell_offset

logger = logging.getLogger(__name__)

_OF_NETWORKS = ("devices", "plan_kwargs", "checkpoint_dir")  # further arguments of train() that network clocks take


class LinearBase(Clock):
    """How every linear clock predicts."""

    has_latent: ClassVar[bool] = False
    unit_from_disk: ClassVar[str] = "sample"
    linear: ClassVar[bool] = True
    module: LinearModule


class FittedLinearClock(LinearBase):
    """A linear clock that is fitted exactly; classes differ in how they find the coefficients."""

    selects_epochs: ClassVar[bool] = False
    default_age_transform: ClassVar[str] = "log"
    _module_cls = LinearModule
    _kept: UnitSums | None = None

    def __init__(self, adata: AnnData) -> None:
        super().__init__(_checks.anndata(adata))
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
        early_stopping: bool = True,
        **trainer_kwargs: Any,
    ) -> None:
        """Fit to the labelled subjects of the training roles; no cell of any other subject shapes the clock.

        There are no epochs: the penalty is chosen by cross-validation inside the training subjects, and validation
        subjects only show the error. ``history`` holds one value of ``age_mae_train`` and ``age_mae_validation``, the
        mean absolute error over samples, and the errors of the cross-validation. Every call starts anew.

        Parameters
        ----------
        max_epochs
            Not used; taken so that one call serves all clocks.
        split_key
            Column of ``adata.obs`` with the roles of :func:`agevi.pp.split_subjects`. Where the default column
            is absent, subjects are split 70/15/15, which is logged and kept in ``split_``.
        train_roles
            Roles that train. A clock that is not tuned on validation subjects can have them from the start:
            ``model.train(train_roles=("train", "validation"))``.
        batch_size, accelerator, early_stopping
            Not used, as above.
        **trainer_kwargs
            Arguments that network clocks hand to scvi-tools' trainer. Not used, but their names are checked.

        Raises
        ------
        KeyError
            If ``split_key`` is not a column.
        TypeError
            If an argument is not known to any clock.
        ValueError
            If the split puts a subject on two sides or leaves nothing to train on.
        RuntimeError
            If the clock was loaded without data.
        """
        self._registered()
        _check_names(f"{type(self).__name__}.train", self.train, trainer_kwargs)
        roles = self._split(split_key, train_roles)
        train = (self._unit_names(SUBJECT).map(roles) == _keys.TRAIN).to_numpy()
        module = self._make_module()
        module.age_scale.fit(self._sample_ages(train))
        cells = self._training_cells(train)
        size = cells.x.shape[1] * len(cells.subject)  # what most of a fit goes through, several times
        with silent(not trainer_kwargs.get("enable_progress_bar", True)), threads(n_threads(size)):
            history = self._fit(module, cells)
        if self.predicts_sums and not is_for_ages_alone():
            if cells.rows is None:
                _fit_offset(module, cells, cells.x, cells.index, cells.sample)
            elif sums_a_file(self.adata_manager.adata):
                _fit_offset(module, cells, *self._cells_on_disk(train))
            else:
                logger.info("The clock is trained on sums, and tells ages of samples alone, not those of single cells.")
        self._start()
        self.module, self.is_trained_ = module.eval(), True
        self.split_ = {str(subject): str(role) for subject, role in roles.items()}
        self.best_epoch_, self.age_summary_ = 1, self._summarise_ages(train)
        self.history_ = {
            name: pd.DataFrame({name: values}, index=pd.RangeIndex(len(values), name="epoch"), dtype=np.float64)
            for name, values in (history if is_for_ages_alone() else self._errors() | history).items()
        }

    def coefficients(self) -> pd.Series:
        """Change of the predicted age, in the unit of the age column, per standard deviation of each gene.

        The standard deviation is that of the gene's normalised values over the training rows. On a log scale of age the
        change is the one at the middle of the training ages, the geometric mean of ages + 1 - ``min_age``.
        Coefficients of genes that go together share their effect: a small one does not mean a gene without change.

        Returns
        -------
        Series of float64, index gene, largest absolute values first.

        Raises
        ------
        RuntimeError
            If the clock is not trained.
        """
        self.check_trained("model.coefficients")
        values = self.module.coefficients.detach().cpu().numpy() * self.module.age_slope()
        unit = self.setup_args["age_unit"]
        out = pd.Series(values, index=pd.Index(self.genes, dtype=object, name="gene"), name=f"{unit} per sd")
        return out.iloc[np.argsort(-np.abs(values), kind="stable")]

    def _searched(self, names: Iterable[str]) -> pd.DataFrame:
        """What the search for its settings left in ``history``, a row for each of them."""
        self.check_trained("model.cv_results_")
        return pd.DataFrame({name.removeprefix("cv_"): self.history_[name].iloc[:, 0].to_numpy() for name in names})

    # --- the fit ---------------------------------------------------------------------------------------------

    @abstractmethod
    def _fit(self, module: LinearModule, cells: TrainingCells) -> dict[str, np.ndarray]:
        """Set the map of ``module``; what the search for it found, for ``history``."""

    def _make_module(self) -> LinearModule:
        return self._module_cls(self.summary_stats.n_vars, normalize=self.normalize, **self._age_scale_args)

    def _training_cells(self, train: np.ndarray) -> TrainingCells:
        """Labelled cells of the training subjects."""
        x, age = self._rows() if self._kept is None else self._kept.x, self._cell_ages()
        index = np.flatnonzero(train & np.isfinite(age))
        code, first, sample = np.unique(self._codes(SAMPLE)[index], return_index=True, return_inverse=True)
        subject = np.unique(self._codes(SUBJECT)[index[first]], return_inverse=True)[1]
        shared = None if self._kept is None else (self._kept, code)
        return TrainingCells(x, index, sample, subject, age[index[first]], self.normalize, shared, self._sums_of_rows())

    def _cells_on_disk(self, train: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
        """Cells on disk whose sums are registered: their values, and position and sample of those that train."""
        own, setup = self.adata_manager.adata, self.setup_args
        trains = train & np.isfinite(self._cell_ages())
        names = self._unit_names(SAMPLE).to_numpy()[trains]
        of_cell = _units.units(self.adata, setup["subject_key"], setup["sample_key"])[1].to_numpy()
        sample = pd.Index(np.unique(names)).get_indexer(pd.Index(of_cell))
        types = setup.get("cell_type_key")
        known = np.ones(len(sample), dtype=bool) if types is None else self.adata.obs[types].notna().to_numpy()
        index = np.flatnonzero((sample >= 0) & known)
        x: Any = _checks.matrix(self.adata, setup["layer"])
        if not own.var_names.equals(self.adata.var_names):
            x = SomeColumns(x, self.adata.var_names.get_indexer(own.var_names))
        return x, index, sample[index]

    def _rows(self) -> Any:
        """The registered values by rows."""
        x = values_of(self.adata_manager)
        return x.tocsr() if getattr(x, "format", "csr") != "csr" else x  # rows of columns are slow to read

    def _sums_of_rows(self) -> RowSums | None:
        """What registered rows say of their cells, where they are sums."""
        return RowSums.of(self.adata_manager.adata)

    @classmethod
    def trains_on_sums(cls, init: dict[str, Any] | None = None) -> bool:
        """Whether all that a clock made with the arguments ``init`` learns from cells is in their sums and moments."""
        return (init or {}).get("train_unit", "sample") == "sample"

    def share_sums(self) -> None:
        """Sum the cells of every sample once for all further trainings; the registered values must not change."""
        sample = self._codes(SAMPLE)
        n = int(sample.max()) + 1
        self._kept = UnitSums(self._rows(), sample, n, self.normalize, rows=self._sums_of_rows())

    def lend_sums(self, whole: UnitSums, unit: np.ndarray) -> None:
        """Read the sums of ``whole`` in further trainings, where they are those of all cells of every sample."""
        sample, place = self._codes(SAMPLE), np.zeros(self.summary_stats[f"n_{SAMPLE}"], dtype=np.int64)
        place[sample] = unit
        complete = np.array_equal(place[sample], unit) and len(np.unique(place)) == len(place)
        if not complete or self.normalize != whole.normalize:
            return
        rows = self._sums_of_rows()
        lent = LentSums(self._rows(), sample, len(place), self.normalize, whole, place, rows=rows)
        if np.array_equal(lent.n_cells, whole.n_cells[place]):
            self._kept = lent

    def _codes(self, field: str) -> np.ndarray:
        return self.adata_manager.get_from_registry(field).ravel().astype(np.int64)

    def _errors(self) -> dict[str, list[float]]:
        """Mean absolute error over the samples of training and of validation subjects."""
        role = self._unit_names(SUBJECT).map(self.split_).to_numpy()
        used = np.flatnonzero((role != _keys.TEST) & np.isfinite(self._cell_ages()))
        own = self.adata_manager.adata
        predicted = self.predict_age(own, indices=used.tolist(), level=self.level)
        frame = pd.DataFrame({"predicted": predicted, "age": self._cell_ages()[used], "role": role[used]})
        samples = frame.groupby([self._codes(SAMPLE)[used], "role"])[["predicted", "age"]]
        of_sample = samples.first() if self.predicts_sums else samples.mean()
        error = (of_sample["predicted"] - of_sample["age"]).abs().groupby(level="role").mean()
        return {f"age_mae_{name}": [float(value)] for name, value in error.items()}


def standardize(module: LinearModule, x: Any, index: np.ndarray, unit: np.ndarray) -> ScaledRows:
    """Rows of ``x`` on the scale of their own means and standard deviations, which the module keeps."""
    gene_stats(x, index, normalize=module.input.normalize).fill(module.input)
    return scaled_rows(module, x, index, unit)


def scaled_rows(module: LinearModule, x: Any, index: np.ndarray, unit: np.ndarray) -> ScaledRows:
    """Rows of ``x`` as the module standardises them."""
    mean, sd = module.input.mean.numpy(), module.input.sd.numpy()
    return ScaledRows(x, index, unit, normalize=module.input.normalize, mean=mean, sd=sd)


def sample_scores(module: LinearModule, cells: TrainingCells) -> np.ndarray:
    """Standardised age from the sum of every sample's cells, (n_samples,)."""
    every = np.arange(len(cells.subject))
    rows = scaled_rows(module, cells.sums, every, every)
    return rows.project(module.coefficients.numpy()) + float(module.intercept)


def _fit_offset(module: LinearModule, cells: TrainingCells, x: Any, index: np.ndarray, sample: np.ndarray) -> None:
    """Bring single cells, whose logarithms lie lower than that of their sum, to the level of their samples.

    ``x`` holds cells, of which those at ``index`` are of the training ``sample``.
    """
    rows = scaled_rows(module, x, index, sample)
    scores = rows.project(module.coefficients.numpy()) + float(module.intercept)

    def to_age(score: np.ndarray) -> np.ndarray:
        return module.age_scale.to_target(torch.from_numpy(score)).double().numpy()

    module.cell_offset.fill_(cell_offset(to_age, scores, sample, sample_scores(module, cells)))


def _check_names(call: str, train: Any, given: dict[str, Any]) -> None:
    """Refuse arguments that no clock's ``train`` takes."""
    own = [name for name in inspect.signature(train).parameters if name != "trainer_kwargs"]
    known = {*own, *_OF_NETWORKS, *inspect.signature(Trainer).parameters, *inspect.signature(pl.Trainer).parameters}
    for name in given:
        if name not in known:
            hint = _checks.closest(name, sorted(known))
            raise TypeError(
                f"{call} got {name!r}, which neither a clock nor scvi-tools' trainer takes{hint}. It takes "
                f"{_checks.listed(own, len(own))}."
            )
