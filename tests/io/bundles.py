"""Bundles to write, number, tamper with and look into."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from agevi.io import _bundle, _files

FILES = ("clock.json", "weights.safetensors", "README.md")


def save(path, number=0, **kwargs) -> Path:
    """A bundle in which every part says ``number``."""
    _bundle.write_bundle(path, {"number": number}, {"w": torch.full((3,), float(number))}, f"# {number}", **kwargs)
    return Path(path)


def number_in(path) -> int:
    bundle = _bundle.read_bundle(path)
    assert bundle.tensors["w"].tolist() == [float(bundle.meta["number"])] * 3
    assert bundle.card == f"# {bundle.meta['number']}"
    return bundle.meta["number"]


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def every_file(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def sign(directory: Path, **changes) -> None:
    """Make sizes, checksums and digest of ``clock.json`` right after ``changes`` to it (None removes a key)."""
    document = json.loads((directory / "clock.json").read_text("utf-8"))
    for name in document["files"]:
        data = (directory / name).read_bytes()
        document["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    document = {key: value for key, value in (document | changes).items() if value is not None and key != "digest"}
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    document["digest"] = hashlib.sha256(canonical).hexdigest()
    (directory / "clock.json").write_text(json.dumps(document), "utf-8")


def refused(directory: Path, message: str, error: type[Exception] = _files.BundleError) -> str:
    with pytest.raises(error, match=message) as caught:
        _bundle.read_bundle(directory)
    text = str(caught.value)
    assert "\n" not in text
    assert str(directory) in text
    return text
