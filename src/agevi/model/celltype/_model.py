"""One clock per type of cells, and one age per sample from all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks
from agevi.model.base._clock import Clock
from agevi.model.base._seed import as_seed
from agevi.model.celltype._ages import cells_of_clocks
from agevi.model.celltype._anchor import check_anchor
from agevi.model.celltype._combine import RULES, Errors
from agevi.model.celltype._members import MEMBER, member_class, member_kwargs, members_of
from agevi.model.celltype._predict import TypePrediction
from agevi.model.celltype._saving import TypeSaving
from agevi.model.celltype._training import TypeTraining


class CellTypeClock(TypeTraining, TypePrediction, TypeSaving, Clock):
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
        have equal weight.
    composition
        Let the shares of the types be one more member, called ``"composition"``: ridge regression on their centred
        log-ratios (Aitchison 1982).
    anchor
        A type whose cells are an internal reference in cohorts of other laboratories: a :class:`PLSClock` of every
        other type against it is trained too, on the contrasts of :func:`agevi.pp.contrast_types`, in which the factors
        of a laboratory cancel. Their mean age of a sample (:meth:`predict_anchor`) does not enter its predicted age; it
        tells the level of its cohort, to which :func:`agevi.tl.recalibrate` moves the ages. Contrasts that do not tell
        the ages of held-out training subjects (r under .4) are left out, with a warning.
    n_folds
        Folds of whole subjects in which training subjects are held out for ``combine="precision"`` and ``anchor``.
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
        anchor: str | None = None,
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
        check_anchor(anchor, self.normalize)
        self._take([], [], {}, [], Errors.equal(np.zeros(0)), None, {})
        key = self.setup_args["cell_type_key"]
        members = f"one {clock} of all cells" if key is None else f"one {clock} per type in {key!r}"
        self._model_summary_string = f"{type(self).__name__}: {self._width}, {members}"

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        age_key: str,
        subject_key: str,
        cell_type_key: str | None = None,
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
            Column with the type of each cell; cells without a type are not read. None: all cells are of one type.
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
    def trains_on_sums(cls, init: dict[str, Any] | None = None) -> bool:
        """Whether the members can be trained on sums of the cells of a type in a sample."""
        member, own = members_of(init)
        return bool(member.trains_on_sums(own))

    @classmethod
    def _init_as_stored(cls, init: dict[str, Any]) -> dict[str, Any]:
        """The members by the name of their class, with their given arguments."""
        member = member_class(init["clock"])
        return init | {"clock": member.__name__, "clock_kwargs": dict(init["clock_kwargs"] or {})}

    @classmethod
    def test_params(cls) -> dict[str, dict[str, Any]]:
        """Arguments that make a small clock for tests, and the column of types that it needs."""
        return {"init": {"min_cells": 2, "n_folds": 2}, "train": {}, "setup": {"cell_type_key": "cell_type"}}

    @property
    def own_clocks(self) -> tuple[Any, ...]:
        """The clocks of all types."""
        return tuple(self.type_clocks.values())

    @property
    def own_names(self) -> list[str]:
        """The types that have a clock."""
        return list(self.type_clocks)

    def to_device(self, device: str | int | torch.device) -> None:
        """Move the clock, and all clocks that it holds, to a device, as in scvi-tools."""
        for clock in self.contrast_clocks.values():
            clock.to_device(device)
        super().to_device(device)

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
