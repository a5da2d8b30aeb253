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
    assert legend(ax) == [f"n = 40\nSpearman {r:.2f}, p ≤ 0.05"]
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


def by_rank(cohort, values):
    """A column that rises with age over these values, the same number of subjects in each."""
    rank = cohort.obs["age"].rank(method="dense").astype(int) - 1
    return np.asarray(values)[rank * len(values) // 40]


@pytest.mark.slow
@pytest.mark.parametrize("n_columns", [1, 2], ids=["new axes", "given axes"])
@pytest.mark.parametrize(
    ("names", "rotation"),
    [
        pytest.param(["not treated", "low dose", "high dose"], 0, id="beside each other"),
        pytest.param([f"day {d} after transduction" for d in (0, 3, 7, 10, 15, 22)], 90, id="upright"),
        pytest.param([f"week {i}" for i in range(20)], 90, id="many"),
        pytest.param([f"reprogrammed cells of passage {i}, thawed and grown" for i in "abcd"], 90, id="wrapped"),
    ],
)  # fmt: skip
def test_names_of_steps_do_not_overlap(held_out, names, rotation, n_columns):
    held_out.obs["step"] = pd.Categorical(by_rank(held_out, names), names, ordered=True)
    agevi.tl.trend_test(held_out, order_key="step", groupby="tissue" if n_columns == 1 else None, **FEW)
    given = None if n_columns == 1 else plt.subplots(1, 2, figsize=(12, 4))[1][0]
    ax = pl.trend(held_out, ax=given)
    ax.figure.draw_without_rendering()
    labels = ax.get_xticklabels()
    assert [label.get_text().replace("\n", " ") for label in labels] == names
    assert {label.get_rotation() for label in labels} == {rotation}
    boxes = [label.get_window_extent() for label in labels]
    assert all(a.x1 < b.x0 for a, b in zip(boxes[:-1], boxes[1:], strict=True))
    assert ax.get_window_extent().height > 1.4 * ax.figure.dpi


def test_levels_of_no_cell_are_not_drawn(held_out):
    held_out.obs["stage"] = held_out.obs["stage"].cat.set_categories(["unborn", "young", "middle", "late", "old"])
    agevi.tl.trend_test(held_out, order_key="stage", **FEW)
    assert [label.get_text() for label in pl.trend(held_out).get_xticklabels()] == ["young", "middle", "old"]


@pytest.mark.parametrize(
    ("values", "at", "shown"),
    [
        pytest.param([False, True], [0, 1], ["False", "True"], id="bool"),
        pytest.param([0, 1], [0, 1], ["0", "1"], id="0 and 1"),
        pytest.param([0.0, 3.0, 7.0, 11.0], [0, 3, 7, 11], ["0", "3", "7", "11"], id="days to scale"),
    ],
)
def test_few_whole_numbers_are_steps(held_out, values, at, shown):
    held_out.obs["step"] = by_rank(held_out, values)
    agevi.tl.trend_test(held_out, order_key="step", **FEW)
    ax = pl.trend(held_out)
    assert [label.get_text() for label in ax.get_xticklabels()] == shown
    assert ax.get_xticks().tolist() == at
    x = np.asarray(ax.collections[0].get_offsets()[:, 0])
    assert len(np.unique(x)) == 40
    assert np.abs(x[:, None] - at).min(axis=1).max() <= 0.12 * np.diff(at).min()


@pytest.mark.parametrize(
    ("values", "is_shifted"),
    [
        pytest.param([0.5, 1.0, 2.0], False, id="fractions"),
        pytest.param([1, 2, 3, 4, 5, 6, 7], False, id="seven"),
        pytest.param([0, 1, 60], True, id="too near to name"),
    ],
)
def test_other_numbers_keep_the_ticks_of_matplotlib(held_out, values, is_shifted):
    held_out.obs["step"] = by_rank(held_out, values)
    agevi.tl.trend_test(held_out, order_key="step", **FEW)
    ax = pl.trend(held_out)
    assert not isinstance(ax.xaxis.get_major_locator(), plt.FixedLocator)
    x = np.asarray(ax.collections[0].get_offsets()[:, 0])
    assert (len(np.unique(x)) == 40) == is_shifted


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
