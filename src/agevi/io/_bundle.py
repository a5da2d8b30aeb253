"""The clock bundle: how a trained clock lies on disk. Knows tensors and plain values, and nothing of models.

A bundle is a directory of three or four files, none of which can hold code:

``weights.safetensors``
    The tensors.
``clock.json``
    The plain values (``meta``) and the keys of :data:`OWN_KEYS`: ``format`` ("agevi-clock"), ``schema`` (1),
    ``tensors`` and ``golden`` (dtype and shape of each), ``files`` (size and SHA-256 of the other files) and
    ``digest``, the SHA-256 of all the rest as JSON with sorted keys, no white space and UTF-8.
``README.md``
    The card, for people.
``golden.safetensors``
    Where there are any: rows of input, and what the clock gave for them when they were stored.

The digest guards against damage and careless edits. It is not a signature: who can write a bundle can make a valid
one, so reading treats each file as hostile and checks it in full before it is used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from agevi._checks import stack_depth
from agevi.io import _files
from agevi.io._files import AGAIN, CARD, CLOCK, GOLDEN, WEIGHTS, BundleError, BundleVersionError, listed, show

FORMAT, SCHEMA = "agevi-clock", 1
OWN_KEYS = ("format", "schema", "tensors", "golden", "files", "digest")
MAX_DEPTH = 32
MAX_INT = 10**39  # more than 128 bits, so that every seed of numpy fits
ATTEMPTS = 3  # to read a bundle that another process keeps replacing
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Bundle:
    """What a bundle holds, checked; ``path`` was read, ``<name>.old`` after an interrupted save."""

    meta: dict[str, Any]
    tensors: dict[str, torch.Tensor] = dataclasses.field(repr=False)
    card: str = dataclasses.field(repr=False)
    path: Path
    golden: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict, repr=False)


def write_bundle(
    path: str | os.PathLike[str],
    meta: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    card: str,
    *,
    golden: dict[str, torch.Tensor] | None = None,
    overwrite: bool = False,
) -> None:
    """Write dense ``tensors`` and ``meta`` as a bundle, whole or not at all; equal input gives equal bytes."""
    directory = _resolve(path)
    _files.check_free(directory, overwrite=overwrite)
    contents = encode(meta, tensors, card, golden or {})
    for name, data in contents.items():  # what is written can be read
        _files.vet(directory / name, data, len(data))
    decode(directory, contents)
    _files.replace(directory, contents, _whole, overwrite=overwrite)


def read_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read a bundle, or ``<name>.old`` after an interrupted save; every byte is checked, nothing executed."""
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
    old = _files.older(directory)
    try:
        bundle = _read(old)
    except BundleError:
        raise problem from None
    warnings.warn(
        f"{problem} Read {old} instead, which an interrupted save left.", UserWarning, stacklevel=stack_depth()
    )
    return bundle


def plain(value: Any, name: str, depth: int = 0) -> Any:
    """``value`` as new dicts (str keys), lists and finite scalars that JSON holds; messages call it ``name``."""
    if depth > MAX_DEPTH:
        raise ValueError(f"{name[:60]}... is nested more than {MAX_DEPTH} deep; store something flatter.")
    if isinstance(value, dict):
        if odd := [key for key in value if type(key) is not str]:
            kind = type(odd[0]).__name__
            raise TypeError(f"{name} has the key {show(odd[0])} of type {kind}; keys must be str.")
        return {plain(k, f"a key of {name}"): plain(v, f"{name}[{show(k)}]", depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, f"{name}[{i}]", depth + 1) for i, v in enumerate(value)]
    value = value.item() if isinstance(value, np.generic) else value
    # exact types: a subclass (an enum, say) would read back as something else
    if value is not None and type(value) not in (bool, str, int, float):
        raise TypeError(
            f"{name} is of type {type(value).__name__}; only dict, list, tuple, str, int, bool, None and float are "
            "stored."
        )
    if type(value) is int and abs(value) >= MAX_INT:
        raise ValueError(f"{name} is a whole number of more than 39 digits; store it as text.")
    if type(value) is float and not math.isfinite(value):
        raise ValueError(f"{name} is {value}; only finite numbers are stored, so use None for a missing one.")
    if type(value) is str and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(f"{name} is text with a lone surrogate, which is not valid Unicode.") from None
    return value


def sha256(data: bytes) -> str:
    """The SHA-256 of ``data`` in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def canonical(document: dict[str, Any]) -> bytes:
    """The one text that equal documents share: sorted keys and no white space."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


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


def encode(
    meta: dict[str, Any], tensors: dict[str, torch.Tensor], card: str, golden: dict[str, torch.Tensor]
) -> dict[str, bytes]:
    """The bytes of every file of a bundle."""
    if not isinstance(card, str):
        raise TypeError(f"card is a {type(card).__name__}; pass the text of {CARD} as str.")
    if not isinstance(meta, dict):
        raise TypeError(f"meta is a {type(meta).__name__}; pass a dict.")
    if taken := [key for key in OWN_KEYS if key in meta]:
        raise ValueError(
            f"meta has the key {taken[0]!r}, which the bundle itself uses ({listed(OWN_KEYS)}); rename it."
        )
    tensors = _storable(tensors)
    others = {WEIGHTS: safetensors.torch.save(tensors), CARD: plain(card, "card").encode("utf-8")}
    golden = _storable(golden)
    others |= {GOLDEN: safetensors.torch.save(golden)} if golden else {}
    document = {
        "format": FORMAT,
        "schema": SCHEMA,
        **plain(meta, "meta"),
        "tensors": _record(tensors),
        **({"golden": _record(golden)} if golden else {}),
        "files": {name: {"sha256": sha256(data), "size": len(data)} for name, data in others.items()},
    }
    document["digest"] = sha256(canonical(document))
    return {CLOCK: (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(), **others}


def _storable(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Detached, contiguous CPU copies of ``tensors``, which share no memory."""
    if not isinstance(tensors, dict):
        raise TypeError(f"tensors is a {type(tensors).__name__}; pass a dict of names to torch.Tensor.")
    for name, tensor in tensors.items():
        if type(name) is not str or name == "__metadata__":
            raise TypeError(f"tensors has the key {show(name)}; names must be str, and '__metadata__' is reserved.")
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"tensor {name!r} is a {type(tensor).__name__}; pass a torch.Tensor.")
        if tensor.dtype not in _DTYPES or tensor.layout != torch.strided or tensor.is_meta:
            raise TypeError(
                f"tensor {name!r} ({tensor.dtype}, {tensor.layout}, on {tensor.device}) cannot be stored; pass a dense "
                f"one of {', '.join(str(dtype).removeprefix('torch.') for dtype in _DTYPES)}."
            )
        if not _finite(tensor):
            raise ValueError(f"tensor {name!r} has values that are NaN or infinite; a trained clock has none.")
    return {n: t.detach().to("cpu").clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}


def _record(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The dtype and shape of every tensor, as stored in ``clock.json``."""
    return {name: {"dtype": _DTYPES.get(t.dtype, str(t.dtype)), "shape": list(t.shape)} for name, t in tensors.items()}


def _finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _read(directory: Path) -> Bundle:
    """The bundle in ``directory``. Each file is read once: the bytes that are hashed are the bytes that are parsed."""
    _files.survey(directory)
    document = _parse(directory / CLOCK, _files.read(directory / CLOCK))
    sizes = {name: entry["size"] for name, entry in document["files"].items()}
    return _decode(directory, document, {name: _files.read(directory / name, size) for name, size in sizes.items()})


def decode(directory: Path, contents: dict[str, bytes]) -> Bundle:
    """The bundle that the bytes of its files make; messages place them in ``directory``."""
    document = _parse(directory / CLOCK, contents[CLOCK])
    if absent := sorted(document["files"].keys() - contents.keys()):
        raise BundleError(f"{directory / absent[0]} is missing. {AGAIN}")
    return _decode(directory, document, contents)


def _whole(directory: Path) -> bool:
    """Whether there is a bundle in ``directory`` that can be read."""
    try:
        _read(directory)
    except BundleError:
        return False
    return True


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    """The document in ``data``, read from ``path``, after every key of :data:`OWN_KEYS` was checked."""
    document = plain_json(path, data)
    if document.get("format") != FORMAT:
        there = show(document.get("format"))
        raise BundleError(f"{path} is not that of a clock: its format is {there}, not {FORMAT!r}. Pass another path.")
    schema = document.get("schema")
    if type(schema) is not int or schema < 1:
        raise BundleError(f"{path} was edited or damaged: its schema is {show(schema)}, not a positive number. {AGAIN}")
    if schema > SCHEMA:
        raise BundleVersionError(
            f"{path} has schema {schema}, and this agevi reads up to {SCHEMA}; install a newer agevi."
        )
    rest = {key: value for key, value in document.items() if key != "digest"}
    if document.get("digest") != sha256(canonical(rest)):
        raise BundleError(f"{path} was edited or damaged: its text is not the one that its digest is of. {AGAIN}")
    files = document.get("files")
    # These names and no others: a name in a bundle never leads to a file elsewhere.
    names = [WEIGHTS, CARD, *([GOLDEN] if "golden" in document else [])]
    if not isinstance(files, dict) or files.keys() != set(names) or not all(map(is_entry, files.values())):
        raise BundleError(
            f"{path} does not give the size and sha256 of {' and '.join(names)} alone ({show(files)}); it was edited. "
            f"{AGAIN}"
        )
    return document


def plain_json(path: Path | str, data: bytes) -> dict[str, Any]:
    """The object of plain values in ``data``, which was read from ``path``."""
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
        if not isinstance(document, dict):
            raise ValueError("it holds no object")
        return dict(plain(document, "it"))
    except (ValueError, RecursionError, MemoryError) as error:  # of Unicode, JSON, numbers, size and depth
        raise BundleError(f"{path} is not plain JSON ({error}); it was edited or damaged. {AGAIN}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; with a key twice, people and programs could read two clocks in one text."""
    out = dict(pairs)
    if len(out) < len(pairs):
        raise ValueError("a key is there twice")
    return out


def is_entry(entry: Any) -> bool:
    """Whether ``entry`` gives the size and the SHA-256 of a file."""
    size = entry.get("size") if isinstance(entry, dict) else None
    return type(size) is int and size >= 0 and isinstance(entry.get("sha256"), str)


def _decode(directory: Path, document: dict[str, Any], contents: dict[str, bytes]) -> Bundle:
    """The bundle that a checked document and the bytes of the files in it make."""
    for name, entry in document["files"].items():
        if len(contents[name]) != entry["size"] or sha256(contents[name]) != entry["sha256"]:
            raise BundleError(
                f"{directory / name} is not the file that {CLOCK} describes (its SHA-256 differs); it was edited. "
                f"{AGAIN}"
            )
    tensors = _tensors(directory / WEIGHTS, contents[WEIGHTS], document.get("tensors"))
    golden = _tensors(directory / GOLDEN, contents[GOLDEN], document["golden"]) if "golden" in document else {}
    try:
        card = contents[CARD].decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{directory / CARD} is not UTF-8 text. {AGAIN}") from None
    return Bundle({key: v for key, v in document.items() if key not in OWN_KEYS}, tensors, card, directory, golden)


def _tensors(path: Path, data: bytes, recorded: Any) -> dict[str, torch.Tensor]:
    """The tensors in ``data``, in the order of ``recorded``, which says what :func:`_record` gave."""
    try:
        # refuses a header that is not JSON or too long, and offsets that overlap, leave gaps or do not fit the file
        found = safetensors.torch.load(data)
    except (safetensors.SafetensorError, RuntimeError, ValueError, TypeError, KeyError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{path} cannot be opened by safetensors ({reason[:120]}). {AGAIN}") from None
    there = _record(found)
    if not isinstance(recorded, dict) or there != recorded:
        odd = sorted(set(there) ^ set(recorded)) if isinstance(recorded, dict) else sorted(there)
        odd = odd or [name for name in there if there[name] != recorded[name]]
        raise BundleError(
            f"{path} does not hold the tensors that {CLOCK} records; they differ in {listed(odd)}. {AGAIN}"
        )
    for name, tensor in found.items():
        if not _finite(tensor):
            raise BundleError(f"{path} has NaN or infinite values in the tensor {show(name)}. {AGAIN}")
        if tensor.dtype is torch.bool and bool((tensor.view(torch.uint8) > 1).any()):
            raise BundleError(f"{path} has bytes other than 0 and 1 in the boolean tensor {show(name)}. {AGAIN}")
    return {name: found[name] for name in recorded}
