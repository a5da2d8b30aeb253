from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scanpy.plotting import palettes

from agevi.pl import _base


@pytest.mark.parametrize(
    ("n", "palette"),
    [
        pytest.param(3, palettes.default_20, id="few"),
        pytest.param(25, palettes.default_28, id="more than 20"),
        pytest.param(50, palettes.default_102, id="more than 28"),
    ],
)
def test_colors_come_from_the_smallest_palette_that_is_large_enough(n, palette):
    groups = [f"g{i}" for i in range(n)]
    assert list(_base.group_colors(None, "g", groups).values()) == list(palette[:n])


def test_more_groups_than_colors_repeat():
    found = _base.group_colors(None, "g", [f"g{i}" for i in range(103)])
    assert found["g102"] == found["g0"]


def test_stale_colors_are_not_used(cohort):
    cohort.uns["tissue_colors"] = ["#00ff00"]  # for another number of categories
    assert _base.group_colors(cohort, "tissue", ["skin", "blood"])["skin"] == palettes.default_20[0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(pd.Series(["test", "train", "new"]), ["train", "test", "new"], id="roles"),
        pytest.param(pd.Series(["b", "a"]), ["a", "b"], id="text"),
        pytest.param(pd.Series(pd.Categorical(["a", "b"], categories=["c", "b", "a"])), ["b", "a"], id="categories"),
        pytest.param(pd.Series(pd.Categorical([2, 10], categories=[10, 2])), ["10", "2"], id="numbers"),
    ],
)
def test_order_of_groups(values, expected):
    assert _base.in_order(values) == expected


def test_margins():
    assert _base.margins(np.array([0.0, 100.0])) == (-5.0, 105.0)
    assert _base.margins(np.array([7.0])) == (6.0, 8.0)
