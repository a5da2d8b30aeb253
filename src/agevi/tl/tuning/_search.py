"""A space of arguments: read from a plain dictionary, drawn from by a trial. Imported where optuna is installed."""

from __future__ import annotations

import inspect
import json
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from agevi import _checks
from agevi.io._folder import plain
from agevi.model import MODELS

CALLS = ("model_kwargs", "train_kwargs", "setup_kwargs")
"""Where an argument goes, in the order in which its name is looked for."""
_RESERVED = {"self", "adata", "rng", "age_key", "subject_key", "sample_key", "split_key", "train_roles", "kwargs"}

UNKNOWN: Any = object()
"""Stands for a value that cannot be told, since None is one that arguments take."""

Arguments = dict[str, dict[str, Any]]


def default_space(model_cls: Any) -> dict[str, Any]:
    """What is varied for a class: its ``search_space``, without entries of its base that it does not take."""
    declared = getattr(model_cls, "search_space", {})
    calls = _parameters(model_cls).values() if declared else ()
    taken = {name for parameters in calls for name in _own(parameters)}
    space = {
        name: values
        for name, values in declared.items()
        if all(argument.split(".")[0] in taken for argument in _entry(name, values).arguments)
    }
    if not space:
        known = ", ".join(cls.__name__ for cls in MODELS if cls.search_space)
        raise ValueError(
            f"{model_cls.__name__} has no default space; pass space={{'<argument>': [choices]}} (there are spaces for "
            f"{known})."
        )
    return space


@dataclass(frozen=True)
class Entry:
    """One thing that is varied, one choice or number at a time."""

    name: str  # an argument of the constructor, of train or of setup_anndata; a dot leads into a dictionary
    choices: dict[Any, Any] | None = None  # what a storage can hold -> the value
    bounds: IntDistribution | FloatDistribution | None = None

    @property
    def bundles(self) -> list[dict[str, Any]]:
        """The choices that set several arguments at once."""
        return [choice for choice in (self.choices or {}).values() if isinstance(choice, dict)]

    @property
    def arguments(self) -> list[str]:
        """Names of the arguments that it sets."""
        return list(dict.fromkeys(name for bundle in self.bundles for name in bundle)) or [self.name]

    def draw(self, trial: Any) -> Any:
        """The value of a trial."""
        if self.bounds is None:
            choices = self.choices or {}
            return choices[trial.suggest_categorical(self.name, list(choices))]
        suggest = trial.suggest_int if isinstance(self.bounds, IntDistribution) else trial.suggest_float
        return suggest(self.name, self.bounds.low, self.bounds.high, step=self.bounds.step, log=self.bounds.log)

    def key_of(self, value: Any) -> Any:
        """What a trial calls a value; UNKNOWN where the value is not in the space."""
        if self.bounds is None:
            known = [key for key, choice in (self.choices or {}).items() if plain(choice) == plain(value)]
            return known[0] if known else UNKNOWN
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return value if is_number and self.bounds.low <= value <= self.bounds.high else UNKNOWN


class Search:
    """What is varied for a class beside ``fixed`` arguments, by call, which take entries out of a default space."""

    def __init__(self, model_cls: Any, space: Mapping[str, Any], fixed: Arguments, *, is_default: bool) -> None:
        if not isinstance(space, Mapping):
            raise TypeError(
                f"space is a {type(space).__name__}; pass a dictionary such as {{'n_latent': [20, 50, 100]}}."
            )
        self.model_cls, self.fixed, self.entries = model_cls, fixed, []
        self._parameters = _parameters(model_cls)
        for name, values in space.items():
            entry = _entry(str(name), values)
            taken = [a for a in self._arguments_of(entry) if self._fixed(a) is not UNKNOWN]
            if taken and not is_default:
                raise ValueError(
                    f"space varies {taken[0]!r}, which {self._call_of(taken[0])} fixes; leave it out of one of them."
                )
            left = self._compatible(entry) if taken else entry
            if left is not None:
                self.entries.append(left)
        if not self.entries:
            raise ValueError("space is empty, so there is nothing to tune; name an argument and its choices.")

    def draw(self, trial: Any) -> Arguments:
        """All arguments of a trial by call, fixed ones included."""
        out = {call: dict(self.fixed.get(call) or {}) for call in CALLS}
        for entry in self.entries:
            value = entry.draw(trial)
            for name, part in value.items() if isinstance(value, dict) else [(entry.name, value)]:
                _put(out[self._call_of(name)], name, part)
        return out

    def choices(self) -> list[tuple[str, str, Any]]:
        """Call, argument and value of every choice; of entries with bounds nothing."""
        out = []
        for entry in self.entries:
            for choice in (entry.choices or {}).values():
                parts = choice.items() if isinstance(choice, dict) else [(entry.name, choice)]
                out += [(self._call_of(name), name, value) for name, value in parts]
        return out

    def defaults(self) -> dict[str, Any]:
        """The defaults of the class as a trial calls them, where the space holds them."""
        out: dict[str, Any] = {}
        for entry in self.entries:
            values = {name: self._default(name) for name in self._arguments_of(entry)}
            # Choices that set several arguments need not set the same ones.
            candidates = [{name: values[name] for name in b} for b in entry.bundles] or [values[entry.name]]
            found = [key for value in candidates if (key := entry.key_of(value)) is not UNKNOWN]
            if found:
                out[entry.name] = found[0]
        return out

    def _compatible(self, entry: Entry) -> Entry | None:
        """The choices that leave fixed arguments as they are; None where nothing is left to vary."""
        kept = {
            key: choice
            for key, choice in (entry.choices or {}).items()
            if isinstance(choice, dict)
            and all((at := self._fixed(a)) is UNKNOWN or plain(at) == plain(v) for a, v in choice.items())
        }
        varies = any(self._fixed(a) is UNKNOWN for choice in kept.values() for a in choice)
        return Entry(entry.name, kept) if varies else None

    def _arguments_of(self, entry: Entry) -> list[str]:
        """Arguments that an entry sets, which are checked to exist."""
        for name in entry.arguments:
            self._call_of(name)
        return entry.arguments

    def _call_of(self, name: str) -> str:
        """Which call takes an argument."""
        first = name.split(".")[0]
        known: dict[str, list[str]] = {}
        for call, parameters in self._parameters.items():
            known[call] = _own(parameters)
            if first in known[call]:
                return call
        hint = _checks.closest(first, [n for names in known.values() for n in names])
        raise ValueError(
            f"space varies {first!r}, which {self.model_cls.__name__} does not take{hint}. It takes "
            f"{_checks.listed(known['model_kwargs'])}; arguments of the training plan are written 'plan_kwargs.lr'."
        )

    def _fixed(self, name: str) -> Any:
        """The value of an argument among the fixed ones; UNKNOWN where it is not one of them."""
        at: Any = self.fixed.get(self._call_of(name)) or {}
        for part in name.split("."):
            if not isinstance(at, Mapping) or part not in at:
                return UNKNOWN
            at = at[part]
        return at

    def _default(self, name: str) -> Any:
        """What the class takes where an argument is left out; UNKNOWN where that cannot be told."""
        fixed = self._fixed(name)
        if fixed is not UNKNOWN:
            return fixed
        first, _, rest = name.partition(".")
        if not rest:
            value = self._parameters[self._call_of(name)][first].default
            return list(value) if isinstance(value, tuple) else value
        # The defaults of a training plan depend on what the clock is trained on.
        cls = self.model_cls
        given = (self.fixed.get("model_kwargs") or {}).get("train_unit")
        unit = given or _signature_default(cls, "train_unit", getattr(cls, "train_unit", None))
        of_unit = getattr(cls, "plan_kwargs_of_unit", {}).get(unit, {})
        return of_unit.get(rest, _signature_default(getattr(cls, "_training_plan_cls", object), rest, UNKNOWN))


def _parameters(model_cls: Any) -> dict[str, Mapping[str, inspect.Parameter]]:
    """Parameters of the calls that make and train a clock."""
    functions = (model_cls, model_cls.train, model_cls.setup_anndata)
    return {call: inspect.signature(f).parameters for call, f in zip(CALLS, functions, strict=True)}


def _own(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """Names of the parameters that may be varied."""
    return [n for n, p in parameters.items() if n not in _RESERVED and p.kind != p.VAR_KEYWORD]


def _signature_default(cls: Any, name: str, otherwise: Any) -> Any:
    """Default of an argument of a constructor, from the first class of the line that names it."""
    for base in cls.__mro__:
        init = vars(base).get("__init__")
        parameter = inspect.signature(init).parameters.get(name) if inspect.isfunction(init) else None
        if parameter is not None and parameter.default is not parameter.empty:
            return parameter.default
    return otherwise


def _entry(name: str, values: Any) -> Entry:
    """An entry of a space, checked."""
    if isinstance(values, IntDistribution | FloatDistribution):
        return Entry(name, bounds=values)
    if isinstance(values, CategoricalDistribution):
        values = values.choices
    if isinstance(values, Mapping):
        numeric = [values.get("low"), values.get("high")]
        unknown = set(values) - {"low", "high", "log", "step"}
        if unknown or not all(isinstance(v, numbers.Real) and not isinstance(v, bool) for v in numeric):
            raise ValueError(
                f"space[{name!r}] is {dict(values)!r}; bounds are {{'low': 1e-4, 'high': 1e-2}} with 'log' or 'step' "
                "if wanted."
            )
        if not values["low"] < values["high"] or (values.get("log") and values["low"] <= 0):
            raise ValueError(
                f"space[{name!r}] is {dict(values)!r}; 'low' must be below 'high', and above 0 with 'log'."
            )
        whole = all(isinstance(v, int) for v in numeric)
        return Entry(name, bounds=(IntDistribution if whole else FloatDistribution)(**values))
    if isinstance(values, (str, bytes)) or not isinstance(values, (list, tuple)) or not len(values):
        raise ValueError(f"space[{name!r}] is {values!r}; pass a list of choices, or {{'low': ..., 'high': ...}}.")
    # Storages hold nothing but these types, so that other choices stand there as text.
    return Entry(
        name, {v if isinstance(v, bool | int | float | str | None) else json.dumps(plain(v)): v for v in values}
    )


def _put(arguments: dict[str, Any], name: str, value: Any) -> None:
    """Set an argument, or an entry of one that is a dictionary."""
    first, _, rest = name.partition(".")
    if not rest:
        arguments[first] = value
        return
    arguments[first] = dict(arguments.get(first) or {})
    _put(arguments[first], rest, value)
