from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib.colors import to_hex

from agevi import pl, tl
from tests.test_gates import check_style


@pytest.fixture
def analysed(cohort):
    """The cohort with a representation whose component 2 follows age, and its correlations over cells."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(cohort.n_obs, 5))
    z[:, 2] -= 0.05 * cohort.obs["age"].to_numpy()
    cohort.obsm["X_pca"] = z.astype(np.float32)
    del cohort.uns["agevi"]
    tl.age_correlation(cohort, age_key="age", subject_key="donor", n_permutations=50)
    return cohort


def points(ax, name="samples"):
    return next(np.asarray(c.get_offsets()) for c in ax.collections if c.get_label() == f"_{name}")


def sample_means(adata, *columns):
    frame = pd.DataFrame(
        {"age": adata.obs["age"], **{str(c): adata.obsm["X_pca"][:, c].astype(float) for c in columns}}
    )
    return frame.groupby(adata.obs["donor"].astype(str)).mean()


def test_two_panels(analysed):
    panels = pl.age_correlation(analysed)
    assert list(panels) == ["box", "scatter"]
    assert panels["box"].figure is panels["scatter"].figure
    assert len(plt.get_fignums()) == 1


def test_box_shows_every_component_and_the_band(analysed):
    ax = pl.age_correlation(analysed, kind="box")
    table, params = analysed.uns["agevi_correlation"], analysed.uns["agevi_correlation_params"]
    drawn = [np.asarray(c.get_offsets())[:, 1] for c in ax.collections]
    np.testing.assert_allclose(drawn[-2], table["r"])
    np.testing.assert_allclose(drawn[-1], table.loc["2", "r"])  # a ring around the best
    median = [line for line in ax.lines if len(line.get_ydata()) == 2 and line.get_xdata()[0] == -0.25]
    assert any(np.allclose(line.get_ydata(), table["r"].median()) for line in median)
    dashed = sorted(float(line.get_ydata()[0]) for line in ax.lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(dashed, [-params["band_high"], params["band_high"]])
    boxes = sorted(tuple(np.unique(p.get_xy()[:, 1] if hasattr(p.get_xy(), "shape") else [p.get_y(), p.get_y() + p.get_height()]))
                   for p in ax.patches)  # fmt: skip
    expected = [(-params["band_high"], -params["band_low"]), (params["band_low"], params["band_high"])]
    np.testing.assert_allclose(boxes, expected)
    assert table.loc["2", "p"] == 1 / 51  # no permutation reached it, so p may be smaller
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["best of permuted, 5-95 %", "component", f"2: r {table.loc['2', 'r']:.2f}, p ≤ 0.02"]
    assert ax.get_xticklabels()[0].get_text() == "X_pca\n(5 components)"
    assert ax.get_ylabel() == "Correlation with age over cells (r)"
    low, high = ax.get_ylim()
    assert low < table["r"].min() < table["r"].max() < high


def test_scatter_shows_the_best_component_of_cells_and_samples(analysed):
    ax = pl.age_correlation(analysed, kind="scatter")
    np.testing.assert_allclose(points(ax), sample_means(analysed, 2))
    np.testing.assert_allclose(points(ax, "cells"), np.c_[analysed.obs["age"], analysed.obsm["X_pca"][:, 2]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Age (years)", "X_pca[:, 2]")
    assert ax.child_axes[0].get_ylabel() == "Age (years)"


def test_level_sample_shows_samples_alone(analysed):
    tl.age_correlation(analysed, age_key="age", subject_key="donor", level="sample", n_permutations=5)
    panels = pl.age_correlation(analysed)
    assert len(panels["scatter"].collections) == 1
    assert len(points(panels["scatter"])) == 40
    assert panels["box"].get_ylabel() == "Correlation with age over samples (r)"


def test_cells_without_age_are_not_drawn(analysed):
    analysed.obs.loc[analysed.obs["donor"] == "d03", "age"] = np.nan
    tl.age_correlation(analysed, age_key="age", subject_key="donor", n_permutations=5)
    ax = pl.age_correlation(analysed, kind="scatter")
    assert len(points(ax)) == 39
    assert len(points(ax, "cells")) == 195


@pytest.mark.parametrize("component", [0, "0", np.int64(0), ["0"]], ids=["number", "name", "numpy", "list"])
def test_another_component(analysed, component):
    ax = pl.age_correlation(analysed, kind="scatter", component=component)
    np.testing.assert_allclose(points(ax), sample_means(analysed, 0), rtol=1e-6)
    assert ax.get_ylabel() == "X_pca[:, 0]"


@pytest.mark.slow
def test_two_components_against_each_other_are_coloured_by_age(analysed):
    ax = pl.age_correlation(analysed, kind="scatter", component=(1, 2))
    means = sample_means(analysed, 1, 2)
    np.testing.assert_allclose(points(ax), means[["1", "2"]], rtol=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("X_pca[:, 1]", "X_pca[:, 2]")
    shown = next(c for c in ax.collections if c.get_label() == "_samples").get_array()
    np.testing.assert_allclose(shown, means["age"])
    assert ax.child_axes[0].get_ylabel() == "Age (years)"


def test_colors_of_groups(analysed):
    analysed.obs["group"] = pd.Categorical(np.where(analysed.obs["age"] > 50, "old", "young"))
    analysed.uns["group_colors"] = ["#00ff00", "#0000ff"]
    ax = pl.age_correlation(analysed, kind="scatter", color_by="group")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["samples", "cells", "old", "young"]
    for name in ("samples", "cells"):
        drawn = next(c for c in ax.collections if c.get_label() == f"_{name}")
        colors = [to_hex(c) for c in drawn.get_facecolor()]
        assert colors == ["#00ff00" if x > 50 else "#0000ff" for x in points(ax, name)[:, 0]]
    ax = pl.age_correlation(analysed, kind="scatter", color_by="group", palette=["#111111", "#222222"])
    assert {to_hex(c) for c in ax.collections[0].get_facecolor()} == {"#111111", "#222222"}


def test_numbers_have_a_colour_scale(analysed):
    analysed.obs["depth"] = np.arange(analysed.n_obs) * 1.0
    ax = pl.age_correlation(analysed, kind="scatter", color_by="depth")
    assert ax.child_axes[0].get_ylabel() == "depth"


def test_sparse_and_named_components(analysed):
    expected = sample_means(analysed, 2)
    analysed.obsm["X_pca"] = sp.csr_matrix(analysed.obsm["X_pca"])
    np.testing.assert_allclose(points(pl.age_correlation(analysed, kind="scatter")), expected, rtol=1e-6)
    names = list("abcde")
    analysed.obsm["X_pca"] = pd.DataFrame(analysed.obsm["X_pca"].toarray(), index=analysed.obs_names, columns=names)
    tl.age_correlation(analysed, age_key="age", subject_key="donor", n_permutations=5)
    ax = pl.age_correlation(analysed, kind="scatter")
    np.testing.assert_allclose(points(ax), expected, rtol=1e-6)
    assert ax.get_ylabel() == "X_pca[:, 'c']"


def test_ax_size_key_and_unit(analysed):
    analysed.uns["mine"] = {"age_unit": "weeks"}
    tl.age_correlation(analysed, age_key="age", subject_key="donor", n_permutations=5, key_added="mine")
    del analysed.uns["agevi_correlation"]
    _, ax = plt.subplots()
    assert pl.age_correlation(analysed, kind="scatter", key_added="mine", size=7, ax=ax) is ax
    assert ax.get_xlabel() == "Age (weeks)"
    assert next(c for c in ax.collections if c.get_label() == "_samples").get_sizes().tolist() == [7]
    assert pl.age_correlation(analysed, kind="box", key_added="mine", ax=ax) is ax
    assert len(plt.get_fignums()) == 1


def test_nothing_is_written(analysed):
    before = set(analysed.obs), set(analysed.uns), set(analysed.obsm)
    pl.age_correlation(analysed, color_by="tissue")
    assert (set(analysed.obs), set(analysed.uns), set(analysed.obsm)) == before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"key_added": "x"}, KeyError, "'x_correlation'.* is absent; run agevi.tl.age_correlation", id="table"),
        pytest.param({"kind": "violin"}, ValueError, "kind='violin' is not known; choose one of 'box', 'scatter'", id="kind"),
        pytest.param({"ax": "here"}, ValueError, "ax was given without kind, and one Axes has no room", id="ax, no kind"),
        pytest.param({"ax": "here", "kind": "box"}, TypeError, "ax is a str; pass one matplotlib Axes", id="ax"),
        pytest.param({"component": 9}, KeyError, r"component=9 is not one or two components of adata.obsm\['X_pca'\]", id="9"),
        pytest.param({"component": [0, 1, 2]}, KeyError, "is not one or two components .*there are 5", id="three"),
        pytest.param({"color_by": "tisue"}, KeyError, "color_by='tisue' is not a column.*closest: 'tissue'", id="color_by"),
        pytest.param({"color_by": "donor"}, ValueError, "color_by='donor' has 40 values; at most 20 colours", id="many"),
        pytest.param({"color_by": "tissue", "palette": ["red"]}, ValueError, "palette has no colour for", id="palette"),
    ],
)  # fmt: skip
def test_refuses(analysed, arguments, error, message):
    with pytest.raises(error, match=message) as raised:
        pl.age_correlation(analysed, **arguments)
    check_style(raised.value.args[0])
    assert not plt.get_fignums()


def test_refuses_another_representation(analysed):
    analysed.obsm["X_pca"] = analysed.obsm["X_pca"][:, :3]
    with pytest.raises(ValueError, match="has 3 components and the table of correlations has 5; it was replaced since"):
        pl.age_correlation(analysed)
    del analysed.obsm["X_pca"]
    with pytest.raises(KeyError, match="use_rep='X_pca' is not in adata.obsm"):
        pl.age_correlation(analysed)
    pl.age_correlation(analysed, kind="box")  # needs the table alone
