from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from agevi import pl
from tests.test_gates import check_message


@pytest.fixture
def enriched(cohort):
    """Four sets in two groups as the tool leaves them."""
    terms = ["Signal", "A-name-that-is-much-too-long-to-stand-beside-an-axis-in-full", "third", "none"]
    table = pd.DataFrame(
        {
            "group": ["all"] * 4 + ["B"] * 4,
            "term": terms + terms[::-1],
            "overlap": [9, 4, 1, 0, 2, 1, 1, 0],
            "set_size": [40, 12, 30, 8, 8, 30, 12, 40],
            "odds_ratio": [5.0, 8.0, 1.2, 0.0, 3.0, 2.0, 1.5, 0.0],
            "p": [1e-5, 1e-3, 0.3, 1.0, 0.01, 0.2, 0.4, 1.0],
            "padj": [4e-5, 2e-3, 0.4, 1.0, 0.04, 0.4, 0.5, 1.0],
            "combined_score": [57.6, 55.3, 1.4, 0.0, 13.8, 3.2, 1.4, 0.0],
        }
    )
    cohort.uns["agevi_enrichment"] = table
    cohort.uns["agevi_enrichment_params"] = {"method": "ora"}
    return cohort


def labels(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_dots(enriched):
    ax = pl.enrichment(enriched)
    (dots,) = ax.collections
    np.testing.assert_allclose(dots.get_offsets(), [[57.6, 0], [55.3, 1], [1.4, 2]])
    np.testing.assert_allclose(dots.get_array(), -np.log10([4e-5, 2e-3, 0.4]))
    areas = dots.get_sizes()
    np.testing.assert_allclose((areas[0] - areas[1]) / (areas[1] - areas[2]), (9 - 4) / (4 - 1))
    assert [width > 0 for width in dots.get_linewidths()] == [True, True, False]
    assert labels(ax)[0::2] == ["Signal", "third"]
    assert labels(ax)[1] == "A-name-that-is-much-too-long-to-…an-axis-in-full"
    low, high = ax.get_ylim()
    assert low > high  # the smallest p is on top
    assert ax.get_xlabel() == "Combined score (-ln p x odds ratio)"
    legend = ax.get_legend()
    assert legend.get_title().get_text() == "top genes"
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["1", "5", "9", "adjusted p < 0.05"]
    (bar,) = ax.child_axes
    assert "adjusted p" in bar.get_ylabel()
    sizes = [handle.get_markersize() ** 2 for handle in legend.legend_handles]
    np.testing.assert_allclose(sizes[2], areas[0])


def test_another_group_and_quantity(enriched):
    ax = pl.enrichment(enriched, group="B", x="odds_ratio", n_terms=2)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[3.0, 0], [2.0, 1]])
    assert ax.get_xlabel() == "Odds ratio"


@pytest.mark.parametrize(
    ("method", "words"), [("gsea", "Normalised enrichment score"), ("ulm", "t value of membership")]
)
def test_signed_scores(enriched, method, words):
    table = enriched.uns["agevi_enrichment"][["group", "term", "set_size", "p", "padj"]]
    enriched.uns["agevi_enrichment"] = table.assign(score=[3.0, -2.0, 1.0, 0.1] * 2)
    enriched.uns["agevi_enrichment_params"] = {"method": method}
    ax = pl.enrichment(enriched)
    np.testing.assert_allclose(ax.collections[0].get_offsets()[:, 0], [3.0, -2.0, 1.0, 0.1])
    assert ax.get_xlabel() == words
    assert ax.get_legend().get_title().get_text() == "genes in the set"
    assert ax.get_xlim()[0] < -2 < 3 < ax.get_xlim()[1]


def test_p_of_zero_is_drawn(enriched):
    enriched.uns["agevi_enrichment"].loc[0, "padj"] = 0.0
    assert np.isfinite(pl.enrichment(enriched).collections[0].get_array()).all()


def test_on_given_axes(enriched):
    _, ax = plt.subplots()
    assert pl.enrichment(enriched, ax=ax) is ax
    assert len(plt.get_fignums()) == 1


def test_refuses(enriched):
    with pytest.raises(ValueError) as raised:
        pl.enrichment(enriched, x="score")
    check_message(raised, "choose one of 'combined_score', 'odds_ratio'")
    with pytest.raises(KeyError) as raised:
        pl.enrichment(enriched, group="C")
    check_message(raised, "'C' is not in the table")
    enriched.uns["agevi_enrichment"]["overlap"] = 0
    with pytest.raises(ValueError) as raised:
        pl.enrichment(enriched)
    check_message(raised, "no set holds a top gene of group 'all'")
    del enriched.uns["agevi_enrichment"]
    with pytest.raises(KeyError) as raised:
        pl.enrichment(enriched)
    check_message(raised, "run agevi.tl.enrich")


@pytest.mark.slow
def test_one_high_score_does_not_squeeze_the_others(enriched):
    assert pl.enrichment(enriched, x="odds_ratio").get_xscale() == "linear"
    enriched.uns["agevi_enrichment"].loc[0, "odds_ratio"] = 4000.0
    ax = pl.enrichment(enriched, x="odds_ratio")
    assert ax.get_xscale() == "log"
    x = ax.transData.transform(ax.collections[0].get_offsets())[:, 0]
    assert abs(x[1] - x[2]) > 0.1 * ax.get_window_extent().width
