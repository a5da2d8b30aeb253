"""Public calls by name: made, timed, and written down as the text that makes them again."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from agevi import _keys

logger = logging.getLogger(__name__)

DONE, LEFT_OUT = "done", "left out"
COLUMNS = ["step", "call", "status", "reason", "seconds"]


@dataclass(frozen=True)
class Name:
    """A variable of whoever makes the calls, such as ``adata``."""

    text: str

    step: int = 1  # of rows: every row, every second one and so on

    def __repr__(self) -> str:
        return self.text if self.step == 1 else f"{self.text}[::{self.step}]"

    def every(self, step: int) -> Name:
        """The variable with some of its rows alone."""
        return Name(self.text, step)

    def value(self, variables: Mapping[str, Any]) -> Any:
        """What it stands for."""
        found = variables[self.text]
        return found if self.step == 1 else found[:: self.step]


ADATA, CLOCK = Name("adata"), Name("clock")


@dataclass(frozen=True)
class Call:
    """One call: what is called, by its public name, with which arguments, and the variable that takes the result."""

    target: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    to: str = ""

    def __str__(self) -> str:
        given = [repr(value) for value in self.args] + [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"{self.to + ' = ' if self.to else ''}{self.target}({', '.join(given)})"

    def make(self, variables: dict[str, Any]) -> Any:
        """Make the call with these variables, among which the result is put."""
        first, *rest = self.target.split(".")
        function: Any = variables[first] if first in variables else importlib.import_module(first)
        for name in rest:
            function = getattr(function, name)
        args = [value.value(variables) if isinstance(value, Name) else value for value in self.args]
        result = function(*args, **self.kwargs)
        if self.to:
            variables[self.to] = result
        return result


@dataclass(frozen=True)
class Column:
    """A column of ``adata.obs`` that is set: the role of every cell in the training of the final clock."""

    name: str
    key: str = ""
    values: tuple[Any, ...] = ()

    def __str__(self) -> str:
        roles = f"{_keys.TRAIN!r}"
        if self.key:
            chosen = f"adata.obs[{self.key!r}].isin({list(self.values)!r})"
            roles = f"np.where({chosen}, {_keys.TRAIN!r}, {_keys.TEST!r})"
        return f"adata.obs[{self.name!r}] = {roles}"

    def make(self, variables: dict[str, Any]) -> None:
        """Set it."""
        obs = variables[ADATA.text].obs
        trains = pd.Series(True, index=obs.index) if not self.key else obs[self.key].isin(list(self.values))
        obs[self.name] = pd.Categorical(np.where(trains, _keys.TRAIN, _keys.TEST), [_keys.TRAIN, _keys.TEST])


class Log:
    """The steps of a study in their order; ``variables`` are those that calls read and set."""

    def __init__(self, n_steps: int, **variables: Any) -> None:
        self.variables = variables
        self.n_steps = n_steps
        self._rows: dict[str, list[Any]] = {}

    def do(self, step: str, *calls: Call | Column) -> Any:
        """Make the calls of a step; the result of the last one."""
        self._say(step, "")
        start, result = time.perf_counter(), None
        for call in calls:
            result = call.make(self.variables)
        self._add(step, calls, DONE, "", time.perf_counter() - start)
        return result

    def do_instead(self, step: str, known: Call, *calls: Call | Column) -> None:
        """Take what the calls of a step made in an earlier run by the call ``known``."""
        self.do(step, known)
        self._rows[step][1] = "\n".join(map(str, calls))

    def attempt(self, step: str, *calls: Call | Column) -> None:
        """Make the calls of a step, or leave it out where the data cannot carry it."""
        try:
            self.do(step, *calls)
        except ValueError as error:
            self.leave_out(step, str(error), *calls)

    def leave_out(self, step: str, reason: str, *calls: Call | Column) -> None:
        """Write down why a step is not made, and how it would be."""
        self._say(step, f", left out: {reason}")
        self._add(step, calls, LEFT_OUT, reason, 0.0)

    def _say(self, step: str, what: str) -> None:
        place = list(self._rows).index(step) if step in self._rows else len(self._rows)
        logger.info("step %d of %d: %s%s", place + 1, self.n_steps, step, what)

    def _add(self, step: str, calls: tuple[Call | Column, ...], status: str, reason: str, seconds: float) -> None:
        row = [step, "\n".join(map(str, calls)), status, reason, seconds]
        self._rows[step] = row

    def table(self) -> pd.DataFrame:
        """One row per step."""
        out = pd.DataFrame(list(self._rows.values()), columns=COLUMNS)
        return out.astype(dict.fromkeys(COLUMNS[:-1], object)).astype({"seconds": "float64"})
