"""The contract that every clock fulfils: registration, prediction with roles, saving and loading."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData

from agevi import _checks, _keys
from agevi._compat import Absent, BaseModelClass
from agevi.dataloaders._cells import cell_loader
from agevi.dataloaders._query import GeneMatch
from agevi.dataloaders._register import check_setup, make_manager
from agevi.dataloaders._sums import sample_groups, sample_means, sum_rows
from agevi.dataloaders._views import stand_in_for
from agevi.model import _bundle
from agevi.model._roles import RoleMixin
from agevi.model._shells import ShellMixin
from agevi.nn.products import PRECISIONS, factors_for, factors_in

logger = logging.getLogger(__name__)

_PREDICT_BATCH = 1024
_BACKED_BLOCK = 16384  # cells read from disk at a time


class Prediction(NamedTuple):
    """What a pass over cells gives."""

    age: np.ndarray  # (n_cells,) float32, unit of the age column
    latent: np.ndarray | None  # (n_cells, n_latent) float32
    gene_coverage: float


class ClockMixin(RoleMixin, ShellMixin):
    """Verbs shared by all clocks, to be mixed in before scvi-tools' base class."""

    expects: str = "any"
    """``"counts"``, ``"continuous"`` or ``"any"``."""
    trainable: ClassVar[bool] = True
    """Whether the class can be built from an AnnData and trained on ages."""
    predicts: ClassVar[str] = "age"
    """What the network gives: ages, or the log-odds of a classifier."""
    selects_epochs: ClassVar[bool] = True
    """Whether training chooses an epoch on validation subjects, so that the final clock is a refit on all of them."""
    predicts_sums: bool = False
    """Whether the clock also predicts from the summed counts of a sample, because it was trained on sums."""

    convert_legacy_save = Absent("clocks are saved as safetensors and JSON, never as scvi-tools' pickles.")
    load_registry = Absent("it reads scvi-tools' pickles; look into clock.json of a saved clock.")
    view_setup_args = Absent("it reads scvi-tools' pickles; look into clock.json of a saved clock.")
    setup_annbatch = Absent("its splits do not keep subjects together.")

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        age_key: str,
        subject_key: str,
        sample_key: str | None = None,
        layer: str | None = None,
        batch_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        normalize: str = "log1p_cp10k",
        age_unit: str = "years",
        age_transform: str = "auto",
        min_age: float = -1.0,
        **kwargs: Any,
    ) -> None:
        """Register an AnnData for this clock.

        Checks everything first and writes nothing unless all is well; then scvi-tools' own columns
        (``_scvi_...``) are added. The user's columns and matrix are never changed. A view stays a view: a copy of it
        is registered in its place.

        Parameters
        ----------
        adata
            Cells x genes.
        age_key
            Column of ``adata.obs`` with the age of each cell's sample; NaN means unlabelled: such cells still
            shape the latent space.
        subject_key
            Column with the person or animal, the unit that is held out.
        sample_key
            Column with the visit or biopsy, the unit with one age. Default: the subject.
        layer
            Layer that holds the values; default X.
        batch_key
            Column with the batch that the decoder conditions on.
        categorical_covariate_keys, continuous_covariate_keys
            Further columns that the decoder conditions on.
        normalize
            What the encoder sees: ``"log1p_cp10k"``, log(1 + counts per 10,000), or ``"none"``, the values as they are.
        age_unit
            Unit of the ages, for axis labels and the card of a saved clock.
        age_transform
            Scale on which ages are trained: ``"none"``, ``"log"`` (log(age - min_age + 1)), ``"horvath"``
            (log((age + 1) / 21) up to 20 years and (age - 20) / 21 above, Horvath 2013; ages above -1 year in years, months,
            weeks or days) or ``"auto"``, the default of the model.
        min_age
            Lowest age that is believed; prenatal ages are negative.
        **kwargs
            Passed on by scvi-tools when a saved registration is used again.

        Raises
        ------
        KeyError
            If a column or the layer does not exist.
        TypeError
            If ages are no numbers.
        ValueError
            If ages, units or values cannot be trained on.

        Examples
        --------
        >>> import agevi
        >>> adata = agevi.datasets.simulate_cohort()
        >>> agevi.model.PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor")
        """
        method_args = cls._get_setup_method_args(**locals())
        setup = method_args["setup_args"]
        check_setup(
            adata,
            setup,
            counts=cls.expects == "counts",
            model=cls.__name__,
            require_ages="source_registry" not in kwargs,
        )
        manager = make_manager(setup, method_args)
        manager.register_fields(stand_in_for(adata) if adata.is_view else adata, **kwargs)
        cls.register_manager(manager)

    @classmethod
    def chooses_epochs(cls, init: dict[str, Any] | None = None) -> bool:
        """Whether a clock made with the arguments ``init`` chooses its epoch on validation subjects."""
        return cls.selects_epochs

    # --- prediction ------------------------------------------------------------------------------------------

    def predict_age(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        level: str = "cell",
        batch_size: int | None = None,
        precision: str = "float32",
    ) -> np.ndarray:
        """Predicted age of every cell, in the unit of the age column.

        The true age is never read. To write predictions with their roles into AnnData use
        :func:`agevi.tl.predict_age`.

        Parameters
        ----------
        adata
            Cells with the clock's genes in any order; default: the data that the model was made with.
        indices
            Positions of the cells to predict; default all.
        level
            ``"cell"``, or ``"sample"``: from the summed counts of each sample's cells, the same value for all of them,
            which needs a clock that was trained on sums. Values that are not normalised inside (``normalize="none"``)
            are averaged instead.
        batch_size
            Cells per step.
        precision
            ``"bfloat16"`` rounds the factors of a network's products with all genes, which is faster on hardware that
            multiplies in it; predictions then differ by some hundredths of a year.

        Returns
        -------
        float32 of shape (n_cells,).

        Raises
        ------
        KeyError
            If ``level="sample"`` and the column of the samples is missing.
        RuntimeError
            If the clock is not trained, or was loaded without data and ``adata`` is missing.
        ValueError
            If genes are missing or the values are not what the clock was trained on.
        """
        _checks.choice(level, ("cell", "sample"), "level")
        if level == "sample" and not self.predicts_sums:
            raise ValueError(
                f"level='sample' needs a clock that was trained on sums of cells; this {type(self).__name__} was trained "
                "on single cells. Predict cells and average them with agevi.tl.aggregate_subjects."
            )
        with factors_in(factors_for(_checks.choice(precision, PRECISIONS, "precision"), self.device)):
            if level == "sample":
                return self._predict_samples(adata, indices=indices, batch_size=batch_size)
            return self._predict(adata, indices=indices, batch_size=batch_size).age

    def _predict(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
    ) -> Prediction:
        """Ages and latent representation in one pass over the cells."""
        self._check_trained("tl.predict_age")
        data = self._data(adata)
        parts = [
            self._predict_block(block, None if data.isbacked else indices, batch_size, min_gene_coverage)
            for block in _blocks(data, indices)
        ]
        latents = [part.latent for part in parts if part.latent is not None]
        return Prediction(
            np.concatenate([part.age for part in parts]),
            np.concatenate(latents) if latents else None,
            parts[0].gene_coverage,
        )

    def _predict_block(
        self, adata: AnnData, indices: Sequence[int] | None, batch_size: int | None, min_gene_coverage: float
    ) -> Prediction:
        """The same for cells in memory."""
        shell, match = self._shell(adata, min_gene_coverage=min_gene_coverage, conditioned=False)
        age, latent = self._predict_shell(shell, match, indices=indices, batch_size=batch_size)
        return Prediction(age, latent, match.coverage)

    def _predict_shell(
        self,
        shell: AnnData,
        match: GeneMatch,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        summed: bool = False,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Ages and latent means of the rows of a shell."""
        self._remember(shell)
        present = None if match.present.all() else torch.from_numpy(match.present).to(self.device)
        try:
            manager, cells = self.get_anndata_manager(shell), None if indices is None else np.asarray(indices)
            loader = cell_loader(manager, cells, batch_size=batch_size or _PREDICT_BATCH)
            return self._predict_batches(loader, present, summed=summed)
        finally:
            self._forget(shell)

    def _predict_samples(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
    ) -> np.ndarray:
        """Ages from the sum of each sample's cells, one value per cell, (n_cells,)."""
        self._check_trained("tl.predict_age")
        data, setup = self._data(adata), self.setup_args
        rows = np.arange(data.n_obs) if indices is None else np.asarray(indices)
        sample = _checks.labels(data, setup["sample_key"] or setup["subject_key"], "sample_key").to_numpy()[rows]
        of_sample = pd.factorize(sample, sort=True)[0]
        codes = of_sample
        if self.pseudocell_groupby is not None:
            group = _checks.labels(data, self.pseudocell_groupby, "pseudocell_groupby").iloc[rows]
            codes = sample_groups(of_sample, group)
        n_units, sums, start = codes.max() + 1, None, 0
        for block in _blocks(data, rows):
            shell, match = self._shell(block, min_gene_coverage=min_gene_coverage, conditioned=False)
            x = _checks.matrix(shell, setup["layer"])
            used = codes[start : start + block.n_obs] if data.isbacked else np.full(block.n_obs, -1)
            if not data.isbacked:
                used[rows] = codes
            part = sum_rows(x, used, n_units)
            sums, start = part if sums is None else sums + part, start + block.n_obs
        if setup["normalize"] == "none":
            sums = sp.diags(1 / np.bincount(codes)) @ sums
        first = np.unique(codes, return_index=True)[1]
        obs = self._conditions(data[rows[first]], getattr(self.module, "encode_covariates", False))
        units = AnnData(obs=obs, var=shell.var.copy(), shape=(n_units, len(self.genes)))
        if setup["layer"] is None:
            units.X = sums
        else:
            units.layers[setup["layer"]] = sums
        age, _ = self._predict_shell(units, match, batch_size=batch_size, summed=True)
        if self.pseudocell_groupby is None:
            return age[codes]
        return sample_means(age[codes], of_sample)  # over cells, so that a group weighs by its cells

    @abstractmethod
    def _predict_batches(
        self, loader: Any, present: torch.Tensor | None, *, summed: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Ages and latent means of the rows in ``loader``.

        ``present`` masks the genes that the data have; ``summed`` says that rows are sums of a sample's cells.
        """

    def _check_trained(self, verb: str) -> None:
        if not self.is_trained_:
            name = type(self).__name__
            raise RuntimeError(f"{verb} needs a trained model; call model.train() or {name}.load(...) first.")

    def roles(self, adata: AnnData) -> np.ndarray:
        """How the fitted weights used the subject of each cell, (n_cells,) of text.

        ``"train"``, ``"validation"`` or ``"test"`` for subjects that the last ``train()`` knew, ``"new"`` for
        others.
        """
        subject = _checks.labels(adata, self.setup_args["subject_key"], "subject_key")
        known = subject.map(self.split_).astype(object)  # of no dtype of text where nobody is known
        return known.where(known.notna(), _keys.NEW).to_numpy(dtype=object)

    # --- saving and loading ----------------------------------------------------------------------------------

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Save the clock as a directory of safetensors, JSON and a card; nothing in it can run code.

        Parameters
        ----------
        path
            Directory to write; it appears whole or not at all.
        overwrite
            Replace a clock that is there.

        Raises
        ------
        RuntimeError
            If the clock is not trained.
        FileExistsError
            If ``path`` exists and ``overwrite`` is False.
        """
        self._check_trained("model.save")
        _bundle.save(self, path, overwrite=overwrite)

    @classmethod
    def load(
        cls,
        path: str | Path,
        adata: AnnData | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        *,
        trusted: bool = False,
    ) -> Any:
        """Load a clock that :meth:`save` wrote.

        Parameters
        ----------
        path
            The directory.
        adata
            Data to attach, for example to train on; prediction needs none.
        accelerator, device
            As in scvi-tools.
        trusted
            Also open a ``model.pt`` that scvi-tools' own ``save`` wrote. Such a file is a pickle and can run any
            code, so do this only with files that you made yourself; ``adata`` is needed then. Save the clock again
            to get a bundle.

        Returns
        -------
        The trained clock.

        Raises
        ------
        FileNotFoundError
            If there is nothing at ``path``.
        ValueError
            If the bundle is damaged, was edited, or holds another class, or is a pickle and not ``trusted``.
        """
        if trusted and _bundle.is_pickled(path):
            return super().load(str(path), adata=_checks.anndata(adata), accelerator=accelerator, device=device)
        return _bundle.load(cls, path, adata, accelerator=accelerator, device=device)


def _blocks(adata: AnnData, indices: Sequence[int] | np.ndarray | None) -> Iterator[AnnData]:
    """``adata`` itself, or the chosen cells of backed data, some at a time."""
    if not adata.isbacked:
        yield adata
        return
    rows = np.arange(adata.n_obs) if indices is None else np.asarray(indices)
    for part in np.array_split(rows, max(1, -(-len(rows) // _BACKED_BLOCK))):
        yield adata[part].to_memory()


def is_clock(model: Any) -> bool:
    """Whether ``model`` is a clock of agevi."""
    return isinstance(model, ClockMixin) and isinstance(model, BaseModelClass)
