from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from matplotlib.colors import to_hex

from agevi import metrics, pl
from agevi.pl import _base


def points(ax):
    """Offsets of every group of points by the group's name."""
    return {c.get_label().rsplit(" (", 1)[0]: np.asarray(c.get_offsets()) for c in ax.collections}


def colors(ax):
    return {c.get_label().rsplit(" (", 1)[0]: to_hex(c.get_facecolor()[0]) for c in ax.collections}


def printed(ax):
    return "\n".join(t.get_text() for t in ax.texts)


def test_points_are_the_samples_by_role(cohort):
    ax = pl.predicted_vs_actual(cohort)
    table = cohort.uns["agevi_subjects"]
    drawn = points(ax)
    assert list(drawn) == ["train", "validation", "test"]
    for role, xy in drawn.items():
        part = table[table["role"] == role]
        np.testing.assert_allclose(xy, part[["age", "predicted"]])
    assert colors(ax) == {r: _base.ROLE_COLORS[r] for r in drawn}
    assert [t.get_text() for t in ax.get_legend().get_texts()][:3] == ["train (26)", "validation (6)", "test (8)"]


def test_fit_and_accuracy_are_those_of_held_out_samples(cohort):
    ax = pl.predicted_vs_actual(cohort)
    table = cohort.uns["agevi_subjects"]
    test = table[table["role"] == "test"]
    reference = scipy.stats.linregress(test["age"], test["predicted"])
    line = next(li for li in ax.lines if li.get_label().startswith("fit"))
    assert line.get_label() == f"fit to test: slope {reference.slope:.2f}"
    np.testing.assert_allclose(line.get_xdata(), [test["age"].min(), test["age"].max()])
    np.testing.assert_allclose(line.get_ydata(), reference.intercept + reference.slope * line.get_xdata())
    mae, r = metrics.mae(test["age"], test["predicted"]), metrics.pearson(test["age"], test["predicted"])
    assert printed(ax) == f"test (n = 8): MAE {mae:.2f} years, r {r:.2f}"


def test_identity_line_crosses_the_whole_square(cohort):
    ax = pl.predicted_vs_actual(cohort)
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.get_aspect() == 1
    identity = ax.lines[0]
    assert identity.get_linestyle() == "--"
    assert identity.get_xy1()[0] == identity.get_xy1()[1] == ax.get_xlim()[0]
    assert identity.get_slope() == 1


def test_several_held_out_roles_have_a_line_each(cohort):
    table = cohort.uns["agevi_subjects"]
    table.iloc[-3:, table.columns.get_loc("role")] = "new"
    ax = pl.predicted_vs_actual(cohort)
    assert [line.split(":")[0] for line in printed(ax).split("\n")] == ["test (n = 5)", "new (n = 3)"]
    assert any(li.get_label().startswith("fit to test and new") for li in ax.lines)


def test_all_samples_are_judged_where_none_is_held_out(cohort):
    ax = pl.predicted_vs_actual(cohort, roles=["train", "validation"])
    assert list(points(ax)) == ["train", "validation"]
    assert [line.split(":")[0] for line in printed(ax).split("\n")] == ["train (n = 26)", "validation (n = 6)"]
    assert any(li.get_label().startswith("fit to all") for li in ax.lines)


def test_one_held_out_sample_is_not_judged(cohort):
    cohort.uns["agevi_subjects"] = cohort.uns["agevi_subjects"].iloc[:33]
    ax = pl.predicted_vs_actual(cohort)
    assert printed(ax) == "test (n = 1): too few to judge"
    assert not any(str(li.get_label()).startswith("fit") for li in ax.lines)


def test_constant_predictions_are_drawn(cohort):
    cohort.uns["agevi_subjects"]["predicted"] = 50.0
    assert "r undefined" in printed(pl.predicted_vs_actual(cohort))


def test_samples_without_role_are_drawn(cohort):
    cohort.uns["agevi_subjects"]["role"] = ""
    ax = pl.predicted_vs_actual(cohort)
    assert list(points(ax)) == ["role not recorded"]
    assert printed(ax).startswith("all (n = 40)")


def test_samples_without_age_or_prediction_are_not_drawn(cohort):
    table = cohort.uns["agevi_subjects"]
    table.loc["d38", "age"] = np.nan
    table.loc["d39", "predicted"] = np.nan
    assert len(points(pl.predicted_vs_actual(cohort))["test"]) == 6


@pytest.mark.parametrize(
    ("color_by", "palette", "expected"),
    [
        pytest.param("tissue", None, {"skin": "#1f77b4", "blood": "#ff7f0e"}, id="categories of obs"),
        pytest.param("tissue", ["#000000", "#ff0000"], {"skin": "#000000", "blood": "#ff0000"}, id="palette list"),
        pytest.param(
            "tissue", {"blood": "#111111", "skin": "#222222"}, {"skin": "#222222", "blood": "#111111"}, id="dict"
        ),
    ],
)
def test_colors(cohort, color_by, palette, expected):
    assert colors(pl.predicted_vs_actual(cohort, color_by=color_by, palette=palette)) == expected


def test_colors_of_scanpy_are_used(cohort):
    cohort.uns["tissue_colors"] = ["#00ff00", "#0000ff"]
    assert colors(pl.predicted_vs_actual(cohort, color_by="tissue")) == {"skin": "#00ff00", "blood": "#0000ff"}
    cohort.uns["agevi_role_colors"] = ["#101010", "#202020", "#303030"]
    assert colors(pl.predicted_vs_actual(cohort)) == {"train": "#101010", "validation": "#202020", "test": "#303030"}


def test_groups_are_those_of_the_samples(cohort):
    ax = pl.predicted_vs_actual(cohort, color_by="tissue")
    of_sample = cohort.obs.drop_duplicates("donor").set_index("donor")["tissue"]
    table = cohort.uns["agevi_subjects"]
    for name, xy in points(ax).items():
        np.testing.assert_allclose(xy, table.loc[of_sample[table.index].to_numpy() == name, ["age", "predicted"]])


def test_ax_unit_and_size_are_used(cohort):
    cohort.uns["agevi"]["age_unit"] = "weeks"
    _, ax = plt.subplots()
    assert pl.predicted_vs_actual(cohort, ax=ax, size=7) is ax
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Age (weeks)", "Predicted age (weeks)")
    assert "weeks" in printed(ax)
    assert ax.collections[0].get_sizes().tolist() == [7]
    assert len(plt.get_fignums()) == 1


def test_other_key(cohort):
    cohort.uns["mine_subjects"] = cohort.uns.pop("agevi_subjects")
    del cohort.uns["agevi"]
    assert pl.predicted_vs_actual(cohort, key_added="mine").get_xlabel() == "Age (years)"


def test_nothing_is_written(cohort):
    before = cohort.copy()
    pl.predicted_vs_actual(cohort, color_by="tissue")
    assert set(cohort.uns) == set(before.uns)
    assert list(cohort.obs) == list(before.obs)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param(
            {"key_added": "x"}, KeyError, "'x_subjects'.* is absent; run agevi.tl.aggregate_subjects", id="table"
        ),
        pytest.param({"roles": "new"}, ValueError, "no sample of roles='new' has an age and a prediction", id="roles"),
        pytest.param({"roles": "tests"}, ValueError, "roles='tests' is not known", id="unknown role"),
        pytest.param(
            {"color_by": "sex"}, KeyError, "color_by='sex' is neither a column of the subject table", id="color_by"
        ),
        pytest.param(
            {"color_by": "sample"}, ValueError, "color_by='sample' has 40 values; at most 20 colours", id="many"
        ),
        pytest.param({"palette": ["red"]}, ValueError, "palette has no colour for 'validation', 'test'", id="palette"),
        pytest.param({"ax": "here"}, TypeError, "ax is a str; pass one matplotlib Axes", id="ax"),
    ],
)
def test_refuses(cohort, arguments, error, message):
    with pytest.raises(error, match=message):
        pl.predicted_vs_actual(cohort, **arguments)
    assert not plt.get_fignums()


def test_refuses_without_ages(cohort):
    cohort.uns["agevi_subjects"]["age"] = np.nan
    with pytest.raises(ValueError, match="no sample has an age and a prediction, so nothing can be drawn.*age_key"):
        pl.predicted_vs_actual(cohort)


def test_panels_are_the_groups(cohort):
    drawn = pl.predicted_vs_actual(cohort, groupby="tissue")
    assert list(drawn) == ["skin", "blood"]  # the order of the categories
    of_sample = cohort.obs.drop_duplicates("donor").set_index("donor")["tissue"]
    table = cohort.uns["agevi_subjects"]
    for name, ax in drawn.items():
        part = table[of_sample[table.index].to_numpy() == name]
        assert ax.get_title() == name
        for role, xy in points(ax).items():
            np.testing.assert_allclose(xy, part.loc[part["role"] == role, ["age", "predicted"]])
        test = part[part["role"] == "test"]
        fit = scipy.stats.linregress(test["age"], test["predicted"])
        expected = ["test (n = 4)", f"MAE {metrics.mae(test['age'], test['predicted']):.2f} years"]
        assert printed(ax).split("\n") == [*expected, f"r {fit.rvalue:.2f}", f"slope {fit.slope:.2f}"]
    assert len({ax.get_xlim() + ax.get_ylim() for ax in drawn.values()}) == 1
    assert len({ax.figure for ax in drawn.values()}) == 1
    keys = [t.get_text() for t in drawn["skin"].get_legend().get_texts()]
    assert keys == ["train", "validation", "test"]
    assert drawn["blood"].get_legend() is None


def test_panels_of_the_subject_table(cohort):
    cohort.uns["agevi_subjects"]["fold"] = np.arange(40) % 10
    drawn = pl.predicted_vs_actual(cohort, groupby="fold", roles="train", n_cols=3)
    assert list(drawn) == [str(i) for i in range(10)]
    grid = drawn["0"].get_gridspec()
    assert (grid.nrows, grid.ncols) == (4, 3)
    assert len(drawn["0"].figure.axes) == 10
    labelled = {name for name, ax in drawn.items() if ax.get_xlabel()}
    assert labelled == {"7", "8", "9"}  # the lowest of each column
    assert {name for name, ax in drawn.items() if ax.get_ylabel()} == {"0", "3", "6", "9"}
    assert drawn["0"].get_legend() is None  # one colour


def test_samples_without_group_have_a_panel(cohort):
    cohort.obs.loc[cohort.obs["donor"] == "d39", "tissue"] = None
    drawn = pl.predicted_vs_actual(cohort, groupby="tissue")
    assert list(drawn) == ["skin", "blood", ""]
    assert drawn[""].get_title() == "not named"
    assert printed(drawn[""]) == "test (n = 1)\ntoo few to judge"


def test_panels_of_clocks_per_cell_type(cohort):
    """A column that varies between cells is drawn where a cross-validation made a clock per value of it."""
    cohort.obs["cell_type"] = np.where(np.arange(200) % 2, "B", "T")
    with pytest.raises(ValueError, match=r"adata.obs\['cell_type'\] has 2 values .*agevi.tl.cross_validate"):
        pl.predicted_vs_actual(cohort, groupby="cell_type")
    subjects = cohort.uns["agevi_subjects"]
    long = pd.concat([subjects.assign(group=g, predicted=subjects["predicted"] + d) for g, d in [("B", 0), ("T", 9)]])
    long = long.rename_axis("sample").reset_index()[["sample", "group", "subject", "age", "predicted", "n_cells"]]
    long.loc[0, "predicted"] = np.nan
    cohort.uns["agevi_by_group"] = long
    cohort.uns["agevi"]["params"] = {"groupby": "cell_type"}
    drawn = pl.predicted_vs_actual(cohort, groupby="cell_type")
    assert list(drawn) == ["B", "T"]
    np.testing.assert_allclose(points(drawn["T"])["out_of_fold"], long.loc[long["group"] == "T", ["age", "predicted"]])
    assert len(points(drawn["B"])["out_of_fold"]) == 39
    assert [printed(ax).split("\n")[0] for ax in drawn.values()] == ["out_of_fold (n = 39)", "out_of_fold (n = 40)"]
    assert list(pl.predicted_vs_actual(cohort, groupby="tissue")) == ["skin", "blood"]
    with pytest.raises(ValueError, match="no sample of roles='test' has an age"):
        pl.predicted_vs_actual(cohort, groupby="cell_type", roles="test")


@pytest.mark.parametrize(
    "form", [lambda axes: axes, lambda axes: list(axes), lambda axes: {"a": axes[0], "b": axes[1]}]
)
def test_panels_take_axes(cohort, form):
    _, axes = plt.subplots(1, 2)
    drawn = pl.predicted_vs_actual(cohort, groupby="tissue", ax=form(axes))
    assert list(drawn.values()) == list(axes)
    assert [ax.get_ylabel() for ax in axes] == ["Predicted age (years)"] * 2
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"groupby": "tisue"}, KeyError, "groupby='tisue' is not a column.*closest: 'tissue'", id="column"),
        pytest.param(
            {"groupby": "tissue", "n_cols": 0}, ValueError, "n_cols=0 is not a number of panels; pass 1", id="n_cols"
        ),
        pytest.param(
            {"groupby": "subject"},
            ValueError,
            "groupby='subject' has 40 values; at most 30 panels are drawn",
            id="many",
        ),
        pytest.param(
            {"groupby": "tissue", "ax": ["here"]},
            TypeError,
            "ax holds a str; with groupby pass one matplotlib",
            id="ax",
        ),
    ],
)
def test_panels_refuse(cohort, arguments, error, message):
    with pytest.raises(error, match=message):
        pl.predicted_vs_actual(cohort, **arguments)
    assert not plt.get_fignums()


def test_panels_refuse_another_number_of_axes(cohort):
    with pytest.raises(ValueError, match="ax has 1 Axes and groupby='tissue' has 2 values; pass one Axes per panel"):
        pl.predicted_vs_actual(cohort, groupby="tissue", ax=plt.subplots()[1])
