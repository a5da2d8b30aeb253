"""Reading the files of a bundle: regular files only, no links, nothing that can run code, every byte read once."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from agevi.io._format_errors import BundleError, show

CLOCK, WEIGHTS, CARD = "clock.json", "weights.safetensors", "README.md"
NAMES = frozenset({CLOCK, WEIGHTS, CARD})
LIMITS = {CLOCK: 64 << 20, WEIGHTS: 8 << 30, CARD: 16 << 20}  # bytes
HEAD = 256  # bytes that tell what a file is
AGAIN = "Copy the bundle again, or save the clock anew."

# How files begin that agevi never opens. A safetensors file begins with a length, whose bytes can look like the first
# two of a pickle, but its ninth byte opens a JSON object. Older pickles are text: opcode, module, attribute.
FOREIGN = {
    "a pickle": re.compile(
        rb"\x80[\x02-\x05](?!.{6}\{)|\(*[ci][A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n[(pq]|\([dlt]p\d+\n|[]})]q\x00", re.DOTALL
    ),
    "a zip archive, as PyTorch's pickles are": re.compile(rb"PK(\x03\x04|\x05\x06|\x07\x08)"),
    "compressed data": re.compile(rb"\x1f\x8b|BZh[1-9]|\xfd7zXZ\x00|\x28\xb5\x2f\xfd"),
    "a numpy file, which can hold a pickle": re.compile(rb"\x93NUMPY"),
}


def vet(path: Path, beginning: bytes, size: int) -> None:
    """Refuse a file of ``size`` bytes that is too large, or that begins like something agevi never opens."""
    kind = foreign(beginning)
    if kind:
        raise BundleError(f"{path} is {kind}, which agevi never opens. {AGAIN}")
    if size > LIMITS[path.name]:
        raise BundleError(f"{path} has {size:,} bytes, more than the {LIMITS[path.name]:,} that agevi writes. {AGAIN}")


def foreign(data: bytes) -> str | None:
    """What ``data`` is, if it begins like something that agevi never opens."""
    return next((kind for kind, pattern in FOREIGN.items() if pattern.match(data)), None)


def survey(directory: Path, names: list[str]) -> None:
    """Refuse links, devices and pickles among the ``names`` in ``directory``.

    Folders and files whose name begins with a dot (``.DS_Store``, ``.gitattributes``) are passed over, and of any other
    file that is no part of a bundle only the beginning is looked at: a figure or a licence beside a clock does no harm.
    """
    for name in sorted(names):
        path = directory / name
        if path.is_symlink():
            raise BundleError(f"{directory} holds {show(name)}, a link; put a copy of the file there, or nothing.")
        if name in NAMES or name.startswith(".") or path.is_dir():
            continue
        with opened(path) as file:
            kind = foreign(file.read(HEAD))
        if kind:
            raise BundleError(
                f"{directory} holds {show(name)}, {kind}, which agevi neither writes nor opens; remove it."
            )


def read(path: Path, size: int | None = None) -> bytes:
    """All bytes of one of the files in :data:`NAMES`, of which there must be ``size``."""
    with opened(path) as file:
        there = os.fstat(file.fileno()).st_size
        vet(path, file.read(HEAD), there)
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
