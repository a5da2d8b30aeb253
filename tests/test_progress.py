"""Bars, and the lines that stand for them in files."""

from __future__ import annotations

import io
import sys
import threading
import time
import types

import joblib
import pytest

from agevi import _progress
from agevi._progress import progress, silent, steps
from agevi._settings import settings

pytestmark = pytest.mark.usefixtures("bars_of_short_calls")


@pytest.fixture
def written(capsys):
    """Returns what was written to the stream of errors, which is no terminal."""
    return lambda: capsys.readouterr().err


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def run(n: int, unit: str, total: int | None = None) -> None:
    """A call of ``n`` steps."""
    with progress(total or n, "PLSClock", unit) as bar:
        for i in range(n):
            bar.doing(f"PLSClock, fold {i + 1} of {n}")
            bar.step()


def counts(text: str) -> list[str]:
    """Done / total of every line."""
    return [line.split(": ")[1].split()[0] for line in text.splitlines()]


def test_a_file_gets_whole_lines_one_a_step(written):
    run(5, "folds")
    text = written()
    assert text.splitlines()[1] == "PLSClock, fold 2 of 5: 2/5 folds, 00:00, 00:00 left"
    assert counts(text) == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("n", "unit", "expected"),
    [
        pytest.param(400, "epochs", 10, id="epochs"),
        pytest.param(4, "epochs", 4, id="few epochs"),
        pytest.param(50, "folds", 50, id="folds"),
        pytest.param(300, "folds", 11, id="many folds"),
    ],
)
def test_lines_are_few(written, n, unit, expected):
    run(n, unit)
    found = counts(written())
    assert len(found) == expected
    assert found[-1] == f"{n}/{n}"


def test_slow_steps_have_a_line_each(written, monkeypatch):
    clock = iter(range(0, 10**6, 11))
    monkeypatch.setattr(_progress, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    run(300, "folds")
    assert len(written().splitlines()) == 300


def test_a_call_that_ends_early_says_so(written):
    with progress(100, "PoissonVAE", "epochs") as bar:
        bar.step(60)
        bar.end("stopped early")
    with progress(1, "PoissonVAE", "epochs") as bar:
        bar.step()
        bar.end("of all that there are")  # nothing is missing
    assert written().splitlines() == [
        "PoissonVAE: 60/100 epochs, 00:00, 00:00 left",
        "PoissonVAE: 60/60 epochs, 00:00, 00:00 left, stopped early",
        "PoissonVAE: 1/1 epochs, 00:00, 00:00 left",
    ]


def test_only_the_outermost_call_shows_a_bar(written):
    with progress(2, "outer", "folds") as bar:
        for _ in range(2):
            run(3, "epochs")
            thread = threading.Thread(target=run, args=(3, "epochs"))
            thread.start()
            thread.join()
            bar.step()
    assert [line.split(":")[0] for line in written().splitlines()] == ["outer", "outer"]


def test_the_next_call_has_a_bar_after_an_error(written):
    with pytest.raises(RuntimeError), progress(2, "first", "folds"):
        raise RuntimeError
    run(1, "folds")
    assert counts(written()) == ["1/1"]


def test_verbosity_0_is_silent(written):
    settings.verbosity = 0
    try:
        run(3, "folds")
    finally:
        settings.verbosity = None
    assert written() == ""


def test_parts_and_other_ranks_are_silent(written, monkeypatch):
    with silent():
        run(3, "folds")
    monkeypatch.setenv("LOCAL_RANK", "1")
    run(3, "folds")
    assert written() == ""


def _written_by_a_worker() -> str:
    sys.stderr = io.StringIO()
    run(3, "folds")
    return sys.stderr.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_workers_are_silent(backend):
    found = joblib.Parallel(n_jobs=2, backend=backend)(joblib.delayed(_written_by_a_worker)() for _ in range(2))
    assert found == ["", ""]


def test_a_terminal_gets_one_line_that_is_drawn_anew(monkeypatch):
    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(_progress._Terminal, "pause", 0.0)
    run(5, "folds")
    drawn = out.getvalue().rstrip("\n").split("\r")
    assert out.getvalue().count("\n") == 1
    assert drawn[-1].startswith("PLSClock, fold 5 of 5: 100%|")
    assert drawn[-1].rstrip().endswith("| 5/5 folds [00:00, 00:00 left]")


def test_a_notebook_keeps_the_last_state(monkeypatch):
    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(data["text/plain"])

    def display(data, raw, display_id):
        shown.append(data["text/plain"])
        return Handle()

    out = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    run(5, "folds")
    assert out.getvalue() == ""
    assert shown[0].startswith("PLSClock:   0%|")
    assert shown[-1].startswith("PLSClock, fold 5 of 5: 100%|")


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        pytest.param(1.0, [], id="short"),
        pytest.param(0.25, ["3/4", "4/4"], id="long"),  # lines from that time on
        pytest.param(0.0, ["1/4", "2/4", "3/4", "4/4"], id="slow steps"),
    ],
)
def test_calls_have_lines_once_they_have_run_for_a_while(written, monkeypatch, at, expected):
    monkeypatch.setattr(_progress, "SHORT", at)
    with progress(4, "PLSClock", "folds") as bar:
        for _ in range(4):
            time.sleep(0.1)
            bar.step()
    assert counts(written()) == expected


def test_short_calls_leave_no_trace_in_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", out := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(_progress, "SHORT", 60.0)
    run(5, "folds")
    assert "PLSClock" in out.getvalue()  # it was there while it ran
    assert "\n" not in out.getvalue()
    assert out.getvalue().rstrip("\r").rsplit("\r", 1)[-1].strip() == ""


def test_counts_what_is_gone_through(written):
    assert list(steps("abc", 3, "Sets", "sets")) == ["a", "b", "c"]
    assert counts(written()) == ["1/3", "2/3", "3/3"]
