"""One bar for a long call: in a terminal, in a notebook, and as whole lines where the output is a file."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm.std import tqdm

from agevi._settings import settings

T = TypeVar("T")

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
_MOST_LINES = 50
"""Steps up to which each has its line in a file; with more, a line for every tenth of them or after ten seconds."""
_PAUSE = 10.0
SHORT = 1.0
"""Seconds that a call takes before a file has lines of it, or its bar stays in a terminal or a notebook."""
_owner = threading.Lock()
"""Held by the call whose bar is shown; calls inside it, in any thread, show none."""
_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit} [{elapsed}, {remaining} left{postfix}]"
_thread = threading.local()


class Bar:
    """A bar, or what takes its place where none is shown."""

    def __init__(self, shown: Any = None) -> None:
        self._shown = shown

    def __reduce__(self) -> tuple[type[Bar], tuple[()]]:
        """In another process a bar is not shown."""
        return Bar, ()

    def doing(self, what: str) -> None:
        """Say what is being computed."""
        if self._shown is not None:
            self._shown.set_description_str(what)

    def step(self, n: int = 1, *, done: str = "", note: str = "") -> None:
        """Count ``n`` steps; ``done`` says what was computed, and ``note`` what came out."""
        if self._shown is not None:
            if done:
                self._shown.set_description_str(done, refresh=False)
            self._shown.set_postfix_str(note, refresh=False)
            self._shown.update(n)

    def end(self, note: str) -> None:
        """Say why no further step comes, where some were to come."""
        if self._shown is not None and self._shown.n < self._shown.total:
            self._shown.total, self._shown.ended = max(self._shown.n, 1), True
            self._shown.set_postfix_str(note)


class _Terminal(tqdm):
    """A line that is drawn again and again."""

    monitor_interval = 0  # no thread beside the bar, so that processes can be forked
    pause = 0.1
    ended = False

    @property
    def short(self) -> bool:
        """Whether the call is too short so far for a trace of it to stay."""
        return float(self.format_dict["elapsed"]) < SHORT

    def close(self) -> None:
        """End at the last state, or without a trace."""
        self.leave = not self.short
        super().close()


class _Plain(_Terminal):
    """A bar without control characters."""

    def clear(self, nolock: bool = False) -> None:
        """Nothing to clear, since lines stay."""

    def close(self) -> None:
        """End at the last state."""
        if self in self._instances:
            self.display()
            self._decr_instances(self)


class _Notebook(_Plain):
    """An output that is replaced, of which a stored notebook keeps the last state."""

    handle: Any = None

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show the bar."""
        from IPython.display import display

        shown = {"text/plain": str(self)}
        if self.handle is None:
            self.handle = display(shown, raw=True, display_id=True)
        else:
            self.handle.update(shown, raw=True)

    def close(self) -> None:
        """End at the last state, or with nothing in its place."""
        super().close()
        if self.handle is not None and self.short:
            self.handle.update({"text/plain": ""}, raw=True)


class _Lines(_Plain):
    """A line for a step, or for a tenth of them."""

    pause = 0.0
    written, tenths, at = 0, 0, 0.0

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write a line where it is time for one."""
        n, total = int(self.n), int(self.total)
        tenths = 10 * n // total
        every = self.unit != "epochs"
        late = every and time.monotonic() - self.at >= _PAUSE
        due = (every and total <= _MOST_LINES) or tenths > self.tenths or late
        if self.short or (not self.ended and (n <= self.written or not due)):
            return
        self.ended, self.written, self.tenths, self.at = False, n, tenths, time.monotonic()
        elapsed = self.format_dict["elapsed"]
        spent, left = (self.format_interval(seconds) for seconds in (elapsed, elapsed / max(n, 1) * (total - n)))
        note = f", {self.postfix}" if self.postfix else ""
        print(f"{self.desc}: {n}/{total} {self.unit}, {spent}, {left} left{note}", file=self.fp, flush=True)


@contextlib.contextmanager
def progress(total: int, what: str, unit: str = "fits", *, show: bool = True) -> Iterator[Bar]:
    """A bar over ``total`` steps (``unit``, plural) of ``what``; none in another's bar, a worker, or at verbosity 0."""
    settings.apply()
    part = in_worker() or getattr(_thread, "silent", False)
    wanted = show and total > 0 and settings.verbosity > 0 and not part
    if not wanted or not _owner.acquire(blocking=False):
        yield Bar()
        return
    try:
        kind = _frontend()
        bar = kind(
            total=total, desc=what, unit=unit, bar_format=_FORMAT, file=sys.stderr, smoothing=0, miniters=1,
            mininterval=kind.pause, **_width(),
        )  # fmt: skip
        try:
            yield Bar(bar)
        finally:
            bar.close()
    finally:
        _owner.release()


@contextlib.contextmanager
def silent(wanted: bool = True) -> Iterator[None]:
    """No bar of this thread inside the block, if that is ``wanted``, as for a part of a longer call."""
    before = getattr(_thread, "silent", False)
    _thread.silent = before or wanted
    try:
        yield
    finally:
        _thread.silent = before


def steps(items: Iterable[T], total: int, what: str, unit: str, *, show: bool = True) -> Iterator[T]:
    """``items`` one by one, with the bar of :func:`progress`, which counts each when the next is asked for."""
    with progress(total, what, unit, show=show) as bar:
        for item in items:
            yield item
            bar.step()


def in_worker() -> bool:
    """Whether another process started this one to compute a part, or trains together with it and speaks for it."""
    if multiprocessing.parent_process() is not None:
        return True
    return any(os.environ.get(name, "0") not in ("", "0") for name in _RANKS)


def _width() -> dict[str, Any]:
    """That of the terminal, or what most have where a terminal does not know its own."""
    try:
        return {"dynamic_ncols": True} if os.get_terminal_size(sys.stderr.fileno()).columns else {"ncols": 80}
    except (AttributeError, OSError, ValueError):  # no terminal
        return {}


def _frontend() -> type[_Terminal]:
    """The bar for where errors are written to."""
    if type(sys.stderr).__module__.startswith("ipykernel"):
        return _Notebook
    try:
        return _Terminal if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else _Lines
    except (AttributeError, ValueError):  # no stream, or a closed one
        return _Lines
