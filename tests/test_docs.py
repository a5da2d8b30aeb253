from __future__ import annotations

import inspect

import pytest

import agevi
from agevi._docs import _PLACE, shared

PUBLIC = [
    pytest.param(getattr(module, name), id=f"{module.__name__}.{name}")
    for module in (agevi.datasets, agevi.get, agevi.io, agevi.metrics, agevi.model, agevi.pl, agevi.pp, agevi.tl)
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
