"""Rows that a clock predicts, in its own values: cells, or sums of cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData

from agevi import _checks
from agevi._compat import REGISTRY_KEYS
from agevi.dataloaders._query import GeneMatch
from agevi.dataloaders._sums import sum_rows
from agevi.model.base._predict import blocks, columns_of_units
from agevi.nn.attribution import Reading


class UnitRows:
    """What one clock reads of cells, or of their sums by ``codes``, (n_used,); a few rows at a time are dense."""

    def __init__(
        self, clock: Any, adata: AnnData, cells: np.ndarray, codes: np.ndarray | None, min_gene_coverage: float = 0.8
    ) -> None:
        self.clock, self.layer = clock, clock.setup_args["layer"]
        self.device = clock.device
        if codes is None:
            _checks.in_memory(adata, "attributions of single cells read")
            self.shell, self.match = clock._shell(adata, min_gene_coverage=min_gene_coverage, conditioned=False)
            self.rows: np.ndarray = cells
        else:
            self.shell, self.match = _summed(clock, adata, cells, codes, min_gene_coverage)
            self.rows = np.arange(self.shell.n_obs)
        module, present = clock.module.eval(), clock.present_genes(self.shell, self.match)
        self.reading: Reading = module.reading(summed=codes is not None, present=present)
        self._fields = self._conditions() if self.reading.covariates is not None else {}

    @property
    def genes(self) -> np.ndarray:
        """Names of the clock's genes, (n_genes,)."""
        names: np.ndarray = self.clock.genes
        return names

    def _conditions(self) -> dict[str, np.ndarray]:
        """Codes of batch and covariates of the shell's rows."""
        self.clock._remember(self.shell)
        try:
            manager = self.clock.get_anndata_manager(self.shell, required=True)
            return {
                key: np.asarray(manager.get_from_registry(key), dtype=np.float32)
                for key in manager.data_registry
                if key != REGISTRY_KEYS.X_KEY
            }
        finally:
            self.clock._forget(self.shell)

    def values(self, rows: np.ndarray) -> torch.Tensor:
        """What the clock reads of some rows, (n, n_genes) float32 on its device."""
        x = _checks.matrix(self.shell, self.layer)[self.rows[rows]]
        read = torch.from_numpy(_checks.dense(x)).to(self.device)
        return self.reading.values(read, self._fields_of(rows)) if self.reading.by_field else self.reading.values(read)

    def _fields_of(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Batch and covariates of some rows, and what else is registered."""
        chosen = self.rows[rows]
        fields = {k: torch.from_numpy(v[chosen]).to(self.device) for k, v in self._fields.items()}
        return fields | {REGISTRY_KEYS.X_KEY: torch.empty(len(chosen), 0, device=self.device)}

    def shift(self, rows: np.ndarray) -> torch.Tensor:
        """What is added behind the first layer, (n_units,), or (n, n_units) where the clock reads covariates."""
        if self.reading.covariates is None:
            return self.reading.shift
        return self.reading.shift + self.reading.covariates(self._fields_of(rows))


def _summed(
    clock: Any, adata: AnnData, cells: np.ndarray, codes: np.ndarray, min_gene_coverage: float
) -> tuple[AnnData, GeneMatch]:
    """A shell whose rows are the sums in which a clock predicts (means of values that it does not normalise)."""
    setup, n_units = clock.setup_args, int(codes.max()) + 1
    sums, start = None, 0
    for block in blocks(adata, cells):
        shell, match = clock._shell(block, min_gene_coverage=min_gene_coverage, conditioned=False)
        of_row = np.full(block.n_obs, -1)
        of_row[np.arange(block.n_obs) if adata.isbacked else cells] = codes[start : start + block.n_obs]
        part = sum_rows(_checks.matrix(shell, setup["layer"]), of_row, n_units)
        sums, start = part if sums is None else sums + part, start + block.n_obs
    if setup["normalize"] == "none":
        sums = sp.diags(1 / np.bincount(codes)) @ sums
    read = getattr(clock.module, "encode_covariates", False)
    obs = clock._conditions(columns_of_units(adata, cells, codes, setup, read=read), read)
    units = AnnData(obs=obs, var=shell.var.copy(), shape=(n_units, len(clock.genes)))
    if setup["layer"] is None:
        units.X = sums
    else:
        units.layers[setup["layer"]] = sums
    return units, match
