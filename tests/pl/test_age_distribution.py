from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from agevi import pl


def heights(ax):
    return {c.get_label(): [bar.get_height() for bar in c] for c in ax.containers}


def edges(ax):
    bars = list(ax.containers[0])
    return [bar.get_x() for bar in bars] + [bars[-1].get_x() + bars[-1].get_width()]


def test_subjects_are_counted_once_by_role(cohort):
    ax = pl.age_distribution(cohort, age_key="age", subject_key="donor")
    counts = {name: sum(values) for name, values in heights(ax).items()}
    assert counts == {"train (26)": 26, "validation (6)": 6, "test (8)": 8}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Age (years)", "Subjects")


def test_bars_equal_numpy_histograms_and_are_stacked(cohort):
    ax = pl.age_distribution(cohort, age_key="age", subject_key="donor")
    table = cohort.uns["agevi_subjects"]
    base = np.zeros(len(edges(ax)) - 1)
    for container, role in zip(ax.containers, ["train", "validation", "test"], strict=True):
        expected = np.histogram(table.loc[table["role"] == role, "age"], edges(ax))[0]
        np.testing.assert_array_equal([bar.get_height() for bar in container], expected)
        np.testing.assert_array_equal([bar.get_y() for bar in container], base)
        base += expected
    assert base.sum() == 40


@pytest.mark.parametrize("n_bins", [4, 15])
def test_edges_are_round(cohort, n_bins):
    found = np.array(edges(pl.age_distribution(cohort, age_key="age", subject_key="donor", n_bins=n_bins)))
    assert len(found) <= n_bins + 2
    assert np.all(found % 5 == 0)
    assert found[0] <= cohort.obs["age"].min()
    assert found[-1] >= cohort.obs["age"].max()


def test_cells_by_any_column(cohort):
    ax = pl.age_distribution(cohort, age_key="age", groupby="tissue", level="cell")
    assert {name: sum(v) for name, v in heights(ax).items()} == {"skin (100)": 100, "blood (100)": 100}
    assert ax.get_ylabel() == "Cells"


def test_without_groups(cohort):
    ax = pl.age_distribution(cohort, age_key="age", groupby=None)
    assert len(ax.containers) == 1
    assert sum(heights(ax).popitem()[1]) == 40
    assert ax.get_legend() is None


def test_subjects_of_two_samples_count_once_at_their_mean_age(cohort):
    first = ~cohort.obs["donor"].duplicated()
    cohort.obs["age"] = np.where(first, 20.0, 40.0)  # one cell of five: the mean is 36
    ax = pl.age_distribution(cohort, age_key="age", groupby=None, n_bins=10)
    assert sum(heights(ax).popitem()[1]) == 40
    assert edges(ax)[0] <= 36 <= edges(ax)[-1]


def test_unlabelled_subjects_are_left_out(cohort):
    cohort.obs.loc[cohort.obs["donor"] == "d00", "age"] = np.nan
    ax = pl.age_distribution(cohort, age_key="age")
    assert sum(sum(v) for v in heights(ax).values()) == 39


def test_one_age_is_drawn(cohort):
    cohort.obs["age"] = 50.0
    assert sum(sum(v) for v in heights(pl.age_distribution(cohort, age_key="age")).values()) == 40


def test_ax_unit_and_palette_are_used(cohort):
    _, ax = plt.subplots()
    out = pl.age_distribution(cohort, age_key="age", ax=ax, age_unit="weeks", palette=["red", "green", "blue"])
    assert out is ax
    assert ax.get_xlabel() == "Age (weeks)"
    assert [c[0].get_facecolor()[:3] for c in ax.containers] == [(1, 0, 0), (0, 0.5019607843137255, 0), (0, 0, 1)]


@pytest.mark.parametrize(
    ("change", "arguments", "error", "message"),
    [
        pytest.param(None, {"level": "sample"}, ValueError, "level='sample' is not known; choose one of 'subject'", id="level"),
        pytest.param(None, {"age_key": "Age"}, KeyError, "age_key='Age'.*closest: 'age'", id="age_key"),
        pytest.param(None, {"subject_key": "donr"}, KeyError, "subject_key='donr'.*closest: 'donor'", id="subject_key"),
        pytest.param(None, {"groupby": "tisue"}, KeyError, "groupby='tisue'.*closest: 'tissue'", id="groupby"),
        pytest.param(
            lambda a: a.obs.pop("agevi_split"), {}, KeyError, "run agevi.pp.split_subjects first, or pass groupby=None",
            id="no split",
        ),
        pytest.param(
            lambda a: a.uns.pop("agevi"), {}, KeyError, "no subject column is known; pass subject_key", id="no subject"
        ),
        pytest.param(lambda a: a.obs.insert(0, "bins", "60-69"), {"age_key": "bins"}, TypeError, "parse_age", id="bins"),
        pytest.param(lambda a: a.obs.insert(0, "none", np.nan), {"age_key": "none"}, ValueError, "no ages", id="no ages"),
    ],
)  # fmt: skip
def test_refuses(cohort, change, arguments, error, message):
    if change:
        change(cohort)
    with pytest.raises(error, match=message):
        pl.age_distribution(cohort, **{"age_key": "age", **arguments})
    assert not plt.get_fignums()
