from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from agevi import get, pl, tl
from agevi.pl._acceleration import estimate_text, flags_of, p_value
from agevi.pl._acceleration_forest import stars
from tests.pl.figures import accelerated, normed
from tests.test_gates import check_message


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_points_lines_and_shift():
    adata = accelerated(40, 2, False)
    ax = pl.acceleration(adata)
    row, samples = get.acceleration_df(adata).iloc[0], get.acceleration_df(adata, "samples")
    for drawn, group in zip(ax.collections, ("group0", "group1"), strict=True):
        np.testing.assert_allclose(drawn.get_offsets(), samples.loc[samples["group"] == group, ["age", "predicted"]])
    reference, own, bar = ax.lines
    line = np.polynomial.Polynomial.fit(reference.get_xdata(), reference.get_ydata(), 1)
    np.testing.assert_allclose(own.get_ydata() - line(own.get_xdata()), row["difference"])
    np.testing.assert_allclose(np.diff(bar.get_ydata()), row["difference"])
    assert bar.get_xdata()[0] == pytest.approx(row["age_group"])
    x = np.column_stack([np.ones(40), samples["group"] == "group1", samples["age"]]).astype(float)
    beta = np.linalg.lstsq(x, samples["predicted"], rcond=None)[0]
    assert line.convert().coef[1] == pytest.approx(beta[2])  # the slope of the comparison
    assert legend(ax)[0] == "group0\nreference, n = 20"
    name, n, estimate, p = legend(ax)[1].split("\n")
    assert (name, n) == ("group1", "n = 20")
    assert estimate == estimate_text(row, "years")
    assert p == p_value(row["p"])


@pytest.mark.slow
def test_colours_of_the_column_are_kept_in_all_figures():
    adata = accelerated(40, 2, False, 3)
    adata.uns["group_colors"] = ["#112233", "#aabbcc"]
    scatter, forest = pl.acceleration(adata), pl.acceleration_forest(adata)
    assert [to_hex(c.get_facecolor()[0][:3]) for c in scatter.collections] == ["#112233", "#aabbcc"]
    assert to_hex(forest.lines[0].get_color()) == "#aabbcc"
    assert to_hex(pl.acceleration(adata, palette=["red", "blue"]).lines[0].get_color()) == "#ff0000"


def test_samples_of_a_subject_are_joined():
    ax = pl.acceleration(accelerated(40, 2, False, 0, True))
    assert sum(len(line.get_xdata()) == 2 and to_hex(line.get_color()) == "#b0b0b0" for line in ax.lines) == 20
    assert any("Grey lines join" in text.get_text() for text in ax.texts)


def test_a_type_is_drawn_alone():
    adata = accelerated(60, 2, False, 3)
    ax = pl.acceleration(adata, of_type="type1")
    assert ax.get_title() == "type1"
    assert sum(len(c.get_offsets()) for c in ax.collections) == 20
    with pytest.raises(ValueError, match="of_type='type9' was not compared; closest:") as raised:
        pl.acceleration(adata, of_type="type9")
    check_message(raised, "Available: 'overall', 'type0', 'type1', 'type2'")


def test_rows_of_the_forest():
    adata = accelerated(60, 2, False, 3)
    ax, rows = pl.acceleration_forest(adata), get.acceleration_df(adata)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["overall", "type0", "type1", "type2"]
    intervals = [line for line in ax.lines if line.get_marker() in ("None", "") and len(set(line.get_ydata())) == 1]
    np.testing.assert_allclose([line.get_xdata() for line in intervals[:4]], rows[["low", "high"]])
    texts = [text.get_text() for text in ax.texts]
    for row in rows.to_dict("records"):
        assert f"{estimate_text(row)} {stars(row['p_adjusted'])}".rstrip() in texts
        assert f"{row['n']} / {row['n_reference']}" in texts
    assert "corrected for 3 comparisons" in " ".join(texts) or not (rows["p_adjusted"] < 0.05).any()


@pytest.mark.slow
def test_rows_without_a_comparison_or_signal():
    adata = accelerated(60, 2, False, 3)
    rows = adata.uns["agevi_acceleration"]["groups"]
    rows.loc["1", ["difference", "se", "low", "high", "p", "p_adjusted"]] = np.nan
    rows.loc["2", "flags"] = "no_age_signal;few_subjects"
    ax = pl.acceleration_forest(adata)
    assert "no comparison" in [text.get_text() for text in ax.texts]
    assert [line.get_markerfacecolor() for line in ax.lines if line.get_marker() == "o"][0] == "white"
    assert "open: no age signal" in ax.texts[-1].get_text()
    assert len(pl.acceleration(adata, of_type="type0").lines) == 1
    assert "no age signal: says nothing" in legend(pl.acceleration(adata, of_type="type1"))[1]


def test_groups_have_rows_of_their_own():
    ax = pl.acceleration_forest(accelerated(90, 3, False, 2))
    assert legend(ax) == ["group1", "group2"]
    assert len([line for line in ax.lines if line.get_marker() in ("o", "D")]) == 6


def test_centiles_and_points():
    adata = normed(100, 2, False)
    ax, table = pl.normative(adata), get.normative_df(adata)
    new = table[~table["reference"]]
    inside, outside = ax.collections[-2:]
    np.testing.assert_allclose(inside.get_offsets(), new.loc[~new["outside"], ["age", "predicted"]])
    np.testing.assert_allclose(outside.get_offsets(), new.loc[new["outside"], ["age", "predicted"]])
    assert len(outside.get_offsets()) and not len(outside.get_facecolor())
    band = ax.collections[0].get_paths()[0]
    reference = table[table["reference"]]
    within = [band.contains_point(point) for point in reference[["age", "predicted"]].to_numpy()]
    assert np.mean(within) == pytest.approx(
        ((reference["centile"] > 2.5) & (reference["centile"] < 97.5)).mean(), abs=0.08
    )
    assert "group1, n = 50" in legend(ax)


@pytest.mark.parametrize(
    ("p", "text", "star"),
    [(0.2, "p = 0.20", ""), (0.04, "p = 0.04", "*"), (0.0004, "p < 0.001", "***"), (0.002, "p = 0.002", "**")],
)
def test_p_values_and_stars(p, text, star):
    assert p_value(p) == text
    assert stars(p) == star


def test_small_differences_get_more_digits():
    row = {"difference": -0.051, "se": 0.02, "low": -0.09, "high": -0.011, "flags": "confounded"}
    assert estimate_text(row, "months") == "\N{MINUS SIGN}0.05 months [\N{MINUS SIGN}0.09, \N{MINUS SIGN}0.01]"
    assert flags_of(row) == ["confounded"]


@pytest.mark.parametrize("function", [pl.acceleration, pl.acceleration_forest])
def test_refuses(function):
    adata = accelerated(40, 2, False)
    names = [f"g{i // 3}" for i in range(90)]
    many = accelerated(90, 2, False)
    many.uns["agevi_subjects"]["group"] = np.array(names)
    tl.age_acceleration(many, groupby="group", reference="g0", n_permutations=0)
    with pytest.raises(ValueError) as raised:
        function(many)
    check_message(raised, "values; at most 20 colours can be told apart.")
    del adata.uns["agevi_acceleration"]
    with pytest.raises(KeyError, match="run agevi.tl.age_acceleration"):
        function(adata)
