from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from agevi import get, metrics, pl
from agevi.pl import _base
from tests.pl.figures import calibrated


def points(ax):
    """Offsets of every group of points by the group's name."""
    names = list(dict.fromkeys(c.get_label() for c in ax.collections))
    return {n: np.concatenate([c.get_offsets() for c in ax.collections if c.get_label() == n]) for n in names}


def colors(ax, part=lambda c: c.get_facecolor()):
    """Colours of filled points by group."""
    return {c.get_label(): to_hex(part(c)[0]) for c in ax.collections if len(part(c))}


def rims(ax):
    """Colours of the rims of hollow points by group."""
    hollow = [c for c in ax.collections if not len(c.get_facecolor())]
    return {c.get_label(): to_hex(c.get_edgecolor()[0]) for c in hollow}


def printed(ax):
    return "\n".join(t.get_text() for t in ax.texts)


def legend(ax):
    return [t.get_text() for t in ax.get_legend().get_texts()]


def fits(ax):
    return {li.get_label(): li for li in ax.lines if str(li.get_label()).startswith("fit")}


def test_points_are_the_samples_by_role(cohort):
    ax = pl.predicted_vs_actual(cohort)
    table = cohort.uns["agevi_subjects"]
    drawn = points(ax)
    assert list(drawn) == ["train", "validation", "test"]
    for role, xy in drawn.items():
        part = table[table["role"] == role]
        np.testing.assert_allclose(xy, part[["age", "predicted"]])
    assert colors(ax) == {"test": _base.ROLE_COLORS["test"]}
    assert rims(ax) == {"train": "#a6a6a6", "validation": "#737373"}  # fitted samples are hollow and grey
    assert legend(ax)[:3] == ["train (26)", "validation (6)", "test (8)"]
    assert legend(ax)[-1] == "predicted = actual"


def test_fit_and_accuracy_are_those_of_held_out_samples(cohort):
    ax = pl.predicted_vs_actual(cohort)
    table = cohort.uns["agevi_subjects"]
    test = table[table["role"] == "test"]
    reference = scipy.stats.linregress(test["age"], test["predicted"])
    ((label, line),) = fits(ax).items()
    assert label == f"fit to test: slope {reference.slope:.2f}"
    assert label in legend(ax)
    np.testing.assert_allclose(line.get_xdata(), [test["age"].min(), test["age"].max()])
    np.testing.assert_allclose(line.get_ydata(), reference.intercept + reference.slope * line.get_xdata())
    row = get.metrics_df(cohort, roles="test").loc["test"]
    assert row["mae_low"] < row["mae"] < row["mae_high"] < row["mae_median"]
    assert printed(ax).split("\n") == [
        "test (n = 8)",
        f"MAE {row['mae']:.2f} years [{row['mae_low']:.2f}, {row['mae_high']:.2f}]",
        f"median age: MAE {row['mae_median']:.2f}",
        f"r {row['pearson']:.2f}",
    ]


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
    assert [line for line in printed(ax).split("\n") if "n =" in line] == ["test (n = 5)", "new (n = 3)"]
    assert [label.split(":")[0] for label in fits(ax)] == ["fit to test and new"]


def test_fitted_samples_are_never_judged(cohort):
    """A line and an interval would read as if these were predictions of new subjects."""
    ax = pl.predicted_vs_actual(cohort, roles=["train", "validation"])
    assert list(points(ax)) == ["train", "validation"]
    table = cohort.uns["agevi_subjects"]
    lines = []
    for role, n in (("train", 26), ("validation", 6)):
        part = table[table["role"] == role]
        lines += [f"{role} (n = {n}), fitted", f"MAE {metrics.mae(part['age'], part['predicted']):.2f} years"]
    assert printed(ax).split("\n") == lines
    assert not fits(ax)


def test_one_held_out_sample_is_not_judged(cohort):
    cohort.uns["agevi_subjects"] = cohort.uns["agevi_subjects"].iloc[:33]
    ax = pl.predicted_vs_actual(cohort)
    assert printed(ax) == "test (n = 1)\ntoo few to judge"
    assert not fits(ax)


def test_constant_predictions_are_drawn(cohort):
    cohort.uns["agevi_subjects"]["predicted"] = 50.0
    assert "r undefined" in printed(pl.predicted_vs_actual(cohort))


def test_samples_without_role_are_drawn(cohort):
    cohort.uns["agevi_subjects"]["role"] = ""
    ax = pl.predicted_vs_actual(cohort)
    assert list(points(ax)) == ["role not recorded"]
    assert not rims(ax)
    assert printed(ax).startswith("all (n = 40)")


def test_samples_without_age_or_prediction_are_not_drawn(cohort):
    table = cohort.uns["agevi_subjects"]
    table.loc["d38", "age"] = np.nan
    table.loc["d39", "predicted"] = np.nan
    assert len(points(pl.predicted_vs_actual(cohort))["test"]) == 6


@pytest.mark.parametrize(
    ("color_by", "palette", "expected"),
    [
        pytest.param("role", ["#111111", "#222222", "#333333"], {"test": "#333333"}, id="palette of roles"),
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
    ax = pl.predicted_vs_actual(cohort)
    assert (rims(ax), colors(ax)) == ({"train": "#101010", "validation": "#202020"}, {"test": "#303030"})


def tissue_of(cohort):
    """Tissue of every sample in the order of the subject table."""
    of_sample = cohort.obs.drop_duplicates("donor").set_index("donor")["tissue"]
    return of_sample[cohort.uns["agevi_subjects"].index].to_numpy()


def test_groups_are_those_of_the_samples(cohort):
    ax = pl.predicted_vs_actual(cohort, color_by="tissue")
    table, tissue = cohort.uns["agevi_subjects"], tissue_of(cohort)
    for name, xy in points(ax).items():
        expected = table.loc[tissue == name, ["age", "predicted"]].to_numpy()
        np.testing.assert_allclose(sorted(xy.tolist()), sorted(expected.tolist()))


def test_roles_are_visible_whatever_the_colours_mean(cohort):
    """Controls that the clock was fitted to looked like cases that it never saw."""
    table = cohort.uns["agevi_subjects"]
    table.loc["d39", "role"] = "new"
    ax = pl.predicted_vs_actual(cohort, color_by="tissue")
    n = {t: ((tissue_of(cohort) == t) & table["role"].isin(["test", "new"])).sum() for t in ("skin", "blood")}
    assert legend(ax)[:6] == [
        f"skin ({n['skin']})", f"blood ({n['blood']})", "train (26)", "validation (6)", "test (7)", "new (1)"
    ]  # fmt: skip
    assert len(rims(ax)) == 2
    hollow = [c for c in ax.collections if not len(c.get_facecolor())]
    assert sum(len(c.get_offsets()) for c in hollow) == 32
    assert {to_hex(c.get_edgecolor()[0]) for c in hollow} == {"#a6a6a6", "#737373"}
    markers = {h.get_label(): h.get_marker() for h in ax.get_legend().legend_handles if h.get_marker() != "None"}
    assert len({markers[name] for name in ("train (26)", "validation (6)", "test (7)", "new (1)")}) >= 3


def test_fitted_samples_have_colours_where_all_were_fitted(cohort):
    ax = pl.predicted_vs_actual(cohort, color_by="tissue", roles="train")
    assert rims(ax) == {"skin": "#1f77b4", "blood": "#ff7f0e"}
    assert not colors(ax)
    assert not fits(ax)


@pytest.mark.slow
def test_groups_have_lines_of_their_own(cohort):
    ax = pl.predicted_vs_actual(cohort, color_by="tissue", fit="groups")
    table = cohort.uns["agevi_subjects"]
    for name, (label, line) in zip(["skin", "blood"], fits(ax).items(), strict=True):
        part = table[(tissue_of(cohort) == name) & (table["role"] == "test")]
        expected = scipy.stats.linregress(part["age"], part["predicted"])
        assert label == f"fit to {name}: slope {expected.slope:.2f}"
        assert to_hex(line.get_color()) == colors(ax)[name]
        np.testing.assert_allclose(line.get_ydata(), expected.intercept + expected.slope * line.get_xdata())
    assert not fits(pl.predicted_vs_actual(cohort, fit=None))


def test_names_of_roles_are_words(cohort):
    cohort.uns["agevi_subjects"]["role"] = "out_of_fold"
    ax = pl.predicted_vs_actual(cohort)
    written = [*legend(ax), printed(ax)]
    assert written[0] == "out of fold (40)"
    assert not any("_" in text for text in written)


def test_one_far_prediction_does_not_squeeze_the_rest(cohort):
    cohort.uns["agevi_subjects"].loc["d39", "predicted"] = 1e5
    ax = pl.predicted_vs_actual(cohort)
    assert ax.get_ylim()[1] < 300
    assert points(ax)["test"][:, 1].max() == ax.get_ylim()[1]
    assert printed(ax).endswith("\n1 predicted beyond the axes")


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
        pytest.param({"fit": "group"}, ValueError, "fit='group' is not known; choose one of 'all', 'groups'", id="fit"),
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
    table = cohort.uns["agevi_subjects"]
    for name, ax in drawn.items():
        part = table[tissue_of(cohort) == name]
        assert ax.get_title() == name
        for role, xy in points(ax).items():
            np.testing.assert_allclose(xy, part.loc[part["role"] == role, ["age", "predicted"]])
        test = part[part["role"] == "test"]
        fit = scipy.stats.linregress(test["age"], test["predicted"])
        lines = printed(ax).split("\n")
        assert lines[0] == "test (n = 4)"
        assert lines[1].startswith(f"MAE {metrics.mae(test['age'], test['predicted']):.2f} years [")
        assert lines[2].startswith("median age: MAE")
        assert lines[3:] == [f"r {fit.rvalue:.2f}", f"slope {fit.slope:.2f}"]
    assert len({ax.get_xlim() + ax.get_ylim() for ax in drawn.values()}) == 1
    assert len({ax.figure for ax in drawn.values()}) == 1
    names = ["train (26)", "validation (6)", "test (8)", "fit of the panel", "predicted = actual"]
    assert legend(drawn["blood"]) == names
    assert drawn["skin"].get_legend() is None  # one for all, to their right


@pytest.mark.slow
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
    assert legend(drawn["2"]) == ["train (26)", "fit of the panel", "predicted = actual"]


def test_intervals_are_lines_within_the_axes():
    adata = calibrated(40)
    table = get.subjects_df(adata).dropna(subset=["age", "lower"])
    ax = pl.predicted_vs_actual(adata, intervals=True)
    drawn = np.concatenate([c.get_segments() for c in ax.collections if isinstance(c, LineCollection)])
    rows = np.column_stack([drawn[:, 0, 0], drawn[:, 0, 1], drawn[:, 1, 1]])
    expected = table[["age", "lower", "upper"]].to_numpy(dtype=float)
    np.testing.assert_allclose(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])
    low, high = ax.get_ylim()
    assert low < expected.min() and expected.max() < high and "80 % interval" in legend(ax)
    assert not [c for c in pl.predicted_vs_actual(adata).collections if isinstance(c, LineCollection)]


def test_samples_without_group_have_a_panel(cohort):
    cohort.obs.loc[cohort.obs["donor"] == "d39", "tissue"] = None
    drawn = pl.predicted_vs_actual(cohort, groupby="tissue")
    assert list(drawn) == ["skin", "blood", ""]
    assert drawn[""].get_title() == "not named"
    assert printed(drawn[""]) == "test (n = 1)\ntoo few to judge"


@pytest.mark.slow
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
    np.testing.assert_allclose(points(drawn["T"])["out of fold"], long.loc[long["group"] == "T", ["age", "predicted"]])
    assert len(points(drawn["B"])["out of fold"]) == 39
    assert [printed(ax).split("\n")[0] for ax in drawn.values()] == ["out of fold (n = 39)", "out of fold (n = 40)"]
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
        pytest.param({"intervals": True}, ValueError, "have none; run agevi.tl.calibrate first", id="intervals"),
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
