"""What the autoencoder clocks share on the side of AnnData."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks, _names
from agevi._compat import Absent, on_disk
from agevi._compat.scvi import REGISTRY_KEYS, RNASeqMixin, VAEMixin, settings
from agevi.dataloaders._cells import values_of
from agevi.dataloaders._query import blocks
from agevi.dataloaders._stats import gene_stats
from agevi.model.base._clock import Clock, Moments
from agevi.model.base._seed import seeded
from agevi.model.base._train import SubjectTrainingMixin
from agevi.model.vae._module import ClockVAEModule
from agevi.model.vae._plan import ClockTrainingPlan

RATES = ("softmax", "softplus")
_OF_THE_MODEL = ("rng", "subject_weight", "noise_relative_to", "train_unit", "pseudocell_size", "pseudocell_groupby")
"""Arguments of the constructors that the module does not take."""
_BATCHES = ("transform_batch", "batchid1", "batchid2")
"""Arguments of the verbs of scvi-tools that name batches."""


def _with_batch_names(verb: Callable[..., Any]) -> Callable[..., Any]:
    """A verb of scvi-tools that takes batches of any type, and looks for them by name, as :class:`BatchField` does."""
    signature = inspect.signature(verb)

    @wraps(verb)
    def named(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        given.arguments.update({key: _batch_names(given.arguments[key]) for key in _BATCHES if key in given.arguments})
        if given.arguments.get("groupby") is not None:
            data = given.arguments["self"]._data(given.arguments.get("adata"))
            groups = _checks.column(data, given.arguments["groupby"], "groupby")
            for key in {"group1", "group2"} & given.arguments.keys():
                given.arguments[key] = _values_of(given.arguments[key], groups, key)
        return verb(*given.args, **given.kwargs)

    return named


def _batch_names(given: Any) -> Any:
    """Batches by name; None stays."""
    if given is None or isinstance(given, str) or not isinstance(given, Iterable):
        return None if given is None else _names.name(given)
    return [None if batch is None else _names.name(batch) for batch in given]


def _values_of(given: Any, column: pd.Series, argument: str) -> Any:
    """Groups as the values of a column that have their names; None stays."""
    if given is None:
        return None
    values = {_names.name(value): value for value in column.dropna().unique()}
    names = _names.several(given)
    absent = [name for name in names if name not in values]
    if absent:
        raise ValueError(
            f"{argument}={absent[0]!r} is not in adata.obs[{column.name!r}]{_checks.closest(absent[0], list(values))}. "
            f"Available: {_checks.listed(_names.in_order(values))}."
        )
    found = [values[name] for name in names]
    return found if argument == "group1" else found[0]


def _in_blocks(verb: Callable[..., Any]) -> Callable[..., Any]:
    """A verb of scvi-tools with one row per cell, in an array or several, that reads data on disk in blocks."""
    signature = inspect.signature(verb)

    @wraps(verb)
    def blockwise(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        own, adata = given["self"], given.get("adata")
        data = None if adata is None and own.adata is None else own._data(adata)
        if data is None or given.get("dataloader") is not None or not on_disk(data):
            return verb(*args, **kwargs)
        rows, place = _checks.rows(given.get("indices"), data.n_obs)
        n = given.get("batch_size") or settings.batch_size
        own_args = {**given, "indices": None, "batch_size": n}
        parts = [verb(**{**own_args, "adata": block}) for block in blocks(data, rows, n, even=False)]
        if isinstance(parts[0], tuple):
            return tuple(np.concatenate(some)[place] for some in zip(*parts, strict=True))
        return np.concatenate(parts)[place]

    return blockwise


class VAEClock(SubjectTrainingMixin, RNASeqMixin, VAEMixin, Clock):
    """A clock whose module is a :class:`ClockVAEModule`; classes differ in what they hand to it."""

    unit_from_disk: ClassVar[str] = "cell"
    program_kind: ClassVar[str | None] = "latent"
    _module_cls = ClockVAEModule
    _training_plan_cls = ClockTrainingPlan
    plan_kwargs_of_unit: ClassVar[dict[str, dict[str, Any]]] = {
        "cell": SubjectTrainingMixin.plan_kwargs_of_unit["cell"],
        "pseudocell": SubjectTrainingMixin.plan_kwargs_of_unit["pseudocell"] | {"kl_schedule": "constant"},
    }
    # Latent dimensions, encoders and heads of Su and Mukundan, and how much the age shapes the latent space.
    search_space: ClassVar[dict[str, Any]] = {
        **SubjectTrainingMixin.search_space,
        "n_latent": {"low": 20, "high": 150, "log": True},
        "n_hidden": [[128, 128], [300, 100], [300, 150], [512, 256], [600, 150, 75]],
        "n_head": [[], [20, 20], [30, 20]],
        "age_weight": {"low": 0.01, "high": 10.0, "log": True},
    }
    fixed: dict[str, Any] = {}
    """Arguments of the module that the class sets."""

    get_latent_representation = _in_blocks(VAEMixin.get_latent_representation)
    get_normalized_expression = _with_batch_names(RNASeqMixin.get_normalized_expression)
    posterior_predictive_sample = _with_batch_names(RNASeqMixin.posterior_predictive_sample)
    differential_expression = _with_batch_names(RNASeqMixin.differential_expression)

    get_latent_library_size = Absent("the library size is observed, not latent.")
    get_feature_correlation_matrix = Absent("use posterior_predictive_sample and correlate its genes.")
    get_importance_weights = Absent("scvi-tools computes them for models with a latent library size.")
    get_aggregated_posterior = Absent("scvi-tools 1.4 takes variances for standard deviations in it.")
    differential_abundance = Absent("it rests on get_aggregated_posterior, which is wrong in scvi-tools 1.4.")

    @classmethod
    def test_params(cls) -> dict[str, dict[str, Any]]:
        """Arguments that make a small clock for tests."""
        return super().test_params() | {"init": {"n_hidden": [16], "n_latent": 4, "n_head": [8]}}

    def _build(self, init_params: dict[str, Any]) -> None:
        """The module and the summary, once all arguments are known."""
        self.init_params_ = init_params
        self.module = self._make_module()
        init = init_params["non_kwargs"]
        self._model_summary_string = (
            f"{type(self).__name__} clock: {self._width}, n_latent: {init['n_latent']}, "
            f"n_hidden: {init['n_hidden']}, n_head: {init['n_head']}, likelihood: {self.module.gene_likelihood}"
        )

    def _make_module(self) -> ClockVAEModule:
        """A module with fresh weights that depend on the seed alone."""
        init = dict(self.init_params_["non_kwargs"])
        given = {name: value for name, value in init.items() if name not in _OF_THE_MODEL}
        stats, setup = self.summary_stats, self.setup_args
        cat_covs = setup["categorical_covariate_keys"]
        state = self.registry_["field_registries"][REGISTRY_KEYS.CAT_COVS_KEY]["state_registry"]
        with seeded(init["rng"]):
            return self._module_cls(
                stats.n_vars,
                n_batch=stats.n_batch,
                n_cats_per_cov=list(state["n_cats_per_key"]) if cat_covs else [],
                n_continuous_cov=len(setup["continuous_covariate_keys"] or []),
                normalize=self.normalize,
                **self._age_scale_args,
                sums=self.predicts_sums,
                **({"standardize": self.predicts_sums} | self.fixed | given),
            )

    def _fit_buffers(self, train: np.ndarray) -> None:
        """Everything that is estimated before the first step, from training cells alone."""
        x = values_of(self.adata_manager)
        stats = gene_stats(x, np.flatnonzero(train), normalize=self.normalize)
        relative_to = self.init_params_["non_kwargs"].get("noise_relative_to", "input_sd")
        self.module.age_scale.fit(self._sample_ages(train))
        self.module.fit_buffers(stats, noise_relative_to=relative_to)
        self._fit_sums(train, self.module.input)

    def _make_data_loader(self, adata: AnnData, indices: Any = None, **kwargs: Any) -> Any:
        """Batches of some cells for a verb of scvi-tools."""
        return super()._make_data_loader(adata=adata, indices=_checks.positions(indices, adata.n_obs), **kwargs)

    @torch.no_grad()
    def programs(self, moments: Moments) -> np.ndarray:
        """Change of the decoder's log expected counts (normal: values) per standard deviation of each dimension."""
        mean, sd = moments()
        steps, n = torch.diag(sd), len(mean)
        places = torch.cat([mean + steps, mean - steps]).float().to(self.device)
        batches = range(max(1, self.module.n_batch))
        decoded = torch.stack([self.module.decoded(places, batch) for batch in batches]).mean(0)
        return ((decoded[:n] - decoded[n:]) / 2).cpu().numpy()

    @torch.inference_mode()
    def get_likelihood_parameters(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_samples: int = 1,
        give_mean: bool = False,
        batch_size: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Parameters of the distribution of every value, under scvi-tools' names.

        Parameters
        ----------
        adata
            Cells; default: the data of the model.
        indices
            Positions of the cells; default all.
        n_samples
            Draws from the posterior.
        give_mean
            Mean over the draws.
        batch_size
            Cells per step.

        Returns
        -------
        Arrays of shape (n_cells, n_genes), or (n_samples, n_cells, n_genes) for several draws: ``mean`` (for
        zero-inflated counts that of the counts before any is lost), ``dispersions`` (inverse dispersion of negative
        binomials), ``dropout`` (probability that a count is lost), ``sd`` (normal values).
        """
        adata = self._validate_anndata(adata)
        loader = self._make_data_loader(adata=adata, indices=indices, batch_size=batch_size)
        parts: dict[str, list[np.ndarray]] = {}
        for tensors in loader:
            _, outputs = self.module.forward(tensors, inference_kwargs={"n_samples": n_samples}, compute_loss=False)
            for name, value in self.module.observation.described(outputs["px"]).items():
                parts.setdefault(name, []).append(value.cpu().numpy())
        joined = {name: np.concatenate(values, axis=-2) for name, values in parts.items()}
        return {name: v.mean(0) for name, v in joined.items()} if give_mean and n_samples > 1 else joined


def whole_numbers(values: Sequence[int]) -> list[int]:
    """Widths as plain integers, which can be stored."""
    return [int(n) for n in values]
