"""The contract that every clock fulfils: registration, prediction with roles, saving and loading."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks, _keys
from agevi._compat import REGISTRY_KEYS, Absent, BaseModelClass, Host
from agevi.dataloaders._query import match_genes, query_shell
from agevi.dataloaders._register import check_covariate, check_setup, covariate_columns, make_manager, where
from agevi.model import _bundle

logger = logging.getLogger(__name__)

_PREDICT_BATCH = 2048


class Prediction(NamedTuple):
    """What a pass over cells gives."""

    age: np.ndarray  # (n_cells,) float32, unit of the age column
    latent: np.ndarray | None  # (n_cells, n_latent) float32
    gene_coverage: float


class ClockMixin(Host):
    """Verbs shared by all clocks, to be mixed in before scvi-tools' base class."""

    expects: ClassVar[str] = "any"
    """``"counts"``, ``"continuous"`` or ``"any"``."""
    trainable: ClassVar[bool] = True
    """Whether the class can be built from an AnnData and trained on ages."""
    predicts_sums: ClassVar[bool] = False
    """Whether the clock predicts from the summed counts of a sample."""
    default_age_transform: ClassVar[str] = "none"

    split_: dict[str, str]
    best_epoch_: int | None
    registry_: Any

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
        (``_scvi_...``) are added. The user's columns and matrix are never changed.

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
            Scale on which ages are trained: ``"none"``, ``"log"`` (log(age - min_age + 1)) or ``"auto"``, the
            default of the model.
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
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    # --- what was registered ---------------------------------------------------------------------------------

    @property
    def setup_args(self) -> dict[str, Any]:
        """Arguments of ``setup_anndata``."""
        args: dict[str, Any] = self.registry_["setup_args"]
        return args

    @property
    def genes(self) -> np.ndarray:
        """The clock's genes in order, (n_genes,)."""
        names = self.registry_["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"]
        return np.asarray(names)

    @property
    def age_transform(self) -> str:
        """Scale on which ages are trained, with ``"auto"`` resolved."""
        chosen = self.setup_args["age_transform"]
        return self.default_age_transform if chosen == "auto" else str(chosen)

    # --- prediction ------------------------------------------------------------------------------------------

    def predict_age(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        level: str = "cell",
        batch_size: int | None = None,
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
            ``"cell"``. ``"sample"`` (from the summed counts of a sample) needs a clock trained on sums.
        batch_size
            Cells per step.

        Returns
        -------
        float32 of shape (n_cells,).

        Raises
        ------
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
        self._check_trained("predict_age")
        shell, match = self._shell(self._data(adata), min_gene_coverage=min_gene_coverage, conditioned=False)
        self._register_manager_for_instance(self.adata_manager.transfer_fields(shell))
        present = None if match.present.all() else torch.from_numpy(match.present).to(self.device)
        try:
            loader = self._make_data_loader(shell, indices=indices, batch_size=batch_size or _PREDICT_BATCH)
            age, latent = self._predict_batches(loader, present)
        finally:
            self._forget(shell)
        return Prediction(age, latent, match.coverage)

    def _predict_batches(self, loader: Any, present: torch.Tensor | None) -> tuple[np.ndarray, np.ndarray | None]:
        raise NotImplementedError  # pragma: no cover - abstract

    def _check_trained(self, verb: str) -> None:
        if not self.is_trained_:
            name = type(self).__name__
            raise RuntimeError(f"tl.{verb} needs a trained model; call model.train() or {name}.load(...) first.")

    def _data(self, adata: AnnData | None) -> AnnData:
        """``adata``, or the data of the model."""
        if adata is not None:
            return _checks.anndata(adata)
        if self.adata is None:
            raise RuntimeError("this clock was loaded without data; pass adata=... to say which cells it should see.")
        data: AnnData = self.adata
        return data

    def roles(self, adata: AnnData) -> np.ndarray:
        """How the fitted weights used the subject of each cell, (n_cells,) of text.

        ``"train"``, ``"validation"`` or ``"test"`` for subjects that the last ``train()`` knew, ``"new"`` for
        others.
        """
        subject = _checks.labels(adata, self.setup_args["subject_key"], "subject_key")
        return subject.map(self.split_).fillna(_keys.NEW).to_numpy(dtype=object)

    # --- new data for scvi-tools' verbs ----------------------------------------------------------------------

    def _shell(self, adata: AnnData, *, min_gene_coverage: float, conditioned: bool) -> tuple[AnnData, Any]:
        """A registered-to-be AnnData with the clock's genes; ``adata`` is only read.

        With ``conditioned`` every batch and covariate column must be there and known, because the decoder reads
        them; without, they may be absent unless the encoder reads them.
        """
        setup = self.setup_args
        _checks.unique_names(adata)
        match = match_genes(self.genes, adata.var_names, min_coverage=min_gene_coverage)
        obs = self._conditions(adata, conditioned or getattr(self.module, "encode_covariates", False))
        shell = query_shell(adata, match, self.genes, layer=setup["layer"], obs=obs)
        x = _checks.matrix(shell, setup["layer"])
        if self.expects == "counts":
            _checks.counts(x, where(setup["layer"]), type(self).__name__)
        else:
            _checks.finite(x, where(setup["layer"]))
        return shell, match

    def _conditions(self, adata: AnnData, required: bool) -> pd.DataFrame:
        """Batch and covariate columns of ``adata``, or a stand-in where they are not read."""
        obs = pd.DataFrame(index=adata.obs_names)
        categories = _bundle.categories(self.registry_)
        for argument, keys in covariate_columns(self.setup_args):
            for key in keys:
                known = categories.get(key)
                if required:
                    check_covariate(adata, key, argument)
                    obs[key] = adata.obs[key].to_numpy()
                    new = set(obs[key]) - set(known or obs[key])
                    if new and known:
                        raise ValueError(
                            f"adata.obs[{key!r}] holds {_checks.listed(sorted(map(str, new)))}, which the clock never saw; "
                            f"it knows {_checks.listed(known)}. Map the column to known values, or train with these cells."
                        )
                else:
                    obs[key] = 0.0 if known is None else known[0]
        return obs

    def _validate_anndata(self, adata: AnnData | None = None, copy_if_view: bool = True) -> AnnData:
        """Hook of every scvi-tools verb: foreign data pass through a shell, so that they are never written to."""
        data = self._data(adata)
        if data is self.adata or self.get_anndata_manager(data) is not None:
            return super()._validate_anndata(data, copy_if_view)
        self.deregister_manager()
        shell, _ = self._shell(data, min_gene_coverage=1.0, conditioned=True)
        self._register_manager_for_instance(self.adata_manager.transfer_fields(shell))
        return shell

    @classmethod
    def _from_template(cls, template: AnnData, setup: dict[str, Any], init: dict[str, Any]) -> Any:
        """An untrained model on a stand-in for its training data."""
        args = cls._get_setup_method_args(cls=cls, adata=template, **setup)
        manager = make_manager(setup, args)
        manager.register_fields(template)
        cls.register_manager(manager)
        model = cls(template, **init)
        del cls._setup_adata_manager_store[manager.adata_uuid]
        model._adata = None
        return model

    def _attach(self, adata: AnnData) -> None:
        """Register ``adata`` with the categories of this clock and make it the model's data."""
        _checks.anndata(adata)
        if not match_genes(self.genes, adata.var_names, min_coverage=1.0).identical:
            raise ValueError(
                "adata has other genes, or another order, than the clock; pass adata[:, clock.genes].copy()."
            )
        self._conditions(adata, True)
        type(self).setup_anndata(adata, source_registry=self.registry_, **self.setup_args)
        self._adata = adata
        self._adata_manager = self._get_most_recent_anndata_manager(adata, required=True)
        self._register_manager_for_instance(self._adata_manager)
        self.registry_ = self._adata_manager.registry
        self.summary_stats = self._adata_manager.summary_stats

    def _forget(self, shell: AnnData) -> None:
        """Drop the manager of a shell, which would keep its data alive."""
        store = self._per_instance_manager_store.get(self.id, {})
        store.pop(shell.uns.get("_scvi_uuid"), None)

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
        self._check_trained("save")
        _bundle.save(self, path, overwrite=overwrite)

    @classmethod
    def load(
        cls,
        path: str | Path,
        adata: AnnData | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
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

        Returns
        -------
        The trained clock.

        Raises
        ------
        FileNotFoundError
            If there is nothing at ``path``.
        ValueError
            If the bundle is damaged, was edited, or holds another class.
        """
        return _bundle.load(cls, path, adata, accelerator=accelerator, device=device)


def is_clock(model: Any) -> bool:
    """Whether ``model`` is a clock of agevi."""
    return isinstance(model, ClockMixin) and isinstance(model, BaseModelClass)
