"""Tensors to safetensors bytes and back. The header is checked here in full before safetensors sees it."""

from __future__ import annotations

import itertools
import math
import struct
from typing import Any

import safetensors.torch
import torch

from agevi.io import _format_json
from agevi.io._format_errors import listed, show

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
PREFIX = struct.Struct("<Q")  # a safetensors file begins with the length of its header
MAX_HEADER = 64 << 20
MAX_AXES = 16
MAX_AXIS = 2**40


def clean(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Detached, contiguous CPU copies of ``tensors``, which share no memory.

    Raises
    ------
    TypeError
        Something is not a dense tensor of a dtype in :data:`DTYPES`.
    ValueError
        A floating-point value is NaN or infinite.
    """
    if not isinstance(tensors, dict):
        raise TypeError(f"tensors is a {type(tensors).__name__}; pass a dict of names to torch.Tensor.")
    for name, tensor in tensors.items():
        if type(name) is not str or name == "__metadata__":
            raise TypeError(f"tensors has the key {show(name)}; names must be str, and '__metadata__' is reserved.")
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"tensor {name!r} is a {type(tensor).__name__}; pass a torch.Tensor.")
        if tensor.dtype not in NAMES or tensor.layout != torch.strided or tensor.is_meta:
            raise TypeError(
                f"tensor {name!r} ({tensor.dtype}, {tensor.layout}, on {tensor.device}) cannot be stored; pass a dense "
                f"one of {', '.join(str(dtype).removeprefix('torch.') for dtype in NAMES)}."
            )
        if not _finite(tensor):
            raise ValueError(f"tensor {name!r} has values that are NaN or infinite; a trained clock has none.")
    return {n: t.detach().to("cpu").clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}


def record(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The dtype and shape of every tensor, as stored in ``clock.json``."""
    return {name: {"dtype": NAMES[t.dtype], "shape": list(t.shape)} for name, t in tensors.items()}


def encode(tensors: dict[str, torch.Tensor]) -> bytes:
    """The safetensors file that holds ``tensors``."""
    return safetensors.torch.save(tensors)


def decode(data: bytes, recorded: Any) -> dict[str, torch.Tensor]:
    """The tensors in ``data``, in the order of ``recorded``.

    Raises
    ------
    ValueError
        The header is not sound, not what :func:`record` gave, or values are not finite; the message completes the
        sentence "the file ...".
    """
    header = _header(data)
    _compare({name: {key: entry[key] for key in ("dtype", "shape")} for name, entry in header.items()}, recorded)
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"cannot be opened by safetensors ({error})") from None
    for name, tensor in tensors.items():
        if not _finite(tensor):
            raise ValueError(f"has NaN or infinite values in the tensor {show(name)}")
        if tensor.dtype is torch.bool and bool((tensor.view(torch.uint8) > 1).any()):
            raise ValueError(f"has bytes other than 0 and 1 in the boolean tensor {show(name)}")
    return {name: tensors[name] for name in recorded}


def _finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _header(data: bytes) -> dict[str, Any]:
    """The header of a safetensors file, after every offset in it was found to fit the file."""
    room = len(data) - PREFIX.size
    if room < 0:
        raise ValueError(f"is not a safetensors file: it has {len(data)} bytes")
    (length,) = PREFIX.unpack_from(data)
    if length > min(room, MAX_HEADER):
        raise ValueError(
            f"is not a safetensors file: its header of {length:,} bytes is larger than the file or too large"
        )
    try:
        header = _format_json.parse(data[PREFIX.size : PREFIX.size + length])
    except ValueError as error:
        raise ValueError(f"has a header that {error}") from None
    for name, entry in header.items():
        problem = _entry_problem(entry)
        if problem:
            raise ValueError(f"has a tensor {show(name)} {problem}")
    _contiguous(header, room - length)
    return header


def _entry_problem(entry: Any) -> str | None:
    """What is wrong with one tensor of a header, if anything."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return "without exactly a dtype, a shape and data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        return f"of the unknown dtype {show(dtype)}"
    if not _counts(shape) or len(shape) > MAX_AXES or any(axis > MAX_AXIS for axis in shape):
        return f"of the impossible shape {show(shape)}"
    if not _counts(offsets) or len(offsets) != 2:
        return f"at the impossible offsets {show(offsets)}"
    size = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != size:
        return f"of {size:,} bytes at the offsets {offsets}"
    return None


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _contiguous(header: dict[str, Any], size: int) -> None:
    """Refuse gaps, overlaps and tensors beyond the end of the file."""
    spans = sorted(tuple(entry["data_offsets"]) for entry in header.values())
    edges = [(0, 0), *spans, (size, size)]
    for (_, end), (begin, _) in itertools.pairwise(edges):
        if begin != end:
            raise ValueError(f"has tensors that leave a gap, overlap or end beyond its {size:,} bytes of data")


def _compare(found: dict[str, Any], recorded: Any) -> None:
    """Refuse tensors that are not those which ``clock.json`` records."""
    if not isinstance(recorded, dict):
        raise ValueError("cannot be checked, as clock.json does not record its tensors")
    if found.keys() != recorded.keys():
        odd = found.keys() ^ recorded.keys()
        raise ValueError(f"does not hold the tensors that clock.json records; in one of the two only: {listed(odd)}")
    for name, entry in found.items():
        if entry != recorded[name]:
            raise ValueError(f"holds the tensor {show(name)} as {show(entry)}, clock.json as {show(recorded[name])}")
