"""A clock to copy: genes, one linear layer, one unit. Rename it, change the network, and run the contract on it.

It is complete: registration, training on whole subjects, prediction with roles, attribution, saving and loading come
from the base classes. What a clock has to define itself is marked by (1) to (7).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from anndata import AnnData
from torch import nn

from agevi.dataloaders._cells import values_of
from agevi.dataloaders._stats import gene_stats
from agevi.model.base._module import RegressorModule
from agevi.model.base._regressor import RegressorClock
from agevi.model.base._seed import as_seed, seeded
from agevi.nn.attribution import Reading, dense_reading
from agevi.nn.inputs import GeneInput


class TemplateModule(RegressorModule):
    """Tensors alone: no AnnData, no names of columns."""

    def __init__(self, n_genes: int, *, n_latent: int, normalize: str, sums: bool, **kwargs: Any) -> None:
        super().__init__(n_latent, n_hidden=[n_latent], dropout_rate=0.0, **kwargs)
        self.input = GeneInput(n_genes, normalize=normalize, standardize=True, sums=sums)
        self.code = nn.Linear(n_genes, n_latent)

    def latent(self, x: torch.Tensor, present: Any = None, summed: bool = False) -> torch.Tensor:
        """(1) Latent representation, (n, n_latent); absent genes enter at their training mean."""
        return self.code(self.input(x, present=present, summed=summed))

    def standardized_age(self, latent: torch.Tensor, summed: bool = False) -> torch.Tensor:
        """(2) Standardised age, (n,)."""
        return self.head(latent)

    def reading(self, *, summed: bool, present: torch.Tensor | None = None) -> Reading:
        """(3) The network as its first layer and the rest, from which the genes are attributed."""
        return dense_reading(self.input, self.code, nn.Identity(), self.age, summed=summed, present=present)


class TemplateClock(RegressorClock):
    """Ageing clock: a linear layer and a block on z-scored genes. Say here what it assumes and when not to trust it.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`.
    n_latent
        Width of the latent representation.
    rng
        Seed of the initial weights and of training.
    """

    expects = "any"  # (4) "counts", "continuous" (normalised by the user), or "any": counts, normalised inside

    def __init__(self, adata: AnnData, *, n_latent: int = 16, rng: int | np.random.Generator | None = 0) -> None:
        rng = as_seed(rng)
        how: dict[str, Any] = {
            "age_loss": "huber",
            "subject_weight": "equal",
            "train_unit": "pseudocell",
            "pseudocell_size": 0.5,
        }
        super().__init__(adata, **how, pseudocell_groupby=None)  # or make them arguments, as MLPClock does
        self.init_params_ = self._get_init_params(locals())
        self.module = self._make_module()
        self._model_summary_string = f"TemplateClock: {len(self.genes):,} genes, n_latent: {n_latent}"

    def _make_module(self) -> TemplateModule:
        """(5) A network with new weights, which the seed decides; training with other roles starts from one."""
        stats = self.summary_stats
        own: dict[str, Any] = {"normalize": self.normalize, "sums": self.predicts_sums, "age_loss": "huber"}
        with seeded(self.init_args["rng"]):
            return TemplateModule(stats.n_vars, n_latent=self.init_args["n_latent"], **own, **self._age_scale_args)

    @classmethod
    def test_params(cls) -> dict[str, dict[str, Any]]:
        """(6) Arguments that make a small clock for tests."""
        return super().test_params() | {"init": {"n_latent": 4}}

    def _fit_buffers(self, train: np.ndarray) -> None:
        """(7) What is computed before training, from training cells alone: the scales of genes and of ages."""
        x = values_of(self.adata_manager)
        gene_stats(x, np.flatnonzero(train), normalize=self.normalize).fill(self.module.input)
        self.module.age_scale.fit(self._sample_ages(train))
        self._fit_sums(train, self.module.input)
