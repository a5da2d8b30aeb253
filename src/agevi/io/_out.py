"""A file or store of an AnnData that is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anndata import AnnData
from anndata.io import write_elem

from agevi.io._h5 import new_file

ENDINGS = (".h5ad", ".zarr")


def check_out(out: str | os.PathLike[str]) -> Path:
    """Refuse a path that exists, or that cannot be written to."""
    path = Path(out)
    if path.suffix not in ENDINGS:
        raise ValueError(f"out={str(path)!r} is neither .h5ad nor .zarr; give it one of these endings.")
    if path.exists():
        raise FileExistsError(f"out={str(path)!r} exists; delete it, or pass another path.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"out={str(path)!r} is in a folder that does not exist; make it first.")
    return path


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A hidden path beside ``path``, which takes its place when all is done and well; nothing is left of it else."""
    half = path.with_name(f".{path.stem}.agevi-tmp{path.suffix}")
    _remove(half)  # of a process that was killed
    try:
        yield half
        os.replace(half, path)
    except OSError as error:
        raise type(error)(
            f"out={str(path)!r} cannot be written ({error.strerror or error}); free some space, or pass another path."
        ) from error
    finally:
        _remove(half)


@contextlib.contextmanager
def written(out: str | os.PathLike[str] | None) -> Iterator[Any]:
    """A function that writes an AnnData to ``out``, refused at once where that cannot be; None: that does nothing."""
    if out is None:
        yield lambda made: None
        return
    path = check_out(out)

    yield lambda made: put(path, made)


def put(path: Path, made: AnnData) -> None:
    """Write an AnnData in the place of what is at ``path``, whole or not at all."""
    with beside(path) as half:
        if path.suffix == ".zarr":
            made.write_zarr(half)
            return
        with new_file(half) as (file, _):
            write_elem(file, "/", made)


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
