"""What holds for all of agevi in this session: how much it says, and on how many threads it computes."""

from __future__ import annotations

import contextlib
import difflib
import logging
import sys
from collections.abc import Iterator
from typing import Any

from tqdm.std import tqdm

from agevi import _options

LEVELS = ("error", "warning", "info", "hint", "debug")
"""Names of the levels of verbosity, numbered from 0 as in scanpy."""
WARNING = 1
_LOGGING = (logging.ERROR, logging.WARNING, logging.INFO, (logging.INFO + logging.DEBUG) // 2, logging.DEBUG)


class _Console(logging.Handler):
    """Prints to standard error, unless the user's own logging prints already."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line, above a progress bar where one is drawn."""
        if {*logging.getLogger().handlers, *logging.getLogger("agevi").handlers} <= {self}:
            tqdm.write(self.format(record), file=sys.stderr)


class Settings:
    """How much agevi says and on how many threads it computes, in this session; None puts a setting back."""

    _verbosity: int | None
    _n_threads: int | None
    _applied: int | None
    _console: _Console

    def __init__(self) -> None:
        for name, value in (("_verbosity", None), ("_n_threads", None), ("_applied", None), ("_console", _Console())):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse names of anything but settings."""
        if name not in ("verbosity", "n_threads", "_verbosity", "_n_threads", "_applied"):
            names = ["verbosity", "n_threads"]
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"; closest: {close[0]!r}" if close else ""
            raise AttributeError(f"agevi.settings has no {name!r}{hint}. Available: 'verbosity', 'n_threads'.")
        object.__setattr__(self, name, value)

    @property
    def verbosity(self) -> int:
        """How much is said, from 0 (``"error"``) by way of 1 (``"warning"``, the default) to 4 (``"debug"``).

        0 hides progress bars and all but errors; 1 shows bars and warnings; 2 (``"info"``) adds what functions log
        about their choices; 3 (``"hint"``) lets through what Lightning and scvi-tools log; 4 adds details. Until it is
        set, it follows ``scanpy.settings.verbosity`` where that was changed. Handlers of your own, of the root logger
        or of the logger ``"agevi"``, take the lines over.

        Raises
        ------
        TypeError
            If it is neither a whole number nor a name.
        ValueError
            If there is no such level.
        """
        return WARNING if (found := self._asked_for()) is None else found

    @verbosity.setter
    def verbosity(self, value: int | str | None) -> None:
        if isinstance(value, str):
            value = LEVELS.index(_options.choice(value.lower(), LEVELS, "verbosity"))
        elif value is not None:
            value = _options.count(value, "verbosity", low=0, high=len(LEVELS) - 1)
        self._verbosity = value
        self.apply()

    @property
    def n_threads(self) -> int | None:
        """Threads of torch and of linear algebra in fits and predictions, None for a choice by the size of the work.

        The choice never exceeds ``torch.get_num_threads()``, and with it ``OMP_NUM_THREADS``, nor on Linux the cores
        that other programs leave idle when a fit begins; a number set here does.
        The number of threads outside of agevi stays as it is. Folds of a cross-validation compute on one thread each,
        whatever is set here, and on more with joblib's ``inner_max_num_threads``.

        Raises
        ------
        TypeError
            If it is not a whole number.
        ValueError
            If it is below 1.
        """
        return self._n_threads

    @n_threads.setter
    def n_threads(self, value: int | None) -> None:
        self._n_threads = None if value is None else _options.count(value, "n_threads")

    def apply(self) -> None:
        """Let the logger of agevi show what is asked for; leave it to the user's logging where nothing is."""
        asked_for = self._asked_for()
        if asked_for == self._applied:
            return
        self._applied = asked_for
        logger = logging.getLogger("agevi")
        logger.removeHandler(self._console)
        logger.setLevel(logging.NOTSET if asked_for is None else _LOGGING[asked_for])
        if asked_for is not None:
            logger.addHandler(self._console)

    def _asked_for(self) -> int | None:
        """The level that was set here, or in scanpy to another one than its default."""
        if self._verbosity is not None:
            return self._verbosity
        of_scanpy = getattr(getattr(sys.modules.get("scanpy"), "settings", None), "verbosity", WARNING)
        return None if of_scanpy == WARNING else int(of_scanpy)

    def __repr__(self) -> str:
        follows = "" if self._verbosity is not None else ", the default"
        if not follows or self._asked_for() is not None:
            follows = follows and ", as scanpy.settings.verbosity"
        n = "None (by the size of the work)" if self._n_threads is None else self._n_threads
        return (
            f"agevi.settings\n    verbosity  {self.verbosity} ({LEVELS[self.verbosity]}{follows})\n    n_threads  {n}"
        )


settings = Settings()


@contextlib.contextmanager
def quieter(level: int, *names: str) -> Iterator[None]:
    """Nothing below ``level`` of the loggers with these names inside the block."""
    with contextlib.ExitStack() as stack:
        for logger in map(logging.getLogger, names):
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(max(logger.getEffectiveLevel(), level))
        yield
