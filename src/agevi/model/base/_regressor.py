"""Clocks on networks that map the genes of a cell to its age: what the classes without a decoder share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from anndata import AnnData

from agevi import _checks
from agevi.model.base._clock import Clock
from agevi.model.base._train import SubjectTrainingMixin


class RegressorClock(SubjectTrainingMixin, Clock):
    """A clock whose module is a :class:`RegressorModule`; it reads neither batch nor covariates."""

    unit_from_disk: ClassVar[str] = "cell"
    reads_cells = False
    module: Any

    def get_latent_representation(
        self, adata: AnnData | None = None, indices: Sequence[int] | None = None, batch_size: int | None = None
    ) -> np.ndarray:
        """Latent representation of every cell.

        Parameters
        ----------
        adata
            Cells with the clock's genes in any order; default: the data of the model.
        indices
            Positions of the cells; default all.
        batch_size
            Cells per step.

        Returns
        -------
        float32 of shape (n_cells, n_latent).
        """
        data = self._data(adata)
        rows, place = _checks.rows(indices, data.n_obs)
        return np.asarray(self.predict_rows(data, indices=rows, batch_size=batch_size).latent)[place]
