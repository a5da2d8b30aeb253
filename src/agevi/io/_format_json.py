"""JSON without surprises: what is written reads back equal, and what is read is plain, bounded and unambiguous."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import numpy as np

from agevi.io._format_errors import show

MAX_DEPTH = 32
MAX_INT = 10**39  # more than 128 bits, so that every seed of numpy fits


def plain(value: Any, name: str, depth: int = 0) -> Any:
    """``value`` as new dicts, lists and scalars that JSON holds exactly.

    Parameters
    ----------
    value
        Dicts with str keys, lists, tuples (become lists), str, int, bool, None, finite floats and numpy scalars.
    name
        What the value is called in a message; the place inside it is appended.
    depth
        How many dicts and lists are around it.

    Raises
    ------
    TypeError
        Something else is in it.
    ValueError
        A number is not finite or too large, text is not Unicode, or it is nested too deep.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"{name[:60]}... is nested more than {MAX_DEPTH} deep; store something flatter.")
    if isinstance(value, dict):
        return {_key(k, name): plain(v, f"{name}[{show(k)}]", depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, f"{name}[{i}]", depth + 1) for i, v in enumerate(value)]
    return _scalar(value.item() if isinstance(value, np.generic) else value, name)


def _scalar(value: Any, name: str) -> Any:
    # exact types: a subclass (an enum, say) would read back as something else
    if value is None or type(value) is bool:
        return value
    if type(value) is str:
        return _text(value, name)
    if type(value) is int:
        if abs(value) >= MAX_INT:
            raise ValueError(f"{name} is a whole number of more than 39 digits; store it as text.")
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}; only finite numbers are stored, so use None for a missing one.")
        return value
    raise TypeError(
        f"{name} is of type {type(value).__name__}; only dict, list, tuple, str, int, bool, None and float are stored."
    )


def _key(key: Any, name: str) -> str:
    if type(key) is not str:
        raise TypeError(f"{name} has the key {show(key)} of type {type(key).__name__}; keys must be str.")
    return _text(key, f"a key of {name}")


def _text(value: str, name: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{name} is text with a lone surrogate, which is not valid Unicode.") from None
    return value


def render(document: dict[str, Any]) -> bytes:
    """The text of ``document`` for people: indented, in the order of its keys."""
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def canonical(document: dict[str, Any]) -> bytes:
    """The one text that equal documents share: sorted keys and no white space."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def parse(data: bytes) -> dict[str, Any]:
    """The object in ``data``, as :func:`plain` would return it.

    Raises
    ------
    ValueError
        It is not UTF-8 JSON, not an object, or not plain; the message completes the sentence "the file ...".
    """
    try:
        text = data.decode("utf-8")
        document = json.loads(text, object_pairs_hook=_unique, parse_int=_integer, parse_constant=_constant)
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg} in line {error.lineno})") from None
    except (RecursionError, MemoryError):
        raise ValueError("is nested too deep or too large") from None
    except ValueError as error:
        raise ValueError(f"is not plain JSON ({error})") from None
    if not isinstance(document, dict):
        raise ValueError("does not hold a JSON object")
    try:
        checked: dict[str, Any] = plain(document, "it")
    except ValueError as error:
        raise ValueError(f"is not plain JSON ({error})") from None
    return checked


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise ValueError(f"the key {show(key)} is there twice")
        out[key] = value
    return out


def _integer(token: str) -> int:
    if len(token) > len(str(-MAX_INT)):
        raise ValueError(f"a whole number has {len(token):,} digits")  # int() is slow on long ones
    return int(token)


def _constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is not a JSON number")
