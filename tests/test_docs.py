from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest

import agevi
from agevi._docs import _PLACE, shared

ROOT = Path(__file__).parents[1]
PUBLIC = [
    pytest.param(getattr(module, name), id=f"{module.__name__}.{name}")
    for module in (
        agevi.clocks,
        agevi.datasets,
        agevi.get,
        agevi.io,
        agevi.metrics,
        agevi.model,
        agevi.pl,
        agevi.pp,
        agevi.tl,
    )
    for name in module.__all__
    if callable(getattr(module, name))
]


def documented():
    """A function.

    Parameters
    ----------
    %(first)s
    other
        Not shared.
    %(second)s
    """


def test_entries_stand_in_place_of_their_lines_with_the_indent_of_these():
    entries = {
        "first": "\n        first\n            One line,\n\n            and a paragraph.\n",
        "second": "\n        second\n            Of it.\n",
    }
    found = inspect.getdoc(shared(documented, entries))
    assert found.split("----------\n")[1] == (
        "first\n    One line,\n\n    and a paragraph.\nother\n    Not shared.\nsecond\n    Of it."
    )


def test_an_unknown_entry_is_an_error():
    def function():
        """Function.

        %(nothing)s
        """

    with pytest.raises(KeyError, match="nothing"):
        shared(function)


@pytest.mark.parametrize("obj", PUBLIC)
def test_no_place_is_left_open(obj):
    members = [inspect.getattr_static(obj, name) for name in dir(obj) if not name.startswith("_")]
    own = [m for m in (obj, *members) if (getattr(m, "__module__", None) or "").startswith("agevi")]
    assert own and not any(_PLACE.search(m.__doc__ or "") for m in own)


def test_the_version_of_the_package_is_that_of_the_citation_and_of_the_newest_changes():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert agevi.__version__ == version
    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), flags=re.MULTILINE)[1] == version
    assert re.search(r"^## \[(\d.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1] == version
