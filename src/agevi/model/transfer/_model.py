"""A classifier of cases and controls from the network of a clock."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks, _keys
from agevi._compat import Absent, BaseModelClass, parse_device
from agevi.dataloaders._fields import AGE
from agevi.dataloaders._pseudocells import Rows
from agevi.dataloaders._sums import sample_means
from agevi.io import _format
from agevi.io._card import classifier_card
from agevi.model import _bundle
from agevi.model._clock import ClockMixin, Prediction
from agevi.model._seed import as_seed, seeded
from agevi.model.transfer import _condition, _network
from agevi.model.transfer._draws import Draws, Units
from agevi.model.transfer._fit import fit
from agevi.model.transfer._split import roles_of

logger = logging.getLogger(__name__)

CLASS_WEIGHTS = ("balanced", "none")
LEVELS = ("sample", "cell")
_EPOCHS = 40


class CaseControlClassifier(ClockMixin, BaseModelClass):
    """Classifier of cases and controls: the network of a trained clock with a new last unit that gives log-odds.

    Make it with :meth:`from_clock`. What a clock has learnt from ages may tell a disease of age from health with fewer
    cases than a network that starts from nothing; whether it does has to be measured, see
    :func:`agevi.tl.compare_transfer`. A sample is classified in the way in which its clock predicts a sample: clocks of sums
    (``train_unit="pseudocell"``) from the sum of its cells, and clocks of single cells from the mean of their log-odds,
    which is taken before the loss. A probability above 0.5 says that a sample resembles the cases of the training data,
    whatever set these apart, batches too. After the transfer of Precious1GPT (Urban et al. 2023).

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
    _predict_batches = Absent("its network predicts.")

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
        self.condition_key, self.control, self.case = condition_key, str(control), str(case)
        self.from_scratch = bool(from_scratch)
        self.class_weight = _checks.choice(class_weight, CLASS_WEIGHTS, "class_weight")
        self.seed = as_seed(rng)
        self.clock = _bundle.copy_of(clock)
        _network.give_log_odds(self.clock.module)
        self.module = self.clock.module.eval()
        self.expects, self.predicts_sums = clock.expects, clock.predicts_sums
        self._adata: AnnData | None = None
        self._initial: dict[str, torch.Tensor] | None = None
        self._model_summary_string = (
            f"{type(self).__name__}: {self.case} or {self.control} by {self.condition_key}, "
            f"{'new weights in the network' if from_scratch else 'network'} of a {type(clock).__name__}, freeze: {freeze}"
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

        The case is the other of the two values of the column. Subject and sample are read from the columns that the clock
        was set up with; no age is needed.

        Parameters
        ----------
        clock
            A trained network clock: :class:`~agevi.model.PoissonVAE`, :class:`~agevi.model.GaussianVAE`,
            :class:`~agevi.model.DenoisingVAE`, :class:`~agevi.model.MLPClock` or :class:`~agevi.model.NMFClock`.
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
            unit, as in :class:`~agevi.model.MLPClock` and autoencoders with ``n_head=[]``, but for the layer before it too.
            ``"none"``: nothing but the scales of genes, and the components of :class:`~agevi.model.NMFClock`.
        from_scratch
            The same network with new weights, and scales and components of the training subjects, to compare with. It needs
            ``freeze="none"``.
        class_weight
            ``"balanced"``: cases and controls weigh the same in sum, so that probabilities are those of a population half of
            which are cases; ``"none"``: every subject weighs the same.
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
            If ``clock`` is no network clock.
        RuntimeError
            If the clock is not trained.
        ValueError
            If the column has not two values, or a subject is both case and control.
        """
        _network.check_network(clock)
        _checks.in_memory(_checks.anndata(adata), "training reads")
        names = _condition.levels(adata, condition_key, control)
        subject, _ = _checks.units(adata, clock.setup_args["subject_key"], clock.setup_args["sample_key"])
        case = _condition.case_by_subject(adata, condition_key, names, subject)
        _condition.check_both(case, f"adata.obs[{condition_key!r}]", names, least=2)
        model = cls(
            clock, condition_key=condition_key, control=names[0], case=names[1], freeze=freeze,
            from_scratch=from_scratch, class_weight=class_weight, rng=rng,
        )  # fmt: skip
        model.clock._shell(adata, min_gene_coverage=0.8, conditioned=False)  # its gates
        model._adata = adata
        model._initial = {k: v.detach().clone() for k, v in model.module.state_dict().items()}
        return model

    @property
    def setup_args(self) -> dict[str, Any]:
        """Arguments of the clock's ``setup_anndata``, with the unit of what is predicted."""
        return {**self.clock.setup_args, "age_unit": self.predicts, "age_transform": "none"}

    # --- training --------------------------------------------------------------------------------------------

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

        A step takes 64 samples: two or more sums of cells of each, drawn anew, for a clock of sums, and 32 cells of each
        for a clock of single cells, whose log-odds are averaged before the loss. The loss is the log-loss, in which
        subjects of a class weigh the same. ``history`` holds ``log_loss_train`` and ``log_loss_validation`` by epoch.

        Parameters
        ----------
        max_epochs
            Epochs of 10 steps, or of one pass over the samples if these are more; 40 by default.
        split_key
            Column of ``adata.obs`` with the roles of :func:`agevi.pp.split_subjects`. Where the default column is absent,
            subjects are split 70/15/15 within cases and controls, which is logged and kept in ``split_``.
        train_roles
            Roles that train.
        early_stopping
            Keep the weights of the epoch with the lowest log-loss on validation subjects, and stop a quarter of the epochs
            after it (10 at least). By default, and without validation subjects of both classes, all epochs are run.
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
            If the split puts a subject on two sides, or one class has no training subject.
        """
        adata = self._training_data()
        max_epochs = _EPOCHS if max_epochs is None else _checks.count(max_epochs, "max_epochs")
        subject, sample = _checks.units(adata, self.setup_args["subject_key"], self.setup_args["sample_key"])
        names = (self.control, self.case)
        case = _condition.case_by_subject(adata, self.condition_key, names, subject)
        roles = roles_of(adata, case, subject, split_key=split_key, train_roles=train_roles, rng=self.seed)
        of_role = {role: case[roles.index[roles == role]].dropna() for role in _keys.SPLIT_ROLES}
        _condition.check_both(of_role[_keys.TRAIN], "the training subjects with a condition", names)
        if accelerator != "auto":
            self.to_device(parse_device(accelerator, "auto"))
        validates = of_role[_keys.VALIDATION].nunique() == 2
        shell, match = self._shell_of(adata, subject, sample, case)
        clock, template = self.clock, self.clock._adata_manager
        clock._adata, clock._adata_manager = shell, clock.get_anndata_manager(shell, required=True)
        try:
            with seeded(self.seed):
                self._renew((subject.map(roles) == _keys.TRAIN).to_numpy() & subject.map(case).notna().to_numpy())
                rng = np.random.default_rng(self.seed)
                rows = Rows(clock.adata_manager, averaged=self.setup_args["normalize"] == "none")
                draws = {
                    role: Draws(rows, self._units(chosen, subject), size=self._size, rng=rng)
                    for role, chosen in of_role.items()
                    if role == _keys.TRAIN or (role == _keys.VALIDATION and validates)
                }
                self._fit(draws, match.present, max_epochs, early_stopping, lr, weight_decay)
        finally:
            clock._forget(shell)
            clock._adata, clock._adata_manager = None, template
        self.split_ = {str(name): str(role) for name, role in roles.items()}
        self.age_summary_ = {
            "n_subjects": len(of_role[_keys.TRAIN]),
            "n_cases": int(of_role[_keys.TRAIN].sum()),
        }
        self.is_trained_ = True
        self.n_trainings_ += 1
        self._log_roles()

    def _fit(
        self,
        draws: dict[str, Draws],
        present: np.ndarray,
        max_epochs: int,
        early_stopping: bool,
        lr: float,
        weight_decay: float,
    ) -> None:
        """Train the layers that are not frozen."""
        trained = _network.trained_layers(self.module, self.freeze)
        _network.set_trainable(self.module, trained)
        found = fit(
            self.module,
            trained,
            train=draws[_keys.TRAIN],
            validation=draws.get(_keys.VALIDATION),
            max_epochs=max_epochs,
            patience=max(10, max_epochs // 4) if early_stopping else None,
            lr=lr,
            weight_decay=weight_decay,
            whole=self.freeze == "none",
            present=None if present.all() else torch.from_numpy(present).to(self.device),
        )
        self.module.requires_grad_(True).eval()
        self.best_epoch_ = found.best_epoch
        self.history_ = {
            name: pd.DataFrame({name: values}, index=pd.RangeIndex(len(values), name="epoch"), dtype=np.float64)
            for name, values in found.history.items()
        }

    def _training_data(self) -> AnnData:
        if self._initial is None or self._adata is None:
            raise RuntimeError(
                "this CaseControlClassifier was loaded, without the weights that its clock had; make a new one with "
                "CaseControlClassifier.from_clock(clock, adata, ...) to train it."
            )
        return self._adata

    @property
    def _size(self) -> float | None:
        """Cells of a sum, None where the clock reads single cells."""
        size: float = self.clock.pseudocell_size
        return size if self.predicts_sums else None

    def _shell_of(self, adata: AnnData, subject: pd.Series, sample: pd.Series, case: pd.Series) -> tuple[AnnData, Any]:
        """The data as the clock reads them, registered with the class of every cell in the place of its age."""
        clock = self.clock
        shell, match = clock._shell(adata, min_gene_coverage=0.8, conditioned=False)
        setup = clock.setup_args
        shell.obs[setup["subject_key"]] = subject.to_numpy()
        if setup["sample_key"] is not None:
            shell.obs[setup["sample_key"]] = sample.to_numpy()
        if clock.pseudocell_groupby is not None:
            shell.obs[clock.pseudocell_groupby] = _checks.labels(
                adata, clock.pseudocell_groupby, "pseudocell_groupby"
            ).to_numpy()
        clock._remember(shell)
        shell.obs[f"_scvi_{AGE}"] = subject.map(case).to_numpy(dtype=np.float64)
        return shell, match

    def _renew(self, train: np.ndarray) -> None:
        """The weights that training starts from."""
        if self._initial is None:
            raise RuntimeError("no weights to start from.")
        if not self.from_scratch:
            self.module.load_state_dict(self._initial)
            _network.renew_last(self.module)
            return
        clock, device = self.clock, self.device
        clock.init_params_["non_kwargs"]["rng"] = self.seed
        clock.module = clock._make_module()
        _network.give_log_odds(clock.module)
        clock._fit_buffers(train)
        self.module = clock.module.to(device)

    def _units(self, case: pd.Series, subject: pd.Series) -> Units:
        """What training draws from among the subjects of ``case``, with weights that are equal within a class."""
        codes = self.clock._units_of_sums()
        used = np.flatnonzero(subject.isin(case.index).to_numpy())
        order = used[np.argsort(codes[used], kind="stable")]
        cells = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
        owner = subject.to_numpy()[[c[0] for c in cells]]
        label = case[owner].to_numpy()
        weight = 1 / pd.Series(owner).map(pd.Series(owner).value_counts()).to_numpy(dtype=np.float64)
        if self.class_weight == "balanced":
            weight = weight / np.where(label == 1, weight[label == 1].sum(), weight[label == 0].sum())
        return Units(cells, torch.from_numpy(label).float(), torch.from_numpy(weight / weight.mean()).float())

    def _log_roles(self) -> None:
        """Say how many held-out subjects the clock knows."""
        held_out = [name for name, role in self.split_.items() if role == _keys.TEST]
        known = sum(self.clock.split_.get(name) == _keys.TRAIN for name in held_out)
        if known and not self.from_scratch:
            logger.info(
                "%d of %d test subjects trained the clock: it knows their ages and values, but not their condition "
                "(model.clock.split_).", known, len(held_out),
            )  # fmt: skip

    # --- prediction ------------------------------------------------------------------------------------------

    def predict_proba(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        level: str = "sample",
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Probability of being a case, for every cell, between 0 and 1.

        Neither condition nor age is read. Probabilities of samples are what the classifier was trained on.

        Parameters
        ----------
        adata
            Cells with the clock's genes in any order; default: the data that the classifier was made with.
        indices
            Positions of the cells; default all.
        level
            ``"sample"``: that of the cell's sample, the same for all its cells: from their sum, or for clocks of single
            cells from the mean of their log-odds. ``"cell"``: from the cell alone.
        batch_size
            Cells per step.

        Returns
        -------
        float32 of shape (n_cells,).

        Raises
        ------
        KeyError
            If ``level="sample"`` and the column of the samples is missing.
        RuntimeError
            If the classifier is not trained, or was loaded without data and ``adata`` is missing.
        ValueError
            If genes are missing or the values are not what the clock was trained on.
        """
        _checks.choice(level, LEVELS, "level")
        self._check_trained("model.predict_proba")
        find = self._predict_samples if level == "sample" else self._of_cells
        odds = torch.from_numpy(find(self._data(adata), indices=indices, batch_size=batch_size))
        probability: np.ndarray = torch.sigmoid(odds).numpy()
        return probability

    def _of_cells(self, adata: AnnData, **options: Any) -> np.ndarray:
        return self.clock._predict(adata, **options).age  # type: ignore[no-any-return]

    def _predict(self, adata: AnnData | None = None, **options: Any) -> Prediction:
        """Log-odds of every cell."""
        self._check_trained("model.predict_proba")
        found: Prediction = self.clock._predict(self._data(adata), **options)
        return found

    def _predict_samples(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
    ) -> np.ndarray:
        """Log-odds of every cell's sample, (n_cells,) float32."""
        data, setup = self._data(adata), self.setup_args
        options = {"indices": indices, "batch_size": batch_size, "min_gene_coverage": min_gene_coverage}
        if self.predicts_sums:
            sums: np.ndarray = self.clock._predict_samples(data, **options)
            return sums
        sample = _checks.labels(data, setup["sample_key"] or setup["subject_key"], "sample_key").to_numpy()
        code = pd.factorize(sample if indices is None else sample[np.asarray(indices)])[0]
        return sample_means(self.clock._predict(data, **options).age, code)

    def _data(self, adata: AnnData | None) -> AnnData:
        """``adata``, or the data that the classifier was made with."""
        if adata is None and self._adata is None:
            raise RuntimeError("this CaseControlClassifier was loaded without data; pass adata=... to predict.")
        return _checks.anndata(self._adata if adata is None else adata)

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
            "versions": _bundle.versions(),
        }

    def _card(self, meta: dict[str, Any]) -> str:
        return classifier_card(meta)

    @classmethod
    def _restore(cls, bundle: _format.Bundle) -> Any:
        """A trained classifier on the CPU, without data, from a bundle of one."""
        meta, own = bundle.meta, bundle.meta.get("clock")
        if not isinstance(own, dict):
            raise _format.BundleError(
                f"{bundle.path} holds a classifier without a clock; it was edited. Save it again."
            )
        clock = _bundle.class_of(own, bundle.path)._restore(dataclasses.replace(bundle, meta=own))
        model = cls(clock, **meta["init"])
        model.history_ = _bundle.history_of(meta)
        model.split_, model.best_epoch_, model.age_summary_ = meta["split"], meta["best_epoch"], meta["trained_on"]
        model.is_trained_ = True
        return model

    def _attach(self, adata: AnnData) -> None:
        """Make ``adata`` the data that are predicted by default."""
        self._adata = _checks.anndata(adata)

    def to_device(self, device: str | int | torch.device) -> None:
        """Move the network to a device.

        Parameters
        ----------
        device
            As in scvi-tools.
        """
        self.clock.to_device(device)
        self.module = self.clock.module
