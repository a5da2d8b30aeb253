from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from agevi import get, pl


@pytest.fixture
def attributed(cohort):
    """Attributions of five genes, one of them unknown to the clock, in all cells and two groups."""
    import anndata as ad

    adata = ad.AnnData(np.ones((cohort.n_obs, 6), dtype=np.float32), obs=cohort.obs)
    adata.var_names = list("abcdef")
    signed = np.array(
        [[1.0, 2.0, 0.1], [-3.0, -0.5, -6.0], [0.5, 0.6, 0.2], [np.nan] * 3, [-0.2, 0.1, 0.3], [2.0, 4.0, -1.0]]
    )
    for part, values in {
        "": np.abs(signed),
        "_signed": signed,
        "_se": np.abs(signed) / 10,
        "_rank_low": np.ones((6, 3)),
        "_rank_high": np.full((6, 3), 4.0),
        "_selected": np.ones((6, 3)),
    }.items():
        adata.varm[f"agevi_attribution{part}"] = values.astype(np.float32)
    adata.uns["agevi_attribution"] = {
        "groups": np.array(["all", "T cells", "CD4/CD8"], dtype=object),
        "age_unit": "weeks",
    }
    return adata


def names(labels):
    return [label.get_text() for label in labels]


def test_bars_have_direction_length_interval_and_ranks(attributed):
    ax = pl.attribution(attributed, n_top=3)
    assert names(ax.get_yticklabels()) == ["b", "f", "a"]
    bars = sorted(ax.patches, key=lambda bar: bar.get_y())
    assert [bar.get_width() for bar in bars] == pytest.approx([-3.0, 2.0, 1.0])
    assert bars[0].get_facecolor()[:3] != bars[1].get_facecolor()[:3] == bars[2].get_facecolor()[:3]
    segments = next(c for c in ax.collections if len(c.get_segments()) == 3).get_segments()
    np.testing.assert_allclose(
        [s[:, 0] for s in segments], [[-3.588, -2.412], [1.608, 2.392], [0.804, 1.196]], rtol=1e-3
    )
    assert names(ax.texts) == ["1-4"] * 3 + ["numbers: 95 % interval\nof the rank"]
    assert ax.get_xlabel() == "Attribution (weeks)"
    low, high = ax.get_ylim()
    assert low > high  # the first is on top
    left, right = ax.get_xlim()
    assert left < -3.588
    assert right > 2.392


def test_directions_are_those_of_the_model(attributed):
    legend = pl.attribution(attributed, n_top=3).get_legend()
    assert names(legend.get_texts()) == ["looks older", "looks younger"]
    attributed.uns["agevi_attribution"]["age_unit"] = "log-odds"
    ax = pl.attribution(attributed, n_top=3)
    assert names(ax.get_legend().get_texts()) == ["more like cases", "more like controls"]
    assert ax.get_xlabel() == "Attribution (log-odds)"


def test_genes_that_are_named_are_drawn_in_their_order(attributed):
    ax = pl.attribution(attributed, genes=["e", "a"], group="T cells")
    assert names(ax.get_yticklabels()) == ["e", "a"]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.1, 2.0])
    assert ax.get_title() == "T cells"
    assert names(pl.attribution(attributed, genes="c").get_yticklabels()) == ["c"]


def test_the_heatmap_shows_signed_values_of_the_first_genes(attributed):
    ax = pl.attribution_heatmap(attributed, n_top=2)
    assert names(ax.get_xticklabels()) == ["T cells", "CD4/CD8"]
    shown = names(ax.get_yticklabels())
    assert shown == ["f", "a", "b"]
    table = get.attribution_df(attributed, group=None).pivot(index="gene", columns="group", values="signed")
    image = ax.images[0]
    np.testing.assert_allclose(image.get_array(), table.loc[shown, ["T cells", "CD4/CD8"]], rtol=1e-6)
    assert image.norm(0.0) == 0.5
    assert (image.norm.vmin, image.norm.vmax) == pytest.approx((-6, 6))


def test_the_heatmap_of_chosen_groups_and_genes(attributed):
    ax = pl.attribution_heatmap(attributed, groups=["CD4/CD8", "all"], genes=["c", "b"])
    assert names(ax.get_xticklabels()) == ["CD4/CD8", "all"]
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.2, 0.5], [-6.0, -3.0]], rtol=1e-6)


def test_given_axes_are_used(attributed):
    _, given = plt.subplots(1, 2)
    assert pl.attribution(attributed, n_top=2, ax=given[0]) is given[0]
    assert pl.attribution_heatmap(attributed, n_top=2, ax=given[1]) is given[1]


def test_what_cannot_be_drawn_is_refused(attributed, cohort):
    with pytest.raises(KeyError, match=r"run agevi\.tl\.attribute_genes"):
        pl.attribution(cohort)
    with pytest.raises(ValueError, match="group='T cell' is not in .*; closest: 'T cells'"):
        pl.attribution(attributed, group="T cell")
    with pytest.raises(ValueError, match="n_top=6 is out of range; pass a whole number, between 1 and 5"):
        pl.attribution(attributed, n_top=6)
    with pytest.raises(KeyError, match="genes holds 'd', 'x', which have no attribution"):
        pl.attribution(attributed, genes=["a", "d", "x"])
    with pytest.raises(KeyError, match="genes holds 'x', which have no attribution"):
        pl.attribution_heatmap(attributed, genes=["x"])
    with pytest.raises(ValueError, match="group='B' is not in"):
        pl.attribution_heatmap(attributed, groups=["B"])
    attributed.uns["agevi_attribution"]["groups"] = np.array(["all"], dtype=object)
    with pytest.raises(ValueError, match="has no groups but 'all'; run"):
        pl.attribution_heatmap(attributed)


@pytest.fixture
def perturbed(cohort):
    cohort.uns["agevi_perturbation"] = pd.DataFrame(
        {
            "group": ["all", "all", "all", "T"],
            "gene": ["a", "set", "b", "a"],
            "n_genes": [1, 7, 1, 1],
            "change": [-4.0, 2.0, 1.0, 9.0],
            "low": [-5.0, 0.5, -0.5, 8.0],
            "high": [-3.5, 3.0, 1.5, 10.0],
            "n_subjects": 9,
            "first_order": 0.0,
        }
    )
    cohort.uns["agevi_perturbation_params"] = {"age_unit": "weeks", "factor": 0.5}
    return cohort


def test_changes_and_intervals(perturbed):
    ax = pl.perturbation(perturbed)
    assert names(ax.get_yticklabels()) == ["a", "set (7 genes)", "b"]
    points = {(x, y) for container in ax.containers for x, y in zip(*container.lines[0].get_data(), strict=True)}
    assert points == {(-4.0, 0), (2.0, 1), (1.0, 2)}
    reach = sorted(tuple(s[:, 0]) for c in ax.containers for s in c.lines[2][0].get_segments())
    np.testing.assert_allclose(reach, [(-5.0, -3.5), (-0.5, 1.5), (0.5, 3.0)])
    assert ax.get_xlabel() == "Change of predicted age (weeks)"
    assert ax.get_title() == "expression times 0.5"


def test_changes_of_a_classifier(perturbed):
    perturbed.uns["agevi_perturbation_params"]["age_unit"] = "log-odds"
    assert pl.perturbation(perturbed).get_xlabel() == "Change of the log-odds of being a case"


def test_changes_of_a_group(perturbed):
    perturbed.uns["agevi_perturbation_params"]["factor"] = 0.0
    ax = pl.perturbation(perturbed, group="T", n_top=1)
    assert (names(ax.get_yticklabels()), ax.get_title()) == (["a"], "T, knocked out")
    with pytest.raises(ValueError, match="group='B' is not in"):
        pl.perturbation(perturbed, group="B")


def test_changes_need_their_table(cohort):
    with pytest.raises(KeyError, match=r"run agevi\.tl\.perturb_genes"):
        pl.perturbation(cohort)
