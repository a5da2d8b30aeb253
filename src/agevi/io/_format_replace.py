"""Putting a bundle in place of an older one, so that at every moment one of the two is there and whole."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agevi.io._format_errors import BundleExistsError, listed
from agevi.io._format_files import CLOCK, NAMES, WEIGHTS

if sys.platform != "win32":
    import fcntl

TEMPORARY = ".agevi-tmp"
ABANDONED = 24 * 3600.0  # seconds, for file systems without locks
CLUTTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # file managers leave these


def older(directory: Path) -> Path:
    """Where a bundle waits while the one that replaces it is put in place."""
    return directory.with_name(f"{directory.name}.old")


def check_free(directory: Path, *, overwrite: bool) -> None:
    """Refuse to write where something is that may not be replaced, or never is."""
    old = older(directory)
    if os.path.lexists(old) and not _ours(old):
        raise BundleExistsError(
            f"{old} is not a clock bundle, and agevi needs this name while it replaces {directory}; move it away."
        )
    if not overwrite and directory.exists():
        raise BundleExistsError(f"{directory} already exists; pass overwrite=True to replace it, or another path.")
    if not overwrite and old.exists():
        raise BundleExistsError(
            f"{old} holds a clock that an interrupted save to {directory} left; pass overwrite=True to replace it."
        )
    if directory.exists() and not _ours(directory):
        there = f"it holds {listed(_strangers(directory))}" if directory.is_dir() else "it is a file"
        raise BundleExistsError(
            f"{directory} is not a clock bundle ({there}), and agevi replaces nothing that it did not write, even "
            "with overwrite=True; move it away or pass another path."
        )


def replace(directory: Path, contents: dict[str, bytes], whole: Callable[[Path], bool], *, overwrite: bool) -> None:
    """Write ``contents`` beside ``directory`` and rename it there.

    The older bundle is renamed to ``<name>.old`` first and deleted last. What a killed process left is removed.

    Parameters
    ----------
    directory
        Where the bundle goes.
    contents
        File names and their bytes.
    whole
        Whether a directory holds a bundle that can be read.
    overwrite
        As in :func:`check_free`, which is asked again once the files are written.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise BundleExistsError(
            f"{directory} cannot be made: a part of its path is a file. Pass another path."
        ) from None
    with _temporary(directory) as new:
        for name, data in contents.items():
            with open(new / name, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _sync(new)
        check_free(directory, overwrite=overwrite)
        old = older(directory)
        if directory.exists():
            if old.exists() and not whole(directory):
                _discard(directory)  # the old one may be the only whole one: it stays until the new one is in place
            else:
                _discard(old)
                os.rename(directory, old)
        os.rename(new, directory)
        _sync(directory.parent)
    with contextlib.suppress(OSError):  # the save is done, and a later one cleans up
        _discard(old)
        _sweep(directory)


def _ours(directory: Path) -> bool:
    return directory.is_dir() and not directory.is_symlink() and not _strangers(directory)


def _strangers(directory: Path) -> set[str]:
    """Names in ``directory`` that are no part of a bundle: all of them where its two main files are not there."""
    names = {entry.name for entry in os.scandir(directory)} - CLUTTER
    if not {CLOCK, WEIGHTS} <= names:
        return names
    return names - NAMES


def _hidden(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.{secrets.token_hex(8)}{TEMPORARY}")


@contextlib.contextmanager
def _temporary(directory: Path) -> Iterator[Path]:
    """A new directory beside ``directory``, locked while this process lives, deleted unless it was renamed."""
    path, lock = _hidden(directory), None
    while not path.exists():  # again where a sweep took it before it was locked
        _unlock(lock)
        path.mkdir()
        lock = _lock(path, wait=True)
    try:
        yield path
    finally:
        _delete(path)
        _unlock(lock)


def _discard(directory: Path) -> None:
    """Delete a bundle; its name goes first and at once, so that no part of it is ever taken for a bundle."""
    path = _hidden(directory)
    with contextlib.suppress(FileNotFoundError):
        os.rename(directory, path)
        _delete(path)


def _delete(path: Path) -> None:
    """Delete a hidden directory with the files of a bundle; what cannot be deleted now is left to a later sweep."""
    with contextlib.suppress(OSError):
        for name in os.listdir(path):
            if name in NAMES | CLUTTER:
                os.unlink(path / name)
        path.rmdir()


def _sweep(directory: Path) -> None:
    """Delete the hidden directories that killed processes left beside ``directory``."""
    for name in os.listdir(directory.parent):
        path = directory.parent / name
        if not (name.startswith(f".{directory.name}.") and name.endswith(TEMPORARY)) or path.is_symlink():
            continue
        with contextlib.suppress(OSError):
            lock = _lock(path, wait=False)
            if lock is not None or time.time() - path.stat().st_mtime > ABANDONED:
                _delete(path)
            _unlock(lock)


def _lock(path: Path, *, wait: bool) -> int | None:
    """A lock that ends with the process, or None where another process holds it or the file system has none."""
    if sys.platform == "win32":
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _sync(directory: Path) -> None:
    """Have the names in ``directory`` on disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
