"""The files of a bundle: what may be opened, and how a new bundle takes the place of an older one."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import reprlib
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

CLOCK, WEIGHTS, CARD, GOLDEN = "clock.json", "weights.safetensors", "README.md", "golden.safetensors"
LIMITS = {
    CLOCK: 64 << 20,
    WEIGHTS: 8 << 30,
    CARD: 16 << 20,
    GOLDEN: 64 << 20,
}  # bytes, which bound what is read into memory
CLUTTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # file managers leave these
AGAIN = "Copy the bundle again, or save the clock anew."
TEMPORARY = ".agevi-tmp"
ABANDONED = 24 * 3600.0  # seconds after which a hidden directory is that of a killed process
_HEAD = 256  # bytes that tell what a file is

# How files begin that agevi never opens. A safetensors file begins with a length, whose bytes can look like the first
# two of a pickle, but its ninth byte opens a JSON object. Older pickles are text: opcode, module, attribute.
_FOREIGN = {
    "a pickle": re.compile(
        rb"\x80[\x02-\x05](?!.{6}\{)|\(*[ci][A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n[(pq]|\([dlt]p\d+\n|[]})]q\x00", re.DOTALL
    ),
    "a zip archive, as PyTorch's pickles are": re.compile(rb"PK(\x03\x04|\x05\x06|\x07\x08)"),
    "compressed data": re.compile(rb"\x1f\x8b|BZh[1-9]|\xfd7zXZ\x00|\x28\xb5\x2f\xfd"),
    "a numpy file, which can hold a pickle": re.compile(rb"\x93NUMPY"),
}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


class BundleError(ValueError):
    """A clock bundle that cannot be read or written; the message says which file, what is wrong and what to do."""


class BundleMissingError(BundleError, FileNotFoundError):
    """Nothing at the path."""


class BundleExistsError(BundleError, FileExistsError):
    """Something at the path already, which is not replaced unasked, or is not agevi's."""


class BundleVersionError(BundleError):
    """A whole bundle of a newer agevi."""


def show(value: Any) -> str:
    """``value``, quoted, on one line and short, whatever a file put into it."""
    return _SHORT.repr(value).replace("\n", " ")


def listed(names: Iterable[str], wanted: str | None = None) -> str:
    """Up to five of ``names``, quoted, those closest to ``wanted`` first, or "nothing"."""
    names = sorted(names)
    close = difflib.get_close_matches(wanted, names, n=5) if wanted else []
    ordered = [*close, *(name for name in names if name not in close)]
    return ", ".join(map(show, ordered[:5])) + (", ..." if len(ordered) > 5 else "") or "nothing"


# reading


def foreign(data: bytes) -> str | None:
    """What ``data`` is, if it begins like something that agevi never opens."""
    return next((kind for kind, pattern in _FOREIGN.items() if pattern.match(data)), None)


def vet(path: Path, beginning: bytes, size: int) -> None:
    """Refuse a file of ``size`` bytes that is too large, or that begins like something agevi never opens."""
    if kind := foreign(beginning[:_HEAD]):
        raise BundleError(f"{path} is {kind}, which agevi never opens. {AGAIN}")
    if size > LIMITS[path.name]:
        raise BundleError(f"{path} has {size:,} bytes, more than the {LIMITS[path.name]:,} that agevi writes. {AGAIN}")


def survey(directory: Path) -> None:
    """Refuse a directory without a clock, and one with links or with pickles beside the clock."""
    # Dot files are passed over, and only the beginning of other files is read: a figure beside a clock does no harm.
    names = _names(directory)
    if CLOCK not in names and any(name.endswith("model.pt") for name in names):
        raise BundleError(
            f"{directory} holds a model of scvi-tools, whose model.pt is a pickle: opening it can run code, so it was "
            "not opened. Train the clock with agevi and save it with its save()."
        )
    if CLOCK not in names:
        raise BundleError(f"{directory} is not a clock: it has no {CLOCK}; in it: {listed(names)}. Pass another path.")
    for name in sorted(names):
        path = directory / name
        if path.is_symlink():
            raise BundleError(f"{directory} holds {show(name)}, a link; put a copy of the file there, or nothing.")
        if name in LIMITS or name.startswith(".") or path.is_dir():
            continue
        with opened(path) as file:
            if kind := foreign(file.read(_HEAD)):
                raise BundleError(
                    f"{directory} holds {show(name)}, {kind}, which agevi neither writes nor opens; remove it."
                )


def read(path: Path, size: int | None = None) -> bytes:
    """All bytes of a file of a bundle; ``size``, where given, is how many :data:`CLOCK` says."""
    with opened(path) as file:
        there = os.fstat(file.fileno()).st_size
        vet(path, file.read(_HEAD), there)
        if size not in (None, there):
            raise BundleError(f"{path} has {there:,} bytes where {CLOCK} says {size:,}; it was cut or edited. {AGAIN}")
        file.seek(0)
        try:
            data = file.read(there + 1)
        except (OSError, MemoryError) as error:
            raise BundleError(
                f"{path} cannot be read: {str(error) or 'not enough memory'} ({there:,} bytes)."
            ) from error
    if len(data) != there:
        raise BundleError(f"{path} changed while it was read; try again.")
    return data


def _names(directory: Path) -> list[str]:
    """The names in a directory, or the standard error where it is absent or a file."""
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        if not directory.parent.is_dir():
            problem = (
                f"{directory} does not exist, nor does the directory {directory.parent} around it; check the path."
            )
        else:
            near = listed(os.listdir(directory.parent), directory.name)
            problem = f"{directory} does not exist; in {directory.parent}: {near}. Pass the directory of a clock."
        raise BundleMissingError(problem) from None
    except NotADirectoryError:
        raise BundleError(f"{directory} is a file; a clock is a directory with {CLOCK} in it. Pass that one.") from None
    except OSError as error:
        raise BundleError(f"{directory} cannot be read ({error.strerror}).") from error


def opened(path: Path) -> BinaryIO:
    """A regular file with one name, open for reading; links are not followed and pipes not waited for."""
    flags = os.O_RDONLY
    for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # not every system has all of them
        flags |= getattr(os, flag, 0)
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise BundleError(f"{path} is not a regular file; a bundle holds its files itself. {AGAIN}")
        file = os.fdopen(os.open(path, flags), "rb")
    except FileNotFoundError:
        raise BundleError(f"{path} is missing. {AGAIN}") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}).") from error
    if os.fstat(file.fileno()).st_nlink > 1:
        file.close()
        raise BundleError(f"{path} is a hard link: the same file has another name elsewhere. Put a copy of it there.")
    return file


# replacing


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
    """Write ``contents`` (bytes by file name) beside ``directory``, then rename; ``whole`` tells a readable bundle."""
    # At every moment the old or the new bundle is there and whole. A directory that is not empty cannot be renamed
    # over, so the older one waits as ``<name>.old`` for that moment.
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise BundleExistsError(
            f"{directory} cannot be made: a part of its path is a file. Pass another path."
        ) from None
    hidden, old = f".{directory.name}.", older(directory)
    with tempfile.TemporaryDirectory(TEMPORARY, hidden, directory.parent, ignore_cleanup_errors=True) as temporary:
        new, waste = Path(temporary, "new"), Path(temporary, "waste")
        new.mkdir()
        for name, data in contents.items():
            with open(new / name, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _sync(new)
        check_free(directory, overwrite=overwrite)
        if directory.exists():
            if old.exists() and not whole(directory):
                os.rename(
                    directory, waste
                )  # the old one may be the only whole one: it stays until the new one is in place
            else:
                if old.exists():
                    os.rename(old, waste)
                os.rename(directory, old)
        os.rename(new, directory)
        _sync(directory.parent)
        # Renamed before it is deleted, so that no part of it is ever taken for a bundle.
        if old.exists():
            with contextlib.suppress(OSError):  # the save is done, and a later one cleans up
                os.rename(old, Path(temporary, "old"))
    # What killed saves left beside a bundle goes once no living one can be writing it.
    for path in directory.parent.iterdir():
        if path.name.startswith(hidden) and path.name.endswith(TEMPORARY):
            with contextlib.suppress(OSError):
                if time.time() - path.lstat().st_mtime > ABANDONED:
                    shutil.rmtree(path)


def _ours(directory: Path) -> bool:
    return directory.is_dir() and not directory.is_symlink() and not _strangers(directory)


def _strangers(directory: Path) -> set[str]:
    """Names in ``directory`` that are not part of a bundle: all of them where one of its two main files is absent."""
    names = set(os.listdir(directory)) - CLUTTER
    return names - LIMITS.keys() if {CLOCK, WEIGHTS} <= names else names


def _sync(directory: Path) -> None:
    """Have the names in ``directory`` on disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
