"""Descriptions of arguments that several public functions share, each written once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")
_PLACE = re.compile(r"^( *)%\((\w+)\)s$", re.MULTILINE)

ARGUMENTS = {
    "key_added": """
        key_added
            Prefix of the slots.
    """,
    "key_read": """
        key_added
            Prefix of the slots that are read and written.
    """,
    "copy": """
        copy
            Return a copy of ``adata`` with the slots instead of writing to ``adata``.
    """,
    "age_key": """
        age_key
            Column of ``adata.obs`` with the age; NaN is unlabelled: such subjects train without age and are predicted.
    """,
    "subject_key": """
        subject_key
            Column with the person or animal, the unit that is held out.
    """,
    "sample_key": """
        sample_key
            Column with the visit or biopsy, the unit with one age. Default: the subject.
    """,
    "ax": """
        ax
            Axes to draw on; a new figure by default.
    """,
}
"""Whole entries of a Parameters section: the name, and what it means, indented below it."""


def shared(obj: T, entries: Mapping[str, str] = ARGUMENTS) -> T:
    """Put ``entries`` into the docstring of a function or class, each in place of its line ``%(name)s``."""

    def entry(found: re.Match[str]) -> str:
        lines = inspect.cleandoc(entries[found[2]]).splitlines()
        return "\n".join(found[1] + line if line else line for line in lines)

    if obj.__doc__:  # absent under python -OO
        obj.__doc__ = _PLACE.sub(entry, obj.__doc__)
    return obj
