"""Products of layers with wide inputs or outputs, in float32 or with factors rounded to bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from agevi.nn.rows import blocks, by_column, is_csr

PRECISIONS = ("float32", "bfloat16")

_CACHE_BYTES = 2**23  # what is read at random must stay near the processor
_READS_A_ROW = 16  # from which it pays to cut a larger table into parts that do
_MAX_DENSITY: dict[torch.dtype, tuple[float, float]] = {
    "AVX2": {torch.float32: (0.3, 0.25)},
    "AVX512": {torch.float32: (0.2, 0.15), torch.bfloat16: (0.15, 0.1)},
}.get(torch.backends.cpu.get_cpu_capability(), {})
"""Share of values above which a dense product is faster, for tables that stay in the cache and for larger ones.

With AVX2 they are measured (benchmarks/sparse_layer.py), else lower, as dense products are faster; or all are dense."""

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


def _is_amx_fast(dtype: torch.dtype) -> bool:
    """Whether tiles of the processor make dense products faster than any that skips zeros."""
    return dtype == torch.bfloat16 and bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


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


def store_by_input(layer: nn.Linear) -> nn.Linear:
    """The layer with the weights of an input next to each other, as products with sparse or many inputs read them."""
    layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())
    return layer


def _fits(table: torch.Tensor) -> bool:
    """Whether a table stays near the processor while its rows are read at random."""
    return table.numel() * table.element_size() <= _CACHE_BYTES


def _pays_sparse(x: torch.Tensor, table: torch.Tensor) -> bool:
    """Whether a sum over rows of a table at the values of a CSR tensor is faster than the product with its zeros."""
    highest = _MAX_DENSITY.get(table.dtype)
    if x.device.type != "cpu" or x.dtype != torch.float32 or highest is None or _is_amx_fast(table.dtype):
        return False
    return len(x.values()) <= highest[0 if _fits(table) else 1] * x.numel()


def _bags(index: torch.Tensor, table: torch.Tensor, offsets: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Sums over the values of every row of ``values * table[index]``, (len(offsets) - 1, n_out) float32."""
    n, parts = len(offsets) - 1, [table]
    if len(index) > _READS_A_ROW * len(table) and not _fits(table):
        width = max(1, _CACHE_BYTES // (len(table) * table.element_size()))
        parts = [part.contiguous() for part in torch.split(table, width, dim=1)]
    sums = [
        F.embedding_bag(index, part, offsets[:n], mode="sum", per_sample_weights=values.to(part.dtype)).float()
        for part in parts
    ]
    return sums[0] if len(sums) == 1 else torch.cat(sums, dim=1)


class _SparseLinear(torch.autograd.Function):
    """The product of :func:`linear` with a CSR tensor."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        ctx.x, ctx.dtype, ctx.shape, ctx.dense = x, dtype, weight.shape, None
        factor = weight.to(dtype).t()
        if _pays_sparse(x, factor):
            return _bags(x.col_indices(), factor.contiguous(), x.crow_indices(), x.values())
        out = torch.empty(len(x), len(weight), dtype=weight.dtype, device=weight.device)
        for block in blocks(x):
            dense = block.dense(dtype)
            out[block.rows] = dense @ factor
            if block.n_rows == len(x):  # the only block is small enough to keep
                ctx.dense = dense
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        factor = grad.to(ctx.dtype)
        if ctx.dense is None and _pays_sparse(ctx.x, factor):
            start, row, values = by_column(ctx.x)
            return None, _bags(row, factor.contiguous(), start, values).t(), None
        of_weight = None
        for block in blocks(ctx.x):
            dense = block.dense(ctx.dtype) if ctx.dense is None else ctx.dense
            of_weight = plus_product(of_weight, factor[block.rows].t(), dense, grad.dtype)
        return None, grad.new_zeros(ctx.shape) if of_weight is None else of_weight, None
