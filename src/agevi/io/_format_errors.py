"""What can be wrong with a clock bundle, as exceptions, and how foreign text is shown in their messages."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


class BundleError(ValueError):
    """A clock bundle that cannot be read or written; the message says which file, what is wrong and what to do."""


class BundleMissingError(BundleError, FileNotFoundError):
    """There is no bundle at the path."""


class BundleExistsError(BundleError, FileExistsError):
    """There is something at the path already, which is not replaced without being asked or is not agevi's."""


class BundleVersionError(BundleError):
    """The bundle is whole but was written by a newer agevi."""


def show(value: Any) -> str:
    """``value``, quoted, on one line and short, whatever a file put into it."""
    return _SHORT.repr(value).replace("\n", " ")


def listed(names: Iterable[str], wanted: str | None = None) -> str:
    """Up to five of ``names``, quoted, those closest to ``wanted`` first, or "nothing"."""
    names = sorted(names)
    close = difflib.get_close_matches(wanted, names, n=5) if wanted else []
    ordered = [*close, *(name for name in names if name not in close)]
    return ", ".join(show(name) for name in ordered[:5]) + (", ..." if len(ordered) > 5 else "") or "nothing"
