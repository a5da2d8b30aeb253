"""Rows that a clock predicts, in its own values: cells, or sums of cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from anndata import AnnData

from agevi import _checks
from agevi._compat import on_disk, read_rows
from agevi._compat.scvi import REGISTRY_KEYS
from agevi.dataloaders._cells import fields_of
from agevi.nn.attribution import Reading

_BLOCK = 2**24  # values that are read at a time, about


class UnitRows:
    """What one clock reads of cells, or of their sums by ``codes``, (n_used,); a few rows at a time are dense."""

    def __init__(
        self, clock: Any, adata: AnnData, cells: np.ndarray, codes: np.ndarray | None, min_gene_coverage: float = 0.8
    ) -> None:
        self.clock, self.layer = clock, clock.setup_args["layer"]
        self.device, adata = clock.device, clock.read(adata)
        self.stored = adata if codes is None and on_disk(adata) else None
        self.rows: np.ndarray = cells
        if codes is None:
            some = adata if self.stored is None else read_rows(adata, cells[:1])
            self.shell, self.match = clock.query(some, min_gene_coverage=min_gene_coverage, conditioned=False)
        else:
            self.shell, self.match = clock.sums(adata, cells, codes, min_gene_coverage)
            self.rows = np.arange(self.shell.n_obs)
        module, present = clock.module.eval(), clock.present_genes(self.shell, self.match)
        self.reading: Reading = module.reading(summed=codes is not None, present=present)
        self._fields: dict[str, np.ndarray] = {}
        if self.stored is not None and (self.reading.covariates is not None or self.reading.by_field):
            _checks.in_memory(adata, f"attributions by a {type(clock).__name__} that uses covariates read")
        if self.reading.covariates is not None:
            self._fields = self.fields()

    @property
    def genes(self) -> np.ndarray:
        """Names of the clock's genes, (n_genes,)."""
        return np.asarray(self.clock.genes)

    def fields(self) -> dict[str, np.ndarray]:
        """Codes of batch and covariates of the shell's rows, and what else is registered."""
        self.clock._remember(self.shell)
        try:
            return fields_of(self.clock.get_anndata_manager(self.shell, required=True))
        finally:
            self.clock._forget(self.shell)

    def values(self, rows: np.ndarray) -> torch.Tensor:
        """What the clock reads of some rows, (n, n_genes) float32 on its device."""
        return self._read(self._expression(rows), rows)

    def slopes(self, rows: np.ndarray) -> np.ndarray:
        """Change of the age of some rows with their values as they are in the data, (n, n_genes) float32."""
        x = self._expression(rows).requires_grad_()
        with torch.enable_grad():
            slope = torch.autograd.grad(self.ages(self._read(x, rows), rows).sum(), x)[0]
        return np.asarray(slope.cpu().numpy(), dtype=np.float32)

    def ages(self, values: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Ages of some rows from what is read of them, (n,)."""
        return self.reading.tail(values @ self.reading.weight.T + self.shift(rows))

    def blocks(self, n: int) -> list[np.ndarray]:
        """The first ``n`` rows, so few at a time that what is read of them is small."""
        size = max(1, _BLOCK // max(len(self.genes), 1))
        return [np.arange(start, min(start + size, n)) for start in range(0, n, size)]

    def _expression(self, rows: np.ndarray) -> torch.Tensor:
        """Values of some rows as they are in the data, (n, n_genes) float32 on the clock's device."""
        shell, places = self._at(rows)
        x = _checks.matrix(shell, self.layer)[places]
        return torch.from_numpy(_checks.dense(x)).to(self.device)

    def _at(self, rows: np.ndarray) -> tuple[AnnData, np.ndarray]:
        """Data with some rows, and their positions in them: all data, or what is read of those on disk."""
        if self.stored is None:
            return self.shell, self.rows[rows]
        own = read_rows(self.stored, self.rows[rows])
        return self.clock.query(own, min_gene_coverage=0.0, conditioned=False)[0], np.arange(len(rows))

    def _read(self, x: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """What the clock reads of such values of some rows."""
        return self.reading.values(x, self._fields_of(rows)) if self.reading.by_field else self.reading.values(x)

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
