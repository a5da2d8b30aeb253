"""Numbers of threads that hold inside a block and leave no trace after it, whatever other threads do meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

from agevi._compat import take_control_of_pools
from agevi._settings import settings

_OF_A_THREAD = 1 << 28
"""Multiplications of a step (rows times weights) from which another thread is worth the time that all wait for each
other: 2.7e8 are 512 cells and 9,000 genes of a PoissonVAE. See benchmarks/threads.py and benchmarks/RESULTS.md."""
_thread = threading.local()


class Shared:
    """A context of the whole process, entered by the first of those who hold it and left by the last."""

    def __init__(self) -> None:
        self._lock, self._holders, self._stack = threading.Lock(), 0, contextlib.ExitStack()

    @contextlib.contextmanager
    def hold(self, enter: Callable[[contextlib.ExitStack], Any]) -> Iterator[None]:
        """Hold the context, which ``enter`` puts on a stack where nobody holds it yet."""
        with self._lock:
            if not self._holders:
                with contextlib.ExitStack() as stack:
                    enter(stack)
                    self._stack = stack.pop_all()
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if not self._holders:
                    self._stack.close()


_pools = Shared()
_before = 1  # threads of torch before the first block; new threads of Python inherit what the last block set


def _limit(stack: contextlib.ExitStack, n: int) -> None:
    """Limit the pools of linear algebra, and remember the number of threads of torch."""
    global _before
    _before = torch.get_num_threads()
    pools = ThreadpoolController()  # looks through all loaded libraries, which takes milliseconds
    take_control_of_pools(pools)
    stack.enter_context(pools.limit(limits=n))
    stack.callback(take_control_of_pools, pools)  # the last to leave may be another thread than the first


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """``n`` threads of torch and of linear algebra inside the outermost block, as many as before after it."""
    if getattr(_thread, "inside", False):
        yield
        return
    with _pools.hold(lambda stack: _limit(stack, n)):
        before, _thread.inside = _before, True
        torch.get_num_threads()  # a new thread takes the number of another one when it first asks, so let it ask now
        torch.set_num_threads(n)
        try:
            yield
        finally:
            _thread.inside = False
            torch.set_num_threads(before)


def n_threads(work: float) -> int:
    """Threads for steps of ``work`` multiplications: those of ``agevi.settings``, else as many as it keeps busy."""
    if settings.n_threads is not None:
        return settings.n_threads
    return max(1, min(torch.get_num_threads(), int(work / _OF_A_THREAD)))


def n_weights(module: torch.nn.Module) -> int:
    """Weights of a network, each of which is multiplied once for every row."""
    return sum(p.numel() for p in module.parameters())
