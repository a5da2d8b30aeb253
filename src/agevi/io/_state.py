"""The state of a training as one file: tensors as safetensors, all else as JSON in its header. No pickle is opened."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from agevi.io._files import foreign, opened

_PLAIN, _DIGEST = "agevi", "sha256"


class _NotPlainError(TypeError):
    """A value that is neither a tensor nor plain."""


def pack(state: Mapping[Any, Any]) -> bytes:
    """Nested dicts, lists and tuples of tensors, numbers and text as the bytes of a file."""
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(_packed(state, "state", tensors))
    metadata = {_PLAIN: text, _DIGEST: _digest(text, tensors)}
    return bytes(safetensors.torch.save(tensors, metadata))


def read_state(path: Path) -> dict[str, Any] | None:
    """What :func:`pack` made the file of, checked in full; None where the file is absent."""
    if not path.exists():
        return None
    advice = f"Remove {path.parent} to begin anew, or pass a new checkpoint_dir."
    with opened(path) as file:
        data = file.read()
    if kind := foreign(data[:256]):
        raise ValueError(f"{path} is {kind}, which agevi never opens. {advice}")
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        tensors = safetensors.torch.load(data)
        if _digest(metadata[_PLAIN], tensors) != metadata[_DIGEST]:
            raise ValueError("its bytes are not those that were written")
        state: dict[str, Any] = _unpacked(json.loads(metadata[_PLAIN]), tensors)
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise ValueError(f"{path} was cut, edited or damaged ({error}). {advice}") from error
    return state


def _packed(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """A value for JSON; its tensors are put among ``tensors``."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()  # tied weights share memory
        return {"tensor": name}
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(value.copy())
        return {"array": name}
    if isinstance(value, Mapping):
        return {"dict": [[k, _packed(v, f"{name}.{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        parts = [_packed(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]
        return parts if isinstance(value, list) else {"tuple": parts}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise _NotPlainError(f"{name} is a {type(value).__name__}, neither a tensor nor a number or text")


def _unpacked(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The value that :func:`_packed` made ``value`` of."""
    if isinstance(value, list):
        return [_unpacked(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "dict":
        return {k: _unpacked(v, tensors) for k, v in inner}
    if kind == "tuple":
        return tuple(_unpacked(v, tensors) for v in inner)
    return tensors[inner].numpy() if kind == "array" else tensors[inner]


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of plain values and tensors, which tells damage."""
    out = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        values = tensors[name]
        out.update(f"{name} {values.dtype} {tuple(values.shape)};".encode())
        if math.prod(values.shape):
            out.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return out.hexdigest()
