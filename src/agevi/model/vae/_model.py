"""Variational autoencoder clocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from anndata import AnnData

from agevi import _checks
from agevi._compat import REGISTRY_KEYS, Absent, BaseModelClass, RNASeqMixin, VAEMixin
from agevi.dataloaders._stats import gene_stats
from agevi.dataloaders._views import registered
from agevi.model._clock import ClockMixin
from agevi.model._seed import as_seed, seeded
from agevi.model._training import SubjectTrainingMixin
from agevi.model.vae._module import ClockVAEModule
from agevi.model.vae._plan import BestWeights, ClockTrainingPlan
from agevi.nn.heads import AGE_LOSSES

GENE_LIKELIHOODS = ("poisson", "zip", "nb", "zinb")
RATES = ("softmax", "softplus")
SUBJECT_WEIGHTS = ("equal", "cells")


class PoissonVAE(SubjectTrainingMixin, ClockMixin, RNASeqMixin, VAEMixin, BaseModelClass):
    """Ageing clock: variational autoencoder of raw counts with an age head on its latent mean.

    The encoder maps a cell's counts to a Gaussian posterior over a latent space with an N(0, I) prior; the decoder
    maps back to Poisson rates; a small network on the posterior mean predicts the standardised age. A donor's age is
    the mean over its cells (:func:`agevi.tl.aggregate_subjects`). Do not trust predictions on another tissue, assay
    or species than the training data's. After training, ``history`` holds the metrics of every epoch, ``split_`` the
    role of every subject and ``best_epoch_`` the epoch whose weights are kept. After the Poisson VAE of Su & Mukundan, *A single cell RNA-Seq based aging
    clock for human neurons*.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`; raw counts.
    n_latent
        Latent dimensions.
    n_hidden
        Widths of the encoder's layers; the decoder mirrors them.
    n_head
        Widths of the age head's layers.
    dropout_rate
        Dropout of encoder and head while training.
    gene_likelihood
        ``"poisson"``.
    rate
        ``"softmax"``: expected counts are library size times a softmax over genes, so that depth is no signal;
        ``"softplus"``: softplus of the decoder's output, as published.
    age_loss
        ``"huber"``, ``"mse"`` or ``"mae"`` on the standardised age.
    age_weight
        Weight of the age loss, in units of the counts of an average training cell: at 1 an error of one standard
        deviation weighs as much as half a nat per count of the reconstruction.
    subject_weight
        ``"equal"``: every subject weighs the same in the age loss; ``"cells"``: every cell does.
    encode_covariates
        Whether the encoder sees batch and covariates too; then new cells need known values of them.
    rng
        Seed of the initial weights and of training. The same seed gives the same clock bit for bit on a CPU
        with the same number of threads.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.pp.split_subjects(adata, subject_key="donor", age_key="age")
    >>> agevi.model.PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.PoissonVAE(adata)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.predict_age().shape == (adata.n_obs,)
    True
    """

    expects: ClassVar[str] = "counts"
    _module_cls = ClockVAEModule
    _training_plan_cls = ClockTrainingPlan
    _best_weights_cls = BestWeights

    get_latent_library_size = Absent("the library size is observed, not latent.")
    get_feature_correlation_matrix = Absent(
        "a Poisson has no dispersion to sample from; use posterior_predictive_sample."
    )
    get_likelihood_parameters = Absent("a Poisson has one, its mean: get_normalized_expression(library_size='latent').")
    get_importance_weights = Absent("scvi-tools computes them for models with a latent library size.")
    get_aggregated_posterior = Absent("scvi-tools 1.4 takes variances for standard deviations in it.")
    differential_abundance = Absent("it rests on get_aggregated_posterior, which is wrong in scvi-tools 1.4.")

    def __init__(
        self,
        adata: AnnData,
        *,
        n_latent: int = 32,
        n_hidden: Sequence[int] = (128, 128),
        n_head: Sequence[int] = (20, 20),
        dropout_rate: float = 0.2,
        gene_likelihood: str = "poisson",
        rate: str = "softmax",
        age_loss: str = "huber",
        age_weight: float = 0.1,
        subject_weight: str = "equal",
        encode_covariates: bool = False,
        rng: int | np.random.Generator | None = 0,
    ) -> None:
        _checks.choice(gene_likelihood, GENE_LIKELIHOODS, "gene_likelihood")
        if gene_likelihood != "poisson":
            raise ValueError(
                f"gene_likelihood={gene_likelihood!r} is not built yet; this version fits 'poisson'. "
                "'zip', 'nb' and 'zinb' come with a later release."
            )
        _checks.choice(rate, RATES, "rate")
        _checks.choice(age_loss, AGE_LOSSES, "age_loss")
        _checks.choice(subject_weight, SUBJECT_WEIGHTS, "subject_weight")
        n_hidden, n_head, rng = [int(n) for n in n_hidden], [int(n) for n in n_head], as_seed(rng)
        super().__init__(registered(_checks.anndata(adata)))
        self.subject_weight = subject_weight
        self.init_params_ = self._get_init_params(locals())
        self.split_, self.best_epoch_, self.n_trainings_, self.age_summary_ = {}, None, 0, {}
        self._touched = False
        self.module = self._make_module()
        self._model_summary_string = (
            f"{type(self).__name__} clock: {len(self.genes):,} genes, n_latent: {n_latent}, n_hidden: {n_hidden}, "
            f"n_head: {n_head}, likelihood: {gene_likelihood} ({rate})"
        )

    def _make_module(self) -> ClockVAEModule:
        """A module with fresh weights that depend on the seed alone."""
        init = dict(self.init_params_["non_kwargs"])
        seed = init.pop("rng")
        del init["subject_weight"], init["gene_likelihood"]
        stats, setup = self.summary_stats, self.setup_args
        cat_covs = setup["categorical_covariate_keys"]
        state = self.registry_["field_registries"][REGISTRY_KEYS.CAT_COVS_KEY]["state_registry"]
        with seeded(seed):
            return self._module_cls(
                stats.n_vars,
                n_batch=stats.n_batch,
                n_cats_per_cov=list(state["n_cats_per_key"]) if cat_covs else [],
                n_continuous_cov=len(setup["continuous_covariate_keys"] or []),
                normalize=setup["normalize"],
                age_transform=self.age_transform,
                min_age=setup["min_age"],
                **init,
            )

    def _fit_buffers(self, train: np.ndarray) -> None:
        """Everything that is estimated before the first step, from training cells alone."""
        x = self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
        stats = gene_stats(x, np.flatnonzero(train), log1p_cp10k=self.module.normalize == "log1p_cp10k")
        self.module.age_scale.fit(self._sample_ages(train))
        self.module.input_mean.copy_(torch.from_numpy(stats.input_mean))
        self.module.gene_share.copy_(torch.from_numpy(stats.share))
        self.module.mean_library.fill_(max(stats.library, 1.0))

    @torch.inference_mode()
    def _predict_batches(self, loader: Any, present: torch.Tensor | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Ages and latent means of the cells in ``loader``."""
        self.module.eval()
        ages, latents = [], []
        for tensors in loader:
            inputs = self.module._get_inference_input(tensors)
            mean = self.module.latent_mean(**inputs, present=present)
            ages.append(self.module.age(mean).cpu())
            latents.append(mean.cpu())
        return torch.cat(ages).numpy(), torch.cat(latents).numpy()
