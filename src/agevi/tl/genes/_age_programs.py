"""Latent dimensions and components by their part in predicted ages, and their genes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks, _keys
from agevi.metrics._ranks import mean_and_error
from agevi.model.base._seed import in_float32
from agevi.nn.attribution import Reader
from agevi.tl._store import store_table
from agevi.tl.genes._attribute_genes import check_clock, columns_of, in_rows_of
from agevi.tl.genes._passes import Function, Totals, add_rows, settings_of
from agevi.tl.genes._row_sets import draw_cells, make_units


def age_programs(
    adata: AnnData,
    model: Any,
    *,
    n_genes: int = 20,
    unit: str = "auto",
    n_samples: int | None = None,
    n_cells_per_subject: int | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    rng: int | np.random.Generator | None = 0,
    copy: bool = False,
) -> AnnData | None:
    """Years that each latent dimension or component adds to or takes from predicted ages, and the genes it moves.

    The part of a program is its attribution as :func:`agevi.tl.attribute_genes` computes those of genes, with the
    latent representation in the place of the genes. Its genes are found the other way round, from the representation to
    the genes: by the decoder for autoencoders, in the components themselves for :class:`agevi.model.NMFClock`. Latent
    dimensions of an autoencoder are not unique: another seed gives others, with the same genes spread differently.
    Trust a program whose genes come back.

    Parameters
    ----------
    adata
        Cells with the clock's genes.
    model
        A trained autoencoder clock or :class:`agevi.model.NMFClock`.
    n_genes
        Genes listed for each program and direction.
    unit, n_samples, n_cells_per_subject
        As in :func:`agevi.tl.attribute_genes`.
    key_added
        Prefix of the slots.
    rng
        Seed or generator.
    copy
        Return a copy of ``adata`` with the slots instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets:

    ``adata.uns[f"{key_added}_programs"]``
        DataFrame with one row per program, the largest part first: ``position`` (column of the loadings and of
        ``obsm["X_agevi"]``), ``attribution`` (mean over subjects of the mean absolute attribution, in the unit of the
        age), ``signed``, ``se``, ``share`` of the sum of ``attribution``, and ``genes_up`` and ``genes_down``: those
        that rise and fall most as the program moves towards older ages, joined by ";".
    ``adata.varm[f"{key_added}_programs"]``
        Loadings, float32 (n_genes, n_programs): for autoencoders the change of the decoder's log expected counts (of
        values, for normal ones) per standard deviation of the dimension around the mean of the rows, for components
        their share of counts times the root of the weight of the gene in the fit. NaN for genes that the clock does not
        know.
    ``adata.uns[f"{key_added}_programs_params"]``
        Arguments, and the unit of the age.

    Raises
    ------
    TypeError
        If ``model`` is not a clock.
    RuntimeError
        If the clock is not trained.
    ValueError
        If the clock has no decoder and no components.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.model.PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.PoissonVAE(adata, n_latent=5)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> agevi.tl.age_programs(adata, model)
    >>> adata.uns["agevi_programs"].shape, adata.varm["agevi_programs"].shape
    ((5, 7), (500, 5))
    """
    keys = _keys.Keys(key_added)
    check_clock(adata, model, "tl.age_programs")
    if model.program_kind is None:
        has = "of each clock in it that has one" if model.own_clocks else "of a PoissonVAE or an NMFClock"
        raise ValueError(
            f"a {type(model).__name__} has no decoder and no components that lead from programs back to genes; take "
            f"the programs {has}, or tl.attribute_genes."
        )
    n_genes, generator = _checks.count(n_genes, "n_genes", high=len(model.genes)), _checks.generator(rng)
    cells = draw_cells(adata, model, n_cells_per_subject, generator)
    units = make_units(adata, model, groupby=None, unit=unit, cells=cells)
    _, n_samples, settings = settings_of(model, "expected_gradients", n_samples, summed=units.summed, rng=generator)
    rows = units.sets[0]
    with in_float32():
        latent = _Latent(model, adata, rows.cells, rows.codes)
        totals = Totals.empty(units, len(latent.genes), latent.device)
        add_rows(totals, units, rows, latent, settings)
        absolute, signed = totals.means(0, np.flatnonzero(totals.weight[0]))
        loadings = model.programs(partial(latent.moments, np.arange(len(rows.subject))))  # n_programs x n_genes
    table = _table(latent.genes, absolute, signed.mean(axis=0), loadings, np.asarray(model.genes), n_genes)
    aligned = in_rows_of(adata, columns_of(adata, model), loadings.T)
    params = {
        "n_genes": n_genes,
        "n_samples": n_samples,
        "unit": "sample" if units.summed else "cell",
        "n_cells_per_subject": n_cells_per_subject,
        "rng": rng,
        "model": type(model).__name__,
        "age_unit": model.unit,
    }
    out = store_table(adata, keys, "programs", table, params, copy=copy)
    (adata if out is None else out).varm[keys.programs] = aligned
    return out


class _Latent(Function):
    """The latent representation in the place of the genes."""

    def __init__(self, model: Any, adata: AnnData, cells: np.ndarray, codes: np.ndarray | None) -> None:
        super().__init__(model, adata, cells, codes)
        self.part, self.first = self.parts[0], self.reader
        with torch.no_grad():
            n_latent = self.values(np.arange(1))[0].shape[1]
        self.genes = np.asarray([f"{model.program_kind}_{k}" for k in range(n_latent)], dtype=object)
        age = self.part.reading.age
        self.reader = Reader((torch.eye(n_latent, device=self.device),), lambda units: age(units[0]))

    @torch.no_grad()
    def values(self, rows: np.ndarray) -> list[torch.Tensor]:
        """Latent representation of some rows."""
        reading = self.part.reading
        return [reading.latent(self.part.values(rows) @ reading.weight.T + self.part.shift(rows))]

    def shifts(self, rows: np.ndarray) -> list[torch.Tensor]:
        """Nothing is added."""
        return [torch.zeros(len(self.genes), device=self.device)]

    def moments(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of every program over some rows, (n_programs,) each, float64 on the CPU."""
        total, squares = torch.zeros(len(self.genes)).double(), torch.zeros(len(self.genes)).double()
        for block in self.blocks(rows):
            values = self.values(block)[0].double().cpu()
            total, squares = total + values.sum(0), squares + values.square().sum(0)
        mean = total / len(rows)
        return mean, (squares / len(rows) - mean.square()).clamp_min(0).sqrt()


def _table(
    names: np.ndarray, absolute: np.ndarray, signed: np.ndarray, loadings: np.ndarray, genes: np.ndarray, n_genes: int
) -> pd.DataFrame:
    """One row per program."""
    mean, error = mean_and_error(absolute)
    towards = loadings * np.where(signed < 0, -1, 1)[:, None]  # n_programs x n_genes, towards older ages
    table = pd.DataFrame(
        {
            "position": np.arange(len(names)),
            "attribution": mean.astype(np.float64),
            "signed": signed.astype(np.float64),
            "se": error.astype(np.float64),
            "share": mean.astype(np.float64) / max(float(mean.sum()), 1e-12),
            "genes_up": [_first(genes, row, n_genes) for row in towards],
            "genes_down": [_first(genes, -row, n_genes) for row in towards],
        },
        index=pd.Index(names, dtype=object, name="program"),
    )
    return table.iloc[np.argsort(-mean, kind="stable")]


def _first(genes: np.ndarray, values: np.ndarray, n: int) -> str:
    """Genes of the largest positive values, the largest first."""
    order = np.argsort(-values, kind="stable")[:n]
    return ";".join(str(gene) for gene in genes[order[values[order] > 0]])
