"""One clock per type of cells, and one age per sample from all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks
from agevi.dataloaders._query import begin
from agevi.dataloaders._register import cell_types
from agevi.io import _bundle
from agevi.io._card import cell_type_card
from agevi.model.base import _save
from agevi.model.base._clock import Clock
from agevi.model.base._predict import Prediction
from agevi.model.base._seed import as_seed
from agevi.model.celltype._ages import TypeAges, ages_of_types, cells_of_clocks
from agevi.model.celltype._combine import RULES, Errors
from agevi.model.celltype._composition import NAME, Composition
from agevi.model.celltype._members import MEMBER, member_class, member_kwargs, members_of
from agevi.model.celltype._training import TypeTraining


class CellTypeClock(TypeTraining, Clock):
    r"""Ageing clock: one clock per type of cells, and one age per sample from all of them.

    Each type has a clock of its own, trained on the sums of its cells in each sample (on the cells, for members that
    learn from cells). Where types age differently, as when a gene rises in one and falls in another, a clock of all
    cells sees neither. The ages that the types of a sample give are combined by what their errors share: training
    subjects are held out in turn, and the weights, which sum to 1, are :math:`\Sigma^{-1} 1 / 1' \Sigma^{-1} 1` with
    the covariance :math:`\Sigma` of these errors between the types that a sample has: their correlation, shrunk (Ledoit
    & Wolf 2004), and for each type a variance that falls with the number of its cells. A type without signal thus has
    little say, and types that err alike do not count twice (Bates & Granger 1969). Types that too few subjects have are
    named in a warning and get no clock; cells of types without a clock are not read.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`.
    clock
        Class of the members, or its name: any of :data:`agevi.model.MODELS` that is trained on ages.
    clock_kwargs
        Arguments of its constructor.
    min_cells
        Cells of a type that a sample needs for that type to train and to be read.
    combine
        ``"precision"``, as above, which trains each member ``n_folds`` times more; ``"mean"``: all types of a sample
        weigh the same.
    composition
        Let the shares of the types be one more member, called ``"composition"``: ridge regression on their centred
        log-ratios (Aitchison 1982).
    n_folds
        Folds of whole subjects in which training subjects are held out for ``combine="precision"``.
    rng
        Seed of these folds and of the members.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(
    ...     n_subjects=30, n_cells=20, n_genes=50, n_cell_types=2, ageing_rates=[1, -1]
    ... )
    >>> agevi.model.CellTypeClock.setup_anndata(adata, age_key="age", subject_key="donor", cell_type_key="cell_type")
    >>> model = agevi.model.CellTypeClock(adata, min_cells=3)
    >>> model.train()
    >>> model.predict_types().shape
    (30, 2)
    >>> agevi.tl.predict_age(adata, model)
    """

    predicts_sums = True
    of_types: ClassVar[bool] = True
    has_latent: ClassVar[bool] = False
    selects_epochs: ClassVar[bool] = False
    default_age_transform: ClassVar[str] = "log"
    # Without min_cells: numbers that suit one cohort leave another without a type that can be trained.
    search_space: ClassVar[dict[str, Any]] = {"combine": list(RULES), "composition": [False, True]}
    type_clocks: dict[str, Any]
    """The trained clock of every type, without data."""

    def __init__(
        self,
        adata: AnnData,
        clock: Any = MEMBER,
        *,
        clock_kwargs: Mapping[str, Any] | None = None,
        min_cells: int = 20,
        combine: str = "precision",
        composition: bool = False,
        n_folds: int = 5,
        rng: int | np.random.Generator | None = 0,
    ) -> None:
        clock_cls = member_class(clock)
        clock_kwargs = member_kwargs(clock_cls, clock_kwargs)
        min_cells, n_folds = _checks.count(min_cells, "min_cells"), _checks.count(n_folds, "n_folds", low=2)
        _checks.choice(combine, RULES, "combine")
        if not isinstance(composition, bool):
            raise TypeError(f"composition={composition!r} is a {type(composition).__name__}; pass True or False.")
        rng = as_seed(rng)
        super().__init__(_checks.anndata(adata))
        clock = clock_cls.__name__
        self.init_params_ = self._get_init_params(locals())
        self._clock_cls, self.expects = clock_cls, clock_cls.expects
        self._start()
        self._take([], [], {}, [], Errors.equal(np.zeros(0)), None)
        self._model_summary_string = (
            f"{type(self).__name__}: {self._width}, one {clock} per type in {self.setup_args['cell_type_key']!r}"
        )

    @classmethod
    def setup_anndata(  # type: ignore[override]  # types have no default
        cls,
        adata: AnnData,
        *,
        age_key: str,
        subject_key: str,
        cell_type_key: str,
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
        """Register an AnnData for this clock and its members.

        As for every clock, with the column of the types besides; nothing is written.

        Parameters
        ----------
        adata
            Cells x genes.
        age_key
            Column of ``adata.obs`` with the age of each cell's sample; NaN means unlabelled.
        subject_key
            Column with the person or animal, the unit that is held out.
        cell_type_key
            Column with the type of each cell; cells without a type are not read.
        sample_key
            Column with the visit or biopsy, the unit with one age. Default: the subject.
        layer
            Layer that holds the values; default X.
        obsm_key
            Table of ``adata.obsm`` to read in place of X, as for other clocks.
        batch_key
            Column with the batch, for members with a decoder that conditions on it.
        categorical_covariate_keys, continuous_covariate_keys
            Further columns that such members condition on.
        normalize
            What the members see: ``"log1p_cp10k"``, ``"none"`` or ``"clr"``, as for other clocks.
        age_unit
            Unit of the ages.
        age_transform
            Scale on which the members are trained; ``"auto"`` is the default of their class.
        min_age
            Lowest age that is believed.
        features
            Genes that train the members; all by default.
        **kwargs
            Passed on by scvi-tools when a saved registration is used again.

        Raises
        ------
        KeyError
            If a column, the layer or the table does not exist.
        TypeError
            If ages are not numeric or ``features`` is not a list of names.
        ValueError
            If ages, units, types or values cannot be trained on.
        """
        method_args = cls._get_setup_method_args(**locals())
        cls._register(adata, method_args, kwargs)

    @classmethod
    def chooses_epochs(cls, init: dict[str, Any] | None = None) -> bool:
        """Whether the members choose their epochs on validation subjects."""
        member, own = members_of(init)
        return bool(member.chooses_epochs(own))

    @classmethod
    def auto_transform(cls, init: dict[str, Any] | None = None) -> str:
        """The scale on which the members are trained by default."""
        member, own = members_of(init)
        return str(member.auto_transform(own))

    @classmethod
    def is_linear(cls, init: dict[str, Any] | None = None) -> bool:
        """Whether the members are linear clocks."""
        member, own = members_of(init)
        return bool(member.is_linear(own))

    @classmethod
    def _init_as_stored(cls, init: dict[str, Any]) -> dict[str, Any]:
        """The members by the name of their class, with their given arguments."""
        member = member_class(init["clock"])
        return init | {"clock": member.__name__, "clock_kwargs": dict(init["clock_kwargs"] or {})}

    @classmethod
    def test_params(cls) -> dict[str, dict[str, Any]]:
        """Arguments that make a small clock for tests, and the column of types that it needs."""
        return {"init": {"min_cells": 2}, "train": {}, "setup": {"cell_type_key": "cell_type"}}

    @property
    def own_clocks(self) -> tuple[Any, ...]:
        """The clocks of all types."""
        return tuple(self.type_clocks.values())

    @property
    def own_names(self) -> list[str]:
        """The types that have a clock."""
        return list(self.type_clocks)

    def own_cells(self, adata: AnnData, cells: np.ndarray) -> list[np.ndarray]:
        """Those of ``cells``, by position, that each type's clock reads: in samples with ``min_cells`` of the type."""
        return cells_of_clocks(self, adata, cells)

    # --- what is in it ---------------------------------------------------------------------------------------

    @property
    def weights_(self) -> pd.Series:
        """Weight of every type, and of the composition, in a sample with the usual (median) number of cells of each."""
        self.check_trained("model.weights_")
        return pd.Series(
            self.type_weights(self.module.errors.usual[None])[0],
            index=pd.Index(self._columns, name="type"),
            name="weight",
        )

    def type_weights(self, n_cells: np.ndarray, types: Sequence[str] | None = None) -> np.ndarray:
        """Weight of every type in samples by its cells, (n_samples, n_types), 0 where absent; by default of all."""
        place = [self._columns.index(name) for name in types or self._columns]
        of_all = np.zeros((len(n_cells), len(self._columns)))
        of_all[:, place] = n_cells
        weights: np.ndarray = self.module.errors.weights(of_all)[:, place]
        return weights

    # --- prediction ------------------------------------------------------------------------------------------

    def predict_types(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        sample_key: str | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
    ) -> pd.DataFrame:
        """Age that the clock of every type gives to each sample, in the unit of the age column.

        Parameters
        ----------
        adata
            Cells with the clock's genes and types; default: the data that the model was made with.
        indices
            Positions of the cells that are read, or a mask of all cells; default all.
        sample_key
            Column with the samples. Default: that of training.
        batch_size
            Rows per step.
        min_gene_coverage
            Share of the clock's genes that must be present.

        Returns
        -------
        DataFrame of float64, index sample, one column per type with a clock, and ``"composition"`` where the clock has
        it; NaN where a sample has fewer than ``min_cells`` cells of a type. Samples with so few of every type are
        predicted from these few cells all the same, which is logged.

        Raises
        ------
        KeyError
            If the column of types or of samples is missing.
        RuntimeError
            If the clock is not trained.
        ValueError
            If the data hold no type of the clock, or genes are missing.
        """
        self.check_trained("model.predict_types")
        data = self._data(adata)
        begin(data)
        rows = None if indices is None else _checks.rows(indices, data.n_obs)[0]
        return self.predict_parts(
            data, indices=rows, sample_key=sample_key, batch_size=batch_size, min_gene_coverage=min_gene_coverage
        ).table()

    def predict_parts(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
        sample_key: str | None = None,
    ) -> TypeAges:
        """Ages of all types in each sample, and what they are combined to, in one pass over the cells."""
        self.check_trained("tl.predict_age")
        data = self._data(adata)
        rows = np.arange(data.n_obs) if indices is None else np.asarray(indices)
        return ages_of_types(
            self, data, rows, batch_size=batch_size, min_gene_coverage=min_gene_coverage, sample_key=sample_key
        )

    def predict_samples(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
        sample_key: str | None = None,
    ) -> np.ndarray:
        """Combined age of each cell's sample, (n_cells,), NaN where a sample has no type of the clock."""
        parts = self.predict_parts(
            adata, indices=indices, batch_size=batch_size, min_gene_coverage=min_gene_coverage, sample_key=sample_key
        )
        return parts.combined.astype(np.float32)[parts.sample_of_cell]

    def predict_rows(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
    ) -> Prediction:
        """Age of every cell by the clock of its type, NaN for cells of other types."""
        self.check_trained("tl.predict_age")
        data = self._data(adata)
        rows = np.arange(data.n_obs) if indices is None else np.asarray(indices)
        coverage = self.gene_coverage(data, min_gene_coverage)
        code, names = cell_types(data, self.setup_args["cell_type_key"], "cell_type_key")
        out = np.full(len(rows), np.nan, dtype=np.float32)
        for name, clock in self.type_clocks.items():
            own = np.flatnonzero(code[rows] == (names.index(name) if name in names else -2))
            if len(own):
                options = {"batch_size": batch_size, "min_gene_coverage": min_gene_coverage}
                out[own] = clock.predict_rows(data, indices=rows[own], **options).value
        return Prediction(out, None, coverage)

    # --- saving and loading ----------------------------------------------------------------------------------

    def _meta(self) -> dict[str, Any]:
        """The members' plain values, and what joins them."""
        return _save.meta_of(self) | {
            "types": self.types_,
            "usual": self._usual,
            "columns": self._columns,
            "members": [_save.full_meta(clock) | {"gene_names": None} for clock in self.type_clocks.values()],
        }

    def _card(self, meta: dict[str, Any]) -> str:
        return cell_type_card(meta, {str(name): float(weight) for name, weight in self.weights_.items()})

    @classmethod
    def _restore(cls, bundle: _bundle.Bundle) -> Any:
        """A clock from its bundle, its members each from its part of the tensors."""
        meta, tensors = bundle.meta, bundle.tensors
        metas, columns, types = (_texts(meta, key, bundle.path) for key in ("members", "columns", "types"))
        table = tensors["composition"].numpy()
        composition = Composition.of_table(table)
        whole = len(metas) > 0 and columns[len(metas) :] == ([NAME] if composition else [])
        if not whole or not set(columns[: len(metas)]) <= set(types) or not np.isfinite(table).all():
            raise _bundle.BundleError(f"{bundle.path} holds members that do not fit together; save the clock again.")
        model = cls._from_template(cls._template(meta), meta["setup"], meta["init"])
        clocks = {}
        for i, own in enumerate(metas):
            prefix = f"clocks.{i}."
            part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            member = dataclasses.replace(bundle, meta=own, tensors=part)
            clocks[columns[i]] = _save.remade(_save.class_of(own, bundle.path), member)
        model._take(
            types, _texts(meta, "usual", bundle.path), clocks, columns, Errors.equal(np.ones(len(columns))), composition
        )
        _save.load_weights(model, bundle)
        model.history_, model.split_ = {}, _save.split_of(meta)
        model.best_epoch_, model.age_summary_, model.is_trained_ = meta["best_epoch"], meta["age"], True
        return model


def _texts(meta: dict[str, Any], key: str, path: Any) -> list[Any]:
    """A list of a bundle."""
    if not isinstance(meta.get(key), list):
        raise _bundle.BundleError(f"{path} holds no list {key!r}; it was edited. Save the clock again.")
    return list(meta[key])
