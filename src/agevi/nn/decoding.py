"""The last layer of a decoder together with the likelihood of what it decodes."""

from __future__ import annotations

from typing import Any

import torch

from agevi.nn.likelihoods import CountLikelihood, NormalLikelihood
from agevi.nn.products import factor_dtype, plus_product
from agevi.nn.rows import as_csr, blocks, is_csr, row_slices


def decoded_nll(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    x: torch.Tensor,
    likelihood: CountLikelihood | NormalLikelihood,
    *,
    scale: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled sum, 0-d, of every cell's NLL in nats, (n,), given its logits ``hidden @ weight.T + bias``."""
    # Some cells are decoded at a time and their gradient G with respect to the logits o_i = W h_i + b is used at once
    # (dh_i = W'G_i, dW = sum G_i h_i', db = sum G_i), so that no tensor of all cells x genes is made. The sum can be
    # differentiated once, also by the likelihood's parameters; values of cells cannot, and x gets no gradient.
    inputs = (hidden, weight, bias, *likelihood.parameters)
    gradient = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
    total, rows = _Decoded.apply(x, likelihood, scale, gradient, *inputs)  # type: ignore[no-untyped-call]
    return total, rows


class _Decoded(torch.autograd.Function):
    """:func:`decoded_nll`; gradients are computed on the way forward."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        likelihood: CountLikelihood | NormalLikelihood,
        scale: float,
        gradient: bool,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        *parameters: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        dtype = factor_dtype(weight)
        w, h = weight.to(dtype), hidden.to(dtype)
        out = torch.empty(len(hidden), dtype=weight.dtype, device=weight.device)
        if gradient:
            of_hidden, of_bias = torch.empty_like(hidden), torch.zeros_like(bias)
            scaled = (hidden * scale).to(dtype)
        of_weight = None
        for rows, block in _row_blocks(x, likelihood):
            logits = torch.addmm(bias, h[rows], w.t()) if dtype == bias.dtype else h[rows] @ w.t() + bias
            nll, slope = likelihood(logits, block, gradient)
            out[rows] = nll
            if slope is not None:
                factor = slope.to(dtype)
                of_hidden[rows] = factor @ w
                of_weight = plus_product(of_weight, scaled[rows].t(), factor, weight.dtype)  # the faster transpose
                of_bias += slope.sum(0)
        if gradient:
            of_weight = torch.zeros_like(weight) if of_weight is None else of_weight.t()
            rest = (g * scale for g in (of_bias, *likelihood.gradients))
            ctx.save_for_backward(of_hidden.mul_(scale), of_weight, *rest)
        ctx.mark_non_differentiable(out)
        return out.sum() * scale, out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        gradients = ctx.saved_tensors
        if upstream.device.type != "cpu" or upstream.item() != 1:  # asking a GPU would make it wait
            gradients = tuple(upstream * g for g in gradients)
        return (None, None, None, None, *gradients)


def _row_blocks(x: torch.Tensor, likelihood: CountLikelihood | NormalLikelihood) -> Any:
    """Slices of rows with what the likelihood reads of them."""
    if isinstance(likelihood, NormalLikelihood) and not is_csr(x):
        for rows in row_slices(len(x), x.shape[-1], x.device, x.element_size()):
            yield rows, x[rows]
    else:
        for block in blocks(as_csr(x)):
            yield block.rows, block
