"""Finished folds on disk, so that a run that was killed goes on where it stopped. No pickle is written or read."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from agevi import _checks
from agevi.model.base._seed import as_seed
from agevi.tl.validate._fit_fold import FoldJob, FoldResult

logger = logging.getLogger(__name__)

MANIFEST = "cross_validation.json"
_ROWS = 4096


class Checkpoint:
    """The finished folds of one run."""

    def __init__(self, directory: str | Path, fingerprint: dict[str, Any]) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        stored = _manifest(self.directory)
        if stored is None:
            _write(self.directory / MANIFEST, json.dumps(fingerprint, indent=1, sort_keys=True).encode())
            return
        changed = [n for n in fingerprint | stored if fingerprint.get(n) != stored.get(n)]
        if changed:
            what = "; ".join(_change(n, stored.get(n), fingerprint.get(n)) for n in changed[:3])
            raise ValueError(
                f"checkpoint_dir={str(directory)!r} holds folds of another run: {what}. Pass a new directory, or the "
                "data and arguments of that run."
            )

    def read(self, job: FoldJob) -> FoldResult | None:
        """The result of a finished fold; None where it is not there or damaged."""
        path = self.directory / f"{job.name}.npz"
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            if not np.array_equal(arrays.pop("test"), job.test) or len(arrays["predicted"]) != len(job.test):
                raise ValueError("it holds other cells")
            return FoldResult(**{name: value if value.ndim else value.item() for name, value in arrays.items()})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as reason:
            logger.warning("%s cannot be used (%s); the fold is run again.", path, reason)
            return None

    def write(self, job: FoldJob, result: FoldResult) -> None:
        """Keep the result of a finished fold; one that failed is run again next time."""
        if result.error:
            return
        arrays = {name: np.asarray(value) for name, value in vars(result).items() if value is not None}
        buffer = io.BytesIO()
        np.savez(buffer, **{"test": job.test, **arrays})  # type: ignore[arg-type]
        _write(self.directory / f"{job.name}.npz", buffer.getvalue())


def seed_of(rng: int | np.random.Generator | None, directory: Any) -> int:
    """One number for ``rng``, or that of the run in ``directory``, which must be the path of a directory."""
    if directory is None:
        return as_seed(rng)
    advice = "pass the path of a directory, or None to keep nothing."
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(f"checkpoint_dir={directory!r} is a {type(directory).__name__}; {advice}")
    if not str(directory).strip():
        raise ValueError(f"checkpoint_dir={directory!r} is empty; {advice}")
    if Path(directory).is_file():
        raise ValueError(f"checkpoint_dir={str(directory)!r} is a file; pass the path of a directory.")
    stored = _manifest(Path(directory)) if rng is None else None
    return int(stored["rng"]) if stored and "rng" in stored else as_seed(rng)


def _manifest(directory: Path) -> dict[str, Any] | None:
    """What is recorded of the run in a directory, None for a new one."""
    path = directory / MANIFEST
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


def _write(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, also after a crash."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
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
    elif sp.issparse(x):
        out.update(x.format.encode())
        for part in (x.data, x.indices, x.indptr):
            out.update(_bytes(part))
    else:
        for start in range(0, x.shape[0], _ROWS):
            out.update(_bytes(x[start : start + _ROWS]))
    return f"sha256:{out.hexdigest()}"
