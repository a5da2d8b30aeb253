"""Numbers of threads that hold inside a block and leave no trace after it, whatever other threads do meanwhile."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from agevi._compat import take_control_of_pools
from agevi._settings import settings

logger = logging.getLogger(__name__)

_OF_A_THREAD = 1 << 28
"""Multiplications of a step (rows times weights) from which another thread is worth the time that all wait for each
other: 2.7e8 are 512 cells and 9,000 genes of a PoissonVAE. See benchmarks/threads.py and docs/results/threads.md."""
_LOOK = 0.1  # seconds over which it is seen how busy the cores are
_HOLDS = 5.0  # seconds for which what was seen holds, so that short calls in a loop do not look each time
_thread = threading.local()
_seen = (-_HOLDS, 0.0)  # when it was seen, and how many cores were free


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
    """Threads for steps of ``work`` multiplications: those of ``agevi.settings``, else as many as it keeps busy.

    A thread without a core of its own is worse than none, since all others wait for it in every step.
    """
    if settings.n_threads is not None:
        return settings.n_threads
    n = max(1, min(torch.get_num_threads(), int(work / _OF_A_THREAD)))
    if n == 1 or getattr(_thread, "inside", False):  # the outermost block has decided
        return n
    if (free := max(1, int(free_cores() + 0.5))) < n:
        logger.info("%d of %d threads are used, since other programs keep cores busy", free, n)
    return min(n, free)


def free_cores() -> float:
    """Cores that nobody used for a moment, of those that this process may use; all where the system does not tell."""
    global _seen
    if time.monotonic() - _seen[0] >= _HOLDS:
        before = _ticks()
        if before:
            time.sleep(_LOOK)
        after = _ticks()
        passed = [np.subtract(after[core], before[core]) for core in before.keys() & after.keys()]
        free = sum(float(idle / every) if every else 1.0 for idle, every in passed)
        _seen = (time.monotonic(), free if passed else float(os.cpu_count() or 1))
    return _seen[1]


def _ticks() -> dict[int, tuple[int, int]]:
    """Ticks, idle and all, since the start of each core that this process may use; nothing on systems but Linux."""
    try:
        with open("/proc/stat") as file:
            rows = [line.split() for line in file if line.startswith("cpu") and not line.startswith("cpu ")]
        mine = os.sched_getaffinity(0)
        # user, nice, system, idle, wait for disks, two kinds of interrupts, and what other virtual machines took
        every = {int(row[0].removeprefix("cpu")): [int(ticks) for ticks in row[1:9]] for row in rows}
    except (OSError, AttributeError, ValueError):
        return {}
    return {core: (sum(ticks[3:5]), sum(ticks)) for core, ticks in every.items() if core in mine}


def n_weights(module: torch.nn.Module) -> int:
    """Weights of a network, each of which is multiplied once for every row."""
    return sum(p.numel() for p in module.parameters())
