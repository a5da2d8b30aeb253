"""The tensors of a clock on non-negative matrix factorisation."""

from __future__ import annotations

from typing import Any

import torch

from agevi._compat.scvi import auto_move_data
from agevi.model.base._module import RegressorModule
from agevi.nn.attribution import Reading
from agevi.nn.inputs import CP10K, GeneInput
from agevi.nn.nnls import nnls
from agevi.nn.rows import as_dense

LOADINGS = "agevi_loadings"
_ANSCOMBE = 3 / 8


class NMFModule(RegressorModule):
    """Loadings (of counts per 10,000) on fixed components, roots z-scored, then blocks and one linear unit."""

    components: torch.Tensor
    gene_weight: torch.Tensor
    loading_mean: torch.Tensor
    loading_sd: torch.Tensor

    def __init__(
        self, n_input: int, *, n_components: int, normalize: str = "log1p_cp10k", sums: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(n_components, **kwargs)
        self.input = GeneInput(n_input, normalize=normalize)
        self.register_buffer("components", torch.zeros(n_components, n_input))
        self.register_buffer("gene_weight", torch.ones(n_input))
        n_units = 2 if sums else 1  # cells, sums
        self.register_buffer("loading_mean", torch.zeros(n_units, n_components))
        self.register_buffer("loading_sd", torch.ones(n_units, n_components))

    def project(self, x: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Non-negative loadings of counts, (n, n_components), of least weighted squared error over present genes."""
        x = as_dense(x)
        weight = self.gene_weight if present is None else self.gene_weight * present
        weighted = self.components * weight  # n_components x n_genes
        return nnls(weighted.double() @ self.components.T.double(), x @ weighted.T)

    def latent(self, x: torch.Tensor, present: torch.Tensor | None = None, summed: bool = False) -> torch.Tensor:
        """Loadings, (n, n_components), per 10,000 counts unless ``normalize="none"``."""
        loadings = self.project(x, present)
        # Loadings are proportional to depth, so that they may be normalised after the projection.
        return loadings if self.input.normalize == "none" else loadings * (CP10K / self.input.library_size(x, present))

    def standardized_age(self, latent: torch.Tensor, summed: bool = False) -> torch.Tensor:
        """Standardised age, (n,)."""
        unit = int(summed)
        return self.head((_stable(latent) - self.loading_mean[unit]) / self.loading_sd[unit])

    def fit_scaler(self, loadings: torch.Tensor, *, summed: bool = False) -> None:
        """Set mean and standard deviation from loadings of training cells, or of sums of them, (n, n_components)."""
        sd, mean = torch.std_mean(_stable(loadings.double()), dim=0, correction=0)
        self.loading_mean[int(summed)] = mean.float()
        self.loading_sd[int(summed)] = torch.where(sd > 1e-6 * mean, sd, 1.0).float()

    def reading(self, *, summed: bool, present: torch.Tensor | None = None) -> Reading:
        """Products with the weighted components, and least squares behind them."""
        weight = self.components * (self.gene_weight if present is None else self.gene_weight * present)
        gram = weight.double() @ self.components.T.double()

        def values(x: torch.Tensor) -> torch.Tensor:
            # A projection is proportional to what is projected, so that counts may be normalised before it.
            return x if self.input.normalize == "none" else x * (CP10K / self.input.library_size(x, present))

        def age(loadings: torch.Tensor) -> torch.Tensor:
            return self.age(loadings, summed)

        shift = torch.zeros(len(weight), device=weight.device)
        return Reading(weight, shift, lambda target: nnls(gram, target), age, values, logarithmic=False)

    # --- loadings that were computed before -------------------------------------------------------------------

    def _get_inference_input(self, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        if LOADINGS in tensors:
            return {"x": tensors[LOADINGS], "projected": True}
        return super()._get_inference_input(tensors)

    @auto_move_data
    def inference(
        self,
        x: torch.Tensor,
        present: torch.Tensor | None = None,
        summed: bool = False,
        projected: bool = False,
    ) -> dict[str, torch.Tensor]:
        """Loadings of a batch: those of its counts, or ``x`` itself where it is loadings already."""
        return {"latent": x if projected else self.latent(x, present, summed)}


def _stable(loadings: torch.Tensor) -> torch.Tensor:
    """Roots of loadings, whose variance hardly depends on their mean (Anscombe 1948), with a slope at 0."""
    return torch.sqrt(loadings + _ANSCOMBE)
