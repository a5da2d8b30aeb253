"""Several clock classes that are fitted in every fold and averaged, as one recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agevi import _checks
from agevi.model import EnsembleClock
from agevi.model.ensemble._average import SCALES, check_weights
from agevi.tl.validate._recipe import Recipe, check_kwargs, clock_class, make_recipe

_ONE = ("layer", "age_unit")  # arguments of setup_anndata that all members share, since they read the same values


def recipe_of(
    model_cls: Any,
    keys: Mapping[str, str | None],
    setup_kwargs: Mapping[str, Any] | None,
    model_kwargs: Mapping[str, Any] | None,
    train_kwargs: Mapping[str, Any] | None,
) -> Recipe:
    """The recipe of a class, or of a list of classes that are joined."""
    if not isinstance(model_cls, list | tuple):
        return make_recipe(model_cls, keys, setup_kwargs, model_kwargs, train_kwargs)
    classes = [clock_class(cls) for cls in model_cls]
    names = _names(classes)
    setup = _by_class("setup_kwargs", setup_kwargs, names, for_all=True)
    model = _by_class("model_kwargs", model_kwargs, [*names, EnsembleClock.__name__])
    train = _by_class("train_kwargs", train_kwargs, names)
    members = tuple(
        make_recipe(cls, keys, setup[name], model[name], train[name]) for cls, name in zip(classes, names, strict=True)
    )
    for argument in _ONE:
        given = [member.full_setup[argument] for member in members]
        if len(set(given)) > 1:
            raise ValueError(
                f"setup_kwargs gives the classes of model_cls different values of {argument} ({_checks.listed(given)}), and "
                "they are fitted to the same data; leave out all but one."
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


def _names(model_cls: Sequence[Any]) -> list[str]:
    """Names of the classes, each of which is there once."""
    if not model_cls:
        raise TypeError("model_cls is empty; pass a class such as agevi.model.PoissonVAE, or a list of classes.")
    names = [str(cls.__name__) for cls in model_cls]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(
            f"model_cls holds {twice[0]} twice, and arguments go by the name of the class; derive a class of another name."
        )
    return names


def _by_class(
    argument: str, kwargs: Mapping[str, Any] | None, names: Sequence[str], *, for_all: bool = False
) -> dict[str, dict[str, Any]]:
    """Arguments of each class; with ``for_all`` those that stand under no class go to all."""
    kwargs = {} if kwargs is None else kwargs
    example = f"{argument}={{{names[0]!r}: {{...}}}}"
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"{argument} is a {type(kwargs).__name__}; pass a dictionary of arguments by class, {example}.")
    others = {name: value for name, value in kwargs.items() if name not in names}
    if others and not for_all:
        raise TypeError(
            f"{argument} holds {next(iter(others))!r}, which is no class of model_cls ({_checks.listed(names)}); with several "
            f"classes arguments go by class: {example}."
        )
    for name in names:
        if not isinstance(kwargs.get(name, {}), Mapping):
            raise TypeError(
                f"{argument}[{name!r}] is a {type(kwargs[name]).__name__}; pass a dictionary of arguments, {example}."
            )
    return {name: others | dict(kwargs.get(name, {})) for name in names}
