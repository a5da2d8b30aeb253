"""The state of a long call in a folder, from which the same call resumes where it was killed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from agevi.io._folder import check_path, claim, write
from agevi.io._state import pack, read_state

STATE = "state.safetensors"
PAUSE = 10.0
"""Seconds between two writings at least, so that short steps are not slowed down."""
SHARE = 50.0
"""Times that a writing took before the next, which then take 2 % of the time of large states on slow disks."""


class KeptState:
    """The state of one call in a folder, refused where the folder holds that of another."""

    manifest: ClassVar[str]
    """Name of the file that records what the state is of."""
    kind: ClassVar[str]
    """What a message calls the state of another call."""
    call: ClassVar[str]
    """What is called again."""

    def __init__(self, directory: str | os.PathLike[str], fingerprint: Mapping[str, Any]) -> None:
        check_path(directory)
        try:
            path = claim(Path(directory), self.manifest, dict(fingerprint), self.kind)
            self.path, self._pause = path / STATE, PAUSE
            self.state = read_state(self.path)
            write(path / ".writable", b"")  # now, not after hours
            (path / ".writable").unlink()
        except OSError as error:
            raise self._unwritable(Path(directory), error) from error
        self._at = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the state may be written again."""
        return time.monotonic() - self._at >= self._pause

    def write(self, state: Mapping[str, Any]) -> None:
        """Put a state in the place of the earlier one, whole or not at all."""
        began = time.monotonic()
        try:
            write(self.path, pack(state))
        except OSError as error:
            raise self._unwritable(self.path.parent, error) from error
        self._at = time.monotonic()
        self._pause = max(PAUSE, SHARE * (self._at - began))

    def _unwritable(self, directory: Path, error: OSError) -> OSError:
        """The error of a folder that cannot be written."""
        return type(error)(
            f"checkpoint_dir={str(directory)!r} cannot be written ({error.strerror or error}). Make room or pass "
            f"another directory, and call {self.call} again: an earlier state that is there is whole."
        )
