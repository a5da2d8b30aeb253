"""The figure of a learning curve shows the numbers of its table."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import agevi
from agevi import get
from tests.pl.figures import curve


def test_points_law_and_baseline():
    adata = curve(48)
    axes, table = agevi.pl.learning_curve(adata), get.learning_curve_df(adata)
    assert list(axes) == ["subjects", "cells"]
    for axis, ax in axes.items():
        rows, law = table[table["axis"] == axis], adata.uns["agevi_learning_curve_params"][axis]
        line, _, (bars,) = ax.containers[0].lines
        assert np.allclose(np.stack(line.get_data(), 1), rows[["n", "mae"]])
        assert np.allclose([segment[:, 1] for segment in bars.get_segments()], rows[["mae_low", "mae_high"]])
        by_label = {drawn.get_label(): drawn for drawn in ax.lines}
        assert np.allclose(by_label["median age"].get_ydata(), rows["mae_median"])
        x, y = by_label["to twice the data"].get_data()
        last = rows["n"].iloc[-1]
        assert (x[0], x[-1]) == pytest.approx((last, 2 * last))
        assert y[-1] - y[0] == pytest.approx(law["change"])
        (shade,) = ax.collections[1:] if len(ax.collections) > 1 else ax.collections
        at_twice = shade.get_paths()[0].vertices
        at_twice = at_twice[np.isclose(at_twice[:, 0], 2 * last), 1] - y[0]
        assert (at_twice.min(), at_twice.max()) == pytest.approx((law["change_low"], law["change_high"]))
        x, y = by_label["power law"].get_data()
        assert y == pytest.approx(law["c"] + law["a"] * x ** -law["b"])
        ticks = [text.get_text() for text in ax.get_xticklabels()]
        assert {f"{last}", f"{2 * last}"} <= set(ticks)
        assert ax.get_title() == f"Twice the {axis}"
    figures = "\n".join(text.get_text() for text in axes["subjects"].texts)
    assert f"{adata.uns['agevi_learning_curve_params']['subjects']['change']:+.1f} years" in figures
    assert axes["subjects"].get_ylabel() == "Mean absolute error (years)"
    assert axes["subjects"].get_ylim() == axes["cells"].get_ylim()


def test_no_law_and_no_cells():
    adata = curve(48, few=True)
    axes = agevi.pl.learning_curve(adata)
    assert list(axes) == ["subjects"]
    assert any("no gain can be shown" in text.get_text() for text in axes["subjects"].texts)
    assert not {"power law", "to twice the data"} & {line.get_label() for line in axes["subjects"].lines}


def test_no_gain_is_drawn_as_none():
    adata = curve(48)
    adata.uns["agevi_learning_curve_params"]["sentence"] = "No gain can be shown, of more subjects or of more cells."
    axes = agevi.pl.learning_curve(adata)
    for ax in axes.values():
        assert any(text.get_text() == "no gain can be shown" for text in ax.texts)
        assert not any("years [" in text.get_text() for text in ax.texts)


@pytest.mark.slow
def test_given_axes():
    _, given = plt.subplots(1, 2)
    axes = agevi.pl.learning_curve(curve(604), ax=given)
    assert axes["cells"] is given[1]
    with pytest.raises(ValueError, match="ax has 1 Axes and the table has 2 values"):
        agevi.pl.learning_curve(curve(604), ax=given[0])
