"""A clock class, or several that are averaged, with the arguments of their set-up, constructor and training."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agevi import _checks
from agevi._compat import version
from agevi._source import resolved
from agevi.io._folder import plain
from agevi.model import EnsembleClock
from agevi.model.base._classes import clock_class
from agevi.model.ensemble._average import SCALES, check_weights

Kwargs = Mapping[str, Any] | None

_KEYS = ("age_key", "subject_key", "sample_key")
_OF_DATA = ("layer", "obsm_key", "age_unit")
"""Arguments of ``setup_anndata`` that all members share, since they read the same values."""
ROLE_ARGUMENTS = ("split_key", "train_roles")
"""Arguments of ``train`` that are set for each fold."""
OWN_ARGUMENTS = (*ROLE_ARGUMENTS, "checkpoint_dir")
"""The same, with the folder of a training: finished folds have one themselves."""


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
        chooses = self.model_cls.selects_epochs and self.model_cls.chooses_epochs(self.model_kwargs)
        return bool(chooses and self.train_kwargs.get("early_stopping", True))

    @property
    def typed(self) -> Recipe:
        """The part whose clock has one per type of cells; the first part where none has."""
        return next((part for part in self.parts if part.model_cls.of_types), self.parts[0])

    def argument(self, name: str) -> Any:
        """What the constructor of the clock is given, or its default."""
        return self.model_kwargs.get(name, inspect.signature(self.model_cls).parameters[name].default)

    @property
    def linear(self) -> bool:
        """Whether the clock is linear, or made of linear clocks alone."""
        return all(part.model_cls.is_linear(part.model_kwargs) for part in self.parts)

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
        parameters = inspect.signature(self.model_cls.setup_anndata).parameters.values()
        return resolved({p.name: p.default for p in parameters if p.default is not p.empty} | self.setup)

    @property
    def age_transform(self) -> str:
        """Scale on which ages are trained, or on which members are averaged."""
        if self.members:
            return "log" if self.model_kwargs["scale"] == "log" else "none"
        return str(self.model_cls.transform_of(self.full_setup, self.model_kwargs))

    def described(self) -> dict[str, Any]:
        """Classes and arguments by name, for records."""
        own = {name: getattr(self, name) for name in ("setup", "model_kwargs", "train_kwargs")}
        own = {"model_cls": self.model_cls.__name__, **own}
        return own | ({"members": [m.described() for m in self.members]} if self.members else {})

    def record(self, arguments: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """What every tool writes of a run: its arguments, the classes and the version."""
        members = {"members": ";".join(m.model_cls.__name__ for m in self.members)} if self.members else {}
        params = plain({**arguments, "seed": seed})
        return {"params": params, "model": self.model_cls.__name__, **members, "version": version("agevi")}


def recipe_of(
    model_cls: Any,
    keys: Mapping[str, str | None],
    setup_kwargs: Kwargs = None,
    model_kwargs: Kwargs = None,
    train_kwargs: Kwargs = None,
) -> Recipe:
    """The recipe of a class or its name, or of a list of them, as :func:`agevi.tl.cross_validate` takes arguments."""
    if isinstance(model_cls, list | tuple):
        return _of_members(model_cls, keys, setup_kwargs, model_kwargs, train_kwargs)
    model_cls = clock_class(model_cls)
    name = model_cls.__name__
    check_kwargs("setup_kwargs", setup_kwargs, f"{name}.setup_anndata", model_cls.setup_anndata, ("adata", *_KEYS))
    check_kwargs("model_kwargs", model_kwargs, name, model_cls, ("adata",))
    check_kwargs("train_kwargs", train_kwargs, f"{name}.train", model_cls.train, ("self", *OWN_ARGUMENTS))
    parameters = inspect.signature(model_cls.setup_anndata).parameters.values()
    wanted = [p.name for p in parameters if p.default is p.empty and p.kind == p.KEYWORD_ONLY]
    lacking = [n for n in wanted if n not in keys and n not in (setup_kwargs or {})]
    if lacking:
        raise TypeError(
            f"setup_kwargs lacks {lacking[0]!r}, which {name}.setup_anndata needs; pass "
            f"setup_kwargs={{{lacking[0]!r}: ...}}."
        )
    training = dict(train_kwargs or {})
    if "trainer_kwargs" in inspect.signature(model_cls.train).parameters:
        training.setdefault("enable_progress_bar", False)
    return Recipe(model_cls, dict(keys) | dict(setup_kwargs or {}), dict(model_kwargs or {}), training)


def _of_members(
    model_cls: Sequence[Any],
    keys: Mapping[str, str | None],
    setup_kwargs: Kwargs,
    model_kwargs: Kwargs,
    train_kwargs: Kwargs,
) -> Recipe:
    """The recipe of several classes that are fitted in every fold and averaged."""
    classes = [clock_class(cls) for cls in model_cls]
    if not classes:
        raise TypeError("model_cls is empty; pass a class such as agevi.model.PoissonVAE, or a list of classes.")
    names = [str(cls.__name__) for cls in classes]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(
            f"model_cls holds {twice[0]} twice, and arguments go by the name of the class; "
            "derive a class of another name."
        )
    setup = _by_class("setup_kwargs", setup_kwargs, names, for_all=True)
    model = _by_class("model_kwargs", model_kwargs, [*names, EnsembleClock.__name__])
    train = _by_class("train_kwargs", train_kwargs, names)
    members = tuple(
        recipe_of(cls, keys, setup[name], model[name], train[name]) for cls, name in zip(classes, names, strict=True)
    )
    for argument in _OF_DATA:
        given = [member.full_setup.get(argument) for member in members]
        if len(set(given)) > 1:
            raise ValueError(
                f"setup_kwargs gives the classes of model_cls different values of {argument} "
                f"({_checks.listed(given)}), and they are fitted to the same data; leave out all but one."
            )
    joining = model[EnsembleClock.__name__]
    check_kwargs("model_kwargs", joining, EnsembleClock.__name__, EnsembleClock, ("clocks",))
    scale = _checks.choice(joining.get("scale", "log"), SCALES, "scale")
    weights: Any = check_weights(joining.get("weights", "equal"), len(members))
    if not isinstance(weights, str):
        weights = weights.tolist()
    elif weights == "equal":
        weights = [1 / len(members)] * len(members)
    return Recipe(EnsembleClock, {}, {"scale": scale, "weights": weights}, members=members)


def _by_class(argument: str, kwargs: Kwargs, names: Sequence[str], *, for_all: bool = False) -> dict[str, Any]:
    """Arguments of each class; with ``for_all`` those that stand under no class go to all."""
    kwargs = {} if kwargs is None else kwargs
    example = f"{argument}={{{names[0]!r}: {{...}}}}"
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"{argument} is a {type(kwargs).__name__}; pass a dictionary of arguments by class, {example}.")
    others = {name: value for name, value in kwargs.items() if name not in names}
    if others and not for_all:
        raise TypeError(
            f"{argument} holds {next(iter(others))!r}, which is not a class of model_cls ({_checks.listed(names)}); "
            f"with several classes arguments go by class: {example}."
        )
    for name in names:
        if not isinstance(kwargs.get(name, {}), Mapping):
            raise TypeError(
                f"{argument}[{name!r}] is a {type(kwargs[name]).__name__}; pass a dictionary of arguments, {example}."
            )
    return {name: others | dict(kwargs.get(name, {})) for name in names}


def check_kwargs(argument: str, kwargs: Kwargs, call: str, function: Any, reserved: tuple[str, ...]) -> None:
    """Refuse names that ``function``, named ``call``, does not take, and the ``reserved`` ones that each fold sets."""
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
