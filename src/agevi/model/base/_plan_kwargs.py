"""What ``train`` may be given, checked before anything is trained."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from agevi import _checks
from agevi.nn.optimizers import OPTIMIZERS

_OF_TRAIN = ("sample_ages", "subject_weights")
_OF_SCVI = ("optimizer_creator", "compile", "compile_kwargs")
_LEAST = {"lr": "above 0", "eps": "above 0", "weight_decay": "0 or more"}


def check_steps(max_epochs: Any, batch_size: Any) -> None:
    """Refuse numbers of epochs and of rows of a step that nothing can be trained with; None is a default."""
    if max_epochs is not None:
        _checks.count(max_epochs, "max_epochs")
    if batch_size is not None:
        _checks.count(batch_size, "batch_size", low=2)  # BatchNorm cannot take one row


def check_plan(plan_kwargs: Mapping[str, Any] | None, plan_cls: type) -> dict[str, Any]:
    """The arguments of a training plan, refused where the plan does not take them."""
    if plan_kwargs is not None and not isinstance(plan_kwargs, Mapping):
        raise TypeError(
            f"plan_kwargs is a {type(plan_kwargs).__name__}; pass a dictionary, for example plan_kwargs={{'lr': 1e-3}}."
        )
    given, known = dict(plan_kwargs or {}), sorted(_known(plan_cls))
    for name, value in given.items():
        if name not in known:
            raise TypeError(
                f"plan_kwargs={{{name!r}: ...}} is not an argument of the training plan"
                f"{_checks.closest(str(name), known)}; it takes {_checks.listed(known, 99)}."
            )
        if name in _LEAST and not _fits(name, value):
            raise ValueError(f"plan_kwargs={{{name!r}: {value!r}}}: pass a number {_LEAST[name]}.")
    optimizer = given.get("optimizer", "Adam")
    if optimizer != "Custom":
        _checks.choice(optimizer, [*OPTIMIZERS, "Custom"], "plan_kwargs['optimizer']")
    elif not callable(given.get("optimizer_creator")):
        raise ValueError(
            "plan_kwargs={'optimizer': 'Custom'} needs 'optimizer_creator' beside it, a function from the parameters "
            "to an optimizer, such as functools.partial(torch.optim.SGD, lr=0.01)."
        )
    return given


def _known(plan_cls: type) -> set[str]:
    """Names of the arguments of a plan that shape a training; of scvi-tools' own some are without effect here."""
    classes = [cls for cls in plan_cls.__mro__ if cls.__module__.startswith("agevi.")]
    own = [vars(cls)["__init__"] for cls in classes if "__init__" in vars(cls)]
    parameters = [p for init in own for p in inspect.signature(init).parameters.values()]
    return {p.name for p in parameters if p.kind == p.KEYWORD_ONLY} - set(_OF_TRAIN) | set(_OF_SCVI)


def _fits(name: str, value: Any) -> bool:
    """Whether a value is a number, and as large as it must be."""
    if not isinstance(value, Real) or isinstance(value, bool) or not np.isfinite(float(value)):
        return False
    return float(value) > 0 or (name == "weight_decay" and float(value) == 0)
