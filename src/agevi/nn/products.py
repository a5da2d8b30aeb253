"""Products of layers with wide inputs or outputs, in float32 or with factors rounded to bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn import functional as F

from agevi.nn.rows import blocks, is_csr

PRECISIONS = ("float32", "bfloat16")

_CACHE_BYTES = 2**22  # weights that are read at random must stay near the processor
_MAX_DENSITY = 0.2  # measured: above it, a dense product is faster

_FACTORS: ContextVar[torch.dtype | None] = ContextVar("factors", default=None)


@contextmanager
def factors_in(dtype: torch.dtype | None) -> Iterator[None]:
    """Round factors of :func:`linear` and of decoding to ``dtype`` inside the block; sums keep their type."""
    token = _FACTORS.set(dtype)
    try:
        yield
    finally:
        _FACTORS.reset(token)


def factors_for(precision: str, device: torch.device) -> torch.dtype | None:
    """What :func:`factors_in` takes for a precision by name; ``"auto"`` is bfloat16 where products are faster in it."""
    if precision == "bfloat16" or (precision == "auto" and _has_bfloat16(device)):
        return torch.bfloat16
    return None


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies matrices in bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in names)


def factor_dtype(weight: torch.Tensor) -> torch.dtype:
    """Type of the factors of a product with ``weight``."""
    return _FACTORS.get() or weight.dtype


def plus_product(out: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``out``, or nothing, plus ``a @ b`` in ``dtype``; ``out`` is overwritten."""
    if out is None:
        return (a @ b).to(dtype)
    return out.addmm_(a, b) if a.dtype == dtype else out.add_(a @ b)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Linear map of rows with many columns, (n, n_out); CSR goes dense in parts, and gets no gradient."""
    if is_csr(x):
        y: torch.Tensor = _SparseLinear.apply(x, weight, factor_dtype(weight))  # type: ignore[no-untyped-call]
        return y if bias is None else y + bias
    dtype = factor_dtype(weight)
    if dtype == weight.dtype:
        return F.linear(x, weight, bias)
    y = F.linear(x.to(dtype), weight.to(dtype)).to(weight.dtype)
    return y if bias is None else y + bias


def _pays_sparse(x: torch.Tensor, factor: torch.Tensor) -> bool:
    """Whether the product of a CSR tensor is faster than the one that reads its zeros too."""
    has_mkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    if x.device.type != "cpu" or not has_mkl or x.dtype != factor.dtype:
        return False
    in_cache = factor.numel() * factor.element_size() <= _CACHE_BYTES
    return in_cache and factor.dtype != torch.bfloat16 and len(x.values()) <= _MAX_DENSITY * x.numel()


class _SparseLinear(torch.autograd.Function):
    """The product of :func:`linear` with a CSR tensor."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        ctx.x, ctx.dtype, ctx.shape, ctx.dense = x, dtype, weight.shape, None
        factor = weight.to(dtype).t()
        if _pays_sparse(x, factor):
            return torch.mm(x, factor.contiguous())
        out = torch.empty(len(x), len(weight), dtype=weight.dtype, device=weight.device)
        for block in blocks(x):
            dense = block.dense(dtype)
            out[block.rows] = dense @ factor
            if block.n_rows == len(x):  # the only block is small enough to keep
                ctx.dense = dense
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        of_weight, factor = None, grad.to(ctx.dtype)
        for block in blocks(ctx.x):
            dense = block.dense(ctx.dtype) if ctx.dense is None else ctx.dense
            of_weight = plus_product(of_weight, factor[block.rows].t(), dense, grad.dtype)
        return None, grad.new_zeros(ctx.shape) if of_weight is None else of_weight, None
