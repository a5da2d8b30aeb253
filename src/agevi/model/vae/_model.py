"""Variational autoencoder clocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from anndata import AnnData

from agevi import _checks
from agevi._docs import shared
from agevi.dataloaders._cells import values_of
from agevi.dataloaders._register import check_values
from agevi.model.base._seed import as_seed
from agevi.model.vae._base import RATES, VAEClock, whole_numbers
from agevi.nn.likelihoods import GENE_LIKELIHOODS
from agevi.nn.noise import NOISE_SCALES, NOISES

_ARGUMENTS = {
    "widths": """
        n_latent
            Latent dimensions.
        n_hidden
            Widths of the encoder's layers; the decoder mirrors them.
        n_head
            Widths of the age head's layers; none makes it linear.
        dropout_rate
            Dropout of encoder and head while training.
    """,
    "training": """
        subject_weight
            ``"equal"``: every subject has equal weight in the age loss; ``"cells"``: every cell does; ``"density"``: a
            subject weighs inversely to how common its age is among the training subjects (Gaussian kernel density,
            Scott's bandwidth; weights bounded to 0.2 to 5 times their mean), so that rare ages count more.
        train_unit
            ``"pseudocell"``: ages are learnt from sums of cells of a sample, drawn anew in every step, and single cells
            are reconstructed; the clock then predicts a sample from the sum of its cells. ``"cell"``: from single
            cells.
        pseudocell_size
            Cells of a pseudocell: a share of the sample's cells, or a number.
        pseudocell_groupby
            Column of ``adata.obs``, such as the cell type, whose groups are kept apart: a pseudocell has cells of one
            group of a sample, and a sample is predicted as the mean over its groups, weighted by their cells.
        encode_covariates
            Whether the encoder sees batch and covariates too; then new cells need known values of them.
    """,
}


@partial(shared, entries=_ARGUMENTS)
class PoissonVAE(VAEClock):
    """Ageing clock: variational autoencoder of raw counts with an age head on its latent mean.

    The encoder maps a cell's counts to a Gaussian posterior over a latent space with an N(0, I) prior; the decoder
    maps back to Poisson rates; a small network on the posterior mean predicts the standardised age. A donor's age is
    the mean over its cells (:func:`agevi.tl.aggregate_subjects`). Do not trust predictions on another tissue, assay
    or species than the training data's. After training, ``history`` holds the metrics of every epoch, ``split_`` the
    role of every subject and ``best_epoch_`` the epoch whose weights are kept. After the Poisson VAE of Su &
    Mukundan, *A single cell RNA-Seq based aging clock for human neurons*.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`; raw counts.
    %(widths)s
    gene_likelihood
        ``"poisson"``, ``"nb"`` (negative binomial, one inverse dispersion per gene), ``"zip"`` or ``"zinb"`` (the same
        with one probability per gene that a count is lost).
    rate
        ``"softmax"``: expected counts are library size times a softmax over genes, so that depth carries no signal;
        ``"softplus"``: softplus of the decoder's output, as published.
    age_loss
        ``"huber"``, ``"mse"`` or ``"mae"`` on the standardised age.
    age_weight
        Weight of the age loss, in units of the counts of an average training cell: at 1 an error of one standard
        deviation weighs as much as half a nat per count of the reconstruction.
    %(training)s
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

    expects = "counts"
    search_space: ClassVar[dict[str, Any]] = {
        **VAEClock.search_space,
        "gene_likelihood": ["poisson", "nb", "zip", "zinb"],
        "rate": ["softmax", "softplus"],
    }

    def __init__(
        self,
        adata: AnnData,
        *,
        n_latent: int = 32,
        n_hidden: Sequence[int] = (128, 128),
        n_head: Sequence[int] = (),
        dropout_rate: float = 0.2,
        gene_likelihood: str = "poisson",
        rate: str = "softmax",
        age_loss: str = "huber",
        age_weight: float = 1.0,
        subject_weight: str = "equal",
        train_unit: str = "pseudocell",
        pseudocell_size: float = 0.5,
        pseudocell_groupby: str | None = None,
        encode_covariates: bool = False,
        rng: int | np.random.Generator | None = 0,
    ) -> None:
        _checks.choice(gene_likelihood, GENE_LIKELIHOODS, "gene_likelihood")
        _checks.choice(rate, RATES, "rate")
        n_latent, rng = _checks.count(n_latent, "n_latent"), as_seed(rng)
        n_hidden, n_head = whole_numbers(n_hidden), whole_numbers(n_head)
        super().__init__(adata, age_loss, subject_weight, train_unit, pseudocell_size, pseudocell_groupby)
        self._build(self._get_init_params(locals()))


@partial(shared, entries=_ARGUMENTS)
class GaussianVAE(VAEClock):
    """Ageing clock: variational autoencoder of normalised values with an age head on its latent mean.

    As :class:`PoissonVAE`, but the decoder gives the mean of a normal distribution, without a constraint, and every
    gene has one standard deviation. It takes counts, which it normalises itself, or any continuous values with
    ``setup_anndata(adata, normalize="none")``. Means and standard deviations of its scaler come from training cells
    only. After the Gaussian VAE of Su & Mukundan, *A single cell RNA-Seq based aging clock for human neurons*.
    ``get_normalized_expression`` gives expected shares of counts (values, with ``normalize="none"``), and with
    ``library_size="latent"`` the expected normalised values.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`.
    %(widths)s
    standardize
        Z-score every gene with mean and standard deviation of the training cells; otherwise the normalised values are
        taken as they are.
    age_loss
        ``"huber"``, ``"mse"`` or ``"mae"`` on the standardised age.
    age_weight
        Weight of the age loss, in units of the number of genes: at 1 an error of one standard deviation weighs as
        much as one standard deviation in every gene.
    %(training)s
    rng
        Seed of the initial weights and of training.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.model.GaussianVAE.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.GaussianVAE(adata)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.predict_age().shape == (adata.n_obs,)
    True
    """

    fixed = {"gene_likelihood": "normal"}
    search_space: ClassVar[dict[str, Any]] = {**VAEClock.search_space, "standardize": [True, False]}

    def __init__(
        self,
        adata: AnnData,
        *,
        n_latent: int = 32,
        n_hidden: Sequence[int] = (128, 128),
        n_head: Sequence[int] = (),
        dropout_rate: float = 0.2,
        standardize: bool = True,
        age_loss: str = "huber",
        age_weight: float = 1.0,
        subject_weight: str = "equal",
        train_unit: str = "pseudocell",
        pseudocell_size: float = 0.5,
        pseudocell_groupby: str | None = None,
        encode_covariates: bool = False,
        rng: int | np.random.Generator | None = 0,
    ) -> None:
        n_latent, rng = _checks.count(n_latent, "n_latent"), as_seed(rng)
        n_hidden, n_head = whole_numbers(n_hidden), whole_numbers(n_head)
        super().__init__(adata, age_loss, subject_weight, train_unit, pseudocell_size, pseudocell_groupby)
        self._build(self._get_init_params(locals()))


@partial(shared, entries=_ARGUMENTS)
class DenoisingVAE(VAEClock):
    """Ageing clock: variational autoencoder whose encoder sees noisy cells while it is trained.

    As :class:`PoissonVAE` or :class:`GaussianVAE`, by ``gene_likelihood``, but noise is added to what the encoder
    sees, in training only. The loss compares the reconstruction with the clean cell, whose library size the decoder
    gets too; predictions see no noise. After the denoising VAE of Su & Mukundan, *A single cell RNA-Seq based aging
    clock for human neurons*, with noise and likelihoods that suit counts, which they left for later.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`: counts, or any values with ``gene_likelihood="normal"`` and
        Gaussian noise.
    %(widths)s
    gene_likelihood
        ``"poisson"``, ``"nb"``, ``"zip"``, ``"zinb"``, or ``"normal"`` for normalised values.
    noise
        ``"binomial"``: every single count is lost with probability ``noise_level``. ``"poisson"``: a count x becomes
        ``noise_level`` times a Poisson draw of mean x / ``noise_level``, which has mean x and variance
        ``noise_level`` x. ``"gaussian"``: normal noise on the encoder's input, after normalisation.
    noise_level
        What it means depends on ``noise``, see there; for Gaussian noise the standard deviation in units of
        ``noise_relative_to``. 0 adds no noise.
    noise_relative_to
        Unit of Gaussian noise: ``"input_sd"``, the standard deviation of each gene's input over training cells, or
        ``"max"``, the largest normalised value of the training cells.
    standardize
        Z-score the encoder's input, and with ``"normal"`` the values that are reconstructed, by training cells.
    rate
        Of counts, as in :class:`PoissonVAE`.
    age_loss
        ``"huber"``, ``"mse"`` or ``"mae"`` on the standardised age.
    age_weight
        Weight of the age loss, in the units of :class:`PoissonVAE`, or with ``"normal"`` of :class:`GaussianVAE`.
    %(training)s
    rng
        Seed of the initial weights and of training.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.model.DenoisingVAE.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.DenoisingVAE(adata, noise="binomial", noise_level=0.3)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.predict_age().shape == (adata.n_obs,)
    True
    """

    search_space: ClassVar[dict[str, Any]] = {
        **VAEClock.search_space,
        "gene_likelihood": ["poisson", "nb", "normal"],
        "noise": [
            {"noise": "gaussian", "noise_level": 0.5, "noise_relative_to": "input_sd"},
            {"noise": "gaussian", "noise_level": 5.0, "noise_relative_to": "input_sd"},
            {"noise": "gaussian", "noise_level": 0.5, "noise_relative_to": "max"},
            {"noise": "binomial", "noise_level": 0.1},
            {"noise": "binomial", "noise_level": 0.3},
            {"noise": "binomial", "noise_level": 0.5},
            {"noise": "poisson", "noise_level": 0.5},
        ],
    }

    @classmethod
    def test_params(cls) -> dict[str, dict[str, Any]]:
        """Arguments that make a small clock for tests, and those that let it read continuous values."""
        return super().test_params() | {"continuous": {"gene_likelihood": "normal", "noise": "gaussian"}}

    def __init__(
        self,
        adata: AnnData,
        *,
        n_latent: int = 32,
        n_hidden: Sequence[int] = (128, 128),
        n_head: Sequence[int] = (),
        dropout_rate: float = 0.2,
        gene_likelihood: str = "poisson",
        noise: str = "binomial",
        noise_level: float = 0.3,
        noise_relative_to: str = "input_sd",
        standardize: bool = True,
        rate: str = "softmax",
        age_loss: str = "huber",
        age_weight: float = 1.0,
        subject_weight: str = "equal",
        train_unit: str = "pseudocell",
        pseudocell_size: float = 0.5,
        pseudocell_groupby: str | None = None,
        encode_covariates: bool = False,
        rng: int | np.random.Generator | None = 0,
    ) -> None:
        _checks.choice(gene_likelihood, (*GENE_LIKELIHOODS, "normal"), "gene_likelihood")
        _checks.choice(noise, NOISES, "noise")
        _checks.choice(noise_relative_to, NOISE_SCALES, "noise_relative_to")
        _checks.choice(rate, RATES, "rate")
        if not 0 <= noise_level < (1.0 if noise == "binomial" else np.inf):
            what = "the share of counts that are lost, at least 0 and below 1" if noise == "binomial" else "0 or more"
            raise ValueError(f"noise_level={noise_level} with noise={noise!r}; it is {what}.")
        n_latent, rng = _checks.count(n_latent, "n_latent"), as_seed(rng)
        n_hidden, n_head = whole_numbers(n_hidden), whole_numbers(n_head)
        super().__init__(adata, age_loss, subject_weight, train_unit, pseudocell_size, pseudocell_groupby)
        if gene_likelihood != "normal" or noise != "gaussian":
            self.expects = "counts"
            x = values_of(self.adata_manager)
            check_values(x, self.setup_args, counts=True, model=type(self).__name__, empty_ok=True)
        self._build(self._get_init_params(locals()))
