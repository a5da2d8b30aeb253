"""The mean of several trained clocks, as a clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks
from agevi._compat import Absent
from agevi.dataloaders._sums import sample_means
from agevi.io import _bundle
from agevi.io._card import ensemble_card
from agevi.model.base import _save
from agevi.model.base._clock import Clock
from agevi.model.base._left_out import LeftOut
from agevi.model.base._predict import Prediction
from agevi.model.base._query import DataMixin
from agevi.model.ensemble import _members
from agevi.model.ensemble._average import SCALES, average, check_weights, weights_from_errors
from agevi.model.ensemble._module import EnsembleModule
from agevi.nn.attribution import Reading, Tensors


class EnsembleClock(DataMixin, Clock):
    """Ageing clock: the mean of the ages that several trained clocks predict.

    Each member looks for its genes and normalises values by itself, and the ages are averaged, by default on the
    logarithmic scale. Clocks of different kinds, such as :class:`agevi.model.PLSClock` and
    :class:`agevi.model.PoissonVAE`, err in part differently, so their mean can err less than either, if not by much;
    members that are alike add little. There is nothing to train: the members are trained first. They are copied, so
    that training one of them again leaves the ensemble as it is. A subject has the role ``train`` if any member trained
    on it, else ``validation`` if any chose by it, else ``test`` if any knows it. There is no latent space and no
    history. The averaging of predictors is described by Bates & Granger (1969).

    Parameters
    ----------
    clocks
        Trained clocks with the same ``age_unit``, ``subject_key`` and ``sample_key``; their genes may differ. Ensembles
        can be members.
    weights
        ``"equal"``; ``"inner"``: in proportion to 1 / the mean absolute error over the samples of the validation
        subjects, which must be the same for all members (``history["age_mae_validation"]`` at the epoch that was kept;
        test subjects are never used); or one number from 0 per clock.
    scale
        ``"log"``: the mean of log(age - ``min_age`` + 1), turned back into an age, with ages below ``min_age`` (the
        lowest of the members') counted as ``min_age``; ``"age"``: the mean of the ages.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.pp.split_subjects(adata, subject_key="donor", age_key="age")
    >>> clocks = []
    >>> for method in ("pls", "ridge"):
    ...     agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
    ...     clocks.append(agevi.model.PLSClock(adata, method=method))
    ...     clocks[-1].train()
    >>> ensemble = agevi.model.EnsembleClock(clocks)
    >>> ensemble.weights_.tolist()
    [0.5, 0.5]
    >>> agevi.tl.predict_age(adata, ensemble)
    >>> "agevi_predicted_sample" in adata.obs
    True
    """

    trainable: ClassVar[bool] = False
    has_latent: ClassVar[bool] = False
    without_data = "has no data, since it was loaded without or its members were made with different ones"
    selects_epochs: ClassVar[bool] = False
    weights_: np.ndarray
    """Weight of every member, with sum 1, (n_clocks,)."""

    setup_anndata = Absent("its members are set up and trained before they are joined.")
    train = Absent("train its members, and join them again: EnsembleClock([...]).")
    history = Absent("each of its members has one, for example clock.clocks[0].history.")

    def __init__(self, clocks: Sequence[Any], *, weights: str | Sequence[float] = "equal", scale: str = "log") -> None:
        clocks = _members.check_members(clocks)
        self.scale = _checks.choice(scale, SCALES, "scale")
        rule = check_weights(weights, len(clocks))
        if isinstance(rule, str):
            errors = _members.validation_errors(clocks) if rule == "inner" else [1.0] * len(clocks)
            rule = weights_from_errors(errors)
        super().__init__(registry=clocks[0].registry_)
        self._start()
        self._adata = clocks[0].adata if all(clock.adata is clocks[0].adata for clock in clocks) else None
        self.clocks: tuple[Any, ...] = tuple(_save.copy_of(clock) for clock in clocks)
        self.registry_ = {**clocks[0].registry_, "setup_args": _members.shared_setup(clocks, scale)}
        self.expects = _members.strictest(clocks)
        self.predicts_sums = any(clock.predicts_sums for clock in clocks)
        self.split_, self.age_summary_ = _members.joined_split(clocks), _members.joined_ages(clocks, scale)
        self.module = EnsembleModule([clock.module for clock in self.clocks]).eval()
        self.weights_ = rule
        self.is_trained_ = True
        names = ", ".join(f"{type(c).__name__} {w:.2f}" for c, w in zip(self.clocks, self.weights_, strict=True))
        self._model_summary_string = f"{type(self).__name__}: mean on the {scale} scale of {names}"

    @property
    def predicts_rows(self) -> bool:
        """Whether every member's prediction of a single row can be read by itself."""
        return all(clock.predicts_rows for clock in self.clocks)

    @property
    def age_transform(self) -> str:
        """Scale on which the members are averaged."""
        return str(self.setup_args["age_transform"])

    @property
    def genes(self) -> np.ndarray:
        """Genes of all members, each once, (n_genes,)."""
        return np.asarray(list(dict.fromkeys(str(gene) for clock in self.clocks for gene in clock.genes)), dtype=object)

    @property
    def own_clocks(self) -> tuple[Any, ...]:
        """The clocks that are averaged."""
        return self.clocks

    def find_genes(self, adata: AnnData, min_gene_coverage: float = 0.8) -> np.ndarray:
        """Position of each of :attr:`genes` among the columns of ``adata``, where the members find it, (n_genes,)."""
        places = [pd.Series(clock.find_genes(adata, min_gene_coverage), clock.genes) for clock in self.clocks]
        return pd.concat(places).groupby(level=0).max()[self.genes].to_numpy()

    def _joined(self, readings: Iterator[Reading]) -> Callable[[Tensors], torch.Tensor]:
        """Mean of the ages of the clocks, each from the units of its own members."""
        sizes = [len(clock.members()) for clock in self.clocks]
        ages_of = [clock._joined(readings) for clock in self.clocks]
        starts = np.cumsum([0, *sizes[:-1]])

        def average(units: Tensors) -> torch.Tensor:
            parts = zip(ages_of, starts, sizes, strict=True)
            ages = torch.stack([f(units[start : start + n]).double() for f, start, n in parts], dim=-1)
            weights = torch.as_tensor(self.weights_, dtype=ages.dtype, device=ages.device)
            if self.scale == "age":
                return (ages @ weights).float()
            lowest = self.setup_args["min_age"]
            return (torch.expm1(torch.log1p((ages - lowest).clamp_min(0)) @ weights) + lowest).float()

        return average

    # --- prediction ------------------------------------------------------------------------------------------

    def predict_rows(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
    ) -> Prediction:
        """Mean of the members' ages of every cell."""
        parts = [
            clock.predict_rows(
                self._data(adata), indices=indices, batch_size=batch_size, min_gene_coverage=min_gene_coverage
            )
            for clock in self.clocks
        ]
        return Prediction(self._average([p.value for p in parts]), None, min(p.gene_coverage for p in parts))

    def gene_coverage(self, adata: AnnData, min_gene_coverage: float) -> float:
        """The lowest of the members."""
        return min(clock.gene_coverage(adata, min_gene_coverage) for clock in self.clocks)

    def predict_samples(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
        sample_key: str | None = None,
    ) -> np.ndarray:
        """Mean of the members' ages of every sample, from its sum or (members of single cells) its cells' mean."""
        data = self._data(adata)
        options = {"indices": indices, "batch_size": batch_size, "min_gene_coverage": min_gene_coverage}
        code = self.sample_codes(data, indices, sample_key)
        return self._average(
            [
                clock.predict_samples(data, **options, sample_key=sample_key)
                if clock.predicts_sums
                else sample_means(clock.predict_rows(data, **options).value, code)
                for clock in self.clocks
            ]
        )

    def predict_left_out(self, adata: AnnData, **options: Any) -> LeftOut:
        """Means of the members' ages of each cell's sample, with the cell and without it."""
        parts = [clock.predict_left_out(adata, **options) for clock in self.clocks]
        whole, without = (self._average([getattr(p, name) for p in parts]) for name in LeftOut._fields)
        return LeftOut(whole.astype(np.float64), without.astype(np.float64))

    def _average(self, ages: list[np.ndarray]) -> np.ndarray:
        return average(np.stack(ages), self.weights_, scale=self.scale, min_age=self.setup_args["min_age"])

    # --- saving and loading ----------------------------------------------------------------------------------

    def _meta(self) -> dict[str, Any]:
        """The members' plain values, and what joins them."""
        return {
            "class": type(self).__name__,
            "init": {"scale": self.scale, "weights": self.weights_.tolist()},
            "age": dict(self.age_summary_),
            "members": [_save.full_meta(clock) for clock in self.clocks],
            "versions": _save.versions(),
        }

    def _card(self, meta: dict[str, Any]) -> str:
        return ensemble_card(meta, list(self.split_.values()), len(self.genes))

    @classmethod
    def _restore(cls, bundle: _bundle.Bundle) -> Any:
        """An ensemble from the bundle of one, its members each from its part of the tensors."""
        members, metas = [], bundle.meta.get("members")
        if not isinstance(metas, list) or not metas or not all(isinstance(meta, dict) for meta in metas):
            raise _bundle.BundleError(f"{bundle.path} holds an ensemble without members; it was edited. Save it again.")
        for i, meta in enumerate(metas):
            prefix = f"clocks.{i}."
            own = {k.removeprefix(prefix): v for k, v in bundle.tensors.items() if k.startswith(prefix)}
            members.append(
                _save.remade(_save.class_of(meta, bundle.path), dataclasses.replace(bundle, meta=meta, tensors=own))
            )
        model = cls(members, **bundle.meta["init"])
        _save.load_weights(model, bundle)  # refuses tensors of no member
        return model
