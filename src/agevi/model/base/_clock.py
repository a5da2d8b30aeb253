"""The contract that every clock fulfils: registration, prediction with roles, saving and loading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from anndata import AnnData

from agevi import _checks, _keys, _source
from agevi._compat import Absent
from agevi._compat.scvi import BaseModelClass
from agevi.dataloaders._from_disk import to_register
from agevi.dataloaders._own_copies import own_copy, remember
from agevi.dataloaders._query import begin
from agevi.dataloaders._register import check_setup, column_names, make_manager, registered_columns
from agevi.model.base import _save
from agevi.model.base._cohorts import CohortsMixin
from agevi.model.base._kept_sums import summed_once
from agevi.model.base._left_out import LeftOutMixin
from agevi.model.base._numbers import NumbersMixin
from agevi.model.base._roles import RoleMixin
from agevi.nn.attribution import Reader, Reading, Tensors
from agevi.nn.products import PRECISIONS, factors_for, factors_in

Moments = Callable[[], tuple[torch.Tensor, torch.Tensor]]
"""Mean and standard deviation of every column of a latent representation, (n_latent,) each, taken when asked for."""


class Clock(RoleMixin, LeftOutMixin, NumbersMixin, CohortsMixin, BaseModelClass):
    """The contract of ``tl``, ``pp``, ``get``, ``pl`` and ``io``: tags say what a class can do, methods do it."""

    expects: str = "any"
    """``"counts"``, ``"continuous"`` or ``"any"``."""
    trainable: ClassVar[bool] = True
    """Whether the class can be built from an AnnData and trained on ages."""
    predicts: ClassVar[str] = "age"
    """What the network gives, which is ages, or the log-odds of a classifier."""
    selects_epochs: ClassVar[bool] = True
    """Whether training chooses an epoch on validation subjects, so that the final clock is a refit on all of them."""
    predicts_sums: bool = False
    """Whether the clock also predicts from the summed counts of a sample, because it was trained on sums."""
    has_latent: ClassVar[bool] = True
    """Whether a pass over cells gives a latent representation beside ages."""
    of_types: ClassVar[bool] = False
    """Whether it has a clock per type of cells, whose ages ``predict_parts`` gives beside those of samples."""
    compared_within: str | None = None  # column whose values have different features
    contrast_clocks: Mapping[str, Any] = {}
    """Clocks of an anchor, which tells the level of a cohort and does not enter ages; few classes have them."""
    linear: ClassVar[bool] = False
    """Whether the age is a function of one weighted sum of genes."""
    solves_rows: ClassVar[bool] = False
    """Whether a row is read by solving least squares, which makes gradients slow."""
    program_kind: ClassVar[str | None] = None
    """What a column of the latent representation is, for clocks whose :meth:`programs` lead from it back to genes."""
    search_space: ClassVar[dict[str, Any]] = {}
    """What :func:`agevi.tl.tune` varies by default: choices or bounds by argument, as in its ``space``."""

    @property
    def unit(self) -> str:
        """Unit of the predictions, which is that of the ages, or log-odds."""
        return str(self.setup_args["age_unit"])

    @property
    def init_args(self) -> dict[str, Any]:
        """Arguments of its constructor, with defaults."""
        params = self.init_params_
        return {**params["non_kwargs"], **params["kwargs"].get("kwargs", {})}

    @property
    def predicts_rows(self) -> bool:
        """Whether the prediction of a single row can be read by itself, which that of a clock of sums cannot."""
        return not self.predicts_sums

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
        obsm_key: str | None = None,
        batch_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        normalize: str | None = None,
        age_unit: str = "years",
        age_transform: str = "auto",
        min_age: float = -1.0,
        features: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Register an AnnData for this clock.

        Checks everything, and writes nothing: columns are copied and the matrix is shared, so that a clock keeps its
        registration whatever is set up later with the same AnnData, by any class and with any keys. A clock is made
        with the last registration of its class. A view stays a view: a copy of its values is registered.

        Parameters
        ----------
        adata
            Cells x genes; for clocks of sums, which read the file here, and networks that train on single cells also on
            disk: opened with ``backed="r"``, or with ``anndata.io.sparse_dataset`` in X or the layer.
        age_key
            Column of ``adata.obs`` with the age of each cell's sample; NaN means unlabelled: such cells still
            shape the latent space.
        subject_key
            Column with the person or animal, the unit that is held out.
        sample_key
            Column with the visit or biopsy, the unit with one age. Default: the subject.
        layer
            Layer that holds the values; default X.
        obsm_key
            Table of ``adata.obsm`` to read in place of X, such as ``"X_scVI"``: an array or a DataFrame. Its dimensions
            take the place of genes, called by their column, or ``"X_scVI_0"``, ``"X_scVI_1"``, ...; samples are means
            over their cells. New data need a table of the same name, width and columns, which may be in any order.
        batch_key
            Column with the batch that the decoder conditions on.
        categorical_covariate_keys, continuous_covariate_keys
            Further columns that the decoder conditions on.
        normalize
            What the encoder sees: ``"log1p_cp10k"``, log(1 + counts per 10,000), the default of genes; ``"none"``, the
            values as they are, the default of ``obsm_key``; or ``"clr"``, with ``obsm_key`` alone, for counts of
            proteins: the centred log-ratio log(1 + x / g) within each cell, with the geometric mean
            g = exp(mean(log(1 + x))) over the clock's proteins (``margin = 2`` of Seurat, ``axis = 1`` of muon).
        age_unit
            Unit of the ages, for axis labels and the card of a saved clock.
        age_transform
            Scale on which ages are trained: ``"none"``, ``"log"`` (log(age - min_age + 1)), ``"horvath"``
            (log((age + 1) / 21) up to 20 years and (age - 20) / 21 above, Horvath 2013; ages above -1 year in years,
            months, weeks or days) or ``"auto"``, the default of the model, which is ``"none"`` with ``obsm_key``.
        min_age
            Lowest age that is believed; prenatal ages are negative.
        features
            Genes that train the clock, such as drug targets; those that the data lack are left out, and all genes train
            by default. A copy of their values is registered. They alone are the clock's genes: it predicts from data
            with any further ones, its coverage is that of these genes, and ``normalize="log1p_cp10k"`` takes counts per
            10,000 of these genes. With ``obsm_key`` they are columns of a DataFrame.
        **kwargs
            Passed on by scvi-tools when a saved registration is used again.

        Raises
        ------
        KeyError
            If a column, the layer or the table does not exist.
        TypeError
            If ages are not numeric or ``features`` is not a list of names.
        ValueError
            If ages, units or values cannot be trained on, the data have none of the ``features``, or ``obsm_key`` is
            given to a clock of counts or with ``layer``.

        Examples
        --------
        >>> import agevi
        >>> adata = agevi.datasets.simulate_cohort()
        >>> agevi.model.PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor")
        """
        cls._register(adata, cls._get_setup_method_args(**locals()), kwargs)

    @classmethod
    def _register(cls, adata: AnnData, method_args: dict[str, Any], kwargs: dict[str, Any]) -> None:
        """Check an AnnData against the arguments of ``setup_anndata``, and register it."""
        setup, source = method_args["setup_args"], kwargs.get("source_registry")
        features = setup.pop("features", None)  # the genes that are registered tell
        setup |= _source.resolved(setup)
        data = to_register(cls, adata, features, setup, require_ages=source is None)
        if source is not None and setup.get("obsm_key") is not None:
            data = _source.read(data, setup, column_names(source))
        asked = {"require_ages": source is None, "from_disk": bool(cls.unit_from_disk)}
        check_setup(data, setup, counts=cls.expects == "counts", model=cls.__name__, **asked)
        data, manager = _source.read(data, setup), make_manager(setup, method_args)
        manager.register_fields(own_copy(data, registered_columns(setup), setup), **kwargs)
        remember(cls, adata, manager)

    @classmethod
    def chooses_epochs(cls, init: dict[str, Any] | None = None) -> bool:
        """Whether a clock made with the arguments ``init`` chooses its epoch on validation subjects."""
        return cls.selects_epochs

    @classmethod
    def is_linear(cls, init: dict[str, Any] | None = None) -> bool:
        """Whether a clock made with the arguments ``init`` is ``linear``, or made of such clocks alone."""
        return cls.linear

    @classmethod
    def _init_as_stored(cls, init: dict[str, Any]) -> dict[str, Any]:
        """Arguments of the constructor as a clock that was made with them stores them."""
        return init

    @classmethod
    def test_params(cls) -> dict[str, dict[str, Any]]:
        """Arguments that make a small clock for tests: of the constructor (``init``) and of ``train``."""
        return {"init": {}, "train": {"max_epochs": 2}}

    # --- what is in it ---------------------------------------------------------------------------------------

    @property
    def own_clocks(self) -> tuple[Any, ...]:
        """The clocks that it holds, none for most; their networks are parts of its own."""
        return ()

    def all_clocks(self) -> list[Any]:
        """The clock itself, those that it holds, and those that these hold."""
        return [self, *(inner for clock in self.own_clocks for inner in clock.all_clocks())]

    def members(self) -> list[Any]:
        """The clocks whose networks are read: this one, or those that it holds, which are taken apart too."""
        return [clock for clock in self.all_clocks() if not clock.own_clocks]

    def to_device(self, device: str | int | torch.device) -> None:
        """Move the clock, and all clocks that it holds, to a device.

        Parameters
        ----------
        device
            As in scvi-tools: ``"cpu"``, ``"cuda:0"``, or the number of a GPU.
        """
        for clock in self.own_clocks:
            clock.to_device(device)
        super().to_device(device)

    def reader(self, readings: Sequence[Reading]) -> Reader:
        """The clock as a function of the values of its :meth:`members`, from the reading of each of them."""
        return Reader(tuple(reading.weight for reading in readings), self._joined(iter(readings)))

    def _joined(self, readings: Iterator[Reading]) -> Callable[[Tensors], torch.Tensor]:
        """Age from the units of the members' first layers; takes as many of the readings as there are members."""
        tail = next(readings).tail
        return lambda units: tail(units[0])

    def programs(self, moments: Moments) -> np.ndarray:
        """What each column of the latent representation moves, (n_latent, n_genes), from its mean and sd over rows."""
        raise ValueError(f"a {type(self).__name__} has nothing that leads from its latent representation to genes.")

    def share_sums(self) -> None:
        """Let further trainings on the registered data, which must not change, share what they all sum, if they do."""

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
        :func:`agevi.tl.predict_age`. A clock that was trained on sums of cells (``predicts_sums``) gives ages of
        samples: take ``level="sample"``. What it gives for a single cell follows the type of the cell far more than its
        age, so such values must not be compared between types.

        Parameters
        ----------
        adata
            Cells with the clock's genes in any order; default: the data that the model was made with.
        indices
            Positions of the cells to predict, as numpy takes them (negative ones count from the end), or a mask of all
            cells; default all.
        level
            ``"cell"``, or ``"sample"``: from the summed counts of those of each sample's cells that are in ``indices``,
            the same value for all of them, which needs a clock that was trained on sums. Values that are not normalised
            inside (``normalize="none"``) are averaged instead.
        batch_size
            Cells per step. Default: 512 to 4,096, fewer for more genes.
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
        IndexError
            If ``indices`` are not positions of cells.
        RuntimeError
            If the clock is not trained, or was loaded without data and ``adata`` is missing.
        ValueError
            If genes are missing or the values are not what the clock was trained on.
        """
        _checks.choice(level, ("cell", "sample"), "level")
        if level == "sample" and not self.predicts_sums:
            raise ValueError(
                f"level='sample' needs a clock that was trained on sums of cells; this {type(self).__name__} was "
                "trained on single cells. Predict cells and average them with agevi.tl.aggregate_subjects."
            )
        adata = self._data(adata)
        begin(adata)
        rows, place = (None, slice(None)) if indices is None else _checks.rows(indices, adata.n_obs)
        factors = factors_for(_checks.choice(precision, PRECISIONS, "precision"), self.device)
        with factors_in(factors), summed_once():
            if level == "sample":
                return self.predict_samples(adata, indices=rows, batch_size=batch_size)[place]
            return self.predict_rows(adata, indices=rows, batch_size=batch_size).value[place]

    def roles(self, adata: AnnData) -> np.ndarray:
        """How the fitted weights used the subject of each cell, (n_cells,) of text.

        ``"train"``, ``"validation"`` or ``"test"`` for subjects that the last ``train()`` knew, ``"new"`` for
        others.
        """
        subject = _checks.labels(adata, self.setup_args["subject_key"], "subject_key")
        _checks.warn_of_spelling(subject, self.split_, self.setup_args["subject_key"], "are new to the clock")
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
        self.check_trained("model.save")
        _save.save(self, path, overwrite=overwrite)

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
        if trusted and _save.is_pickled(path):
            return super().load(str(path), adata=_checks.anndata(adata), accelerator=accelerator, device=device)
        return _save.load(cls, path, adata, accelerator=accelerator, device=device)


def is_clock(model: Any) -> bool:
    """Whether ``model`` is a clock of agevi."""
    return isinstance(model, Clock)


def require_clock(model: Any) -> None:
    """Refuse what is not a clock: a class, the data in its place, or anything else."""
    if isinstance(model, type) and issubclass(model, Clock):
        name = model.__name__
        raise TypeError(f"model is the class {name}; pass a trained clock: model = {name}(adata); model.train().")
    if isinstance(model, AnnData):
        raise TypeError("model is an AnnData; pass the data first and then a trained clock.")
    if not is_clock(model):
        raise TypeError(f"model is a {type(model).__name__}; pass a trained clock of agevi.model.")
