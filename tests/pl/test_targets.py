from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from agevi import pl
from agevi.pl._targets import LOWERS, RAISES
from agevi.tl import rank_targets
from tests.test_gates import check_message


@pytest.fixture
def ranking():
    """Two diseases that share B at the top; C is beyond the third rank of y."""
    first = pd.Series({"A": -5.0, "B": 4.0, "C": 3.0, "D": 0.2})
    second = pd.Series({"A": 2.0, "B": 6.0, "C": 0.1, "D": 5.0})
    return rank_targets({"x": first, "y": second}, n_top=3, n_shared=2)


def test_dots(ranking):
    ax = pl.targets(ranking)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["x", "y"]
    # B is in both tops; A, then D, in one, with mean ranks of (1 + 3) / 2 and (4 + 2) / 2; C in none.
    assert [label.get_text() for label in ax.get_yticklabels()] == ["B", "A", "D", "C"]
    (dots,) = ax.collections
    where = [tuple(xy) for xy in dots.get_offsets().astype(int).tolist()]
    assert sorted(where) == [(0, 0), (0, 1), (0, 3), (1, 0), (1, 1), (1, 2)]
    area = dict(zip(where, dots.get_sizes(), strict=True))
    assert area[0, 1] == area[1, 0] > area[0, 0] == area[1, 2] > area[0, 3] == area[1, 1]
    rim = dict(zip(where, dots.get_linewidths(), strict=True))
    assert [name for name, width in rim.items() if width > 0] == [(0, 1), (0, 0), (1, 0), (1, 2)]
    color = dict(zip(where, [plt.matplotlib.colors.to_hex(c) for c in dots.get_facecolor()], strict=True))
    assert color[0, 1] == LOWERS
    assert color[1, 1] == RAISES
    low, high = ax.get_ylim()
    assert low > high
    legend = ax.get_legend()
    assert [t.get_text() for t in legend.get_texts()] == [
        "rank 1", "rank 2", "rank 3", "raises the prediction", "lowers it",
    ]  # fmt: skip
    assert legend.get_title().get_text() == "dark rim: top 2"
    np.testing.assert_allclose(legend.legend_handles[0].get_markersize() ** 2, area[0, 1])


def test_fewer_genes_on_given_axes(ranking):
    _, ax = plt.subplots()
    assert pl.targets(ranking, n_genes=2, ax=ax) is ax
    assert [label.get_text() for label in ax.get_yticklabels()] == ["B", "A"]
    assert len(ax.collections[0].get_offsets()) == 4


def test_unknown_direction_is_grey():
    frame = pd.DataFrame({"gene": ["A", "B", "C"], "attribution": [3.0, 2.0, 1.0]})
    ax = pl.targets(rank_targets({"x": frame}))
    assert len({tuple(c) for c in ax.collections[0].get_facecolor()}) == 1
    assert ax.get_legend().get_texts()[-1].get_text() == "direction unknown"


@pytest.fixture
def layout():
    """New figures are laid out, as users see them."""


LONG = [
    "Alzheimer's disease (late onset, sporadic)",
    "chronic obstructive pulmonary disease",
    "idiopathic pulmonary fibrosis (familial form) with emphysema of smokers",
    "type 2 diabetes",
    "amyotrophic lateral sclerosis, sporadic",
    "rheumatoid arthritis of late onset",
    "Parkinson's disease with dementia",
    "a_name_of_one_word_that_goes_on_for_longer_than_a_line",
]


@pytest.mark.slow
@pytest.mark.parametrize("n_genes", [4, 30])
@pytest.mark.parametrize(
    "diseases",
    [
        pytest.param(LONG[:1], id="one long"),
        pytest.param(LONG[:2], id="two long"),
        pytest.param(LONG, id="eight long"),
        pytest.param(["AD"], id="one short"),
        pytest.param(["AD", "COPD", "NAFLD", "MS", "T2D", "RA", "PD", "osteoporosis"], id="eight short"),
    ],
)
def test_names_have_room(diseases, n_genes):
    rng = np.random.default_rng(0)
    tables = {name: pd.Series(rng.normal(size=200), [f"GENE{i:04d}" for i in range(200)]) for name in diseases}
    ax = pl.targets(rank_targets(tables, n_top=100), n_genes=n_genes)
    figure = ax.figure
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    turned = ax.get_xticklabels()[0].get_rotation() == 90  # the boxes of slanted names overlap where the names do not
    assert not turned or all(a.x1 < b.x0 for a, b in zip(boxes[:-1], boxes[1:], strict=True))
    for box in [*boxes, ax.get_legend().get_window_extent(), *(t.get_window_extent() for t in ax.get_yticklabels())]:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
    grid, largest = ax.get_window_extent(), np.sqrt(ax.collections[0].get_sizes().max()) * figure.dpi / 72
    assert grid.width / len(diseases) > largest
    assert grid.height / n_genes > largest
    assert [label.get_text().replace("\n", " ").replace(" ", "") for label in ax.get_xticklabels()] == [
        name.replace(" ", "") for name in diseases
    ]


def test_refuses():
    with pytest.raises(TypeError) as raised:
        pl.targets(pd.DataFrame())
    check_message(raised, "targets is a DataFrame; pass what agevi.tl.rank_targets returned.")
