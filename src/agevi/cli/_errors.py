"""Errors as one line on stderr, in the words of the functions but with the names of the options."""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

USAGE, DATA, STOPPED = 2, 1, 130
OPTIONS = {
    "age_key": "--age",
    "subject_key": "--subject",
    "sample_key": "--sample",
    "cell_type_key": "--cell-type",
    "condition_key": "--condition",
    "obsm_key": "--obsm",
    "reference": "--reference",
    "covariates": "--covariate",
    "layer": "--layer",
    "out": "--out",
    "age_unit": "--age-unit",
    "quick": "--quick",
    "rng": "--seed",
    "by": "--by",
}
"""Option of the command line for an argument of a function."""
SAID = {
    r"agevi\.clocks\.list\(\)": "`agevi clocks`",
    r"agevi\.pp\.parse_age\(adata, '[^']*'\)": "--parse-ages midpoint",
    r", set them to NaN, or pass errors='coerce', which does so and lists them": ", or leave them empty",
}
"""What else reads differently on the command line."""
_PLAIN = "|".join(name for name in OPTIONS if name.endswith("_key"))
_GIVEN = re.compile(rf"(?<![\w.'\"])({'|'.join(OPTIONS)})(?==)")
_NAMED = re.compile(rf"(?<![\w.'\"])({_PLAIN})(?![\w'\"])")


class DataError(Exception):
    """Data or files that cannot be used; the message is one line."""


def in_options(text: str) -> str:
    """A message of a function with the options of the command line in place of the function's arguments."""
    text = _GIVEN.sub(lambda found: OPTIONS[found[1]], text)
    for pattern, said in SAID.items():
        text = re.sub(pattern, said, text)
    return _NAMED.sub(lambda found: OPTIONS[found[1]], text)


def one_line(error: BaseException) -> str:
    """The message of an error on one line."""
    if isinstance(error, click.ClickException):
        return " ".join(error.format_message().split())
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename!r}: {error.strerror}"
    return in_options(" ".join(text.split())) or type(error).__name__


class Agevi(click.Group):
    """The group of all commands, which ends with 0, with 1 for data and with 2 for usage."""

    debug = False

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command and end the process."""
        Agevi.debug = False
        kwargs["standalone_mode"] = False
        with _warnings_on_one_line():
            code = self._code(args, kwargs)
        sys.exit(code)

    def _code(self, args: Any, kwargs: Any) -> int:
        try:
            result = super().main(*args, **kwargs)
        except (click.UsageError, click.FileError) as error:
            path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "agevi"
            click.echo(f"{path}: {one_line(error)} See {path} --help.", err=True)
            return USAGE
        except (KeyboardInterrupt, click.Abort):
            click.echo("agevi: stopped; nothing is left half written, and the same command goes on.", err=True)
            return STOPPED
        except BrokenPipeError:
            return 0
        except Exception as error:
            if Agevi.debug:
                traceback.print_exc()
            click.echo(f"agevi: {one_line(error)}", err=True)
            return DATA
        return result if isinstance(result, int) else 0


@contextmanager
def _warnings_on_one_line() -> Iterator[None]:
    """Warnings for users without the place in the code; those for programmers are not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", UserWarning)
        for category in (DeprecationWarning, FutureWarning, ImportWarning):
            warnings.simplefilter("ignore", category)

        def show(message: Any, category: Any, *_: Any, **__: Any) -> None:
            if category is UserWarning:
                click.echo(f"warning: {in_options(' '.join(str(message).split()))}", err=True)

        warnings.showwarning = show
        yield
