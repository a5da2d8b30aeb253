"""Clock on non-negative matrix factorisation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks, _keys
from agevi._compat.scvi import REGISTRY_KEYS
from agevi._progress import progress
from agevi.dataloaders._cells import values_of
from agevi.dataloaders._fields import SUBJECT
from agevi.dataloaders._pseudocells import ROWS
from agevi.dataloaders._stats import gene_stats
from agevi.model.base._clock import Moments
from agevi.model.base._regressor import RegressorClock
from agevi.model.base._seed import as_seed, seeded
from agevi.model.nmf._factorization import balanced_sample, fit_components, gene_weights
from agevi.model.nmf._loadings import LoadingSplitter
from agevi.model.nmf._module import NMFModule

logger = logging.getLogger(__name__)

GENE_WEIGHTS = ("poisson", "none")
_ROWS = 2048


class NMFClock(RegressorClock):
    """Ageing clock: non-negative matrix factorisation of the counts, and a perceptron on the loadings of a cell.

    scikit-learn's NMF is fitted to pseudocells, or cells, of the training subjects. Every row, new ones too, is then
    projected onto the fixed components by non-negative least squares, and a small network maps the roots of the
    loadings, z-scored, to the age. Components are programs of genes that only add up, so they can be read
    (:meth:`get_components`), but 100 of them hold less about age than all genes do. A donor's age is that of the sum of
    its cells, or with ``train_unit="cell"`` the mean over them (:func:`agevi.tl.aggregate_subjects`). The latent
    representation is the loadings. Neither batch nor covariates are read. Do not trust predictions on another tissue,
    assay or species than the training data's. After NMF + MLP of Su & Mukundan, *A single cell RNA-Seq based aging
    clock for human neurons*.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`; raw counts. With ``normalize="log1p_cp10k"``, the default,
        loadings are those of the counts per 10,000, with ``"none"`` those of the counts.
    n_components
        Components.
    n_hidden
        Widths of the network's layers; none makes it linear.
    dropout_rate
        Dropout of every layer while training.
    gene_weight
        ``"poisson"``: the squared error of a gene is divided by its mean count, so that Poisson noise is the same in
        all genes; ``"none"``: the error of the counts themselves, as published, which few highly expressed genes
        decide.
    n_fit
        Rows at most that components are fitted to: pseudocells of the training samples, as training draws them, or
        with ``train_unit="cell"`` training cells, drawn at random and as equally as can be from the training subjects.
        They are held dense, in 4 bytes per gene.
    max_iter
        Iterations of the factorisation at most.
    age_loss
        ``"huber"``, ``"mse"`` or ``"mae"`` on the standardised age.
    subject_weight
        ``"equal"``: every subject has equal weight in the loss of the age; ``"cells"``: every cell does;
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
        Seed of the factorisation, of the initial weights and of training. The same seed gives the same clock bit for
        bit on a CPU with the same number of threads.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.model.NMFClock.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.NMFClock(adata, n_components=5, n_hidden=[8])
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.get_latent_representation().shape == (adata.n_obs, 5)
    True
    """

    expects = "counts"
    solves_rows: ClassVar[bool] = True
    program_kind: ClassVar[str | None] = "component"
    search_space: ClassVar[dict[str, Any]] = {
        **RegressorClock.search_space,
        "n_components": {"low": 20, "high": 150, "log": True},
        "n_hidden": [[20, 20], [64], [128, 128]],
    }

    def __init__(
        self,
        adata: AnnData,
        *,
        n_components: int = 100,
        n_hidden: Sequence[int] = (20, 20),
        dropout_rate: float = 0.2,
        gene_weight: str = "poisson",
        n_fit: int = 3000,
        max_iter: int = 200,
        age_loss: str = "huber",
        subject_weight: str = "equal",
        train_unit: str = "pseudocell",
        pseudocell_size: float = 0.5,
        pseudocell_groupby: str | None = None,
        rng: int | np.random.Generator | None = 0,
    ) -> None:
        _checks.choice(gene_weight, GENE_WEIGHTS, "gene_weight")
        n_components, max_iter = _checks.count(n_components, "n_components"), _checks.count(max_iter, "max_iter")
        n_fit = _checks.count(n_fit, "n_fit", low=n_components)
        n_hidden, rng = [int(n) for n in n_hidden], as_seed(rng)
        super().__init__(adata, age_loss, subject_weight, train_unit, pseudocell_size, pseudocell_groupby)
        if n_components > self.summary_stats.n_vars:
            raise ValueError(
                f"n_components={n_components}, but adata has {self.summary_stats.n_vars:,} genes; pass a number from "
                "1 to that, and much smaller to summarise them."
            )
        self.init_params_ = self._get_init_params(locals())
        self.module = self._make_module()
        self._model_summary_string = (
            f"NMFClock: {len(self.genes):,} genes, n_components: {n_components}, n_hidden: {n_hidden}, "
            f"gene_weight: {gene_weight}"
        )

    @classmethod
    def test_params(cls) -> dict[str, dict[str, Any]]:
        """Arguments that make a small clock for tests."""
        return super().test_params() | {"init": {"n_components": 4, "n_hidden": [8]}}

    def _make_module(self) -> NMFModule:
        """A module with fresh weights that depend on the seed alone."""
        init = self.init_args
        with seeded(init["rng"]):
            return NMFModule(
                self.summary_stats.n_vars,
                n_components=init["n_components"],
                n_hidden=init["n_hidden"],
                dropout_rate=init["dropout_rate"],
                normalize=self.normalize,
                age_loss=init["age_loss"],
                **self._age_scale_args,
                sums=self.predicts_sums,
            )

    # --- the fit ---------------------------------------------------------------------------------------------

    def _fit_buffers(self, train: np.ndarray) -> None:
        """Components and the scales of loadings and ages, from training cells alone."""
        init, rows = self.init_args, np.flatnonzero(train)
        x, normalize = values_of(self.adata_manager), self.normalize
        stats = gene_stats(x, rows, normalize=normalize)
        weights = gene_weights(stats.mean, init["gene_weight"])
        subject = self.adata_manager.get_from_registry(SUBJECT).ravel()
        chosen = balanced_sample(subject[rows], init["n_fit"], np.random.default_rng(init["rng"]))
        cells = _dense(x, rows[chosen])
        fitted = self._pseudocells(train) if self.predicts_sums else cells
        if self.predicts_sums and normalize != "none":  # loadings are normalised, so let no row weigh by its depth
            fitted *= stats.library / fitted.sum(1, keepdim=True).clamp_min(1e-12)
        options = {"n_components": init["n_components"], "max_iter": init["max_iter"], "seed": init["rng"]}
        with progress(1, f"NMFClock, components of {len(fitted):,} {self.train_unit}s", "fits") as bar:
            fit = fit_components(fitted.numpy(), weights, **options)
            bar.step()
        logger.info("NMF of %d %ss: error %g, %d iterations.", len(fitted), self.train_unit, fit.error, fit.n_iter)
        module = self.module
        stats.fill(module.input)
        module.components.copy_(torch.from_numpy(fit.components))
        module.gene_weight.copy_(torch.from_numpy(weights))
        module.fit_scaler(self._loadings(cells))
        if self.predicts_sums:
            module.fit_scaler(self._loadings(fitted), summed=True)
        module.age_scale.fit(self._sample_ages(train))

    def _pseudocells(self, train: np.ndarray) -> torch.Tensor:
        """Pseudocells of the labelled training samples, as training draws them, (n_fit, n_genes)."""
        init, n = self.init_args, 0
        out = torch.empty(init["n_fit"], self.summary_stats.n_vars)
        with seeded(init["rng"]):
            loader = super()._splitter(np.where(train, _keys.TRAIN, _keys.TEST), ROWS).train_dataloader()
            batches = chain.from_iterable(repeat(loader))
            while n < len(out):
                rows = next(batches)[REGISTRY_KEYS.X_KEY][: len(out) - n]
                out[n : n + len(rows)] = rows
                n += len(rows)
        return out

    def _splitter(self, cell_roles: np.ndarray, batch_size: int) -> Any:
        """Loaders; cells are projected once, before, and pseudocells when they are drawn."""
        if self.predicts_sums:
            return super()._splitter(cell_roles, batch_size)
        x = values_of(self.adata_manager)
        loadings = torch.zeros(x.shape[0], self.module.components.shape[0])
        rows = np.flatnonzero(cell_roles != _keys.TEST)
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            loadings[part] = self._loadings(_dense(x, part))
        return LoadingSplitter(self.adata_manager, cell_roles, batch_size=batch_size, loadings=loadings)

    @torch.inference_mode()
    def _loadings(self, counts: torch.Tensor) -> torch.Tensor:
        """Loadings of counts, on the CPU."""
        parts = [self.module.latent(part.to(self.device)).cpu() for part in counts.split(_ROWS)]
        return torch.cat(parts)

    # --- what it found ---------------------------------------------------------------------------------------

    def programs(self, moments: Moments) -> np.ndarray:
        """The components times the roots of the weights of the genes in the fit, (n_components, n_genes)."""
        return (self.module.components * self.module.gene_weight.sqrt()).cpu().numpy()

    def get_components(self) -> pd.DataFrame:
        """Components on the scale of counts: genes x components, each column with sum 1.

        Loadings times components approximate the counts, per 10,000 of them unless ``normalize="none"``.
        """
        self.check_trained("get_components")
        values = self.module.components.cpu().numpy().T
        return pd.DataFrame(values, index=self.genes, columns=[f"component_{k}" for k in range(values.shape[1])])

    @torch.inference_mode()
    def get_reconstruction_error(self, adata: AnnData | None = None, indices: Sequence[int] | None = None) -> float:
        """Frobenius norm of counts minus loadings times components, genes weighted as in the fit.

        With ``gene_weight="none"`` it is what scikit-learn calls ``reconstruction_err_``.

        Parameters
        ----------
        adata
            Cells with the clock's genes; default: the data of the model.
        indices
            Positions of the cells; default all.
        """
        self.check_trained("get_reconstruction_error")
        data = self._data(adata)
        _checks.in_memory(data, "model.get_reconstruction_error reads")
        rows = np.arange(data.n_obs) if indices is None else _checks.positions(indices, data.n_obs)
        shell, _ = self.query(data, min_gene_coverage=1.0, conditioned=False)
        x, module = _checks.matrix(shell, self.setup_args["layer"]), self.module
        total = 0.0
        for start in range(0, len(rows), _ROWS):
            counts = _dense(x, rows[start : start + _ROWS]).to(self.device)
            left = (counts - module.project(counts) @ module.components) * module.gene_weight.sqrt()
            total += float(left.double().square().sum())
        return total**0.5


def _dense(x: Any, rows: np.ndarray) -> torch.Tensor:
    """Some rows as float32."""
    return torch.from_numpy(_checks.dense(x[rows]))
