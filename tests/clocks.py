"""Parameters of tests that run over classes of clocks: two classes stand for all in the fast selection."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

import agevi

EVERY = [cls for cls in agevi.model.MODELS if cls.trainable]
TRAINABLE = [cls for cls in EVERY if not cls.of_types]  # which need no column of types
OF_COUNTS = [cls for cls in TRAINABLE if cls.expects != "continuous"]
FAST = ("PoissonVAE", "ElasticNetClock")


def params(classes: Iterable, fast: tuple[str, ...] = FAST) -> list:
    """Parameters for classes or their names, with the mark ``slow`` on all but those that are called ``fast``."""
    named = [(cls if isinstance(cls, str) else cls.__name__, cls) for cls in classes]
    return [pytest.param(cls, id=name, marks=() if name in fast else pytest.mark.slow) for name, cls in named]


every_clock = pytest.mark.parametrize("cls", params(EVERY))
each_clock = pytest.mark.parametrize("cls", params(TRAINABLE))
each_clock_of_counts = pytest.mark.parametrize("cls", params(OF_COUNTS))
