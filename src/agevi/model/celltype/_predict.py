"""What a clock of cell types predicts: ages of types, of samples and of cells, and the anchor of a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks
from agevi._compat import Host
from agevi.dataloaders._query import begin
from agevi.dataloaders._register import cell_types
from agevi.dataloaders._summed import refuse_sums
from agevi.model.base._predict import ADVICE_OF_SAMPLES, Prediction
from agevi.model.celltype._ages import TypeAges, ages_of_types


class TypePrediction(Host):
    """Prediction by a clock per type."""

    type_clocks: dict[str, Any]
    contrast_clocks: Mapping[str, Any]

    def predict_types(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        sample_key: str | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
    ) -> pd.DataFrame:
        """Age that the clock of every type gives to each sample, in the unit of the age column.

        Parameters
        ----------
        adata
            Cells with the clock's genes and types; default: the data that the model was made with.
        indices
            Positions of the cells that are read, or a mask of all cells; default all.
        sample_key
            Column with the samples. Default: that of training.
        batch_size
            Rows per step.
        min_gene_coverage
            Share of the clock's genes that must be present.

        Returns
        -------
        DataFrame of float64, index sample, one column per type with a clock, and ``"composition"`` where the clock has
        it; NaN where a sample has fewer than ``min_cells`` cells of a type. Samples with so few of every type are
        predicted from these few cells all the same, which is logged.

        Raises
        ------
        KeyError
            If the column of types or of samples is missing.
        RuntimeError
            If the clock is not trained.
        ValueError
            If the data hold no type of the clock, or genes are missing.
        """
        self.check_trained("model.predict_types")
        options = {"batch_size": batch_size, "min_gene_coverage": min_gene_coverage}
        return self._parts_asked_for(adata, indices, sample_key=sample_key, **options).table()

    def predict_anchor(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        sample_key: str | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
    ) -> pd.Series:
        """Age of every sample by the types against the anchor, for the level of its cohort and for nothing else.

        Parameters
        ----------
        adata, indices, sample_key, batch_size, min_gene_coverage
            As in :meth:`predict_types`.

        Returns
        -------
        Series of float64, index sample, in the unit of the age column: the mean over the contrasts that the sample has;
        NaN where it lacks cells (``min_cells``) or 500 counts of the anchor or of all other types.

        Raises
        ------
        KeyError, RuntimeError
            As :meth:`predict_types`.
        ValueError
            If the clock has no anchor, or as :meth:`predict_types`.
        """
        self.check_trained("model.predict_anchor")
        if not self.contrast_clocks:
            raise ValueError(
                f"this clock has no anchor (anchor={self.init_args['anchor']!r}); make it with anchor='<a type of the "
                "same samples>'."
            )
        options = {"batch_size": batch_size, "min_gene_coverage": min_gene_coverage}
        return self._parts_asked_for(adata, indices, sample_key=sample_key, **options).anchor_ages

    def _parts_asked_for(self, adata: AnnData | None, indices: Sequence[int] | None, **options: Any) -> TypeAges:
        """What :meth:`predict_parts` gives for the data and cells of a call of the user."""
        data = self._data(adata)
        begin(data)
        rows = None if indices is None else _checks.rows(indices, data.n_obs)[0]
        return self.predict_parts(data, indices=rows, **options)

    def predict_parts(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
        sample_key: str | None = None,
    ) -> TypeAges:
        """Ages of all types in each sample, and what they are combined to, in one pass over the cells."""
        self.check_trained("tl.predict_age")
        data = self._data(adata)
        rows = np.arange(data.n_obs) if indices is None else np.asarray(indices)
        return ages_of_types(
            self, data, rows, batch_size=batch_size, min_gene_coverage=min_gene_coverage, sample_key=sample_key
        )

    def predict_samples(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
        sample_key: str | None = None,
    ) -> np.ndarray:
        """Combined age of each cell's sample, (n_cells,), NaN where a sample has no type of the clock."""
        parts = self.predict_parts(
            adata, indices=indices, batch_size=batch_size, min_gene_coverage=min_gene_coverage, sample_key=sample_key
        )
        return parts.age_of_cell

    def predict_rows(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        min_gene_coverage: float = 0.8,
    ) -> Prediction:
        """Age of every cell by the clock of its type, NaN for cells of other types."""
        self.check_trained("tl.predict_age")
        data = self._data(adata)
        refuse_sums(data, f"this call of {type(self).__name__} reads", ADVICE_OF_SAMPLES)
        rows = np.arange(data.n_obs) if indices is None else np.asarray(indices)
        coverage = self.gene_coverage(data, min_gene_coverage)
        code, names = cell_types(data, self.setup_args["cell_type_key"], "cell_type_key")
        out = np.full(len(rows), np.nan, dtype=np.float32)
        for name, clock in self.type_clocks.items():
            own = np.flatnonzero(code[rows] == (names.index(name) if name in names else -2))
            if len(own):
                options = {"batch_size": batch_size, "min_gene_coverage": min_gene_coverage}
                out[own] = clock.predict_rows(data, indices=rows[own], **options).value
        return Prediction(out, None, coverage)
