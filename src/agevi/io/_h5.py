"""An HDF5 file on a disk that may be full. HDF5 itself does not survive that: later files would crash Python."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py


class _Written:
    """A file whose first error is kept, and not raised: HDF5 goes on, and closes in order."""

    def __init__(self, path: Path) -> None:
        self.file = open(path, "w+b", buffering=0)
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of ``data``, or nothing once there was an error."""
        left = memoryview(data).cast("B")
        n = len(left)
        try:
            while self.error is None and len(left):
                left = left[self.file.write(left) :]
        except OSError as error:
            self.error = error
        return n

    def truncate(self, size: int) -> int:
        """Set the length."""
        if self.error is None:
            try:
                self.file.truncate(size)
            except OSError as error:
                self.error = error
        return size

    def readinto(self, buffer: Any) -> int:
        """Read, zeros where nothing could be written."""
        view = memoryview(buffer).cast("B")
        n = self.file.readinto(view)
        view[n:] = bytes(len(view) - n)
        return len(view)

    def read(self, n: int) -> bytes:
        """Read, zeros where nothing could be written."""
        buffer = bytearray(n)
        self.readinto(buffer)
        return bytes(buffer)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Where it is."""
        return self.file.tell()

    def flush(self) -> None:
        """Nothing waits."""

    def check(self) -> None:
        """Raise the error that there was."""
        if self.error is not None:
            raise self.error


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """A new HDF5 file, on disk in full when the block ends, and a function that raises an error that there was."""
    written = _Written(path)
    try:
        with h5py.File(written, "w") as file:
            yield file, written.check
        written.check()
        os.fsync(written.file.fileno())
    except Exception:
        written.check()  # of which other errors are a consequence
        raise
    finally:
        written.file.close()
