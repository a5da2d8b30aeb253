"""The folder of a long call that resumes where it was killed: what it is of, and files that are there whole."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from agevi import _checks
from agevi._stored import Stored

_ROWS = 4096


def check_path(directory: Any) -> None:
    """Refuse what is not the path of a directory."""
    advice = "pass the path of a directory, or None to keep nothing."
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(f"checkpoint_dir={directory!r} is a {type(directory).__name__}; {advice}")
    if not str(directory).strip():
        raise ValueError(f"checkpoint_dir={directory!r} is empty; {advice}")
    if Path(directory).is_file():
        raise ValueError(f"checkpoint_dir={str(directory)!r} is a file; pass the path of a directory.")


def claim(directory: str | Path, manifest: str, fingerprint: dict[str, Any], kind: str) -> Path:
    """The directory for the call of a ``fingerprint``, which the file ``manifest`` records; refused for another one.

    ``kind`` says what the directory holds, such as "folds of another run".
    """
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    stored = recorded(path, manifest)
    if stored is None:
        write(path / manifest, json.dumps(fingerprint, indent=1, sort_keys=True).encode())
        return path
    changed = [n for n in fingerprint | stored if fingerprint.get(n) != stored.get(n)]
    if changed:
        what = "; ".join(_change(n, stored.get(n), fingerprint.get(n)) for n in changed[:3])
        raise ValueError(
            f"checkpoint_dir={str(directory)!r} holds {kind}: {what}. Pass a new directory, or the data and arguments "
            f"of that {kind.split()[-1]}."
        )
    return path


def recorded(directory: Path, manifest: str) -> dict[str, Any] | None:
    """What is recorded of the call in a directory, None for a new one."""
    path = directory / manifest
    if path.exists():
        try:
            stored: dict[str, Any] = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{str(path)!r} was edited or damaged ({error}); pass a new checkpoint_dir.") from error
        return stored
    there = [p.name for p in directory.iterdir() if not p.name.startswith(".")] if directory.is_dir() else []
    if there:
        raise ValueError(
            f"checkpoint_dir={str(directory)!r} holds other files ({_checks.listed(sorted(there), 3)}); pass a new or "
            "empty directory."
        )
    return None


def _change(name: str, before: Any, now: Any) -> str:
    """One difference between two runs."""
    if before is None or now is None or len(f"{before}{now}") > 160 or str(before).startswith("sha256:"):
        return f"{name} differs"
    return f"{name} was {before} and is {now}"


def write(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, also after a crash."""
    part = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(part, "xb") as file:  # who may read it is what the user's umask says
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def digest(values: np.ndarray) -> str:
    """Digest of an array of any type."""
    if values.dtype == object or values.dtype.kind in "UT":
        text = "\x1f".join(map(str, values.ravel().tolist()))
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    out = hashlib.sha256(f"{values.dtype} {values.shape}".encode())
    out.update(_bytes(values))
    return f"sha256:{out.hexdigest()}"


def _bytes(values: np.ndarray) -> memoryview:
    """The memory of an array, without a copy where it is in one piece."""
    return np.ascontiguousarray(values).ravel().view(np.uint8).data


def matrix_digest(x: Any, rows: np.ndarray | None = None) -> str:
    """Digest of a matrix, or of some of its rows, read in place."""
    n_rows = x.shape[0] if rows is None else len(rows)
    out = hashlib.sha256(f"{x.dtype} {(n_rows, *x.shape[1:])}".encode())
    if rows is not None:
        for start in range(0, n_rows, _ROWS):
            block = x[rows[start : start + _ROWS]]
            out.update(_bytes(block) if not sp.issparse(block) else matrix_digest(block).encode())
    elif isinstance(x, Stored):  # of which rows come in another order: not the digest of the same values in memory
        out.update(b"on disk")
        for start in range(0, n_rows, _ROWS):
            block = x[start : start + _ROWS]
            out.update(_bytes(block) if not sp.issparse(block) else matrix_digest(block).encode())
    elif sp.issparse(x):
        out.update(x.format.encode())
        for part in (x.data, x.indices, x.indptr):
            out.update(_bytes(part))
    else:
        for start in range(0, x.shape[0], _ROWS):
            out.update(_bytes(x[start : start + _ROWS]))
    return f"sha256:{out.hexdigest()}"


def plain(value: Any) -> Any:
    """Arguments in a form that JSON and ``adata.uns`` can hold and that is the same in every process."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, functools.partial):
        return {"function": plain(value.func), "args": plain(value.args), "kwargs": plain(value.keywords)}
    if isinstance(value, pd.Index | pd.Series) or (isinstance(value, np.ndarray) and value.dtype == object):
        value = value.tolist()  # texts, whose bytes and whose short form say nothing
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]}"
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    text = repr(value)
    return text if " at 0x" not in text else f"{type(value).__module__}.{type(value).__qualname__}"


def as_text(value: Any) -> str:
    """One line that is equal for equal arguments."""
    return json.dumps(plain(value), sort_keys=True)
