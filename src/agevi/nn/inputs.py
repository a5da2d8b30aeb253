"""What a network sees of a cell: normalised values, standardised on request, with absent genes filled in."""

from __future__ import annotations

import torch
from torch import nn

from agevi.nn.rows import as_dense, is_csr, repeated, row_sum, with_values

CP10K = 1e4


class GeneInput(nn.Module):
    """Values of genes on the scale on which a clock reads them: normalised, and z-scored if asked."""

    mean: torch.Tensor
    sd: torch.Tensor
    share: torch.Tensor
    mean_library: torch.Tensor
    sum_mean: torch.Tensor
    sum_scale: torch.Tensor

    def __init__(
        self, n_genes: int, *, normalize: str = "log1p_cp10k", standardize: bool = False, sums: bool = False
    ) -> None:
        super().__init__()
        self.normalize, self.standardize = normalize, standardize
        self.register_buffer("mean", torch.zeros(n_genes))
        self.register_buffer("sd", torch.ones(n_genes))
        self.register_buffer("share", torch.full((n_genes,), 1.0 / n_genes))
        self.register_buffer("mean_library", torch.ones(()))
        self.sums = sums
        # The logarithm of a sum varies far less than that of a cell, so sums have moments of their own.
        if sums:
            self.register_buffer("sum_mean", torch.zeros(n_genes))
            self.register_buffer("sum_scale", torch.ones(n_genes))

    def library_size(self, x: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Counts per cell, (n, 1), at least 1; scaled up by the share of counts that absent genes would hold."""
        library = row_sum(x)
        if present is not None:
            library = library / self.share[present].sum().clamp_min(1e-6)
        return library.clamp_min(1.0)

    def normalized(
        self, x: torch.Tensor, library: torch.Tensor | None = None, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Normalised values, (n, n_genes), before anything is filled in or standardised; CSR where ``x`` is."""
        if self.normalize == "none":
            return x
        factor = CP10K / (self.library_size(x) if library is None else library)
        if not is_csr(x):
            return torch.mul(x, factor, out=out).log1p_()
        of_values = repeated(factor.squeeze(-1), x.crow_indices().diff(), len(x.values()))
        return with_values(x, (x.values() * of_values).log1p_())

    def forward(
        self,
        x: torch.Tensor,
        library: torch.Tensor | None = None,
        present: torch.Tensor | None = None,
        summed: bool = False,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the network sees of cells, or of sums of cells, (n, n_genes); absent genes enter at their mean."""
        if library is None:
            library = self.library_size(x, present)
        values, own = self.normalized(x, library, out), summed and self.sums
        scaled = self.standardize or own
        if out is not None and values is not out:
            values = as_dense(values, out)
        elif present is not None or scaled:
            values = as_dense(values)
        mean = self.sum_mean if own else self.mean
        if present is not None:
            values = torch.where(present, values, mean)
        if not scaled:
            return values
        values = values - mean if values is x else values.sub_(mean)
        return values.mul_(self.sum_scale) if own else values.div_(self.sd)
