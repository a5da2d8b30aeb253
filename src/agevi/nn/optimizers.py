"""Optimizers for weights that :func:`~agevi.nn.products.store_by_input` has stored in another order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def _as_stored(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Parameters, their gradients and moments transposed inside the block where their storage is."""
    updated = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    for p in updated:
        # The fused step of torch goes through memory, wherever in the matrix a value is.
        p.grad = _laid_out_as(p, p.grad)
        _change_moments(p, optimizer.state, lambda moment, p=p: _laid_out_as(p, moment))
    moved = [p for p in updated if p.dim() == 2 and not p.is_contiguous()]
    _transpose(moved, optimizer.state)
    try:
        yield
    finally:
        _transpose(moved, optimizer.state)


def _laid_out_as(p: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Values of the shape of a parameter in the same order in memory."""
    return values if values.stride() == p.stride() else torch.empty_like(p, requires_grad=False).copy_(values)


def _change_moments(p: torch.Tensor, state: dict[torch.Tensor, Any], change: Callable[..., torch.Tensor]) -> None:
    """Change what an optimizer keeps of each value of a parameter."""
    own = state.get(p, {})
    own.update({k: change(v) for k, v in own.items() if isinstance(v, torch.Tensor) and v.shape == p.shape})


def _transpose(parameters: list[torch.Tensor], state: dict[torch.Tensor, Any]) -> None:
    """Transpose parameters, their gradients and moments in place, without a copy."""
    for p in parameters:
        _change_moments(p, state, torch.t)
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
        step: Any = super().step
        if getattr(step, "hooked", False):  # torch runs hooks around this step; in that one they would run again
            step = step.__wrapped__.__get__(self)
        with _as_stored(self):
            step()
        return loss


class Adam(_InStorageOrder, torch.optim.Adam):
    """Adam."""


class AdamW(_InStorageOrder, torch.optim.AdamW):
    """AdamW."""


OPTIMIZERS: dict[str, Any] = {"Adam": Adam, "AdamW": AdamW}
