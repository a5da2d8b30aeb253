from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.stats

import agevi
from agevi import pl
from tests.test_gates import check_message

FEW = {"n_boot": 10, "n_permutations": 19}


@pytest.fixture
def held_out(cohort):
    """The cohort of this folder, all held out, with a stage of each subject."""
    cohort.uns["agevi_subjects"]["role"] = "new"
    cohort.obs["stage"] = pd.cut(cohort.obs["age"], [0, 40, 60, 100], labels=["young", "middle", "old"])
    return cohort


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_points_line_and_numbers(held_out):
    agevi.tl.trend_test(held_out, order_key="age", **FEW)
    ax = pl.trend(held_out)
    table = held_out.uns["agevi_subjects"]
    np.testing.assert_allclose(ax.collections[0].get_offsets(), table[["age", "predicted"]])
    expected = scipy.stats.linregress(table["age"], table["predicted"])
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_ydata(), expected.intercept + expected.slope * line.get_xdata())
    np.testing.assert_allclose(line.get_xdata(), [table["age"].min(), table["age"].max()])
    r = scipy.stats.spearmanr(table["age"], table["predicted"]).statistic
    assert legend(ax) == [f"n = 40: Spearman {r:.2f}, p 0.05"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("age", "Predicted age (years)")


def test_steps_and_groups(held_out):
    agevi.tl.trend_test(held_out, order_key="stage", groupby="tissue", **FEW)
    ax = pl.trend(held_out, palette={"skin": "#ff0000", "blood": "#0000ff"})
    assert [label.get_text() for label in ax.get_xticklabels()] == ["young", "middle", "old"]
    assert [text.split(",")[0] for text in legend(ax)] == ["skin", "blood"]  # the order of the categories
    assert ax.get_legend().get_title().get_text() == "tissue"
    assert [line.get_color() for line in ax.lines] == ["#ff0000", "#0000ff"]
    x = np.concatenate([points.get_offsets()[:, 0] for points in ax.collections])
    assert len(x) == 40
    assert np.abs(x - np.round(x)).max() < 0.2


def test_on_given_axes_and_in_one_colour(held_out):
    agevi.tl.trend_test(held_out, order_key="age", **FEW)
    _, ax = plt.subplots()
    assert pl.trend(held_out, palette=["#ff0000"], size=9, ax=ax) is ax
    np.testing.assert_allclose(ax.collections[0].get_facecolor()[0, :3], [1, 0, 0])
    np.testing.assert_allclose(ax.collections[0].get_sizes(), [9])


def test_a_group_without_a_trend_has_no_line(held_out):
    held_out.uns["agevi_subjects"]["few"] = np.where(np.arange(40) < 2, "rare", "rest")
    agevi.tl.trend_test(held_out, order_key="age", groupby="few", **FEW)
    ax = pl.trend(held_out)
    assert len(ax.lines) == 1
    assert legend(ax)[0] == "rare, n = 2"


def test_refuses(held_out):
    with pytest.raises(KeyError) as raised:
        pl.trend(held_out)
    check_message(raised, "run agevi.tl.trend_test")
    agevi.tl.trend_test(held_out, order_key="age", groupby="donor", **FEW)
    with pytest.raises(ValueError) as raised:
        pl.trend(held_out)
    check_message(raised, "groupby='donor' has 40 values; at most 20 colours can be told apart.")
