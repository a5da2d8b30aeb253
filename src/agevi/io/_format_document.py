"""The text of ``clock.json``: made from plain values, and checked key by key when it is read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from agevi.io import _format_json
from agevi.io._format_errors import BundleError, BundleVersionError, listed, show
from agevi.io._format_files import AGAIN, CARD, CLOCK, WEIGHTS

FORMAT = "agevi-clock"
SCHEMA = 1
OWN_KEYS = ("format", "schema", "tensors", "files", "digest")


def sha256(data: bytes) -> str:
    """The SHA-256 of ``data`` in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def compose(meta: dict[str, Any], tensors: dict[str, Any], others: dict[str, bytes]) -> bytes:
    """The text of ``clock.json``.

    Parameters
    ----------
    meta
        The values of the clock; see :func:`._format_json.plain` for what they may be.
    tensors
        Dtype and shape of every tensor.
    others
        Names and bytes of the other files of the bundle.
    """
    if not isinstance(meta, dict):
        raise TypeError(f"meta is a {type(meta).__name__}; pass a dict.")
    taken = [key for key in OWN_KEYS if key in meta]
    if taken:
        raise ValueError(
            f"meta has the key {taken[0]!r}, which the bundle itself uses ({listed(OWN_KEYS)}); rename it."
        )
    document = {
        "format": FORMAT,
        "schema": SCHEMA,
        **_format_json.plain(meta, "meta"),
        "tensors": tensors,
        "files": {name: {"sha256": sha256(data), "size": len(data)} for name, data in others.items()},
    }
    return _format_json.render(document | {"digest": sha256(_format_json.canonical(document))})


def parse(path: Path, data: bytes) -> dict[str, Any]:
    """The document in ``data``, read from ``path``, after every key of :data:`OWN_KEYS` was checked."""
    try:
        document = _format_json.parse(data)
    except ValueError as error:
        raise BundleError(f"{path} {error}; it was edited or damaged. {AGAIN}") from None
    _check_version(path, document)
    rest = {key: value for key, value in document.items() if key != "digest"}
    if document.get("digest") != sha256(_format_json.canonical(rest)):
        raise BundleError(f"{path} was edited or damaged: its text is not the one that its digest is of. {AGAIN}")
    _check_files(path, document.get("files"))
    return document


def meta(document: dict[str, Any]) -> dict[str, Any]:
    """The values that were given to :func:`compose`."""
    return {key: value for key, value in document.items() if key not in OWN_KEYS}


def _check_version(path: Path, document: dict[str, Any]) -> None:
    if document.get("format") != FORMAT:
        there = show(document.get("format"))
        raise BundleError(f"{path} is not that of a clock: its format is {there}, not {FORMAT!r}. Pass another path.")
    schema = document.get("schema")
    if type(schema) is not int or schema < 1:
        raise BundleError(f"{path} was edited or damaged: its schema is {show(schema)}, not a positive number. {AGAIN}")
    if schema > SCHEMA:
        raise BundleVersionError(
            f"{path} has schema {schema}, and this agevi reads up to {SCHEMA}; upgrade agevi (pip install -U agevi)."
        )


def _check_files(path: Path, files: Any) -> None:
    """Refuse any list of files but that of a bundle, so that no name in it can lead elsewhere."""
    names = set(files) if isinstance(files, dict) else set()
    odd = names - {WEIGHTS, CARD}
    if odd:
        raise BundleError(f"{path} lists files that are no part of a bundle: {listed(odd)}. Do not use this bundle.")
    if names != {WEIGHTS, CARD}:
        raise BundleError(f"{path} does not list {WEIGHTS} and {CARD}; it was edited. {AGAIN}")
    for name, entry in files.items():
        size = entry.get("size") if isinstance(entry, dict) else None
        if type(size) is not int or size < 0 or not isinstance(entry.get("sha256"), str):
            raise BundleError(f"{path} does not give the size and sha256 of {name}; it was edited. {AGAIN}")


def check_file(path: Path, data: bytes, entry: dict[str, Any]) -> None:
    """Refuse a file whose bytes are not those that ``clock.json`` describes."""
    if len(data) != entry["size"] or sha256(data) != entry["sha256"]:
        raise BundleError(
            f"{path} is not the file that {CLOCK} describes (its SHA-256 differs); it was edited. {AGAIN}"
        )
