"""Seeds that can be stored with a model, and randomness that leaves the global state alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from agevi import _checks


def as_seed(rng: int | np.random.Generator | None) -> int:
    """One whole number that stands for ``rng``."""
    generator = _checks.generator(rng)
    return int(rng) if isinstance(rng, int | np.integer) else int(generator.integers(2**31))


TURN = threading.RLock()
"""Held while torch is seeded: it has one random state per process, so that trainings in threads take turns."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch seeded with ``seed`` inside the block and as it was after it; other threads wait for its end."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with TURN, torch.random.fork_rng(devices=list(devices)), in_float32():
        torch.manual_seed(seed)
        yield


@contextmanager
def in_float32() -> Iterator[None]:
    """New tensors are float32 inside the block, also where another library left torch another default."""
    with TURN:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
