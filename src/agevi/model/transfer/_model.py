"""A classifier of cases and controls from the network of a clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from anndata import AnnData

from agevi import _checks, _names, _units
from agevi._compat import Absent
from agevi.dataloaders._query import GeneMatch, begin
from agevi.dataloaders._sums import sample_means
from agevi.io import _bundle
from agevi.io._card import classifier_card
from agevi.model.base import _save
from agevi.model.base._clock import Clock, Moments
from agevi.model.base._predict import Prediction
from agevi.model.base._query import DataMixin
from agevi.model.base._seed import as_seed
from agevi.model.transfer import _condition, _network
from agevi.model.transfer._training import TransferTrainingMixin

CLASS_WEIGHTS = ("balanced", "none")
LEVELS = ("sample", "cell")


class CaseControlClassifier(DataMixin, TransferTrainingMixin, Clock):
    """Classifier of cases and controls: the network of a trained clock with a new last unit that gives log-odds.

    Make it with :meth:`from_clock`. What a clock has learnt from ages may tell a disease of age from health with fewer
    cases than a network that starts from nothing; whether it does has to be measured, see
    :func:`agevi.tl.compare_transfer`. A sample is classified in the way in which its clock predicts a sample: clocks of
    sums (``train_unit="pseudocell"``) from the sum of its cells, and clocks of single cells from the mean of their
    log-odds, which is taken before the loss. A probability above 0.5 says that a sample resembles the cases of the
    training data, whatever set these apart, batches too. After the transfer of Precious1GPT (Urban et al. 2023).

    Parameters
    ----------
    clock
        A trained network clock, of which a copy is taken.
    condition_key
        Column of ``adata.obs`` with two values; missing ones mean unlabelled.
    control
        Its value in controls.
    case
        Its value in cases.
    freeze
        What stays as it is in the clock, see :meth:`from_clock`.
    from_scratch
        Whether the network starts from new weights.
    class_weight
        ``"balanced"`` or ``"none"``.
    rng
        Seed.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(case_fraction=0.5)
    >>> agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", stratify_by=["condition"])
    >>> agevi.model.MLPClock.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> clock = agevi.model.MLPClock(adata, n_hidden=[16])
    >>> clock.train(max_epochs=2, enable_progress_bar=False)
    >>> model = agevi.model.CaseControlClassifier.from_clock(clock, adata, condition_key="condition", control="control")
    >>> model.train(max_epochs=2)
    >>> model.predict_proba().shape == (adata.n_obs,)
    True
    """

    trainable: ClassVar[bool] = False
    selects_epochs: ClassVar[bool] = False
    predicts: ClassVar[str] = "log-odds"

    setup_anndata = Absent("it reads data as its clock does; make it with from_clock(clock, adata, ...).")
    predict_age = Absent("it gives probabilities: predict_proba(adata). The ages are those of its clock.")

    def __init__(
        self,
        clock: Any,
        *,
        condition_key: str,
        control: str,
        case: str,
        freeze: str = "all_but_last",
        from_scratch: bool = False,
        class_weight: str = "balanced",
        rng: int | np.random.Generator | None = 0,
    ) -> None:
        _network.check_network(clock)
        self.freeze = _checks.choice(freeze, _network.FREEZE, "freeze")
        if from_scratch and freeze != "none":
            raise ValueError(
                f"from_scratch=True with freeze={freeze!r}; new weights that stay as they are know nothing. Pass "
                "freeze='none' too."
            )
        super().__init__(registry=clock.registry_)
        self._start()
        self.condition_key, self.control, self.case = condition_key, _names.name(control), _names.name(case)
        self.from_scratch = bool(from_scratch)
        self.class_weight = _checks.choice(class_weight, CLASS_WEIGHTS, "class_weight")
        self.seed = as_seed(rng)
        self.clock = _save.copy_of(clock)
        self.clock.module.age_scale.target = "condition"
        self.module = self.clock.module.eval()
        self.expects, self.predicts_sums = clock.expects, clock.predicts_sums
        self._adata: AnnData | None = None
        self._initial: dict[str, torch.Tensor] | None = None
        self._model_summary_string = (
            f"{type(self).__name__}: {self.case} or {self.control} by {self.condition_key}, "
            f"{'new weights in the network' if from_scratch else 'network'} of a {type(clock).__name__}, freeze: "
            f"{freeze}"
        )

    @classmethod
    def from_clock(
        cls,
        clock: Any,
        adata: AnnData,
        *,
        condition_key: str,
        control: str,
        freeze: str = "all_but_last",
        from_scratch: bool = False,
        class_weight: str = "balanced",
        rng: int | np.random.Generator | None = 0,
    ) -> CaseControlClassifier:
        """A classifier that is ready to be trained; the clock stays as it is.

        The case is the other of the two values of the column. Subject and sample are read from the columns that the
        clock was set up with; no age is needed.

        Parameters
        ----------
        clock
            A trained network clock: :class:`~agevi.model.PoissonVAE`, :class:`~agevi.model.GaussianVAE`,
            :class:`~agevi.model.DenoisingVAE`, :class:`~agevi.model.MLPClock`, :class:`~agevi.model.NMFClock` or
            :class:`~agevi.model.TransformerClock`.
        adata
            Samples or cells of cases and controls, with the clock's genes in any order; genes that are absent enter at
            their mean.
        condition_key
            Column of ``adata.obs`` with two values; missing ones mean unlabelled.
        control
            Its value in controls.
        freeze
            What stays bit for bit as it is in the clock, with BatchNorm and dropout as in predictions.
            ``"all_but_last"``: all but the last linear unit. ``"encoder"``: all but the head, and where the head is one
            unit, as in :class:`~agevi.model.MLPClock`, :class:`~agevi.model.TransformerClock` and autoencoders with
            ``n_head=[]``, but for the layer before it too. ``"none"``: nothing but the scales of genes, the components
            of :class:`~agevi.model.NMFClock` and the linear path of :class:`~agevi.model.TransformerClock`, which
            log-odds do not contain: the network reads it.
        from_scratch
            The same network with new weights, and scales, components and linear path (of the condition) of the training
            subjects, to compare with. It needs ``freeze="none"``.
        class_weight
            ``"balanced"``: cases and controls have equal weight in sum, so that probabilities are those of a population
            half of which are cases; ``"none"``: every subject has equal weight.
        rng
            Seed of new weights and of training.

        Returns
        -------
        The classifier, which ``train()`` trains.

        Raises
        ------
        KeyError
            If a column is missing.
        TypeError
            If ``clock`` is not a network clock.
        RuntimeError
            If the clock is not trained.
        ValueError
            If the column has not two values, or a subject is both case and control.
        """
        _network.check_network(clock)
        _checks.in_memory(_checks.anndata(adata), "training reads")
        names = _condition.levels(adata, condition_key, control)
        subject, _ = _units.units(adata, clock.setup_args["subject_key"], clock.setup_args["sample_key"])
        case = _condition.case_by_subject(adata, condition_key, names, subject)
        _condition.check_both(case, f"subjects in adata.obs[{condition_key!r}]", names, least=2)
        model = cls(
            clock, condition_key=condition_key, control=names[0], case=names[1], freeze=freeze,
            from_scratch=from_scratch, class_weight=class_weight, rng=rng,
        )  # fmt: skip
        model.clock.query(adata, min_gene_coverage=0.8, conditioned=False)  # its gates
        model._adata = adata
        model._initial = {k: v.detach().clone() for k, v in model.module.state_dict().items()}
        return model

    @property
    def setup_args(self) -> dict[str, Any]:
        """Arguments of the clock's ``setup_anndata``."""
        return dict(self.clock.setup_args)

    @property
    def unit(self) -> str:
        """Log-odds."""
        return self.predicts

    @property
    def program_kind(self) -> str | None:  # type: ignore[override]
        """That of its clock."""
        return self.clock.program_kind

    @property
    def own_clocks(self) -> tuple[Any, ...]:
        """Its network, as a clock."""
        return (self.clock,)

    def programs(self, moments: Moments) -> np.ndarray:
        """Those of its clock."""
        return self.clock.programs(moments)

    def _match(self, adata: AnnData, min_coverage: float) -> GeneMatch:
        """Where the genes of its clock are, which may ask for the features of one modality alone."""
        return self.clock._match(adata, min_coverage)

    # --- prediction ------------------------------------------------------------------------------------------

    def predict_proba(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        level: str = "sample",
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Probability of being a case, one number for every cell, between 0 and 1.

        Unlike in scikit-learn there is no second column: that of the control is one minus it. Neither condition nor age
        is read. Probabilities of samples are what the classifier was trained on.

        Parameters
        ----------
        adata
            Cells with the clock's genes in any order; default: the data that the classifier was made with.
        indices
            Positions of the cells, or a mask of all cells; default all.
        level
            ``"sample"``: that of the cell's sample, the same for all its cells: from the sum of those that are in
            ``indices``, or for clocks of single cells from the mean of their log-odds. ``"cell"``: from the cell alone.
        batch_size
            Cells per step.

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
            If the classifier is not trained, or was loaded without data and ``adata`` is missing.
        ValueError
            If genes are missing or the values are not what the clock was trained on.
        """
        _checks.choice(level, LEVELS, "level")
        self.check_trained("model.predict_proba")
        find = self.predict_samples if level == "sample" else self._of_cells
        data = self._data(adata)
        begin(data)
        rows, place = _checks.rows(indices, data.n_obs)
        odds = torch.from_numpy(find(data, indices=rows, batch_size=batch_size))
        return torch.sigmoid(odds).numpy()[place]

    def _of_cells(self, adata: AnnData, **options: Any) -> np.ndarray:
        return self.clock.predict_rows(adata, **options).value

    def predict_rows(self, adata: AnnData | None = None, **options: Any) -> Prediction:
        """Log-odds of every cell."""
        self.check_trained("model.predict_proba")
        return self.clock.predict_rows(self._data(adata), **options)

    def predict_samples(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
        sample_key: str | None = None,
    ) -> np.ndarray:
        """Log-odds of every cell's sample, (n_cells,) float32."""
        data = self._data(adata)
        options = {"indices": indices, "batch_size": batch_size, "min_gene_coverage": min_gene_coverage}
        if self.predicts_sums:
            return self.clock.predict_samples(data, **options, sample_key=sample_key)
        return sample_means(
            self.clock.predict_rows(data, **options).value, self.sample_codes(data, indices, sample_key)
        )

    # --- saving and loading ----------------------------------------------------------------------------------

    def _meta(self) -> dict[str, Any]:
        """The clock's plain values, and what makes it a classifier."""
        return {
            "class": type(self).__name__,
            "init": {
                "condition_key": self.condition_key,
                "control": self.control,
                "case": self.case,
                "freeze": self.freeze,
                "from_scratch": self.from_scratch,
                "class_weight": self.class_weight,
                "rng": self.seed,
            },
            "clock": self.clock._meta(),
            "split": dict(self.split_),
            "trained_on": dict(self.age_summary_),
            "best_epoch": self.best_epoch_,
            "history": {k: [float(v) for v in frame.iloc[:, 0]] for k, frame in (self.history_ or {}).items()},
            "versions": _save.versions(),
        }

    def _card(self, meta: dict[str, Any]) -> str:
        return classifier_card(meta)

    @classmethod
    def _restore(cls, bundle: _bundle.Bundle) -> Any:
        """A trained classifier on the CPU, without data, from a bundle of one."""
        meta, own = bundle.meta, bundle.meta.get("clock")
        if not isinstance(own, dict):
            raise _bundle.BundleError(
                f"{bundle.path} holds a classifier without a clock; it was edited. Save it again."
            )
        clock = _save.class_of(own, bundle.path)._restore(dataclasses.replace(bundle, meta=own))
        model = cls(clock, **meta["init"])
        model.history_ = _save.history_of(meta)
        model.split_, model.best_epoch_, model.age_summary_ = (
            _save.split_of(meta),
            meta["best_epoch"],
            meta["trained_on"],
        )
        model.is_trained_ = True
        return model
