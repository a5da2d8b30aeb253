"""Rows of counts as CSR tensors: read a few rows at a time, so that no tensor of cells x genes is needed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, MutableMapping
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch.utils.weak import WeakTensorKeyDictionary

_CHUNK_BYTES = {"cpu": 2**24, "cuda": 2**29}
"""Size of a block of rows: on a CPU what stays in the cache, on a GPU what keeps it busy."""
_KEPT_VALUES = 2**21
"""Tensors with more values do not keep the places of their values between the layers that read them."""


class Block(NamedTuple):
    """Some rows of a CSR tensor."""

    rows: slice
    n_genes: int
    position: torch.Tensor  # (n_nonzero,) int64, of every value in the block laid out row by row
    values: torch.Tensor  # (n_nonzero,)
    offsets: torch.Tensor  # (n_rows + 1,) int64, first value of every row

    @property
    def n_rows(self) -> int:
        """Rows of the block."""
        return len(self.offsets) - 1

    def per_value(self, of_rows: torch.Tensor) -> torch.Tensor:
        """One number of every row, (n_rows,), for each of its values, (n_nonzero,)."""
        return repeated(of_rows, self.offsets.diff(), len(self.values))

    def at_values(self, dense: torch.Tensor) -> torch.Tensor:
        """What a contiguous tensor, (n_rows, n_genes), has at the values, (n_nonzero,)."""
        return dense.view(-1).index_select(0, self.position)

    def gene(self) -> torch.Tensor:
        """Gene of every value, (n_nonzero,)."""
        return self.position % self.n_genes

    def row_sum(self, terms: torch.Tensor) -> torch.Tensor:
        """Sums over the values of every row, (n_rows,)."""
        return segment_sum(terms, self.offsets)

    def dense(self, dtype: torch.dtype, out: torch.Tensor | None = None) -> torch.Tensor:
        """The rows with their zeros, (n_rows, n_genes), in ``out`` where it is given."""
        if out is None:
            out = torch.empty(self.n_rows, self.n_genes, dtype=dtype, device=self.values.device)
        out.zero_().view(-1).scatter_(0, self.position, self.values.to(dtype))
        return out


def csr(crow: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, n_genes: int) -> torch.Tensor:
    """A CSR tensor of shape (len(crow) - 1, n_genes), without a check of the indices."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor|invariant)", category=UserWarning)
        return torch.sparse_csr_tensor(crow, columns, values, size=(len(crow) - 1, n_genes), check_invariants=False)


def is_csr(x: torch.Tensor) -> bool:
    """Whether ``x`` is a CSR tensor."""
    return x.layout == torch.sparse_csr


def as_csr(x: torch.Tensor) -> torch.Tensor:
    """The rows of ``x``, (n, n_genes), as a CSR tensor."""
    if is_csr(x):
        return x
    filled = x != 0
    crow = torch.zeros(len(x) + 1, dtype=torch.int64, device=x.device)
    torch.cumsum(filled.sum(-1), 0, out=crow[1:])
    row, column = filled.nonzero(as_tuple=True)
    return csr(crow, column, x[row, column], x.shape[-1])


def as_dense(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """The rows of ``x`` with their zeros, in ``out`` where it is given, contiguous."""
    if out is not None:
        if not is_csr(x):
            return out.copy_(x)
        for block in blocks(x):
            block.dense(out.dtype, out[block.rows])
        return out
    if not is_csr(x):
        return x
    parts = [block.dense(x.values().dtype) for block in blocks(x)]
    return parts[0] if len(parts) == 1 else torch.cat(parts) if parts else x.to_dense()


def with_values(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A CSR tensor with other values at the same places."""
    out = csr(x.crow_indices(), x.col_indices(), values, x.shape[-1])
    _KNOWN[out] = _KNOWN.setdefault(x, [])
    return out


def row_sum(x: torch.Tensor) -> torch.Tensor:
    """Sums over genes, (..., 1)."""
    if is_csr(x):
        return segment_sum(x.values(), x.crow_indices().long()).unsqueeze(-1)
    return x.sum(-1, keepdim=True)


def segment_sum(values: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Sums of the stretches of ``values`` that start at ``offsets`` and fill it, (len(offsets) - 1,)."""
    if not len(values):
        return values.new_zeros(len(offsets) - 1)
    if not _in_numpy(values):
        return torch.segment_reduce(values, "sum", offsets=offsets, unsafe=True, initial=0)
    filled = offsets.diff() > 0  # numpy would give an empty stretch the value after it
    out = values.new_zeros(len(filled))
    out[filled] = torch.from_numpy(np.add.reduceat(values.numpy(), offsets[:-1][filled].numpy()))
    return out


def repeated(of_rows: torch.Tensor, lengths: torch.Tensor, n: int) -> torch.Tensor:
    """Every number of ``of_rows`` as often as ``lengths`` says, (n,)."""
    if _in_numpy(of_rows):
        return torch.from_numpy(np.repeat(of_rows.numpy(), lengths.numpy()))
    return torch.repeat_interleave(of_rows, lengths, output_size=n)


def _in_numpy(x: torch.Tensor) -> bool:
    """Whether numpy, which is several times as fast as torch in some loops on a CPU, can take the place of torch."""
    return x.device.type == "cpu" and not x.requires_grad and x.dtype != torch.bfloat16


def by_column(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Offsets of the columns, (n_genes + 1,), rows and values of a CSR tensor on the CPU, column by column."""
    parts = (part.numpy() for part in (x.values(), x.col_indices(), x.crow_indices()))
    columns = sp.csr_matrix(tuple(parts), shape=x.shape).tocsc()
    start, row, values = (torch.from_numpy(part) for part in (columns.indptr, columns.indices, columns.data))
    return start, row, values


def row_slices(n_rows: int, n_genes: int, device: torch.device, itemsize: int = 4) -> Iterator[slice]:
    """Blocks of rows of nearly equal length, as many as keep a dense block small."""
    at_most = max(1, _CHUNK_BYTES.get(device.type, 2**24) // (n_genes * itemsize))
    n_blocks = -(-n_rows // at_most)
    edges = [round(i * n_rows / n_blocks) for i in range(n_blocks + 1)] if n_blocks else []
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        yield slice(start, stop)


def blocks(x: torch.Tensor) -> Iterator[Block]:
    """The rows of a CSR tensor, some at a time."""
    known, values, found = _KNOWN.setdefault(x, []), x.values(), []
    for places in known or _places(x):
        found.append(places)
        yield Block(places.rows, x.shape[-1], places.position, values[places.values], places.offsets)
    if len(values) <= _KEPT_VALUES:
        known[:] = found


class _Places(NamedTuple):
    """Positions of the values of a block; tensors of other values at the same places share them."""

    rows: slice
    values: slice
    position: torch.Tensor
    offsets: torch.Tensor


_KNOWN: MutableMapping[torch.Tensor, list[_Places]] = WeakTensorKeyDictionary()
"""Places of blocks that were read, shared by a tensor and those made :func:`with_values` of it while these live."""


def _places(x: torch.Tensor) -> Iterator[_Places]:
    """The places of all blocks of ``x``."""
    crow, columns, n_genes = x.crow_indices().long(), x.col_indices(), x.shape[-1]
    slices = list(row_slices(len(x), n_genes, x.device, x.values().element_size()))
    for rows in slices:
        offsets = crow[rows.start : rows.stop + 1]
        first, last = (0, len(columns)) if len(slices) == 1 else (int(v) for v in offsets[[0, -1]])
        start = torch.arange(0, (len(offsets) - 1) * n_genes, n_genes, device=x.device)
        position = repeated(start, offsets.diff(), last - first).add_(columns[first:last])
        yield _Places(rows, slice(first, last), position, offsets - offsets[0])
