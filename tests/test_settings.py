"""What is said, and how loudly."""

from __future__ import annotations

import contextlib
import io
import logging
import sys

import pytest
import scanpy as sc

import agevi
from agevi._settings import Settings, settings
from tests.test_gates import check_message

LOGGER = logging.getLogger("agevi.made_up")


@contextlib.contextmanager
def printed():
    """What is written to the stream of errors, without pytest's handlers on the root logger."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", out)
        patch.setattr(logging.getLogger(), "handlers", [])
        yield out


@pytest.fixture(autouse=True)
def _put_back():
    """Settings of both packages as they were."""
    before = sc.settings.verbosity
    yield
    settings.verbosity = settings.n_threads = None
    sc.settings.verbosity = before
    settings.apply()


def say() -> None:
    """A line of each level."""
    for level in ("debug", "info", "warning", "error"):
        getattr(LOGGER, level)("a line of level %s", level)


@pytest.mark.parametrize(
    ("verbosity", "said"),
    [
        pytest.param(0, ["error"], id="0"),
        pytest.param("error", ["error"], id="error"),
        pytest.param(1, ["warning", "error"], id="1"),
        pytest.param(None, ["warning", "error"], id="default"),
        pytest.param("INFO", ["info", "warning", "error"], id="info"),
        pytest.param(3, ["info", "warning", "error"], id="3"),
        pytest.param("debug", ["debug", "info", "warning", "error"], id="debug"),
    ],
)
def test_lines_are_printed_once(verbosity, said):
    for _ in range(3):  # setting it again adds no second handler
        settings.verbosity = 2
        settings.verbosity = verbosity
    with printed() as stream:
        say()
    assert stream.getvalue().splitlines() == [f"a line of level {level}" for level in said]


def test_follows_scanpy_until_it_is_set(cohort):
    sc.settings.verbosity = 3
    assert settings.verbosity == 3
    with printed() as stream:
        agevi.pp.split_subjects(cohort, subject_key="donor", age_key="age", key_added="again")
    assert stream.getvalue().startswith("obs['again']: ")
    sc.settings.verbosity = 0
    assert settings.verbosity == 0
    settings.verbosity = 2
    assert settings.verbosity == 2
    settings.verbosity = None
    assert settings.verbosity == 0


@pytest.mark.parametrize("name", [pytest.param(None, id="root"), pytest.param("agevi", id="agevi")])
def test_the_logging_of_the_user_takes_over(name):
    own, theirs = io.StringIO(), logging.getLogger(name)
    handler = logging.StreamHandler(own)
    with printed() as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger(), "level", logging.INFO)
        theirs.addHandler(handler)
        logging.getLogger().manager._clear_cache()
        say()  # nothing was set, so the level is that of the user
        settings.verbosity = 1
        say()
        theirs.removeHandler(handler)
    logging.getLogger().manager._clear_cache()
    assert [line.split()[-1] for line in own.getvalue().splitlines()] == [
        "info",
        "warning",
        "error",
        "warning",
        "error",
    ]
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("name", "value", "error", "words"),
    [
        pytest.param(
            "verbosity", "loud", ValueError, "verbosity='loud' is not known; choose one of 'error'", id="name"
        ),
        pytest.param("verbosity", 7, ValueError, "verbosity=7 is out of range", id="level"),
        pytest.param("verbosity", 1.5, TypeError, "verbosity=1.5 is a float", id="float"),
        pytest.param("verbosity", True, TypeError, "verbosity=True is a bool", id="bool"),
        pytest.param("n_threads", 0, ValueError, "n_threads=0 is out of range", id="no thread"),
        pytest.param("n_threads", "all", TypeError, "n_threads='all' is a str", id="text"),
        pytest.param(
            "verbosty", 0, AttributeError, "agevi.settings has no 'verbosty'; closest: 'verbosity'.", id="no setting"
        ),
    ],
)
def test_settings_are_checked(name, value, error, words):
    with pytest.raises(error) as raised:
        setattr(settings, name, value)
    check_message(raised, words)
    assert (settings.verbosity, settings.n_threads) == (1, None)


def test_shows_what_is_set():
    shown = Settings()
    assert repr(shown).splitlines() == [
        "agevi.settings",
        "    verbosity  1 (warning, the default)",
        "    n_threads  None (by the size of the work)",
    ]
    sc.settings.verbosity = 3
    shown.n_threads = 4
    assert "verbosity  3 (hint, as scanpy.settings.verbosity)" in repr(shown)
    assert "n_threads  4" in repr(shown)
