"""A metric: a kernel along the last axis, so that thousands of draws cost one call, behind a check of its input."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agevi._docs import shared

F = TypeVar("F", bound=Callable[..., Any])
Array = NDArray[np.float64]
Kernel = Callable[[Array, Array], Array]
"""A metric of finite float64, (...,) from (..., n_samples) twice."""


class Metric(Protocol):
    """A public metric of actual and predicted values, which carries its kernel."""

    __name__: str
    kernel: Kernel

    def __call__(self, actual: ArrayLike, predicted: ArrayLike, /) -> float: ...


_ARGUMENTS = {
    "age": "age\n    Actual ages, (n_samples,); missing ages are refused.",
    "predicted": "predicted\n    Predicted ages, (n_samples,).",
    "case": "case\n    1 or True for cases, 0 or False for controls, (n_samples,).",
    "probability": "probability\n    Probability of being a case, (n_samples,).",
    "limits": "lower, upper\n    Limits of the intervals, (n_samples,).",
    "groups": (
        "groups\n"
        "    Subject of every row, (n_samples,), where subjects have several samples; subjects are then drawn whole."
    ),
    "rng": "rng\n    Seed or generator.",
}
_REFUSED = {
    "of_ages": ("age", "predicted", "a value is missing or infinite, or there are fewer than 2 rows"),
    "of_classes": (
        "case",
        "probability",
        "there is one class only, or a probability is missing or not between 0 and 1",
    ),
}


def _sections(actual: str, predicted: str, refused: str) -> str:
    """All sections of the docstring of a metric but its examples."""
    return (
        f"\nParameters\n----------\n{_ARGUMENTS[actual]}\n{_ARGUMENTS[predicted]}\n\nReturns\n-------\nThe metric.\n\n"
        f"Raises\n------\nValueError\n    Lengths differ, {refused}."
    )


ENTRIES = {name: f"\n{text}" for name, text in _ARGUMENTS.items()}
ENTRIES |= {name: _sections(*parts) for name, parts in _REFUSED.items()}
"""Entries of docstrings of this room."""


def documented(function: F) -> F:
    """The function with these entries in its docstring."""
    return shared(function, ENTRIES)


def public(checked: Callable[..., float], kernel: Kernel) -> Metric:
    """``checked`` under the name and with the docstring of its kernel, which it carries for bootstraps."""
    kept = ("__module__", "__name__", "__qualname__", "__doc__")
    functools.update_wrapper(checked, documented(kernel), assigned=kept, updated=())
    del checked.__wrapped__  # type: ignore[attr-defined]  # else its signature would be the kernel's
    checked.kernel = kernel  # type: ignore[attr-defined]
    return cast(Metric, checked)


def ratio(numerator: Array, denominator: Array) -> Array:
    """``numerator / denominator``, NaN where the denominator is 0 or NaN."""
    ok = denominator > 0
    return np.where(ok, numerator / np.where(ok, denominator, 1.0), np.nan)
