"""Optimizers for weights that :func:`~agevi.nn.products.store_by_input` has stored in another order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def _as_stored(parameters: list[torch.Tensor]) -> Iterator[None]:
    """Parameters and gradients transposed inside the block where their storage is."""
    moved = [p for p in parameters if p.grad is not None and p.dim() == 2 and not p.is_contiguous()]
    _transpose(moved)
    try:
        yield
    finally:
        _transpose(moved)


def _transpose(parameters: list[torch.Tensor]) -> None:
    """Transpose parameters and their gradients in place, without a copy."""
    for p in parameters:
        grad, p.grad = p.grad, None
        p.data = p.data.t()
        p.grad = None if grad is None else grad.t()


class _InStorageOrder(torch.optim.Optimizer):
    """A step over parameters as they lie in memory: the fused step of torch copies others forth and back."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, after ``closure`` has computed the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with _as_stored([p for group in self.param_groups for p in group["params"]]):
            super().step()
        return loss


class Adam(_InStorageOrder, torch.optim.Adam):
    """Adam."""


class AdamW(_InStorageOrder, torch.optim.AdamW):
    """AdamW."""


OPTIMIZERS: dict[str, Any] = {"Adam": Adam, "AdamW": AdamW}
