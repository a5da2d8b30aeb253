"""The index of a shelf: which clocks lie in it, what is said about them, and the checksum of every file."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agevi.io._bundle import canonical, is_entry, plain_json, sha256
from agevi.io._files import CARD, CLOCK, GOLDEN, LIMITS, WEIGHTS, BundleError, BundleVersionError, listed, show

INDEX, FORMAT, SCHEMA = "index.json", "agevi-shelf", 1
HUB = "_scvi_required_metadata.json"
MAX_INDEX = 4 << 20  # bytes
MAX_CLOCK = 2 << 30  # bytes of all files of a clock
MAX_CLOCKS = 10_000
MOST = {**LIMITS, HUB: 1 << 16}  # bytes of each file
_NEEDED = {CLOCK, WEIGHTS, CARD, HUB}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
_TEXT = 2000  # characters
ABOUT = {
    "cells": str,
    "tissue": str,
    "species": str,
    "unit": str,
    "class": str,
    "features": int,
    "donors": int,
    "cohorts": str,
    "mae": float,
    "mae_other_cohorts": float,
    "interval": float,
    "licence": str,
    "citation": str,
    "source": str,
    "input": str,
}
"""What an index says of a clock, and of which type; each may be missing."""
SHOWN = {
    "mae": "mean absolute error, on held-out donors of the cohorts that it was trained on",
    "mae_other_cohorts": "mean absolute error, on cohorts that were left out",
    "interval": "width of the interval of a prediction",
}
"""Numbers among them, in the unit of age."""


@dataclass(frozen=True)
class Entry:
    """A clock of a shelf: its files with size and SHA-256, and what is said about it."""

    name: str
    files: dict[str, dict[str, Any]]
    about: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(entry["size"] for entry in self.files.values())


def write(entries: list[Entry]) -> bytes:
    """The bytes of an index."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "schema": SCHEMA,
        "clocks": {entry.name: {"about": entry.about, "files": entry.files} for entry in entries},
    }
    document["digest"] = sha256(canonical(document))
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read(where: str, data: bytes) -> dict[str, Entry]:
    """The clocks that an index names, after every value was checked; ``where`` is its path or address."""
    if len(data) > MAX_INDEX:
        raise BundleError(f"{where} has more than the {MAX_INDEX:,} bytes that an index may have.")
    document = plain_json(where, data)
    if document.get("format") != FORMAT:
        raise BundleError(f"{where} is not the index of a shelf: its format is {show(document.get('format'))}.")
    schema = document.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise BundleVersionError(f"{where} has schema {schema}, and this agevi reads up to {SCHEMA}; upgrade agevi.")
    rest = {key: value for key, value in document.items() if key != "digest"}
    clocks = document.get("clocks")
    if schema != SCHEMA or document.get("digest") != sha256(canonical(rest)) or not isinstance(clocks, dict):
        raise BundleError(f"{where} was edited or damaged: its text is not the one that its digest is of.")
    if len(clocks) > MAX_CLOCKS:
        raise BundleError(f"{where} names {len(clocks):,} clocks, more than {MAX_CLOCKS:,}.")
    lower = [name.lower() for name in clocks]
    if twice := sorted({name for name in lower if lower.count(name) > 1}) if len(set(lower)) < len(lower) else []:
        raise BundleError(f"{where} names {show(twice[0])} twice, in upper and lower case.")
    return {name: _entry(where, name, value) for name, value in clocks.items()}


def check_name(name: Any) -> str:
    """``name`` when a clock of a shelf can have it: it is a folder's name, and never leads elsewhere."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BundleError(
            f"{show(name)} cannot be the name of a clock on a shelf; take letters, digits, '_' and '-', 80 at most."
        )
    return name


def check_about(values: Any, name: str) -> dict[str, Any]:
    """What is said about a clock, with every value of its type."""
    if not isinstance(values, dict):
        raise BundleError(f"what is said about {show(name)} is a {type(values).__name__} and not a dict.")
    if odd := [key for key in values if key not in ABOUT]:
        raise BundleError(
            f"what is said about {show(name)} has the entry {show(odd[0])}; known are {', '.join(ABOUT)}."
        )
    out: dict[str, Any] = {}
    for key, value in values.items():
        wanted = ABOUT[key]
        value = value.item() if isinstance(value, np.generic) else value
        value = float(value) if wanted is float and type(value) is int else value
        if isinstance(value, str):
            fits = len(value) <= _TEXT and value.isprintable()
        else:
            fits = isinstance(value, int | float) and 0 <= value < 1e12
        if type(value) is not wanted or not fits:
            kind = {str: "text on one line", int: "a whole number", float: "a number"}[wanted]
            raise BundleError(f"{key!r} of {show(name)} is {show(value)}; it takes {kind}.")
        out[key] = value
    return out


def table(entries: dict[str, Entry], where: str) -> pd.DataFrame:
    """One row per clock."""
    rows = [
        {key: entry.about.get(key) for key in ABOUT}
        | {"where": where, "size": entry.size, "sha256": entry.files[CLOCK]["sha256"]}
        for entry in entries.values()
    ]
    index = pd.Index(list(entries), name="clock", dtype=object)
    out = pd.DataFrame(rows, index=index, columns=[*ABOUT, "where", "size", "sha256"])
    kinds: dict[Any, Any] = {str: object, int: "Int64", float: "float64"}
    return out.astype(
        {key: kinds[kind] for key, kind in ABOUT.items()} | {"where": object, "size": "int64", "sha256": object}
    )


def check_file(where: str, name: str, entry: Entry, data: bytes) -> bytes:
    """``data`` when it is the file ``name`` of a clock, which lies at ``where``."""
    wanted = entry.files[name]
    if len(data) != wanted["size"] or sha256(data) != wanted["sha256"]:
        raise BundleError(
            f"{where} is not the file that {INDEX} describes ({len(data):,} of {wanted['size']:,} bytes; the SHA-256 "
            "differs); it was edited or damaged. Copy the shelf again."
        )
    return data


def _entry(where: str, name: str, value: Any) -> Entry:
    """A clock of an index."""
    try:
        check_name(name)
        if not isinstance(value, dict) or value.keys() != {"about", "files"} or not isinstance(value["files"], dict):
            raise BundleError(f"{show(name)} does not have the entries 'about' and 'files'.")
        files = value["files"]
        if not _NEEDED <= files.keys() <= _NEEDED | {GOLDEN} or not all(map(is_entry, files.values())):
            raise BundleError(
                f"the files of {show(name)} are {listed(files)}; a clock has {', '.join(sorted(_NEEDED))}, and may "
                f"have {GOLDEN}, each with size and sha256."
            )
        for file, entry in files.items():
            if entry["size"] > MOST[file]:
                raise BundleError(
                    f"{file} of {show(name)} has {entry['size']:,} bytes, more than the {MOST[file]:,} of such a file."
                )
        out = Entry(name, files, check_about(value["about"], name))
        if out.size > MAX_CLOCK:
            raise BundleError(
                f"{show(name)} has {out.size:,} bytes, more than the {MAX_CLOCK:,} of a clock on a shelf."
            )
    except BundleError as error:
        raise BundleError(f"{where} was refused: {error}") from None
    return out
