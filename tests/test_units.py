"""The one value of a unit, and units whose cells disagree."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from agevi._units import PerUnit

UNIT = pd.Series(["b", "a", "b", "a", "c"])


@pytest.mark.parametrize(
    ("values", "wanted", "several", "part"),
    [
        pytest.param([1.0, 2.0, 1.0, 2.0, np.nan], [2.0, 1.0, np.nan], [], [], id="numbers"),
        pytest.param([np.nan, 2.0, 1.0, 2.0, 3.0], [2.0, 1.0, 3.0], [], ["b"], id="in part of the cells"),
        pytest.param([1.0, 2.0, 3.0, np.nan, 3.0], [2.0, 1.0, 3.0], ["b"], ["a"], id="two values"),
        pytest.param(["x", "y", "x", "y", "x"], ["y", "x", "x"], [], [], id="text"),
        pytest.param(pd.Categorical(["x", "y", "z", "y", None]), ["y", "x", np.nan], ["b"], [], id="categories"),
    ],
)
def test_values_of_units(values, wanted, several, part):
    found = PerUnit(values, UNIT)
    assert found.values.index.tolist() == ["a", "b", "c"]
    pd.testing.assert_series_equal(found.values.astype(object), pd.Series(wanted, index=list("abc"), dtype=object))
    assert (found.several.tolist(), found.part.tolist()) == (several, part)


def test_cells_of_a_unit():
    assert PerUnit([1, 2, 3, 4, 5], UNIT).cells("b").tolist() == [1, 3]
