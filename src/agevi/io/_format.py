"""The clock bundle: how a trained clock lies on disk. Knows tensors and plain values, and nothing of models.

A bundle is a directory of three files, none of which can hold code:

``weights.safetensors``
    The tensors.
``clock.json``
    The plain values (``meta``) and five keys of its own: ``format`` ("agevi-clock"), ``schema`` (1), ``tensors`` (dtype
    and shape of each), ``files`` (size and SHA-256 of the other two files) and ``digest``, the SHA-256 of all the rest
    as JSON with sorted keys, no white space and UTF-8.
``README.md``
    The card, for people.

The digest guards against damage and careless edits. It is no signature: who can write a bundle can make a valid one, so
reading treats each file as hostile and checks it in full before it is used.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from agevi._checks import stack_depth
from agevi.io import _format_document, _format_json, _format_replace, _format_tensors
from agevi.io._format_errors import (
    BundleError,
    BundleExistsError,
    BundleMissingError,
    BundleVersionError,
    listed,
)
from agevi.io._format_files import AGAIN, CARD, CLOCK, HEAD, WEIGHTS, read, survey, vet

__all__ = [
    "Bundle",
    "BundleError",
    "BundleExistsError",
    "BundleMissingError",
    "BundleVersionError",
    "read_bundle",
    "write_bundle",
]

ATTEMPTS = 3  # to read a bundle that another process keeps replacing


@dataclasses.dataclass(frozen=True, eq=False)
class Bundle:
    """What a clock bundle holds, checked.

    Parameters
    ----------
    meta
        The plain values that were written.
    tensors
        The tensors that were written, on the CPU.
    card
        The text for people.
    path
        The directory that was read; ``<name>.old`` after an interrupted save.
    """

    meta: dict[str, Any]
    tensors: dict[str, torch.Tensor] = dataclasses.field(repr=False)
    card: str = dataclasses.field(repr=False)
    path: Path


def write_bundle(
    path: str | os.PathLike[str],
    meta: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    card: str,
    *,
    overwrite: bool = False,
) -> None:
    """Write a clock bundle, whole or not at all.

    The bundle is written beside ``path`` and renamed into place. A bundle that it replaces waits as ``<name>.old`` for
    that moment and is then deleted, so a killed process leaves the old or the new one. Equal input gives equal bytes.

    Parameters
    ----------
    path
        Directory of the bundle. Missing parents are created.
    meta
        Dicts with str keys, lists, tuples (read back as lists), str, int, bool, None, finite floats, numpy scalars.
    tensors
        Dense tensors of floats (finite), integers or booleans.
    card
        Markdown text for people.
    overwrite
        Replace the bundle at ``path``. A directory that agevi did not write is never replaced.

    Raises
    ------
    TypeError
        ``meta`` or ``tensors`` hold something that is not stored; the message says where.
    ValueError
        A number in them is not finite.
    BundleExistsError
        There is something at ``path``.
    """
    directory = _resolve(path)
    _format_replace.check_free(directory, overwrite=overwrite)
    contents = _encode(meta, tensors, card)
    _decode(directory, contents)  # what is written can be read
    _format_replace.replace(directory, contents, _whole, overwrite=overwrite)


def read_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read a clock bundle, after checking every byte of it. Nothing in it is executed.

    Where ``path`` holds no whole bundle and ``<name>.old`` does, as after an interrupted save, that one is read with a
    warning. Unlisted files are never opened as data; links and pickles among them are refused.

    Parameters
    ----------
    path
        Directory of the bundle.

    Returns
    -------
    What was written.

    Raises
    ------
    BundleMissingError
        There is nothing at ``path``.
    BundleVersionError
        A newer agevi wrote it.
    BundleError
        Any other problem: cut, edited, a pickle, a link, not a bundle.
    """
    directory = _resolve(path)
    for _ in range(ATTEMPTS):
        before = _identity(directory)
        try:
            return _read(directory)
        except BundleVersionError:
            raise
        except BundleError as error:
            problem = error
        if _identity(directory) == before:  # else another process replaced it meanwhile
            break
    old = _format_replace.older(directory)
    try:
        bundle = _read(old)
    except BundleError:
        raise problem from None
    warnings.warn(
        f"{problem} Read {old} instead, which an interrupted save left.", UserWarning, stacklevel=stack_depth()
    )
    return bundle


def _resolve(path: str | os.PathLike[str]) -> Path:
    """The absolute path; links on the way to the bundle are followed, links inside it never are."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str):
        raise TypeError(f"path is a {type(path).__name__}; pass the bundle's directory as str or pathlib.Path.")
    directory = Path(os.path.realpath(os.path.expanduser(text)))
    if not directory.name:
        raise BundleError(f"{directory} is the root of the file system; pass the path of a directory for the clock.")
    return directory


def _identity(directory: Path) -> tuple[int, int] | None:
    """What changes when another directory takes this one's place."""
    try:
        status = directory.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _encode(meta: dict[str, Any], tensors: dict[str, torch.Tensor], card: str) -> dict[str, bytes]:
    """The bytes of every file of a bundle."""
    if not isinstance(card, str):
        raise TypeError(f"card is a {type(card).__name__}; pass the text of {CARD} as str.")
    tensors = _format_tensors.clean(tensors)
    others = {WEIGHTS: _format_tensors.encode(tensors), CARD: _format_json.plain(card, "card").encode("utf-8")}
    return {CLOCK: _format_document.compose(meta, _format_tensors.record(tensors), others), **others}


def _decode(directory: Path, contents: dict[str, bytes]) -> Bundle:
    """The bundle whose files have these bytes."""
    for name, data in contents.items():
        vet(directory / name, data[:HEAD], len(data))
    return _assemble(directory, _format_document.parse(directory / CLOCK, contents[CLOCK]), contents)


def _read(directory: Path) -> Bundle:
    """The bundle in ``directory``. Each file is read once: the bytes that are hashed are the bytes that are parsed."""
    survey(directory, _names(directory))
    document = _format_document.parse(directory / CLOCK, read(directory / CLOCK))
    sizes = {name: entry["size"] for name, entry in document["files"].items()}
    return _assemble(directory, document, {name: read(directory / name, size) for name, size in sizes.items()})


def _assemble(directory: Path, document: dict[str, Any], contents: dict[str, bytes]) -> Bundle:
    """The bundle that a checked document and the bytes of the files in it make."""
    for name, entry in document["files"].items():
        _format_document.check_file(directory / name, contents[name], entry)
    try:
        tensors = _format_tensors.decode(contents[WEIGHTS], document.get("tensors"))
    except ValueError as error:
        raise BundleError(f"{directory / WEIGHTS} {error}. {AGAIN}") from None
    try:
        card = contents[CARD].decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{directory / CARD} is not UTF-8 text. {AGAIN}") from None
    return Bundle(_format_document.meta(document), tensors, card, directory)


def _whole(directory: Path) -> bool:
    """Whether there is a bundle in ``directory`` that can be read."""
    try:
        _read(directory)
    except BundleError:
        return False
    return True


def _names(directory: Path) -> list[str]:
    """The names in a directory that could be a bundle; what is none is refused in words that say what it is."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        raise BundleMissingError(_missing(directory)) from None
    except NotADirectoryError:
        raise BundleError(f"{directory} is a file; a clock is a directory with {CLOCK} in it. Pass that one.") from None
    except OSError as error:
        raise BundleError(f"{directory} cannot be read ({error.strerror}).") from error
    if CLOCK in names:
        return names
    if any(name.endswith("model.pt") for name in names):
        raise BundleError(
            f"{directory} holds a model of scvi-tools, whose model.pt is a pickle: opening it can run code, so it was "
            "not opened. Train the clock with agevi and save it with its save()."
        )
    raise BundleError(f"{directory} is not a clock: it has no {CLOCK}; in it: {listed(names)}. Pass another path.")


def _missing(directory: Path) -> str:
    parent = directory.parent
    if not parent.is_dir():
        return f"{directory} does not exist, nor does the directory {parent} around it; check the path."
    try:
        names = os.listdir(parent)
    except OSError:
        names = []
    return f"{directory} does not exist; in {parent}: {listed(names, directory.name)}. Pass the directory of a clock."
