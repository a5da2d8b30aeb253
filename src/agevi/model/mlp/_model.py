"""Multilayer perceptron clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from anndata import AnnData

from agevi.dataloaders._cells import values_of
from agevi.dataloaders._stats import gene_stats
from agevi.model.base._regressor import RegressorClock
from agevi.model.base._seed import as_seed, seeded
from agevi.model.mlp._module import MLPModule


class MLPClock(RegressorClock):
    """Ageing clock: multilayer perceptron from the genes of a cell to its age.

    Values are normalised and z-scored with mean and standard deviation of the training cells (of the sums of training
    samples, for sums); blocks of Linear, BatchNorm, ReLU and Dropout and one linear unit give the standardised age. It
    has no decoder, so cells without an age teach it nothing, and neither batch nor covariates are read. A donor's age
    is that of the sum of its cells, or with ``train_unit="cell"`` the mean over them
    (:func:`agevi.tl.aggregate_subjects`). The latent representation is the output of the last block. Do not trust
    predictions on another tissue, assay or species than the training data's. After the MLP of Su & Mukundan, *A single
    cell RNA-Seq based aging clock for human neurons*.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`: counts, which are normalised inside, or any values with
        ``normalize="none"``.
    n_hidden
        Widths of the blocks, one at least.
    dropout_rate
        Dropout of every block while training.
    age_loss
        ``"huber"``, ``"mse"`` or ``"mae"`` on the standardised age.
    subject_weight
        ``"equal"``: every subject has equal weight in the loss; ``"cells"``: every cell does;
        ``"density"``: a subject weighs inversely to how common its age is among the training subjects (Gaussian kernel
        density, Scott's bandwidth; weights bounded to 0.2 to 5 times their mean), so that rare ages count more.
    train_unit
        ``"pseudocell"``: ages are learnt from sums of cells of a sample, drawn anew in every step; the clock then
        predicts a sample from the sum of its cells. ``"cell"``: from single cells.
    pseudocell_size
        Cells of a pseudocell: a share of the sample's cells, or a number.
    pseudocell_groupby
        Column of ``adata.obs``, such as the cell type, whose groups are kept apart: a pseudocell has cells of one group
        of a sample, and a sample is predicted as the mean over its groups, weighted by their cells.
    rng
        Seed of the initial weights and of training. The same seed gives the same clock bit for bit on a CPU with the
        same number of threads.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.model.MLPClock.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.MLPClock(adata, n_hidden=[32])
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.get_latent_representation().shape == (adata.n_obs, 32)
    True
    """

    expects = "any"

    search_space: ClassVar[dict[str, Any]] = {
        **RegressorClock.search_space,
        "n_hidden": [[128, 128], [500, 500], [1000, 1000], [128, 2048, 128], [5000, 5000, 5000]],
    }

    def __init__(
        self,
        adata: AnnData,
        *,
        n_hidden: Sequence[int] = (128, 128),
        dropout_rate: float = 0.4,
        age_loss: str = "huber",
        subject_weight: str = "equal",
        train_unit: str = "pseudocell",
        pseudocell_size: float = 0.5,
        pseudocell_groupby: str | None = None,
        rng: int | np.random.Generator | None = 0,
    ) -> None:
        n_hidden, rng = [int(n) for n in n_hidden], as_seed(rng)
        if not n_hidden:
            raise ValueError("n_hidden=[] is empty; pass at least one width, for example n_hidden=[128].")
        super().__init__(adata, age_loss, subject_weight, train_unit, pseudocell_size, pseudocell_groupby)
        self.init_params_ = self._get_init_params(locals())
        self.module = self._make_module()
        self._model_summary_string = f"MLPClock: {self._width}, n_hidden: {n_hidden}, dropout_rate: {dropout_rate}"

    @classmethod
    def test_params(cls) -> dict[str, dict[str, Any]]:
        """Arguments that make a small clock for tests."""
        return super().test_params() | {"init": {"n_hidden": [16]}}

    def _make_module(self) -> MLPModule:
        """A module with fresh weights that depend on the seed alone."""
        init = self.init_args
        with seeded(init["rng"]):
            return MLPModule(
                self.summary_stats.n_vars,
                n_hidden=init["n_hidden"],
                dropout_rate=init["dropout_rate"],
                normalize=self.normalize,
                age_loss=init["age_loss"],
                **self._age_scale_args,
                sums=self.predicts_sums,
            )

    def _fit_buffers(self, train: np.ndarray) -> None:
        """Scalers of genes and ages, from training cells alone."""
        x = values_of(self.adata_manager)
        gene_stats(x, np.flatnonzero(train), normalize=self.normalize).fill(self.module.input)
        self.module.age_scale.fit(self._sample_ages(train))
        self._fit_sums(train, self.module.input)
