"""Classes of clocks as arguments give them."""

from __future__ import annotations

from typing import Any

from agevi import _checks
from agevi.model.base import _save
from agevi.model.base._clock import Clock


def clock_class(model_cls: Any, argument: str = "model_cls") -> Any:
    """The class, which may be given by its name, of a clock that is trained on ages."""
    if isinstance(model_cls, str):
        if model_cls not in _save.KNOWN:
            names = [name for name, cls in _save.KNOWN.items() if cls.trainable]
            raise ValueError(
                f"{model_cls!r} is not the name of a clock{_checks.closest(model_cls, names)}. Available: "
                f"{_checks.listed(names, len(names))}; pass a class of your own as such."
            )
        model_cls = _save.KNOWN[model_cls]
    if isinstance(model_cls, Clock):
        name = type(model_cls).__name__
        raise TypeError(
            f"{argument} is a {name} that was made already; pass the class, agevi.model.{name}: each fold makes its "
            "own."
        )
    if not isinstance(model_cls, type) or not issubclass(model_cls, Clock):
        what = model_cls.__name__ if isinstance(model_cls, type) else type(model_cls).__name__
        raise TypeError(f"{argument} is {what}, no clock; pass a class such as agevi.model.PoissonVAE.")
    if not model_cls.trainable:
        raise ValueError(
            f"{model_cls.__name__} is not trained on ages, so there is nothing to cross-validate; predict with it by "
            "agevi.tl.predict_age."
        )
    return model_cls
