"""Passes over cells, or over sums of cells, that predict ages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from pandas.api.types import is_numeric_dtype

from agevi import _checks, _names, _units
from agevi._compat import on_disk
from agevi._threads import n_threads, n_weights, threads
from agevi.dataloaders._cells import cell_loader
from agevi.dataloaders._fields import SUMMED
from agevi.dataloaders._query import GeneMatch, blocks
from agevi.dataloaders._register import covariate_columns
from agevi.dataloaders._summed import cells_of_rows, cells_of_units, refuse_sums
from agevi.dataloaders._sums import most_common, sample_groups, sample_means, sum_rows
from agevi.model.base._kept_sums import Sums, kept_sums
from agevi.model.base._query import ShellMixin

PREDICT_VALUES = 2**23
"""Cells x genes of a step of prediction, about."""


ADVICE_OF_SAMPLES = (
    "A clock of sums predicts their samples: level='sample', and agevi.tl.predict_age without cell_type_key; other "
    "clocks need the cells that were summed. For a published clock sum the values that it reads: "
    "agevi.pp.sum_samples(..., layer=..., values='any'); or, for one of bulk samples, normalise the sums as its "
    "publication says, and delete adata.uns['agevi_sums']."
)


class Prediction(NamedTuple):
    """What a pass over cells gives."""

    value: np.ndarray  # (n_cells,) float32, ages in the unit of their column, or log-odds
    latent: np.ndarray | None  # (n_cells, n_latent) float32
    gene_coverage: float


class PredictMixin(ShellMixin):
    """How a clock goes over data, in memory or on disk."""

    predicts: ClassVar[str]
    predicts_sums: bool

    @property
    def level(self) -> str:
        """``"sample"`` or ``"cell"``, what it predicts ages of, as ``predict_age`` takes it."""
        return "sample" if self.predicts_sums else "cell"

    def predict_rows(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
    ) -> Prediction:
        """Ages and latent representation in one pass over the cells."""
        self.check_trained("tl.predict_age")
        data = self._data(adata)
        refuse_sums(data, f"this call of {type(self).__name__} reads", ADVICE_OF_SAMPLES)
        values, latents, coverages = [], [], []
        n_cells = batch_size or self._batch_size
        for block in blocks(data, indices, n_cells):
            shell, match = self.query(block, min_gene_coverage=min_gene_coverage, conditioned=False)
            own = None if on_disk(data) else indices
            value, latent = self._predict_shell(shell, match, indices=own, batch_size=batch_size)
            values.append(value)
            latents += [] if latent is None else [latent]
            coverages.append(match.coverage)
        return Prediction(np.concatenate(values), np.concatenate(latents) if latents else None, coverages[0])

    @property
    def _batch_size(self) -> int:
        """Cells of a step of prediction."""
        return int(np.clip(PREDICT_VALUES // len(self.genes), 512, 4096))

    def gene_coverage(self, adata: AnnData, min_gene_coverage: float) -> float:
        """Share of the clock's genes that the data have; values are not read."""
        _checks.unique_names(adata)
        return self._match(self.read(adata), min_gene_coverage).coverage

    def _predict_shell(
        self,
        shell: AnnData,
        match: GeneMatch,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        summed: bool = False,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Ages and latent means of the rows of a shell."""
        self._remember(shell)
        try:
            manager, cells = self.get_anndata_manager(shell), None if indices is None else np.asarray(indices)
            n_cells = batch_size or self._batch_size
            loader = cell_loader(manager, cells, batch_size=n_cells)
            with threads(n_threads(min(n_cells, shell.n_obs) * n_weights(self.module))):
                return self._predict_batches(loader, self.present_genes(shell, match), summed=summed)
        finally:
            self._forget(shell)

    def sample_codes(
        self, adata: AnnData, indices: Sequence[int] | np.ndarray | None, sample_key: str | None
    ) -> np.ndarray:
        """Sample of every cell, (n_cells,); by default the samples are those of training."""
        return self.sample_names(adata, indices, sample_key)[1]

    def sample_names(
        self, adata: AnnData, indices: Sequence[int] | np.ndarray | None, sample_key: str | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Names of the samples, (n_samples,), and the position of every cell's among them, (n_cells,)."""
        setup = self.setup_args
        key = _units.sample_column(setup, sample_key)
        if setup["subject_key"] in adata.obs:
            names = _units.units(adata, setup["subject_key"], key)[1].to_numpy()
        else:
            names = _checks.labels(adata, key, "sample_key").to_numpy()
        codes, found = pd.factorize(names if indices is None else names[np.asarray(indices)], sort=True)
        return np.asarray(found, dtype=object), codes

    def predict_samples(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
        sample_key: str | None = None,
    ) -> np.ndarray:
        """Ages from the sum of each sample's cells, one value per cell, (n_cells,); by default training's samples."""
        self.check_trained("tl.predict_age")
        data = self._data(adata)
        rows = np.arange(data.n_obs) if indices is None else np.asarray(indices)
        codes = of_sample = self.sample_codes(data, rows, sample_key)
        if self.pseudocell_groupby is not None:
            group = _checks.labels(data, self.pseudocell_groupby, "pseudocell_groupby").iloc[rows]
            codes = sample_groups(of_sample, group)
        units, match = self.sums(data, rows, codes, min_gene_coverage)
        age, _ = self._predict_shell(units, match, batch_size=batch_size, summed=True)
        if self.pseudocell_groupby is None:
            return age[codes]
        size = cells_of_rows(data)[rows]  # over cells, so that a group weighs by its cells
        return sample_means(age[codes], of_sample, size)

    def sums(
        self, adata: AnnData, cells: np.ndarray, codes: np.ndarray, min_gene_coverage: float
    ) -> tuple[AnnData, GeneMatch]:
        """Cells summed by ``codes``, (n_cells,), as :meth:`query` gives them; means with ``normalize="none"``."""
        setup, adata = self.setup_args, self.read(adata)
        take = partial(self._sum, adata, cells, codes, min_gene_coverage)
        sums, match = kept_sums(self, adata, cells, codes, min_gene_coverage, take)
        if self.normalize == "none":
            sums = sp.diags(1 / cells_of_units(adata, codes, sums.shape[0], cells)) @ sums
        read = self.module.encode_covariates
        obs = self._conditions(columns_of_units(adata, cells, codes, setup, read=read), read)
        var = pd.DataFrame(index=pd.Index(self.genes, dtype=object))
        units = AnnData(obs=obs, var=var, shape=(sums.shape[0], len(self.genes)))
        if setup["layer"] is None:
            units.X = sums
        else:
            units.layers[setup["layer"]] = sums
        return units, match

    def _sum(self, adata: AnnData, cells: np.ndarray, codes: np.ndarray, min_gene_coverage: float) -> Sums:
        """Sums of the cells by ``codes``, (n_units, n_genes), in one pass over the data."""
        sums: Any = None
        start, in_parts = 0, on_disk(adata)
        for block in blocks(adata, cells):
            shell, match = self.query(block, min_gene_coverage=min_gene_coverage, conditioned=False)
            of_row = np.full(block.n_obs, -1)
            own = slice(start, start + block.n_obs) if in_parts else slice(None)
            of_row[slice(None) if in_parts else cells] = codes[own]
            part = sum_rows(_checks.matrix(shell, self.setup_args["layer"]), of_row, int(codes.max()) + 1, np.float64)
            sums, start = part if sums is None else sums + part, start + block.n_obs
        return sums.astype(np.float32), match

    @torch.inference_mode()
    def _predict_batches(
        self, loader: Any, present: torch.Tensor | None, *, summed: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Ages, (n,), and latent representation, (n, n_latent), of the rows in ``loader``, which are cells or sums."""
        ages, latents = [], []
        self.module.eval()
        for tensors in loader:
            if summed:
                tensors[SUMMED] = True
            age, latent = self.module.predict(tensors, present)
            ages.append(age.cpu())
            latents += [] if latent is None else [latent.cpu()]
        return torch.cat(ages).numpy(), torch.cat(latents).numpy() if latents else None

    def present_genes(self, shell: AnnData, match: GeneMatch) -> torch.Tensor | None:
        """What the network knows of genes that the data lack: a mask of those that they have, (n_genes,)."""
        return None if match.present.all() else torch.from_numpy(match.present).to(self.device)

    def check_ages(self, verb: str) -> None:
        """Refuse models that predict no ages, or are not trained."""
        if self.predicts != "age":
            raise TypeError(
                f"{verb} needs a model that predicts ages, and this {type(self).__name__} predicts {self.predicts}; "
                "pass the clock that it was made from, or call model.predict_proba(adata)."
            )
        self.check_trained(verb)

    def check_trained(self, verb: str) -> None:
        """Refuse models that are not trained."""
        if not self.is_trained_:
            name = type(self).__name__
            raise RuntimeError(f"{verb} needs a trained model; call model.train() or {name}.load(...) first.")


def columns_of_units(
    adata: AnnData, rows: np.ndarray, codes: np.ndarray, setup: dict[str, Any], *, read: bool
) -> AnnData:
    """Columns of units, by ``codes`` from 0 of each of ``rows``: the most common category and the mean; no values."""
    # Batch and covariates are left out unless the clock reads them: new data need not have them.
    first, n_units = np.unique(codes, return_index=True)[1], int(codes.max()) + 1
    obs = adata.obs.iloc[rows[first]]
    obs = obs.set_axis(obs.index.astype(str))
    for argument, keys in covariate_columns(setup) if read else []:
        for key in keys:
            values = _checks.column(adata, key, argument).iloc[rows]
            if values.isna().any():
                obs[key] = np.nan  # which is refused
                continue
            if argument == "continuous_covariate_keys":
                obs[key] = values.groupby(codes).mean().to_numpy() if is_numeric_dtype(values) else obs[key]
                continue
            found, names = pd.factorize(
                np.asarray(_names.names(values, f"adata.obs[{key!r}]"), dtype=object), sort=True
            )
            obs[key] = names[most_common(found, codes, n_units)]
    return AnnData(obs=obs)
