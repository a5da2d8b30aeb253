"""A clock class with the arguments of its set-up, constructor and training."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from agevi import _checks
from agevi.model import MODELS
from agevi.model.base._clock import ClockMixin

_KEYS = ("age_key", "subject_key", "sample_key")
ROLE_ARGUMENTS = ("split_key", "train_roles")
"""Arguments of ``train`` that are set for each fold."""


@dataclass(frozen=True)
class Recipe:
    """What is fitted in every fold."""

    model_cls: Any
    setup: dict[str, Any]
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    train_kwargs: dict[str, Any] = field(default_factory=dict)
    members: tuple[Recipe, ...] = ()  # fitted one after the other and averaged

    @property
    def parts(self) -> tuple[Recipe, ...]:
        """What is fitted: the members, or itself."""
        return self.members or (self,)

    @property
    def selects_epochs(self) -> bool:
        """Whether training chooses an epoch on validation subjects."""
        if self.members:
            return any(member.selects_epochs for member in self.members)
        cls = self.model_cls
        of_arguments = getattr(cls, "chooses_epochs", lambda init: True)
        chooses = getattr(cls, "selects_epochs", True) and of_arguments(self.model_kwargs)
        return bool(chooses) and bool(self.train_kwargs.get("early_stopping", True))

    @property
    def weighs_members(self) -> bool:
        """Whether members weigh by their errors on validation subjects."""
        return bool(self.members) and self.model_kwargs["weights"] == "inner"

    @property
    def full_setup(self) -> dict[str, Any]:
        """All arguments of ``setup_anndata`` with their defaults; those of members as far as they share them."""
        if self.members:
            setups = [member.full_setup for member in self.members]
            return setups[0] | {"min_age": min(setup["min_age"] for setup in setups)}
        return _defaults(self.model_cls.setup_anndata) | self.setup

    @property
    def age_transform(self) -> str:
        """Scale on which ages are trained, or on which members are averaged."""
        if self.members:
            return "log" if self.model_kwargs["scale"] == "log" else "none"
        chosen = self.full_setup["age_transform"]
        return str(self.model_cls.default_age_transform if chosen == "auto" else chosen)

    def described(self) -> dict[str, Any]:
        """Classes and arguments by name, for records."""
        own = {name: getattr(self, name) for name in ("setup", "model_kwargs", "train_kwargs")}
        own = {"model_cls": self.model_cls.__name__, **own}
        return own | ({"members": [m.described() for m in self.members]} if self.members else {})


def make_recipe(
    model_cls: Any,
    keys: Mapping[str, str | None],
    setup_kwargs: Mapping[str, Any] | None,
    model_kwargs: Mapping[str, Any] | None,
    train_kwargs: Mapping[str, Any] | None,
) -> Recipe:
    """A recipe whose arguments exist and leave folds and roles to the cross-validation."""
    model_cls = clock_class(model_cls)
    name = model_cls.__name__
    given = {
        "setup_kwargs": (setup_kwargs, f"{name}.setup_anndata", model_cls.setup_anndata, ("adata", *_KEYS)),
        "model_kwargs": (model_kwargs, name, model_cls, ("adata",)),
        "train_kwargs": (train_kwargs, f"{name}.train", model_cls.train, ("self", *ROLE_ARGUMENTS)),
    }
    for argument, (kwargs, call, function, reserved) in given.items():
        check_kwargs(argument, kwargs, call, function, reserved)
    training = dict(train_kwargs or {})
    if "trainer_kwargs" in inspect.signature(model_cls.train).parameters:
        training.setdefault("enable_progress_bar", False)
    return Recipe(model_cls, dict(keys) | dict(setup_kwargs or {}), dict(model_kwargs or {}), training)


def clock_class(model_cls: Any) -> Any:
    """The class, which may be given by its name, of a clock that is trained on ages."""
    if isinstance(model_cls, str):
        by_name = {cls.__name__: cls for cls in MODELS}
        if model_cls not in by_name:
            names = [name for name, cls in by_name.items() if cls.trainable]
            raise ValueError(
                f"{model_cls!r} is not the name of a clock{_checks.closest(model_cls, names)}. Available: "
                f"{_checks.listed(names, len(names))}; pass a class of your own as such."
            )
        model_cls = by_name[model_cls]
    if not isinstance(model_cls, type) or not issubclass(model_cls, ClockMixin):
        if isinstance(model_cls, ClockMixin):
            name = type(model_cls).__name__
            raise TypeError(
                f"model_cls is a {name} that was made already; pass the class, agevi.model.{name}: each fold makes its own."
            )
        what = model_cls.__name__ if isinstance(model_cls, type) else type(model_cls).__name__
        raise TypeError(f"model_cls is {what}, no clock; pass a class such as agevi.model.PoissonVAE.")
    if not model_cls.trainable:
        raise ValueError(
            f"{model_cls.__name__} is not trained on ages, so there is nothing to cross-validate; predict with it by "
            "agevi.tl.predict_age."
        )
    return model_cls


def check_kwargs(
    argument: str, kwargs: Mapping[str, Any] | None, call: str, function: Any, reserved: tuple[str, ...]
) -> None:
    """Refuse names that a call does not take, and those that are set for each fold."""
    if kwargs is None:
        return
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"{argument} is a {type(kwargs).__name__}; pass a dictionary of arguments of {call}.")
    parameters = inspect.signature(function).parameters
    known = [n for n, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    # setup_anndata takes further names for scvi-tools alone.
    takes_more = "setup" not in call and any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    for name in kwargs:
        if name in reserved:
            raise ValueError(f"{argument} holds {name!r}, which is set for each fold; leave it out.")
        if name not in known and not takes_more:
            hint = _checks.closest(name, known)
            there = _checks.listed([n for n in known if n not in reserved])
            raise TypeError(f"{argument} holds {name!r}, which {call} does not take{hint}. It takes {there}.")


def _defaults(function: Any) -> dict[str, Any]:
    """Arguments that have a default, with it."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def plain(value: Any) -> Any:
    """Arguments in a form that JSON and ``adata.uns`` can hold and that is the same in every process."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, functools.partial):
        return {"function": plain(value.func), "args": plain(value.args), "kwargs": plain(value.keywords)}
    if isinstance(value, pd.Index | pd.Series) or (isinstance(value, np.ndarray) and value.dtype == object):
        value = value.tolist()  # texts, whose bytes and whose short form say nothing
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]}"
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    text = repr(value)
    return text if " at 0x" not in text else f"{type(value).__module__}.{type(value).__qualname__}"


def as_text(value: Any) -> str:
    """One line that is equal for equal arguments."""
    return json.dumps(plain(value), sort_keys=True)
