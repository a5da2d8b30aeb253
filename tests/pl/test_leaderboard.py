from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from agevi import pl


@pytest.fixture
def compared(cohort):
    """A leaderboard of five rows as the tool leaves it."""
    nan = np.nan
    cohort.uns["agevi_leaderboard"] = pd.DataFrame(
        {
            "linear": [False, True, False, False, False],
            "mae": [6.0, 7.0, 9.0, 12.0, nan],
            "mae_low": [5.0, 6.5, 8.0, 10.0, nan],
            "mae_high": [7.5, 7.5, 10.0, 13.0, nan],
            "null_gain": [-1.0, 0.5, nan, nan, nan],
            "null_se": [0.25, nan, nan, nan, nan],
            "error": ["", "", "", "", "fold 'a:b': RuntimeError: out of luck"],
        },
        index=["VAE", "pseudobulk ridge", "MLP", "median age", "broken"],
    )
    cohort.uns["agevi_leaderboard_params"] = {"age_unit": "weeks"}
    return cohort


def drawn(ax):
    """Centres and reaches of the points by their label."""
    out = {}
    for container in ax.containers:
        line, _, (bars,) = container.lines
        x, y = line.get_data()
        reach = np.array([segment[:, 0] for segment in bars.get_segments()])
        out[container.get_label()] = (list(x), list(y), reach)
    return out


def test_points_intervals_median_and_null(compared):
    ax = pl.leaderboard(compared)
    found = drawn(ax)
    assert list(found) == ["network", "linear", "no genes", "shuffled ages"]
    assert found["network"][:2] == ([6.0, 9.0], [0, 2])
    np.testing.assert_allclose(found["network"][2], [[5.0, 7.5], [8.0, 10.0]])
    assert found["linear"][:2] == ([7.0], [1])
    assert found["no genes"][:2] == ([12.0], [3])
    assert found["shuffled ages"][:2] == ([13.0, 11.5], [0, 1])  # from the median by the gain
    np.testing.assert_allclose(found["shuffled ages"][2], [[12.5, 13.5], [11.5, 11.5]])
    lines = [line for line in ax.lines if line.get_linestyle() != "None" and len(set(line.get_xdata())) == 1]
    assert [line.get_xdata()[0] for line in lines] == [12.0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["VAE", "pseudobulk ridge", "MLP", "median age", "broken"]
    low, high = ax.get_ylim()
    assert low > high  # the best is on top
    assert ax.get_xlabel() == "Mean absolute error (weeks)"
    assert [t.get_text() for t in ax.texts] == ["failed: RuntimeError"]


def test_on_given_axes(compared):
    _, ax = plt.subplots()
    assert pl.leaderboard(compared, ax=ax) is ax
    assert len(plt.get_fignums()) == 1


def test_without_shuffled_ages(compared):
    compared.uns["agevi_leaderboard"][["null_gain", "null_se"]] = np.nan
    assert "shuffled ages" not in drawn(pl.leaderboard(compared))


def test_without_a_leaderboard(cohort):
    with pytest.raises(KeyError, match="run agevi.tl.compare_models"):
        pl.leaderboard(cohort)


def test_a_diverged_model_does_not_squeeze_the_others(compared):
    compared.uns["agevi_leaderboard"].loc["MLP", ["mae", "mae_low", "mae_high"]] = [5000.0, 900.0, 9000.0]
    ax = pl.leaderboard(compared)
    assert ax.get_xlim()[1] < 20
    assert [label.get_text() for label in ax.get_yticklabels()][2] == "MLP: 5,000"
    assert "beyond the axis" in [text.get_text() for text in ax.get_legend().get_texts()]
