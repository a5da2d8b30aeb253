"""Seconds and memory of a piece of work."""

from __future__ import annotations

import sys
import time
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_MIB = 2**20


class Watch:
    """Wall-clock seconds, and how far the memory of the process rose above its level, without a GPU's."""

    def __init__(self) -> None:
        # Linux resets its own high-water mark; elsewhere what exceeds the highest level so far is seen alone.
        self._from_kernel = _reset_peak()
        self._start_memory = _status("VmRSS") if self._from_kernel else _highest()
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    @property
    def peak_memory(self) -> float:
        """Peak above the level at the start, MiB."""
        peak = _status("VmHWM") if self._from_kernel else _highest()
        return max(0.0, peak - self._start_memory) / _MIB


def _reset_peak() -> bool:
    """Whether the kernel keeps a peak that could be reset."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmHWM") > 0
    except OSError:
        return False


def _status(name: str) -> float:
    """A figure of this process in bytes, 0 where the kernel does not tell."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * float(line.split()[1])
    return 0.0


def _highest() -> float:
    """Highest resident memory in the life of this process, bytes, 0 where it is not known."""
    if resource is None:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else 1024 * peak)
